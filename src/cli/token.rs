//! `k3sup-rs token show`: the cluster's token, and where it is kept.

use super::target::{self, Target};
use super::{clusters, output};
use crate::error::{ExitCode, Failure};
use crate::pki::{Token, files};

/// What to do with the token.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Print the token that servers and agents join with
    Show(Show),
}

/// Which cluster's.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  k3sup-rs token show -i inventory.yaml
  k3sup-rs token show -i inventory.yaml --path   where it is kept; keep a copy with your backups")]
pub struct Show {
    /// Which cluster
    #[command(flatten)]
    target: Target,
    /// Only say where it is kept
    #[arg(long)]
    path: bool,
}

/// Runs a token command.
pub fn run(command: &Command) -> Result<(), Failure> {
    let Command::Show(show) = command;
    let inventory = target::inventory(&show.target.inventory, &[])?;
    if show.path {
        let path = clusters::token_file(&inventory.cluster_name)?;
        return output::line(&path.display().to_string());
    }
    let Some(secret) = clusters::known_token(&inventory)? else {
        let message = format!("cluster {} has no token yet", inventory.cluster_name);
        return Err(Failure::new(ExitCode::Error, message).hint("`k3sup-rs up` makes one"));
    };
    let token = Token::parse(secret.expose())
        .map_err(|error| Failure::new(ExitCode::BadInput, error.to_string()))?;
    output::line(full(token, &inventory.cluster_name)?.text().expose())
}

/// With the CA's hash in front, when the client bundle has the CA.
pub(super) fn full(token: Token, cluster: &str) -> Result<Token, Failure> {
    let path = clusters::directory(cluster)?.join("ca.crt");
    let ca = files::read_private(&path).map_err(|error| clusters::failed(&path, &error))?;
    Ok(match (ca, &token.ca_hash) {
        (Some(ca), None) => Token::full(&ca, "server", token.password),
        _ => token,
    })
}
