//! Which flags exist: ours, and K3s's that this node does not have.

/// What a flag takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Nothing, or `true`/`false`.
    Switch,
    /// One value.
    Text,
    /// One value that YAML must not read as a number: `0600` or `0123` would change.
    Quoted,
    /// Values; commas separate too.
    List,
    /// Values; a comma is part of a value.
    Repeated,
}

/// One flag of `server` or `agent`.
#[derive(Clone, Copy, Debug)]
pub struct Flag {
    /// Its long name, which is its key in the configuration file as well.
    pub name: &'static str,
    /// Its short name, a key in the configuration file as well.
    pub short: Option<char>,
    /// The environment variable that sets it.
    pub env: Option<&'static str>,
    /// What it takes.
    pub kind: Kind,
    /// Which command has it.
    pub commands: Commands,
}

/// Which command has a flag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Commands {
    /// `server` and `agent`.
    Both,
    /// `server`.
    Server,
    /// `agent`.
    Agent,
}

/// A command that reads the configuration file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// `server`
    Server,
    /// `agent`
    Agent,
}

impl Command {
    /// Whether it has `flag`.
    pub fn has(self, flag: &Flag) -> bool {
        match flag.commands {
            Commands::Both => true,
            Commands::Server => self == Self::Server,
            Commands::Agent => self == Self::Agent,
        }
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Server => "server",
            Self::Agent => "agent",
        }
    }

    /// The flag that a key of the file names.
    pub fn flag(self, key: &str) -> Option<&'static Flag> {
        FLAGS.iter().filter(|flag| self.has(flag)).find(|flag| {
            flag.name == key || flag.short.is_some_and(|short| key.chars().eq([short]))
        })
    }
}

const fn flag(
    name: &'static str,
    short: Option<char>,
    env: Option<&'static str>,
    kind: Kind,
    commands: Commands,
) -> Flag {
    Flag { name, short, env, kind, commands }
}

/// Our flags. `config` is not among them: it cannot be in the file it names.
pub const FLAGS: &[Flag] = &[
    flag("token", Some('t'), Some("K3S_TOKEN"), Kind::Quoted, Commands::Both),
    flag("token-file", None, Some("K3S_TOKEN_FILE"), Kind::Text, Commands::Both),
    flag("agent-token", None, Some("K3S_AGENT_TOKEN"), Kind::Quoted, Commands::Server),
    flag("agent-token-file", None, Some("K3S_AGENT_TOKEN_FILE"), Kind::Text, Commands::Server),
    flag("server", Some('s'), Some("K3S_URL"), Kind::Text, Commands::Both),
    flag("cluster-init", None, Some("K3S_CLUSTER_INIT"), Kind::Switch, Commands::Server),
    flag("cluster-reset", None, Some("K3S_CLUSTER_RESET"), Kind::Switch, Commands::Server),
    flag("cluster-reset-restore-path", None, None, Kind::Text, Commands::Server),
    flag("data-dir", Some('d'), Some("K3S_DATA_DIR"), Kind::Text, Commands::Both),
    flag("bind-address", None, None, Kind::Text, Commands::Both),
    flag("https-listen-port", None, None, Kind::Text, Commands::Server),
    flag("advertise-address", None, None, Kind::Text, Commands::Server),
    flag("tls-san", None, None, Kind::List, Commands::Server),
    flag("node-name", None, Some("K3S_NODE_NAME"), Kind::Text, Commands::Both),
    flag("node-ip", Some('i'), None, Kind::List, Commands::Both),
    flag("node-label", None, None, Kind::Repeated, Commands::Both),
    flag("node-taint", None, None, Kind::Repeated, Commands::Both),
    flag(
        "write-kubeconfig",
        Some('o'),
        Some("K3S_KUBECONFIG_OUTPUT"),
        Kind::Text,
        Commands::Server,
    ),
    flag(
        "write-kubeconfig-mode",
        None,
        Some("K3S_KUBECONFIG_MODE"),
        Kind::Quoted,
        Commands::Server,
    ),
    flag("etcd-arg", None, None, Kind::Repeated, Commands::Server),
    flag("etcd-disable-snapshots", None, None, Kind::Switch, Commands::Server),
    flag("etcd-snapshot-schedule-cron", None, None, Kind::Text, Commands::Server),
    flag("etcd-snapshot-retention", None, None, Kind::Text, Commands::Server),
    flag("etcd-snapshot-dir", None, None, Kind::Text, Commands::Server),
    flag("etcd-snapshot-name", None, None, Kind::Text, Commands::Server),
    flag("etcd-snapshot-compress", None, None, Kind::Switch, Commands::Server),
    flag("etcd-s3", None, None, Kind::Switch, Commands::Server),
    flag("etcd-s3-endpoint", None, None, Kind::Text, Commands::Server),
    flag("etcd-s3-endpoint-ca", None, None, Kind::Text, Commands::Server),
    flag("etcd-s3-skip-ssl-verify", None, None, Kind::Switch, Commands::Server),
    flag("etcd-s3-insecure", None, None, Kind::Switch, Commands::Server),
    flag("etcd-s3-access-key", None, Some("AWS_ACCESS_KEY_ID"), Kind::Quoted, Commands::Server),
    flag("etcd-s3-secret-key", None, Some("AWS_SECRET_ACCESS_KEY"), Kind::Quoted, Commands::Server),
    flag("etcd-s3-session-token", None, Some("AWS_SESSION_TOKEN"), Kind::Quoted, Commands::Server),
    flag("etcd-s3-bucket", None, None, Kind::Text, Commands::Server),
    flag("etcd-s3-bucket-lookup-type", None, None, Kind::Text, Commands::Server),
    flag("etcd-s3-region", None, None, Kind::Text, Commands::Server),
    flag("etcd-s3-folder", None, None, Kind::Text, Commands::Server),
    flag("etcd-s3-retention", None, None, Kind::Text, Commands::Server),
    flag("etcd-s3-proxy", None, None, Kind::Text, Commands::Server),
    flag("etcd-s3-timeout", None, None, Kind::Text, Commands::Server),
    flag("lb-server-port", None, Some("K3S_LB_SERVER_PORT"), Kind::Text, Commands::Agent),
    flag("debug", None, Some("K3S_DEBUG"), Kind::Switch, Commands::Both),
    flag("log", Some('l'), None, Kind::Text, Commands::Both),
];

/// Flags of `k3s server` and `k3s agent` that this node does not have. They are refused by name:
/// a configuration that relies on one must not be taken for understood.
pub const K3S_ONLY: &[&str] = &[
    "advertise-port",
    "alsologtostderr",
    "apiserver-bind-address",
    "apiserver-port",
    "cluster-cidr",
    "cluster-dns",
    "cluster-domain",
    "container-runtime-endpoint",
    "datastore-cafile",
    "datastore-certfile",
    "datastore-endpoint",
    "datastore-keyfile",
    "default-local-storage-path",
    "default-runtime",
    "disable",
    "disable-agent",
    "disable-apiserver",
    "disable-apiserver-lb",
    "disable-cloud-controller",
    "disable-controller-manager",
    "disable-default-registry-endpoint",
    "disable-etcd",
    "disable-helm-controller",
    "disable-kube-proxy",
    "disable-network-policy",
    "disable-scheduler",
    "docker",
    "egress-selector-mode",
    "embedded-registry",
    "enable-pprof",
    "etcd-expose-metrics",
    "etcd-s3-config-secret",
    "etcd-snapshot-reconcile-interval",
    "flannel-backend",
    "flannel-cni-conf",
    "flannel-conf",
    "flannel-external-ip",
    "flannel-iface",
    "flannel-ipv6-masq",
    "helm-controller-arg",
    "image-credential-provider-bin-dir",
    "image-credential-provider-config",
    "image-service-endpoint",
    "kine-tls",
    "kube-apiserver-arg",
    "kube-cloud-controller-manager-arg",
    "kube-controller-manager-arg",
    "kube-proxy-arg",
    "kube-scheduler-arg",
    "kubelet-arg",
    "node-external-dns",
    "node-external-ip",
    "node-internal-dns",
    "nonroot-devices",
    "pause-image",
    "prefer-bundled-bin",
    "private-registry",
    "protect-kernel-defaults",
    "resolv-conf",
    "rootless",
    "secrets-encryption",
    "secrets-encryption-provider",
    "selinux",
    "service-cidr",
    "service-node-port-range",
    "servicelb-namespace",
    "snapshotter",
    "supervisor-metrics",
    "supervisor-port",
    "system-default-registry",
    "tls-san-security",
    "vmodule",
    "vpn-auth",
    "vpn-auth-file",
    "with-node-id",
    "write-kubeconfig-group",
    "write-kubeconfig-name",
];

/// The keys that only a server's file may have.
pub fn server_keys() -> impl Iterator<Item = &'static str> {
    FLAGS.iter().filter(|flag| flag.commands == Commands::Server).map(|flag| flag.name)
}

/// Why `key` is refused when the command does not have it.
pub fn refusal(command: Command, key: &str) -> String {
    if K3S_ONLY.binary_search(&key).is_ok() {
        return format!("--{key} is a K3s flag that this node does not have");
    }
    if FLAGS.iter().any(|flag| flag.name == key) {
        return format!("--{key} is not a flag of `{}`", command.name());
    }
    format!("unknown key `{key}`")
}
