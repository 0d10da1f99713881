//! `k3sup-rs server`: the process of a server.

use std::path::{Path, PathBuf};

use sd_notify::NotifyState;

use super::k3s::K3sOnly;
use super::snapshot_flags::SnapshotFlags;
use crate::error::{ExitCode, Failure};
use crate::node::config::{self, Command, ServerConfig, Values};
use crate::node::server::Server;
use crate::node::{host, reset};
use crate::secret::Secret;

const EXAMPLES: &str = "\
Examples:
  k3sup-rs server --cluster-init                       the first server of a new cluster
  k3sup-rs server -s https://10.0.0.11:6443 --token-file /etc/k3sup/token   another server
  k3sup-rs server -c /etc/k3sup/config.yaml            everything from a file
  k3sup-rs server --cluster-reset --cluster-reset-restore-path /path/to/snapshot

Flags win over the configuration file (with its config.yaml.d), and that over the environment.
With data on disk a server is the member it was: --cluster-init, --server and --token do not count.";

/// Run a server: a member of the replicated store with the etcd v3 API and the supervisor.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// What agents have too
    #[command(flatten)]
    pub node: NodeArgs,

    /// Begin a new cluster [env: `K3S_CLUSTER_INIT`]
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    pub cluster_init: Option<String>,

    /// Become the only member of a new cluster with this server's data or a snapshot's, and end [env: `K3S_CLUSTER_RESET`]
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    pub cluster_reset: Option<String>,

    /// Snapshot file that --cluster-reset takes the data from
    #[arg(long, value_name = "FILE")]
    pub cluster_reset_restore_path: Option<String>,

    /// Token for agents only [env: `K3S_AGENT_TOKEN`]
    #[arg(long, value_name = "TOKEN")]
    pub agent_token: Option<Secret>,

    /// File with the token for agents only [env: `K3S_AGENT_TOKEN_FILE`]
    #[arg(long, value_name = "FILE")]
    pub agent_token_file: Option<String>,

    /// Further names and addresses in the server's certificate; may be repeated
    #[arg(long, value_name = "NAME")]
    pub tls_san: Vec<String>,

    /// Address that other nodes use for the supervisor [default: the first --node-ip]
    #[arg(long, value_name = "IP")]
    pub advertise_address: Option<String>,

    /// Port of the supervisor [default: 6443]
    #[arg(long, value_name = "PORT")]
    pub https_listen_port: Option<String>,

    /// Where to write the client bundle [env: `K3S_KUBECONFIG_OUTPUT`] [default: k3sup.yaml beside the configuration]
    #[arg(long, short = 'o', value_name = "FILE")]
    pub write_kubeconfig: Option<String>,

    /// Mode of the client bundle, octal [env: `K3S_KUBECONFIG_MODE`] [default: 0600]
    #[arg(long, value_name = "MODE")]
    pub write_kubeconfig_mode: Option<String>,

    /// heartbeat-interval, election-timeout (ms), snapshot-count or quota-backend-bytes as key=value; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    pub etcd_arg: Vec<String>,

    /// Snapshots and S3
    #[command(flatten)]
    pub snapshots: SnapshotFlags,

    #[command(flatten)]
    k3s: K3sOnly,
}

/// Flags that `server` and `agent` share.
#[derive(Debug, clap::Args)]
pub struct NodeArgs {
    /// Configuration file [env: `K3S_CONFIG_FILE`, which wins] [default: /etc/k3sup/config.yaml]
    #[arg(long, short, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Token for joining; visible to every user of the host, so prefer --token-file [env: `K3S_TOKEN`]
    #[arg(long, short, value_name = "TOKEN")]
    pub token: Option<Secret>,

    /// File with the token for joining [env: `K3S_TOKEN_FILE`]
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<String>,

    /// Server to join through [env: `K3S_URL`]
    #[arg(long, short, value_name = "URL")]
    pub server: Option<String>,

    /// Where the node keeps everything [env: `K3S_DATA_DIR`] [default: /var/lib/k3sup]
    #[arg(long, short, value_name = "DIR")]
    pub data_dir: Option<String>,

    /// Address to listen on [default: 0.0.0.0 on servers, 127.0.0.1 on agents]
    #[arg(long, value_name = "IP")]
    pub bind_address: Option<String>,

    /// The node's name [env: `K3S_NODE_NAME`] [default: the host's name]
    #[arg(long, value_name = "NAME")]
    pub node_name: Option<String>,

    /// The node's addresses, the first one for peers and clients; may be repeated
    #[arg(long, short = 'i', value_name = "IP")]
    pub node_ip: Vec<String>,

    /// Label as key=value; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    pub node_label: Vec<String>,

    /// Taint as key=value:effect; may be repeated
    #[arg(long, value_name = "KEY=VALUE:EFFECT")]
    pub node_taint: Vec<String>,

    /// Log more [env: `K3S_DEBUG`]
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    pub debug: Option<String>,

    /// Log to this file
    #[arg(long, short, value_name = "FILE")]
    pub log: Option<String>,
}

/// What the command line gave for one flag.
pub(crate) type Given<'a> = (&'static str, Vec<&'a str>);

/// One value or none.
pub(crate) fn one<'a>(name: &'static str, value: Option<&'a str>) -> Given<'a> {
    (name, value.into_iter().collect())
}

/// Any number of values.
pub(crate) fn many<'a>(name: &'static str, values: &'a [String]) -> Given<'a> {
    (name, values.iter().map(String::as_str).collect())
}

impl NodeArgs {
    /// As the configuration takes them.
    pub(crate) fn given(&self) -> Vec<Given<'_>> {
        vec![
            one("token", self.token.as_ref().map(Secret::expose)),
            one("token-file", self.token_file.as_deref()),
            one("server", self.server.as_deref()),
            one("data-dir", self.data_dir.as_deref()),
            one("bind-address", self.bind_address.as_deref()),
            one("node-name", self.node_name.as_deref()),
            many("node-ip", &self.node_ip),
            many("node-label", &self.node_label),
            many("node-taint", &self.node_taint),
            one("debug", self.debug.as_deref()),
            one("log", self.log.as_deref()),
        ]
    }
}

impl Args {
    fn given(&self) -> Vec<Given<'_>> {
        let mut given = self.node.given();
        given.extend([
            one("cluster-init", self.cluster_init.as_deref()),
            one("cluster-reset", self.cluster_reset.as_deref()),
            one("cluster-reset-restore-path", self.cluster_reset_restore_path.as_deref()),
            one("agent-token", self.agent_token.as_ref().map(Secret::expose)),
            one("agent-token-file", self.agent_token_file.as_deref()),
            many("tls-san", &self.tls_san),
            one("advertise-address", self.advertise_address.as_deref()),
            one("https-listen-port", self.https_listen_port.as_deref()),
            one("write-kubeconfig", self.write_kubeconfig.as_deref()),
            one("write-kubeconfig-mode", self.write_kubeconfig_mode.as_deref()),
            many("etcd-arg", &self.etcd_arg),
        ]);
        given.extend(self.snapshots.given());
        given
    }

    /// The configuration from command line, file and environment.
    pub(crate) fn config(&self) -> Result<ServerConfig, Failure> {
        let line = Values::from_command_line(self.given());
        let (values, file) = gather(Command::Server, line, self.node.config.as_deref())?;
        Ok(ServerConfig::from_values(&values, &file)?)
    }
}

/// Merges the sources with this process's environment.
pub(crate) fn gather(
    command: Command,
    line: Values,
    file: Option<&Path>,
) -> Result<(Values, PathBuf), Failure> {
    Ok(config::gather(command, line, file, |name| std::env::var(name).ok())?)
}

/// Runs a server until it is told to stop.
pub async fn run(args: Args) -> Result<(), Failure> {
    host::harden();
    host::spare_memory();
    let config = args.config()?;
    host::log(config.node.debug, config.node.log.as_deref())?;
    if config.cluster_reset {
        let reset = tokio::task::spawn_blocking(move || reset::run(&config)).await;
        return reset.map_err(|error| Failure::new(ExitCode::Error, error.to_string()))?;
    }
    let mut signals = host::StopSignals::new()?;
    let server = tokio::select! {
        started = Server::start(config) => started?,
        // What it did so far is on disk and is taken up at the next start.
        () = signals.wait() => return Ok(()),
    };
    let outcome = tokio::select! {
        outcome = work(&server) => outcome,
        () = signals.wait() => Ok(()),
    };
    host::notify(&[NotifyState::Stopping]);
    server.stop().await;
    outcome
}

/// Tells the service manager when the server is ready, then waits for its end.
async fn work(server: &Server) -> Result<(), Failure> {
    server.ready().await?;
    tracing::info!("k3sup-rs is up and running");
    host::ready();
    Err(server.ended().await)
}
