//! Where a host is and how to log in: what a connection is made from. Plain values, made from an
//! inventory's variables.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::binaries::Binaries;
use super::executor::Executor;
use super::hostkey::{HostKeyMode, HostKeys};
use super::ssh::hops::Hops;
use super::ssh::keys::{AskPassphrase, KeyRing};
use crate::lab::LabHost;
use crate::limits::CONNECT_TIMEOUT;
use crate::secret::Secret;

/// OpenSSH's port.
pub const SSH_PORT: u16 = 22;

/// A host to reach.
#[derive(Clone, Debug)]
pub struct Target {
    /// Its name in the inventory, for messages.
    pub name: String,
    /// How it is reached.
    pub connection: Connection,
    /// Work as another user than the one who logs in. A lab host has no other user: there it is
    /// ignored.
    pub escalation: Option<Become>,
}

/// How a host is reached: `ansible_connection`.
#[derive(Clone, Debug)]
pub enum Connection {
    /// Over SSH.
    Ssh(SshTarget),
    /// It is this machine.
    Local,
    /// A lab host, started when it is not up.
    Lab(LabHost),
}

/// An SSH server and a login.
#[derive(Clone, Debug)]
pub struct SshTarget {
    /// Host name or address: also the name under which its key is known.
    pub address: String,
    /// Port.
    pub port: u16,
    /// Login name.
    pub user: String,
    /// Private keys to use; the usual ones of `~/.ssh` when empty.
    pub keys: Vec<PathBuf>,
    /// Only use `keys`, whatever else the agent has.
    pub identities_only: bool,
    /// Which agent is asked.
    pub agent: Agent,
    /// Tried after the keys.
    pub password: Option<Secret>,
    /// What is known of its key; the run's own policy when `None`.
    pub host_keys: Option<HostKeys>,
    /// The name under which its key is known, in place of the address and port.
    pub host_key_alias: Option<String>,
    /// For the TCP and SSH handshakes, per address; the run's own when `None`.
    pub connect_timeout: Option<Duration>,
    /// Which kind of address is used.
    pub family: Family,
    /// The jump host that it is reached through, which may be reached through another.
    pub via: Option<Box<SshTarget>>,
}

/// Which ssh-agent is asked for keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Agent {
    /// The run's.
    #[default]
    Usual,
    /// None.
    None,
    /// The one that listens on this socket.
    At(PathBuf),
}

/// Which kind of IP addresses is used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Family {
    /// Either.
    #[default]
    Any,
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl SshTarget {
    /// `user` at `address` on the usual port with the usual keys.
    pub fn new(address: impl Into<String>, user: impl Into<String>) -> Self {
        Self {
            address: address.into(),
            port: SSH_PORT,
            user: user.into(),
            keys: Vec::new(),
            identities_only: false,
            agent: Agent::Usual,
            password: None,
            host_keys: None,
            host_key_alias: None,
            connect_timeout: None,
            family: Family::Any,
            via: None,
        }
    }
}

/// `become`: work as another user.
#[derive(Clone, Debug)]
pub struct Become {
    /// Which user.
    pub user: String,
    /// The password that is asked for. Without it none may be.
    pub password: Option<Secret>,
    /// By which program.
    pub method: Method,
}

impl Become {
    /// `user` by sudo without a password.
    pub fn new(user: impl Into<String>) -> Self {
        Self { user: user.into(), password: None, method: Method::Sudo }
    }
}

/// The program that makes one user another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Method {
    /// sudo(8).
    #[default]
    Sudo,
    /// doas(1), as OpenBSD and Alpine have it.
    Doas,
}

/// What holds for all connections of a run.
#[derive(Clone, Debug)]
pub struct ConnectOptions {
    /// Which host keys are right, and what becomes of new ones.
    pub host_keys: HostKeys,
    /// Private keys, each read and asked for once for all hosts.
    pub keys: Arc<KeyRing>,
    /// What is pushed.
    pub executor: Arc<Executor>,
    /// What is pushed to hosts on which that does not run.
    pub binaries: Arc<Binaries>,
    /// For the TCP and SSH handshakes together, per address.
    pub connect_timeout: Duration,
    /// Jump hosts that are connected to, each once for all hosts.
    pub hops: Arc<Hops>,
}

impl ConnectOptions {
    /// The present user's `~/.ssh` and agent, new hosts' keys are learned, this very binary is pushed.
    pub fn new() -> Self {
        let ssh = ssh_dir();
        let known = ssh.join("known_hosts");
        Self {
            host_keys: HostKeys {
                files: vec![known.clone(), PathBuf::from("/etc/ssh/ssh_known_hosts")],
                learn_into: Some(known),
                hashed: false,
                mode: HostKeyMode::AcceptNew,
            },
            keys: Arc::new(KeyRing::new(ssh).with_agent(agent_socket())),
            executor: Executor::own(),
            binaries: Binaries::usual(None),
            connect_timeout: CONNECT_TIMEOUT,
            hops: Arc::default(),
        }
    }
}

impl ConnectOptions {
    /// Encrypted keys are opened with what `ask` gives.
    pub(crate) fn with_passphrases(mut self, ask: Option<Arc<AskPassphrase>>) -> Self {
        if let Some(ask) = ask {
            let ring = KeyRing::new(ssh_dir()).with_agent(agent_socket());
            self.keys = Arc::new(ring.with_passphrases(ask));
        }
        self
    }
}

impl Default for ConnectOptions {
    fn default() -> Self {
        Self::new()
    }
}

/// Where the running agent listens (`ssh-agent(1)`).
fn agent_socket() -> Option<PathBuf> {
    std::env::var_os("SSH_AUTH_SOCK").filter(|path| !path.is_empty()).map(PathBuf::from)
}

/// `~/.ssh`; without a home directory a place where nothing is.
fn ssh_dir() -> PathBuf {
    etcetera::home_dir()
        .map_or_else(|_| PathBuf::from("/nonexistent/.ssh"), |home| home.join(".ssh"))
}

/// What a connection tells on its way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Being connected to.
    Connecting,
    /// The executor is being pushed: bytes of it sent so far, and in all.
    Pushing {
        /// Sent.
        sent: u64,
        /// In all.
        total: u64,
    },
    /// The host was not known before; its key is recorded now.
    Learned {
        /// Its fingerprint.
        fingerprint: String,
    },
    /// Something a person should know, for example that host keys are not checked.
    Warning(String),
    /// The executor answers.
    Ready,
}

/// Who is told of [`Progress`].
pub type ProgressFn<'a> = &'a (dyn Fn(Progress) + Send + Sync);
