//! What a member is started with, and what openraft makes of it.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use openraft::{Config, ConfigError, SnapshotPolicy};

use super::net::identity::PeerTls;
use super::net::traffic::Traffic;
use crate::store::types::{ClusterId, MemberRecord};
use crate::store::wal::WalError;

/// Entries that stay in the log behind a snapshot, so that a follower that was away for a moment
/// needs no snapshot (etcd's `SnapshotCatchUpEntries`).
const CATCH_UP_ENTRIES: u64 = 5_000;

/// Entries purged at once, at least.
const PURGE_ENTRIES: u64 = 1_000;

/// How long members wait for each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// Milliseconds between heartbeats (etcd's `--heartbeat-interval`, default 100).
    pub heartbeat_ms: u64,
    /// About how many milliseconds after the last word of a leader another member stands for
    /// election (etcd's `--election-timeout`, default 1000): between 0.9 and 1.2 times this.
    pub election_ms: u64,
}

impl Default for Timing {
    fn default() -> Self {
        Self { heartbeat_ms: 100, election_ms: 1000 }
    }
}

impl Timing {
    /// How long a request may take: etcd's 5 s + 2 × election time-out.
    pub(crate) fn request_timeout(&self) -> Duration {
        Duration::from_secs(5) + 2 * self.election()
    }

    /// How long a leader may be silent, or be left alone by a quorum, until it counts for none: a
    /// little longer than an election takes to begin, so that there is none while all is well.
    pub(crate) fn leader_patience(&self) -> Duration {
        self.election() * 3 / 2
    }

    /// The election time-out.
    pub(crate) fn election(&self) -> Duration {
        Duration::from_millis(self.election_ms)
    }
}

/// What a member is started with.
#[derive(Clone)]
pub struct RaftOptions {
    /// The cluster it belongs to.
    pub cluster: ClusterId,
    /// The clusters that this one took the place of, by a restore or a reset: their members are told
    /// so when they speak to this one.
    pub supersedes: Vec<ClusterId>,
    /// This member. Its peer URLs are what others reach it by; name and client URLs are published
    /// to the cluster when they differ from what it knows.
    pub member: MemberRecord,
    /// Where log, snapshots and checkpoint are; created when it is not there.
    pub dir: PathBuf,
    /// Where it listens for peers.
    pub listen: Vec<SocketAddr>,
    /// How members authenticate each other; `None`: not at all, over plain TCP.
    pub tls: Option<PeerTls>,
    /// How long members wait for each other.
    pub timing: Timing,
    /// Entries between snapshots (etcd's `--snapshot-count`).
    pub snapshot_count: u64,
    /// Who is told how long the disk took.
    pub observers: Observers,
}

/// Told how long something took.
pub type Observer = Arc<dyn Fn(Duration) + Send + Sync>;

/// Who is told how long writes to the disk took, and what passes on the network; nobody by default.
#[derive(Clone, Default)]
pub struct Observers {
    /// Each fdatasync of the log.
    pub wal_sync: Option<Observer>,
    /// Each batch of the checkpoint, until it is durable.
    pub checkpoint: Option<Observer>,
    /// Each snapshot file, from taking the state to the verified file.
    pub snapshot: Option<Observer>,
    /// What passes between this member and its peers.
    pub traffic: Option<Arc<dyn Traffic>>,
}

/// Tells an observer, if there is one, how long `work` took.
pub(crate) fn observed<T>(observer: Option<&Observer>, work: impl FnOnce() -> T) -> T {
    let started = Instant::now();
    let result = work();
    if let Some(observer) = observer {
        observer(started.elapsed());
    }
    result
}

impl RaftOptions {
    /// etcd 3.6's default of `--snapshot-count`.
    pub const SNAPSHOT_COUNT: u64 = 10_000;

    /// What openraft is configured with.
    pub(crate) fn raft_config(&self) -> Result<Config, ConfigError> {
        let Timing { heartbeat_ms, election_ms } = self.timing;
        Config {
            cluster_name: format!("{:x}", self.cluster),
            heartbeat_interval: heartbeat_ms,
            // A follower waits for the leader's lease, which is the maximum, and then for a random
            // time between the two.
            election_timeout_min: election_ms * 3 / 10,
            election_timeout_max: election_ms * 6 / 10,
            install_snapshot_timeout: 10 * 60 * 1000,
            max_payload_entries: 1024,
            snapshot_policy: SnapshotPolicy::LogsSinceLast(self.snapshot_count),
            max_in_snapshot_log_to_keep: CATCH_UP_ENTRIES.min(self.snapshot_count),
            purge_batch_size: PURGE_ENTRIES.min(self.snapshot_count),
            replication_lag_threshold: self.snapshot_count.saturating_mul(2),
            enable_pre_vote: Some(true),
            enable_leader_restore: Some(false),
            allow_log_reversion: Some(false),
            backoff: "50ms 100ms 200ms ..500ms".to_owned(),
            ..Config::default()
        }
        .validate()
    }
}

/// Why a member does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The times make no sense together.
    #[error("heartbeat interval and election time-out do not fit together: {0}")]
    Timing(String),
    /// A peer URL is not one.
    #[error("peer URL {0:?} is not https://host:port or http://host:port")]
    PeerUrl(String),
    /// A directory or file could not be used.
    #[error("{path}: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// An address could not be listened on.
    #[error("cannot listen for peers on {address}: {source}")]
    Listen {
        /// Which.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The log could not be opened.
    #[error(transparent)]
    Wal(#[from] WalError),
    /// A peer says that another cluster took the place of this one.
    #[error(
        "cluster {by:x} took the place of this member's cluster: it was restored from a snapshot or \
         reset while this member was away"
    )]
    Superseded {
        /// Which.
        by: ClusterId,
    },
    /// Log, snapshot or state do not fit together, or cannot be read.
    #[error("the data of this member cannot be used: {0}; replace this member")]
    Data(String),
}

impl StartError {
    /// For `map_err` on what is done with a file.
    pub(crate) fn file(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { path, source }
    }
}

/// The `host:port` of peer URLs.
pub(crate) fn peer_addresses(urls: &[String]) -> Result<Vec<String>, StartError> {
    urls.iter()
        .map(|url| {
            let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
            let address = rest.map(|rest| rest.trim_end_matches('/'));
            let valid = address.filter(|address| {
                address.rsplit_once(':').is_some_and(|(host, port)| {
                    !host.is_empty() && port.parse::<u16>().is_ok() && !port.is_empty()
                })
            });
            valid.map(str::to_owned).ok_or_else(|| StartError::PeerUrl(url.clone()))
        })
        .collect()
}
