//! On a host: its own node, as K3s has these commands.

use std::io::{IsTerminal, Read};
use std::path::{Path, PathBuf};

use crate::cli::output;
use crate::error::{ExitCode, Failure, chain};
use crate::limits::{AGENT_HEALTH_PORT, SUPERVISOR_PORT};
use crate::node::agent::is_registered;
use crate::node::client::{self, ClientError};
use crate::node::supervisor::rotation::Stage;
use crate::pki::token::generate_password;
use crate::secret::Secret;

/// Longest token that is read, in bytes.
const TOKEN_BYTES_MAX: u64 = 4096;

/// Where a node keeps everything, unless it is told otherwise.
const DATA_DIR: &str = "/var/lib/k3sup";

/// This host's node in the place of an inventory's.
#[derive(Debug, clap::Args)]
pub struct Here {
    /// On a host: the node with this data directory
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// On a host: where its node listens [default: 127.0.0.1:6443]
    #[arg(long, value_name = "ADDRESS")]
    server: Option<String>,
}

impl Here {
    /// Whether this host's node is meant: it is named, or there is a node here and no inventory.
    pub(in crate::cli) fn is_meant(&self, inventory: &Path) -> bool {
        let named = self.data_dir.is_some() || self.server.is_some();
        named || (!inventory.exists() && Path::new(DATA_DIR).is_dir())
    }

    /// Its data directory.
    pub(super) fn data_dir(&self) -> &Path {
        self.data_dir.as_deref().unwrap_or(Path::new(DATA_DIR))
    }

    fn supervisor(&self) -> String {
        let is_agent = is_registered(self.data_dir());
        let port = if is_agent { AGENT_HEALTH_PORT } else { SUPERVISOR_PORT };
        let given = self.server.as_deref().map(|server| server.trim_start_matches("https://"));
        given.map_or_else(|| format!("127.0.0.1:{port}"), str::to_owned)
    }

    pub(super) async fn rotate(&self) -> Result<(), Failure> {
        let asked = client::rotate_certificates(self.data_dir(), &self.supervisor()).await;
        asked.map_err(|error| refused(&error))?;
        output::line("Certificates rotated; no restart is needed")
    }

    pub(super) async fn roll(&self, stage: Stage) -> Result<(), Failure> {
        let asked = client::roll_ca(self.data_dir(), &self.supervisor(), stage).await;
        let standing = asked.map_err(|error| refused(&error))?;
        output::line(&format!("signing with {}", standing.signing))
    }

    /// The new token is `given`, else a line of standard input, else made.
    pub(in crate::cli) async fn rotate_token(&self, given: Option<Secret>) -> Result<(), Failure> {
        let token = match given {
            Some(token) => token,
            None => typed()?,
        };
        let asked = client::rotate_token(self.data_dir(), &self.supervisor(), &token).await;
        asked.map_err(|error| refused(&error))?;
        output::line("Token rotated, restart nodes that have yet to join with the new token")
    }
}

fn typed() -> Result<Secret, Failure> {
    let wrong = |why: String| Failure::new(ExitCode::BadInput, format!("the new token: {why}"));
    let mut text = String::new();
    if !std::io::stdin().is_terminal() {
        let read = std::io::stdin().take(TOKEN_BYTES_MAX).read_to_string(&mut text);
        read.map_err(|error| wrong(error.to_string()))?;
    }
    let text = zeroize::Zeroizing::new(text);
    match text.trim() {
        "" => generate_password().map_err(|error| wrong(error.to_string())),
        token => Ok(Secret::new(token)),
    }
}

fn refused(error: &ClientError) -> Failure {
    let failure = Failure::new(ExitCode::Error, chain(error));
    match error {
        ClientError::Refused { status: 409, .. } => Failure { code: ExitCode::Refused, ..failure },
        ClientError::Http { .. } => {
            failure.hint("is the node up? `--server` says where it listens, `--data-dir` who it is")
        }
        _ => failure,
    }
}
