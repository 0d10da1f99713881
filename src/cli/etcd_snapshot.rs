//! `k3sup-rs etcd-snapshot`, on a server's host: K3s's command, asked of a running server.

use std::path::PathBuf;
use std::time::Duration;

use super::output;
use crate::cluster::layout::{Distribution, Layout, Role};
use crate::error::{ExitCode, Failure, chain};
use crate::node::client::{self, ClientError};
use crate::node::config::{S3Config, ServerUrl, duration};
use crate::node::snapshots::api::{
    Operation, SnapshotAnswer, SnapshotList, SnapshotRequest, rfc3339,
};
use crate::node::trust;
use crate::node::wire::Sent;
use crate::pki::{Token, files};
use crate::secret::Secret;

/// How long a snapshot may take, S3 left aside: K3s's 2 min, for a store that is larger.
const PATIENCE: Duration = Duration::from_secs(600);

/// What to do.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples, on a server's host:
  k3sup-rs etcd-snapshot save                       on-demand-NODE-SECONDS
  k3sup-rs etcd-snapshot save --name before-upgrade --s3=false
  k3sup-rs etcd-snapshot ls -o json
  k3sup-rs etcd-snapshot delete on-demand-server1-1755900000
  k3sup-rs etcd-snapshot prune --snapshot-retention 3

The server takes it; what is not said here is as the server is configured.")]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Take a snapshot now
    Save(Common),
    /// List the snapshots of this server, and those in S3
    #[command(visible_aliases = ["list", "l"])]
    Ls {
        #[command(flatten)]
        common: Common,
        /// How to show it
        #[arg(long, short, default_value = "table", value_parser = ["table", "json", "yaml"])]
        output: String,
    },
    /// Remove snapshots, here and in S3
    Delete {
        /// Their names
        #[arg(required = true)]
        names: Vec<String>,
        #[command(flatten)]
        common: Common,
    },
    /// Remove the oldest snapshots with a name
    Prune {
        #[command(flatten)]
        common: Common,
        /// How many stay
        #[arg(long, visible_alias = "etcd-snapshot-retention", default_value_t = 5)]
        snapshot_retention: usize,
    },
}

/// Which server, and how.
#[derive(Debug, clap::Args)]
struct Common {
    /// Where the node keeps everything [env: `K3S_DATA_DIR`] [default: /var/lib/k3sup]
    #[arg(long, short, value_name = "DIR", env = "K3S_DATA_DIR", hide_env = true)]
    data_dir: Option<PathBuf>,
    /// The server
    #[arg(
        long,
        short = 's',
        visible_alias = "server",
        value_name = "URL",
        default_value = "https://127.0.0.1:6443"
    )]
    etcd_server: String,
    /// Token, instead of the data directory's credentials; visible to every user of the host
    #[arg(long, short = 't', value_name = "TOKEN")]
    etcd_token: Option<Secret>,
    /// File with the token
    #[arg(long, value_name = "FILE", conflicts_with = "etcd_token")]
    etcd_token_file: Option<PathBuf>,
    /// What the name begins with [default: on-demand; for prune, the server's]
    #[arg(long, visible_alias = "etcd-snapshot-name", value_name = "NAME")]
    name: Option<String>,
    /// Directory on the server
    #[arg(long, visible_aliases = ["etcd-snapshot-dir", "snapshot-dir"], value_name = "DIR")]
    dir: Option<String>,
    /// Put it into a zip archive
    #[arg(long, visible_alias = "etcd-snapshot-compress", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    snapshot_compress: Option<bool>,
    #[command(flatten)]
    s3: S3Flags,
}

/// S3, when it is not to be as the server is configured.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "S3")]
struct S3Flags {
    /// Use S3, or not
    #[arg(long, visible_alias = "etcd-s3", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    s3: Option<bool>,
    /// Host and port, or URL
    #[arg(long, visible_alias = "etcd-s3-endpoint", value_name = "ENDPOINT")]
    s3_endpoint: Option<String>,
    /// CA certificate of the endpoint, on the server
    #[arg(long, visible_alias = "etcd-s3-endpoint-ca", value_name = "FILE")]
    s3_endpoint_ca: Option<String>,
    /// Do not verify the endpoint's certificate
    #[arg(long, visible_alias = "etcd-s3-skip-ssl-verify")]
    s3_skip_ssl_verify: bool,
    /// Plain HTTP
    #[arg(long, visible_alias = "etcd-s3-insecure")]
    s3_insecure: bool,
    /// Access key
    #[arg(
        long,
        visible_alias = "etcd-s3-access-key",
        env = "AWS_ACCESS_KEY_ID",
        value_name = "KEY"
    )]
    s3_access_key: Option<String>,
    /// Secret key; prefer the environment
    #[arg(
        long,
        visible_alias = "etcd-s3-secret-key",
        env = "AWS_SECRET_ACCESS_KEY",
        hide_env_values = true,
        value_name = "KEY"
    )]
    s3_secret_key: Option<Secret>,
    /// With temporary credentials
    #[arg(
        long,
        visible_alias = "etcd-s3-session-token",
        env = "AWS_SESSION_TOKEN",
        hide_env_values = true,
        value_name = "TOKEN"
    )]
    s3_session_token: Option<Secret>,
    /// Bucket
    #[arg(long, visible_alias = "etcd-s3-bucket", value_name = "NAME")]
    s3_bucket: Option<String>,
    /// auto, dns or path
    #[arg(long, visible_alias = "etcd-s3-bucket-lookup-type", value_name = "TYPE")]
    s3_bucket_lookup_type: Option<String>,
    /// Region
    #[arg(long, visible_alias = "etcd-s3-region", value_name = "NAME")]
    s3_region: Option<String>,
    /// What the names of all objects begin with
    #[arg(long, visible_alias = "etcd-s3-folder", value_name = "NAME")]
    s3_folder: Option<String>,
    /// What one operation may take
    #[arg(long, visible_alias = "etcd-s3-timeout", value_name = "TIME", value_parser = duration)]
    s3_timeout: Option<Duration>,
}

impl S3Flags {
    /// The settings when any were given: a bucket makes them.
    fn config(&self) -> Option<S3Config> {
        let bucket = self.s3_bucket.clone()?;
        let default = S3Config::default();
        let sent = |secret: &Option<Secret>| Sent(secret.clone().unwrap_or_default());
        Some(S3Config {
            endpoint: self.s3_endpoint.clone().unwrap_or(default.endpoint),
            endpoint_ca: self.s3_endpoint_ca.clone().unwrap_or_default(),
            skip_ssl_verify: self.s3_skip_ssl_verify,
            insecure: self.s3_insecure,
            access_key: self.s3_access_key.clone().unwrap_or_default(),
            secret_key: sent(&self.s3_secret_key),
            session_token: sent(&self.s3_session_token),
            bucket,
            bucket_lookup_type: self
                .s3_bucket_lookup_type
                .clone()
                .unwrap_or(default.bucket_lookup_type),
            region: self.s3_region.clone().unwrap_or(default.region),
            folder: self.s3_folder.clone().unwrap_or_default(),
            retention: default.retention,
            proxy: String::new(),
            timeout: self.s3_timeout.unwrap_or(default.timeout),
        })
    }
}

impl Common {
    fn request(&self, operation: Operation) -> SnapshotRequest {
        SnapshotRequest {
            operation,
            name: self.name.iter().cloned().collect(),
            dir: self.dir.clone(),
            compress: self.snapshot_compress,
            retention: None,
            s3: self.s3.config(),
            without_s3: self.s3.s3 == Some(false),
        }
    }

    async fn ask(&self, request: &SnapshotRequest) -> Result<serde_json::Value, Failure> {
        let url = ServerUrl::parse(&self.etcd_server)
            .map_err(|error| Failure::new(ExitCode::BadInput, error))?;
        let authority = url.authority();
        let timeout = PATIENCE + request.s3.as_ref().map_or(Duration::ZERO, |s3| s3.timeout);
        let data_dir = self.data_dir.clone().unwrap_or_else(|| {
            Layout::new(Distribution::Embedded, Role::Server, None).data_dir.into()
        });
        let token = match &self.etcd_token_file {
            Some(file) => {
                let text = files::read_private(file).map_err(|error| {
                    Failure::new(ExitCode::BadInput, format!("{}: {error}", file.display()))
                })?;
                text.map(Secret::new)
            }
            None => self.etcd_token.clone(),
        };
        let Some(token) = token else {
            let asked = client::snapshot(&data_dir, &authority, request, timeout).await;
            return asked.map_err(|error| refused(&error));
        };
        let token = Token::parse(token.expose())
            .map_err(|error| Failure::new(ExitCode::BadInput, error.to_string()))?;
        let failed = |error: String| {
            Failure::new(ExitCode::Error, format!("{authority}: {error}"))
                .hint("is a server running there? see its log")
        };
        let trusted = trust::establish(&authority, &token).await;
        let trusted = trusted.map_err(|error| failed(chain(&error)))?;
        let body = serde_json::to_vec(request).map_err(|error| failed(error.to_string()))?;
        let header = crate::node::http::basic("server", &token.password);
        let answer = trusted.asking_for(timeout);
        let answer = answer.ask(&authority, "POST", "/db/snapshot", Some(&header), &body).await;
        let answer = answer.map_err(|error| failed(chain(&error)))?;
        if answer.status >= 300 {
            return Err(Failure::new(ExitCode::Error, answer.text()));
        }
        answer.json().map_err(|error| failed(chain(&error)))
    }
}

/// In the server's own words when it refused.
fn refused(error: &ClientError) -> Failure {
    match error {
        ClientError::Refused { message, .. } => Failure::new(ExitCode::Error, message.clone()),
        other => Failure::new(ExitCode::Error, chain(other))
            .hint("snapshots are taken by a running server: see its log"),
    }
}

/// Asks the server and prints what it did.
pub async fn run(args: Args) -> Result<(), Failure> {
    let common = match &args.command {
        Command::Save(common)
        | Command::Ls { common, .. }
        | Command::Delete { common, .. }
        | Command::Prune { common, .. } => common,
    };
    let request = match &args.command {
        Command::Save(_) => common.request(Operation::Save),
        Command::Ls { .. } => common.request(Operation::List),
        Command::Delete { names, .. } => {
            SnapshotRequest { name: names.clone(), ..common.request(Operation::Delete) }
        }
        Command::Prune { snapshot_retention, .. } => SnapshotRequest {
            retention: Some(*snapshot_retention),
            ..common.request(Operation::Prune)
        },
    };
    let answer = common.ask(&request).await?;
    let unread = |error: serde_json::Error| {
        Failure::new(ExitCode::Error, format!("the server's answer cannot be read: {error}"))
    };
    if let Command::Ls { output, .. } = &args.command {
        return list(&serde_json::from_value(answer).map_err(unread)?, output);
    }
    let answer: SnapshotAnswer = serde_json::from_value(answer).map_err(unread)?;
    for name in &answer.created {
        output::line(&format!("Snapshot {name} saved."))?;
    }
    for name in &answer.deleted {
        output::line(&format!("Snapshot {name} deleted."))?;
    }
    if answer.problems.is_empty() {
        return Ok(());
    }
    Err(Failure::new(ExitCode::Error, answer.problems.join("\n")))
}

fn list(list: &SnapshotList, format: &str) -> Result<(), Failure> {
    match format {
        "json" => output::json(list)?,
        "yaml" => {
            let text =
                crate::yaml::to_text(list).map_err(|error| Failure::new(ExitCode::Error, error))?;
            output::write_all(text.as_bytes())?;
        }
        _ => {
            let mut rows = output::table(["Name", "Location", "Size", "Created"]);
            for view in &list.snapshots {
                rows.add_row([
                    view.name.clone(),
                    view.location.clone(),
                    view.bytes.to_string(),
                    rfc3339(view.created_unix_s),
                ]);
            }
            output::line(&output::render(&mut rows))?;
        }
    }
    if list.problems.is_empty() {
        return Ok(());
    }
    Err(Failure::new(ExitCode::Error, list.problems.join("\n")))
}
