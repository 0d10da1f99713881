//! The node's configuration: flags, then `config.yaml` with its drop-ins, then the environment.
//!
//! K3s's contract (names, merge rules, validation texts), with two differences said in
//! docs/configuration.md: an unknown key is refused with file and line, and so is by its name what
//! K3s has and this node has not.

pub mod etcd;
pub mod file;
mod parse;
pub mod schema;
mod snapshots;
pub mod source;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use crate::cluster::layout::{Distribution, Layout, Role};
use crate::error::{ExitCode, Failure};
use crate::secret::Secret;
use crate::yaml;

pub use etcd::EtcdArgs;
pub use parse::ServerUrl;
pub use schema::Command;
pub use snapshots::{S3Config, SnapshotConfig, duration, schedule as snapshot_schedule};
pub use source::Values;

/// Why a configuration is refused: all findings at once.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.join("\n"))]
pub struct ConfigError(pub Vec<String>);

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::new(ExitCode::BadInput, error.to_string())
    }
}

/// What servers and agents share.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// The node's name, lower case.
    pub name: String,
    /// Its addresses, the first one is what others use. Never empty.
    pub ips: Vec<IpAddr>,
    /// Labels, set when the node registers.
    pub labels: BTreeMap<String, String>,
    /// Taints as `key=value:effect`, likewise.
    pub taints: Vec<String>,
    /// Where the node keeps everything.
    pub data_dir: PathBuf,
    /// Server to join through.
    pub server: Option<ServerUrl>,
    /// The token as given.
    pub token: Option<Secret>,
    /// The file that it came from: a rotation writes the new one there while the node runs.
    pub token_file: Option<PathBuf>,
    /// More in the log.
    pub debug: bool,
    /// Write the log to this file.
    pub log: Option<PathBuf>,
}

impl NodeConfig {
    /// The token as it is now: what its file holds, as long as that can be read, else as it was given.
    pub fn token_now(&self) -> Option<Secret> {
        let text = self.token_file.as_ref().and_then(|file| std::fs::read_to_string(file).ok());
        let text = text.map(|text| Secret::new(zeroize::Zeroizing::new(text).trim()));
        text.filter(|text| !text.is_empty()).or_else(|| self.token.clone())
    }

    /// The address that others use.
    pub fn ip(&self) -> IpAddr {
        self.ips.first().copied().unwrap_or(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST))
    }
}

/// Configuration of `server`.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// What agents have too.
    pub node: NodeConfig,
    /// Begin a new cluster.
    pub cluster_init: bool,
    /// Become the only member of a new cluster with the data of this one, and end.
    pub cluster_reset: bool,
    /// The snapshot file to take the data from.
    pub cluster_reset_restore_path: Option<PathBuf>,
    /// A token of its own for agents.
    pub agent_token: Option<Secret>,
    /// Further names and addresses for the server's certificate.
    pub tls_san: Vec<String>,
    /// Where to listen; unspecified is every address.
    pub bind_address: IpAddr,
    /// The address that the supervisor tells others to use.
    pub advertise_address: IpAddr,
    /// The supervisor's port.
    pub https_listen_port: u16,
    /// Where the client bundle is written.
    pub bundle_path: PathBuf,
    /// Permission bits of the client bundle.
    pub bundle_mode: u32,
    /// The store's settings.
    pub etcd: EtcdArgs,
    /// How snapshots are taken and kept.
    pub snapshots: SnapshotConfig,
}

impl ServerConfig {
    /// Addresses to listen on at `port`: the bind address when it is one, else loopback and the
    /// node's own, as K3s does for 2379 and 2380.
    pub fn listen(&self, port: u16) -> Vec<SocketAddr> {
        if !self.bind_address.is_unspecified() {
            return vec![SocketAddr::new(self.bind_address, port)];
        }
        let loopback: IpAddr = if self.node.ip().is_ipv6() {
            std::net::Ipv6Addr::LOCALHOST.into()
        } else {
            std::net::Ipv4Addr::LOCALHOST.into()
        };
        let mut addresses = vec![SocketAddr::new(loopback, port)];
        let own = SocketAddr::new(self.node.ip(), port);
        if !addresses.contains(&own) {
            addresses.push(own);
        }
        addresses
    }

    /// The supervisor's URL for others.
    pub fn supervisor_url(&self) -> String {
        format!("https://{}", SocketAddr::new(self.advertise_address, self.https_listen_port))
    }

    /// Where other members and clients reach this server at `port`.
    pub fn url(&self, port: u16) -> String {
        format!("https://{}", SocketAddr::new(self.node.ip(), port))
    }

    /// The names and addresses that the serving certificate is for: K3s's, without Kubernetes'.
    pub fn sans(&self) -> Vec<String> {
        let mut sans = vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
        let mut add = |name: String| {
            if !sans.contains(&name) {
                sans.push(name);
            }
        };
        add(self.node.name.clone());
        if let Some((short, _)) = self.node.name.split_once('.') {
            add(short.to_owned());
        }
        self.node.ips.iter().for_each(|ip| add(ip.to_string()));
        add(self.advertise_address.to_string());
        if !self.bind_address.is_unspecified() {
            add(self.bind_address.to_string());
        }
        self.tls_san.iter().for_each(|name| add(name.to_lowercase()));
        sans
    }

    /// What must be equal on all servers, as flag name and value.
    pub fn critical(&self) -> Vec<(String, String)> {
        self.etcd.critical()
    }
}

/// Configuration of `agent`.
#[derive(Clone, Debug)]
pub struct AgentConfig {
    /// What servers have too. `server` is set.
    pub node: NodeConfig,
    /// Where the local load balancer listens.
    pub bind_address: IpAddr,
    /// The load balancer's port for the supervisor.
    pub lb_server_port: u16,
}

/// The file a command reads when it is given none.
pub fn default_file() -> PathBuf {
    PathBuf::from(Layout::new(Distribution::Embedded, Role::Server, None).config_file)
}

/// Merges the sources for `command`. `config` is the `--config` flag; `K3S_CONFIG_FILE` beats it,
/// as in K3s. Gives the values and the file's path.
pub fn gather(
    command: Command,
    command_line: Values,
    config: Option<&Path>,
    environment: impl Fn(&str) -> Option<String>,
) -> Result<(Values, PathBuf), ConfigError> {
    let named = environment("K3S_CONFIG_FILE")
        .filter(|path| !path.is_empty())
        .map(PathBuf::from)
        .or_else(|| config.map(Path::to_path_buf));
    let required = named.is_some();
    let path = named.unwrap_or_else(default_file);
    if ["http://", "https://"].iter().any(|scheme| path.to_string_lossy().starts_with(scheme)) {
        let message =
            format!("{}: K3s reads a configuration from a URL, this node does not", path.display());
        return Err(ConfigError(vec![message]));
    }
    let file = file::read(&path, command, required).map_err(|findings| {
        ConfigError(yaml::report(&findings).lines().map(str::to_owned).collect())
    })?;
    let environment = Values::from_environment(command, environment);
    Ok((command_line.over(file).over(environment), path))
}

impl ServerConfig {
    /// Checks and completes what was gathered. `config_file` says where the client bundle goes
    /// when no flag does: beside it.
    pub fn from_values(values: &Values, config_file: &Path) -> Result<Self, ConfigError> {
        let mut reader = parse::Reader::new(values);
        let node = reader.node();
        let bind_address = reader.address("bind-address");
        let advertise_address = reader.address("advertise-address");
        let https_listen_port = reader.port("https-listen-port", crate::limits::SUPERVISOR_PORT);
        let bundle = config_file.parent().unwrap_or(Path::new("/")).join("k3sup.yaml");
        let config = Self {
            cluster_init: reader.switch("cluster-init"),
            cluster_reset: reader.switch("cluster-reset"),
            cluster_reset_restore_path: reader.path("cluster-reset-restore-path"),
            agent_token: reader.secret("agent-token", "agent-token-file"),
            tls_san: reader.list("tls-san"),
            bind_address: bind_address.unwrap_or(IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED)),
            advertise_address: advertise_address.unwrap_or_else(|| node.ip()),
            https_listen_port,
            bundle_path: reader.path("write-kubeconfig").unwrap_or(bundle),
            bundle_mode: reader.mode("write-kubeconfig-mode", 0o600),
            etcd: reader.etcd(),
            snapshots: SnapshotConfig::read(&mut reader),
            node,
        };
        if config.cluster_reset_restore_path.is_some() && !config.cluster_reset {
            reader.refuse(
                "invalid flag use; --cluster-reset required with --cluster-reset-restore-path"
                    .to_owned(),
            );
        }
        reader.finish(config)
    }
}

impl AgentConfig {
    /// Checks and completes what was gathered. `registered` is whether the agent has a certificate
    /// from an earlier run: then it needs no token.
    pub fn from_values(values: &Values, registered: bool) -> Result<Self, ConfigError> {
        let mut reader = parse::Reader::new(values);
        let node = reader.node();
        if node.token.is_none() && !registered {
            reader.refuse("--token is required".to_owned());
        }
        if node.server.is_none() {
            reader.refuse("--server is required".to_owned());
        }
        let bind_address = reader.address("bind-address");
        let config = Self {
            bind_address: bind_address.unwrap_or(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST)),
            lb_server_port: reader.port("lb-server-port", crate::limits::AGENT_LB_PORT),
            node,
        };
        reader.finish(config)
    }

    /// The data directory, before everything else is known.
    pub fn data_dir(values: &Values) -> PathBuf {
        parse::Reader::new(values).data_dir()
    }
}
