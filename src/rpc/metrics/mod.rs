//! Counters under etcd's names, for `/metrics`. No key, value or name of a client is ever in them.

mod asked;
mod calls;
mod health;
mod peers;
mod work;

use prometheus::core::Collector;
use prometheus::process_collector::ProcessCollector;
use prometheus::{
    Encoder, Histogram, HistogramOpts, HistogramTimer, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry, TextEncoder,
};
use tonic::Code;

use self::asked::Asked;
use self::calls::Calls;
pub(crate) use self::calls::Rpc;
use self::health::HealthChecks;
pub use self::peers::PeerMetrics;
use self::work::WorkCounters;
use super::ETCD_API_VERSION;
use super::member::Member;
use crate::store::types::MemberId;

/// The counters of one member, with handles that other rooms feed.
pub struct Metrics {
    registry: Registry,
    calls: Calls,
    /// Bytes that came from clients.
    pub(crate) client_received: IntCounter,
    /// Bytes that clients were sent.
    pub(crate) client_sent: IntCounter,
    /// Duration of each fdatasync of the log, in seconds.
    pub wal_fsync_seconds: Histogram,
    /// Duration of each write of the checkpoint, in seconds.
    pub backend_commit_seconds: Histogram,
    /// Duration of writing a snapshot file, in seconds.
    pub snapshot_save_seconds: Histogram,
    /// Times the leader changed as this member saw it.
    pub(crate) leader_changes: IntCounter,
    /// Proposals that failed.
    pub(crate) proposals_failed: IntCounter,
    /// Proposals that wait.
    pub(crate) proposals_pending: IntGauge,
    /// Watchers that are open.
    pub(crate) watchers: IntGauge,
    /// Streams of watchers that are open.
    pub(crate) watch_streams: IntGauge,
    /// Events that were sent to watchers.
    pub(crate) events: IntCounter,
    pub(crate) health_success: IntCounter,
    pub(crate) health_failures: IntCounter,
    /// How checks of `/livez` and `/readyz` ended.
    pub(crate) checks: HealthChecks,
    /// What else was asked of it.
    pub(crate) asked: Asked,
    state: StateGauges,
    work: WorkCounters,
}

impl Metrics {
    /// All counters at zero, in a registry of their own.
    pub fn new() -> prometheus::Result<Self> {
        let registry = Registry::new();
        let r = &registry;
        r.register(Box::new(ProcessCollector::for_self()))?;
        Ok(Self {
            calls: Calls::new(r)?,
            client_received: counter(
                r,
                "etcd_network_client_grpc_received_bytes_total",
                "The total number of bytes received from grpc clients.",
            )?,
            client_sent: counter(
                r,
                "etcd_network_client_grpc_sent_bytes_total",
                "The total number of bytes sent to grpc clients.",
            )?,
            wal_fsync_seconds: seconds(
                r,
                "etcd_disk_wal_fsync_duration_seconds",
                "The latency distributions of fsync called by WAL.",
            )?,
            backend_commit_seconds: seconds(
                r,
                "etcd_disk_backend_commit_duration_seconds",
                "The latency distributions of commit called by backend.",
            )?,
            snapshot_save_seconds: seconds(
                r,
                "etcd_debugging_snap_save_total_duration_seconds",
                "The total latency distributions of save called by snapshot.",
            )?,
            leader_changes: counter(
                r,
                "etcd_server_leader_changes_seen_total",
                "The number of leader changes seen.",
            )?,
            proposals_failed: counter(
                r,
                "etcd_server_proposals_failed_total",
                "The total number of failed proposals seen.",
            )?,
            proposals_pending: gauge(
                r,
                "etcd_server_proposals_pending",
                "The current number of pending proposals to commit.",
            )?,
            watchers: gauge(r, "etcd_debugging_mvcc_watcher_total", "Total number of watchers.")?,
            watch_streams: gauge(
                r,
                "etcd_debugging_mvcc_watch_stream_total",
                "Total number of watch streams.",
            )?,
            events: counter(
                r,
                "etcd_debugging_mvcc_events_total",
                "Total number of events sent by this member.",
            )?,
            health_success: counter(
                r,
                "etcd_server_health_success",
                "The total number of successful health checks",
            )?,
            health_failures: counter(
                r,
                "etcd_server_health_failures",
                "The total number of failed health checks",
            )?,
            checks: HealthChecks::new(r)?,
            asked: Asked::new(r)?,
            state: StateGauges::new(r)?,
            work: WorkCounters::new(r)?,
            registry,
        })
    }

    /// Adds the numbers of another room.
    ///
    /// # Errors
    /// Something of the same name is there already.
    pub fn register(&self, collector: impl Collector + 'static) -> prometheus::Result<()> {
        self.registry.register(Box::new(collector))
    }

    /// The numbers of the peers of the member `local`, and who it is itself.
    ///
    /// # Errors
    /// They are there already.
    pub fn of_member(&self, local: MemberId) -> prometheus::Result<PeerMetrics> {
        let one = |name: &str, help: &str, label: &str, value: &str| {
            let gauge = IntGauge::with_opts(Opts::new(name, help).const_label(label, value))?;
            gauge.set(1);
            self.register(gauge)
        };
        one(
            "etcd_server_id",
            "Server or member ID in hexadecimal format. 1 for 'server_id' label with current ID.",
            "server_id",
            &format!("{local:x}"),
        )?;
        one(
            "etcd_server_version",
            "Which version is running. 1 for 'server_version' label with current version.",
            "server_version",
            ETCD_API_VERSION,
        )?;
        one(
            "etcd_cluster_version",
            "Which version is running. 1 for 'cluster_version' label with current cluster version",
            "cluster_version",
            ETCD_API_VERSION.rsplit_once('.').map_or(ETCD_API_VERSION, |(short, _)| short),
        )?;
        PeerMetrics::new(&self.registry, local)
    }

    /// Counts a call that begins, by its request's path and the version that its client tells; what is
    /// given observes how long it takes, until it is dropped.
    pub(crate) fn begun(&self, path: &str, version: Option<&str>) -> Option<HistogramTimer> {
        self.calls.begun(path, version)
    }

    /// Counts a message of a stream that came.
    pub(crate) fn heard(&self, rpc: Rpc) {
        self.calls.heard(rpc);
    }

    /// Counts a message of a stream that is sent.
    pub(crate) fn said(&self, rpc: Rpc) {
        self.calls.said(rpc);
    }

    /// Counts a call that ended.
    pub(crate) fn handled(&self, rpc: Rpc, code: Code) {
        self.calls.handled(rpc, code);
    }

    /// The text that Prometheus reads, with the gauges as they are now.
    pub(crate) fn render(&self, member: &Member) -> prometheus::Result<Vec<u8>> {
        self.state.set(member);
        self.work.set(&member.state);
        let mut text = Vec::with_capacity(64 * 1024);
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(text)
    }
}

/// Gauges that are read at the time of asking.
struct StateGauges {
    has_leader: IntGauge,
    is_leader: IntGauge,
    is_learner: IntGauge,
    committed: IntGauge,
    applied: IntGauge,
    revision: IntGauge,
    compacted: IntGauge,
    size: IntGauge,
    size_in_use: IntGauge,
    quota: IntGauge,
}

impl StateGauges {
    fn new(r: &Registry) -> prometheus::Result<Self> {
        Ok(Self {
            has_leader: gauge(
                r,
                "etcd_server_has_leader",
                "Whether or not a leader exists. 1 is existence, 0 is not.",
            )?,
            is_leader: gauge(
                r,
                "etcd_server_is_leader",
                "Whether or not this member is a leader. 1 if is, 0 otherwise.",
            )?,
            is_learner: gauge(
                r,
                "etcd_server_is_learner",
                "Whether or not this member is a learner. 1 if is, 0 otherwise.",
            )?,
            committed: gauge(
                r,
                "etcd_server_proposals_committed_total",
                "The total number of consensus proposals committed.",
            )?,
            applied: gauge(
                r,
                "etcd_server_proposals_applied_total",
                "The total number of consensus proposals applied.",
            )?,
            revision: gauge(
                r,
                "etcd_debugging_mvcc_current_revision",
                "The current revision of store.",
            )?,
            compacted: gauge(
                r,
                "etcd_debugging_mvcc_compact_revision",
                "The revision of the last compaction in store.",
            )?,
            size: gauge(
                r,
                "etcd_mvcc_db_total_size_in_bytes",
                "Total size of the underlying database physically allocated in bytes.",
            )?,
            size_in_use: gauge(
                r,
                "etcd_mvcc_db_total_size_in_use_in_bytes",
                "Total size of the underlying database logically in use in bytes.",
            )?,
            quota: gauge(
                r,
                "etcd_server_quota_backend_bytes",
                "Current backend storage quota size in bytes.",
            )?,
        })
    }

    fn set(&self, member: &Member) {
        let number = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        let status = member.status.borrow().clone();
        let size = member.size();
        self.has_leader.set(i64::from(status.leader.is_some()));
        self.is_leader.set(i64::from(status.is_leader()));
        self.is_learner.set(i64::from(status.is_learner()));
        self.committed.set(number(status.committed_index));
        self.applied.set(number(status.applied_index));
        self.revision.set(member.state.revision());
        self.compacted.set(member.state.compact_revision());
        self.size.set(number(size.total));
        self.size_in_use.set(number(size.in_use));
        self.quota.set(number(member.settings.quota_bytes));
    }
}

/// The collector, with its handle in the registry.
fn registered<C: Collector + Clone + 'static>(
    registry: &Registry,
    collector: prometheus::Result<C>,
) -> prometheus::Result<C> {
    let collector = collector?;
    registry.register(Box::new(collector.clone()))?;
    Ok(collector)
}

fn counter(registry: &Registry, name: &str, help: &str) -> prometheus::Result<IntCounter> {
    registered(registry, IntCounter::new(name, help))
}

fn counters(
    registry: &Registry,
    name: &str,
    help: &str,
    labels: &[&str],
) -> prometheus::Result<IntCounterVec> {
    registered(registry, IntCounterVec::new(Opts::new(name, help), labels))
}

fn gauge(registry: &Registry, name: &str, help: &str) -> prometheus::Result<IntGauge> {
    registered(registry, IntGauge::new(name, help))
}

fn gauges(
    registry: &Registry,
    name: &str,
    help: &str,
    labels: &[&str],
) -> prometheus::Result<IntGaugeVec> {
    registered(registry, IntGaugeVec::new(Opts::new(name, help), labels))
}

/// A histogram with etcd's buckets for disk latencies: 1 ms doubled to 8 s, and two finer ones below
/// because an SSD's fdatasync would all fall into the first.
fn seconds(registry: &Registry, name: &str, help: &str) -> prometheus::Result<Histogram> {
    let mut buckets = vec![0.000_25, 0.000_5];
    buckets.extend(prometheus::exponential_buckets(0.001, 2.0, 14)?);
    histogram(registry, name, help, buckets)
}

fn histogram(
    registry: &Registry,
    name: &str,
    help: &str,
    buckets: Vec<f64>,
) -> prometheus::Result<Histogram> {
    registered(registry, Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets)))
}
