//! The instruction set between control machine and host: reads, changes, and their answers.
//!
//! Plain values, sent as length-prefixed postcard frames. A batch of reads is one round trip
//! whatever its length. Knows nothing of what the instructions are for.

mod answers;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

pub use answers::{
    Done, Facts, HostError, HostErrorKind, Listener, Observed, Output, PackageFacts, PathFacts,
    PathKind, ServiceFacts, UserFacts,
};

use crate::cluster::layout::K3sNode;
use crate::secret::Secret;

/// Version of this protocol; the executor refuses any other.
pub const PROTOCOL_VERSION: u32 = 1;

/// One message to the executor.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Request {
    /// First message: who calls. Answered by [`Response::Welcome`].
    Hello {
        /// The caller's [`PROTOCOL_VERSION`].
        protocol: u32,
    },
    /// Take all these reads, in order. Answered by [`Response::Read`], one result per read.
    Read(Vec<Read>),
    /// Make these changes in order and stop at the first that fails. Answered by
    /// [`Response::Changed`], one result per change that was tried.
    Change(Vec<Change>),
}

/// One message from the executor.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Response {
    /// To [`Request::Hello`].
    Welcome {
        /// The executor's [`PROTOCOL_VERSION`].
        protocol: u32,
        /// Version of its binary.
        version: String,
    },
    /// To [`Request::Read`].
    Read(Vec<Result<Observed, HostError>>),
    /// To [`Request::Change`].
    Changed(Vec<Result<Done, HostError>>),
}

/// Something to look at. Never changes the host.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Read {
    /// Operating system, hardware, addresses, clock: [`Observed::Facts`].
    Facts,
    /// What is at a path: [`Observed::Path`].
    Path {
        /// Absolute path.
        path: String,
        /// Follow a final symbolic link.
        follow: bool,
        /// Hash the content of a regular file.
        hash: bool,
    },
    /// A file's content: [`Observed::File`].
    File {
        /// Absolute path.
        path: String,
        /// Refuse a longer one.
        bytes_max: u64,
    },
    /// Names in a directory, sorted: [`Observed::Names`].
    Directory {
        /// Absolute path.
        path: String,
    },
    /// Output of a command known to change nothing: [`Observed::Output`].
    Command(CommandSpec),
    /// State of a service: [`Observed::Service`].
    Service {
        /// Unit name without `.service`.
        name: String,
    },
    /// A user and its groups: [`Observed::User`].
    User {
        /// Login name.
        name: String,
    },
    /// Which of these packages are installed: [`Observed::Packages`].
    Packages {
        /// Their names, as the host's package manager has them.
        names: Vec<String>,
    },
    /// Whether something accepts TCP connections: [`Observed::Reachable`].
    TcpProbe {
        /// Host name or address.
        host: String,
        /// Port.
        port: u16,
        /// How long to try, in milliseconds.
        timeout_ms: u64,
    },
    /// Who listens on a local port: [`Observed::Listener`].
    Listener {
        /// Local address it would be bound on; unspecified addresses overlap all.
        address: String,
        /// Port.
        port: u16,
    },
    /// Free space of the file system that holds a path: [`Observed::Space`].
    Space {
        /// Absolute path; the nearest existing parent counts.
        path: String,
    },
    /// What a node's data directory says about itself: [`Observed::Disk`].
    Disk {
        /// The node's data directory.
        data_dir: String,
    },
    /// The cluster as this host's node sees it, asked over its local supervisor:
    /// [`Observed::Cluster`]. `None` when no node answers.
    Cluster {
        /// The node's data directory (its client certificate is there).
        data_dir: String,
        /// Address and port of the supervisor, for example `127.0.0.1:6443`.
        supervisor: String,
    },
    /// Polls `Cluster` until the local node is ready or the time is over: [`Observed::Ready`].
    Ready {
        /// The node's data directory.
        data_dir: String,
        /// Address and port of the supervisor (server) or of the agent's health endpoint.
        supervisor: String,
        /// How long to wait, in milliseconds.
        timeout_ms: u64,
    },
    /// Waits until no executor on this host makes changes, also one whose caller is gone:
    /// [`Observed::Idle`].
    Idle {
        /// How long to wait, in milliseconds.
        timeout_ms: u64,
    },
    /// Last lines of a service's log: [`Observed::Text`].
    ServiceLog {
        /// Unit name without `.service`.
        name: String,
        /// How many lines.
        lines: u32,
    },
    /// What a K3s server's data directory says about itself: [`Observed::Disk`].
    K3sDisk {
        /// K3s's data directory.
        data_dir: String,
    },
    /// The cluster as this host's K3s node sees it: [`Observed::Cluster`]. `None` when none answers.
    K3sCluster {
        /// How it is asked.
        node: K3sNode,
    },
    /// Polls `K3sCluster` until the local node is ready or the time is over: [`Observed::Ready`].
    K3sReady {
        /// How it is asked.
        node: K3sNode,
        /// How long to wait, in milliseconds.
        timeout_ms: u64,
    },
}

/// A command to run: argv, never a shell string.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct CommandSpec {
    /// Program and arguments.
    pub argv: Vec<String>,
    /// Written to its standard input. May be secret: it is not in argv for that reason.
    pub stdin: Option<Bytes>,
    /// Added to its environment.
    pub env: Vec<(String, String)>,
    /// Working directory.
    pub cwd: Option<String>,
    /// Killed after this many milliseconds.
    pub timeout_ms: u64,
}

/// Something to change.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Change {
    /// Write a file: temporary file in the same directory, 0600, fsync, owner, mode, rename,
    /// directory fsync.
    PutFile {
        /// Absolute path.
        path: String,
        /// What it shall hold.
        content: FileContent,
        /// Permission bits.
        mode: u32,
        /// Owner; `None` leaves it.
        owner: Option<String>,
        /// Group; `None` leaves it.
        group: Option<String>,
        /// Keep the old file beside it, with a date in its name.
        backup: bool,
        /// Run on the temporary file before it takes the old one's place; each `%s` in it is the
        /// temporary file's path. The old file stays when it ends with another status than 0.
        /// Empty: nothing is asked.
        validate: Vec<String>,
    },
    /// Make a directory and its parents, or correct its mode and owner.
    MakeDirectory {
        /// Absolute path.
        path: String,
        /// Permission bits of the last one; parents that are made get 0755.
        mode: u32,
        /// Owner; `None` leaves it.
        owner: Option<String>,
        /// Group; `None` leaves it.
        group: Option<String>,
    },
    /// Make a symbolic link, replacing another one.
    Link {
        /// Absolute path of the link.
        path: String,
        /// What it points to.
        target: String,
    },
    /// Correct mode and owner of what is there.
    SetAttributes {
        /// Absolute path.
        path: String,
        /// Permission bits; `None` leaves them.
        mode: Option<u32>,
        /// Owner; `None` leaves it.
        owner: Option<String>,
        /// Group; `None` leaves it.
        group: Option<String>,
    },
    /// Remove a file, or a directory with all in it. Nothing there is fine.
    Remove {
        /// Absolute path.
        path: String,
    },
    /// Rename within a file system.
    Move {
        /// From, absolute.
        from: String,
        /// To, absolute; must not exist.
        to: String,
    },
    /// Run a command.
    Run(CommandSpec),
    /// Start, stop, enable a service.
    Service {
        /// Unit name without `.service`.
        name: String,
        /// What to do.
        action: ServiceAction,
        /// Wait at most this many milliseconds for it.
        timeout_ms: u64,
    },
    /// Make the service manager read its units again.
    ReloadUnits,
    /// Create a user.
    AddUser {
        /// Login name.
        name: String,
        /// System account.
        system: bool,
        /// Primary group to create and use; the user's name when `None`.
        group: Option<String>,
        /// Home directory.
        home: Option<String>,
        /// Login shell.
        shell: Option<String>,
    },
    /// Remove a user.
    RemoveUser {
        /// Login name.
        name: String,
    },
    /// Install or remove packages with the host's package manager.
    Packages {
        /// Their names, as the host's package manager has them.
        names: Vec<String>,
        /// What to do with them.
        action: PackageAction,
        /// Fetch the lists of what there is first.
        update_cache: bool,
    },
    /// Remove a member from the cluster that this host's node belongs to, asked through its local
    /// supervisor. A member that is not there is fine.
    RemoveMember {
        /// The node's data directory (its client certificate is there).
        data_dir: String,
        /// Address and port of the supervisor, as in [`Read::Cluster`].
        supervisor: String,
        /// The member's number, hex.
        member_id: String,
    },
    /// Take the operators' lock, or renew it when `id` holds it already. The lock is a file made
    /// with `O_EXCL` (0600; a JSON [`LockHolder`] inside); one whose time is over, by this host's
    /// clock, is taken over. Held by another: [`HostErrorKind::Locked`], the message says who,
    /// since when and for what.
    ///
    /// From then on the executor looks before every change of this session whether the file is
    /// still `id`'s, and refuses with [`HostErrorKind::Locked`] if not; a change renews the lock.
    Lock {
        /// Absolute path of the lock file; its directory is made when missing.
        path: String,
        /// Who takes it.
        holder: LockHolder,
        /// How long it lasts without a renewal, in milliseconds.
        ttl_ms: u64,
        /// Take it even if another holds it.
        steal: bool,
    },
    /// Give the lock back. Not held, or held by another, is fine and changes nothing.
    Unlock {
        /// Absolute path of the lock file.
        path: String,
        /// The holder's [`LockHolder::id`].
        id: String,
    },
    /// Remove a member of K3s's embedded etcd, and its node with it, asked through this host's node. A
    /// member that is not there is fine.
    RemoveK3sMember {
        /// How this host's node is asked.
        node: K3sNode,
        /// The member's name, which stands for its number.
        member: String,
    },
    /// Write a part of a file that is too long for one message, 0600; the file is begun anew with the
    /// part at 0.
    PutPart {
        /// Absolute path of the file that grows.
        path: String,
        /// Where the part belongs, which is how long the file is.
        offset: u64,
        /// The part.
        bytes: Bytes,
    },
}

/// Who holds the operators' lock.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockHolder {
    /// The run's own name, unique.
    pub id: String,
    /// Person, machine and process: `ada@laptop pid 4711`.
    pub owner: String,
    /// What the run does, for example `up`.
    pub purpose: String,
    /// When it was taken, milliseconds since 1970 by the host's clock; the executor fills it in.
    pub since_unix_ms: u64,
    /// When it runs out by the host's clock, milliseconds since 1970; the executor fills it in.
    pub expires_unix_ms: u64,
}

/// What a file shall hold.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum FileContent {
    /// These bytes.
    Bytes(Bytes),
    /// A secret text; never printed.
    Secret(SecretText),
    /// A copy of another file on the host (the pushed binary), verified by its SHA-256 in hex.
    CopyOf {
        /// Absolute path on the host.
        path: String,
        /// Expected hash.
        sha256: String,
    },
    /// A file of the control machine, too long for a message. The session sends it in parts; it never
    /// travels as such.
    Local {
        /// Its path there.
        path: String,
        /// Its hash.
        sha256: String,
        /// Its length.
        size: u64,
    },
}

/// A [`Secret`] that really travels over the (encrypted) channel, unlike `Secret` itself, which
/// serialises as a mask.
#[derive(Clone, Debug)]
pub struct SecretText(pub Secret);

impl Serialize for SecretText {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0.expose())
    }
}

impl<'de> Deserialize<'de> for SecretText {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Secret::deserialize(deserializer).map(Self)
    }
}

/// What to do with packages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PackageAction {
    /// Install those that are missing; their services may be started by that, as is the custom of
    /// the host's distribution.
    Install,
    /// Remove them with the configuration that came with them.
    Remove,
}

/// What to do with a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ServiceAction {
    /// Start it if it is not running and wait until it says it is ready.
    Start,
    /// Stop it if it is running.
    Stop,
    /// Stop and start.
    Restart,
    /// Ask it to read its configuration again.
    Reload,
    /// Start it at boot.
    Enable,
    /// Do not start it at boot.
    Disable,
}
