//! What the executor answers.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::measure::Measured;
#[cfg(doc)]
use super::{Change, Read};
use crate::cluster::snapshots::SnapshotView;
use crate::cluster::view::{ClusterView, DiskView};

/// The answer to one [`Read`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Observed {
    /// To [`Read::Facts`].
    Facts(Box<Facts>),
    /// To [`Read::Path`]; `None` when nothing is there.
    Path(Option<PathFacts>),
    /// To [`Read::File`]; `None` when nothing is there.
    File(Option<Bytes>),
    /// To [`Read::Directory`]; `None` when it is not there.
    Names(Option<Vec<String>>),
    /// To [`Read::Command`].
    Output(Output),
    /// To [`Read::Service`].
    Service(ServiceFacts),
    /// To [`Read::User`]; `None` when there is no such user.
    User(Option<UserFacts>),
    /// To [`Read::Packages`].
    Packages(PackageFacts),
    /// To [`Read::TcpProbe`].
    Reachable(bool),
    /// To [`Read::Idle`]: whether that was so in time.
    Idle(bool),
    /// To [`Read::Listener`]; `None` when the port is free.
    Listener(Option<Listener>),
    /// To [`Read::Space`].
    Space {
        /// Bytes free for an ordinary user.
        free_bytes: u64,
        /// Size of the file system in bytes.
        total_bytes: u64,
        /// Whether this user may write there, or why not.
        writable: Result<(), String>,
    },
    /// To [`Read::Disk`]; `None` when there is no data.
    Disk(Option<DiskView>),
    /// To [`Read::Cluster`].
    Cluster(Option<Box<ClusterView>>),
    /// To [`Read::Ready`]: `Ok`, or why it is not ready yet.
    Ready(Result<(), String>),
    /// To [`Read::ServiceLog`].
    Text(String),
    /// To [`Read::Snapshot`]; `None` when nothing is there.
    Snapshot(Option<Box<SnapshotView>>),
    /// To [`Read::Snapshots`], by name; a directory that is not there holds none.
    Snapshots(Vec<SnapshotView>),
    /// To [`Read::LogEnd`]; `None` when there is no log.
    LogEnd(Option<crate::cluster::restore::LogEnd>),
    /// To [`Read::StoreHash`]: the revision and the hash.
    StoreHash(i64, u32),
    /// To [`Read::Measure`].
    Measured(Measured),
}

/// Operating system, hardware, addresses and clock of a host.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Facts {
    /// Host name as the kernel has it.
    pub hostname: String,
    /// `/etc/machine-id`.
    pub machine_id: String,
    /// `ID` of `/etc/os-release`, for example `debian`.
    pub os_id: String,
    /// `ID_LIKE` of `/etc/os-release`.
    pub os_like: String,
    /// `VERSION_ID` of `/etc/os-release`.
    pub os_version: String,
    /// `PRETTY_NAME` of `/etc/os-release`.
    pub os_name: String,
    /// Kernel release.
    pub kernel: String,
    /// Machine as `uname -m`, for example `x86_64`.
    pub architecture: String,
    /// Processors online.
    pub cpus: u32,
    /// Memory in bytes.
    pub memory_bytes: u64,
    /// `systemd`, `openrc`, `lab` or `none`.
    pub service_manager: String,
    /// The lab host's own directory, under which everything it has is kept; `None` on real hosts.
    pub lab_root: Option<String>,
    /// Addresses of all interfaces except loopback (a lab host's own loopback address counts).
    pub addresses: Vec<String>,
    /// Address of the interface with the default route.
    pub default_address: Option<String>,
    /// Name of that interface, by the kernel's IPv4 routes.
    pub default_interface: Option<String>,
    /// Milliseconds since 1970 when it was read.
    pub clock_unix_ms: u64,
    /// Effective user.
    pub user: String,
    /// Whether that is root.
    pub is_root: bool,
    /// The executor's own path.
    pub executor_path: String,
    /// SHA-256 of the executor's own binary, hex.
    pub executor_sha256: String,
}

/// What is at a path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PathFacts {
    /// What kind of thing.
    pub kind: PathKind,
    /// Permission bits.
    pub mode: u32,
    /// Owner's name (its number when it has none).
    pub owner: String,
    /// Group's name (its number when it has none).
    pub group: String,
    /// Size in bytes.
    pub size: u64,
    /// SHA-256 of the content in hex, if asked for and a regular file.
    pub sha256: Option<String>,
    /// Where a symbolic link points.
    pub target: Option<String>,
}

/// What kind of thing is at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PathKind {
    /// Regular file.
    File,
    /// Directory.
    Directory,
    /// Symbolic link (not followed).
    Link,
    /// Anything else.
    Other,
}

/// How a command ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Output {
    /// Exit status; 128 + n when signal n ended it.
    pub status: i32,
    /// Standard output, at most [`crate::limits::OUTPUT_BYTES_MAX`].
    pub stdout: Bytes,
    /// Standard error, likewise.
    pub stderr: Bytes,
    /// Whether output was cut off.
    pub truncated: bool,
    /// Whether it was killed because its time was over.
    pub timed_out: bool,
}

/// State of a service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceFacts {
    /// The manager knows it.
    pub exists: bool,
    /// It runs (and said it is ready, if it is of the notifying kind).
    pub active: bool,
    /// It is on its way up.
    pub starting: bool,
    /// It ended in failure.
    pub failed: bool,
    /// It starts at boot.
    pub enabled: bool,
    /// Its main process.
    pub pid: Option<u32>,
    /// When it became active, milliseconds since 1970.
    pub active_since_unix_ms: Option<u64>,
}

/// Packages of the host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackageFacts {
    /// What installs them: `apt`, `dnf`, `apk`, or `lab` on a lab host, which has what its machine
    /// has; `None` when none of these is there.
    pub manager: Option<String>,
    /// Those of the packages asked for that are installed.
    pub installed: Vec<String>,
}

/// A user of the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserFacts {
    /// User number.
    pub uid: u32,
    /// Primary group's number.
    pub gid: u32,
    /// Home directory.
    pub home: String,
    /// Login shell.
    pub shell: String,
}

/// Who listens on a port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listener {
    /// Process number, when it may be seen.
    pub pid: Option<u32>,
    /// Its command name, when it may be seen.
    pub process: Option<String>,
}

/// The answer to one [`Change`] that was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Done {
    /// Made; nothing more to say.
    Ok,
    /// To [`Change::Run`].
    Output(Output),
}

/// Why a read or a change failed on the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct HostError {
    /// What kind.
    pub kind: HostErrorKind,
    /// What and why, lower case, with the path or name concerned.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

/// Kinds of [`HostError`] that a caller may act on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum HostErrorKind {
    /// It is not there.
    NotFound,
    /// Not allowed.
    Permission,
    /// No space left.
    DiskFull,
    /// Read-only file system.
    ReadOnly,
    /// Took too long.
    Timeout,
    /// Larger than was asked for.
    TooLarge,
    /// The service did not start or died.
    Service,
    /// Another operator holds the lock.
    Locked,
    /// Anything else.
    Other,
}
