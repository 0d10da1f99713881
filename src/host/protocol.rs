//! The instruction set between control machine and host: reads, changes, and their answers.
//!
//! Plain values, sent as length-prefixed postcard frames. A batch of reads is one round trip
//! whatever its length. Knows nothing of what the instructions are for.

mod answers;
mod measure;
mod parts;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

pub use answers::{
    Done, Facts, HostError, HostErrorKind, Listener, Observed, Output, PackageFacts, PathFacts,
    PathKind, ServiceFacts, UserFacts,
};
pub use measure::{DiskSpeed, Door, Measure, Measured, MetricsSource, Opened, Reached, Vitals};
pub use parts::{FileContent, LockHolder, PackageAction, SecretText, ServiceAction};

use crate::cluster::layout::K3sNode;

/// Version of this protocol; the executor refuses any other.
pub const PROTOCOL_VERSION: u32 = 3;

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
    /// Add a part to a file that is too long for one message, 0600; the file is begun anew with the
    /// part at 0. The part's bytes follow this message as they are. Parts may be sent without
    /// waiting for answers. Answered by [`Response::Changed`] with one result.
    Part {
        /// Absolute path of the file that grows.
        path: String,
        /// Where the part belongs, which is how long the file is.
        offset: u64,
        /// How many bytes follow.
        length: u32,
    },
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
    /// A part of a file: [`Observed::File`], empty behind its end.
    FilePart {
        /// Absolute path.
        path: String,
        /// Where the part begins, in bytes.
        offset: u64,
        /// Its greatest length; no longer than fits in a message.
        bytes_max: u32,
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
    /// A snapshot file, read to its end and verified: [`Observed::Snapshot`].
    Snapshot {
        /// Absolute path.
        path: String,
    },
    /// The snapshot files of a directory, as they say of themselves: [`Observed::Snapshots`].
    Snapshots {
        /// Absolute path of the directory.
        dir: String,
        /// The directory with what the node noted when it took them, if there is one.
        metadata: String,
    },
    /// How far the log of a server's data goes, read from a copy, whether its node runs or not:
    /// [`Observed::LogEnd`].
    LogEnd {
        /// The node's data directory.
        data_dir: String,
    },
    /// The same for K3s's embedded etcd, read where it lies: [`Observed::LogEnd`].
    K3sLogEnd {
        /// K3s's data directory.
        data_dir: String,
    },
    /// The hash of all keys of this host's member of K3s's embedded etcd at a revision:
    /// [`Observed::StoreHash`].
    K3sStoreHash {
        /// K3s's data directory, which has the credentials.
        data_dir: String,
        /// The revision; 0 is the newest one.
        revision: i64,
    },
    /// The hash of all keys of the server's own member at a revision: [`Observed::StoreHash`].
    StoreHash {
        /// The node's data directory, which has the credentials.
        data_dir: String,
        /// Where the member serves clients, as a URL.
        endpoint: String,
        /// The revision; 0 is the newest one.
        revision: i64,
    },
    /// A measurement: [`Observed::Measured`]. Its answer is another each time.
    Measure(Measure),
    /// Which token a server of K3s has, by the first twelve digits of its hash: [`Observed::Text`].
    K3sTokenHash {
        /// K3s's data directory.
        data_dir: String,
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
        /// Permission bits, also of parents that have to be made.
        mode: u32,
        /// Owner, also of parents that have to be made; `None` leaves it.
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
    /// Let another voter lead, if this host's node does; asked through its local supervisor. A node
    /// of a version that cannot be asked does it when it stops.
    HandOver {
        /// The node's data directory (its client certificate is there).
        data_dir: String,
        /// Address and port of the supervisor, as in [`Read::Cluster`].
        supervisor: String,
    },
    /// Delete a node's record, and with it the claim on its name, asked through this host's local
    /// supervisor. One that is not there is fine.
    ForgetNode {
        /// The data directory of the host's node (its client certificate is there).
        data_dir: String,
        /// Address and port of the supervisor, as in [`Read::Cluster`].
        supervisor: String,
        /// The name of the node that is gone.
        name: String,
    },
    /// Write the content of a snapshot, which may be in a zip archive, into a file of its own, 0600.
    UnpackSnapshot {
        /// Absolute path of the snapshot.
        path: String,
        /// Absolute path of the file.
        to: String,
    },
    /// The same as [`Change::HandOver`] for K3s's embedded etcd, asked at this host's member.
    HandOverK3s {
        /// How this host's node is asked.
        node: K3sNode,
    },
    /// Give the cluster another token, asked at this host's server of K3s.
    RotateK3sToken {
        /// K3s's data directory, which has the credentials.
        data_dir: String,
        /// Address and port of the server.
        supervisor: String,
        /// The new token's password.
        token: SecretText,
    },
}
