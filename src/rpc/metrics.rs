//! Counters under etcd's names, for `/metrics`. No key, value or name of a client is ever in them.

use prometheus::process_collector::ProcessCollector;
use prometheus::{
    Encoder, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry,
    TextEncoder,
};
use tonic::Code;

use super::member::Member;

macro_rules! rpcs {
    ($($name:ident = $kind:literal $service:literal $method:literal;)*) => {
        /// A procedure of the API, for counting.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Rpc { $($name,)* }

        /// Kind, service and method of each [`Rpc`], in its order.
        const RPCS: &[(&str, &str, &str)] = &[$(($kind, $service, $method),)*];
    };
}

rpcs! {
    Range = "unary" "etcdserverpb.KV" "Range";
    Put = "unary" "etcdserverpb.KV" "Put";
    DeleteRange = "unary" "etcdserverpb.KV" "DeleteRange";
    Txn = "unary" "etcdserverpb.KV" "Txn";
    Compact = "unary" "etcdserverpb.KV" "Compact";
    Watch = "bidi_stream" "etcdserverpb.Watch" "Watch";
    LeaseGrant = "unary" "etcdserverpb.Lease" "LeaseGrant";
    LeaseRevoke = "unary" "etcdserverpb.Lease" "LeaseRevoke";
    LeaseKeepAlive = "bidi_stream" "etcdserverpb.Lease" "LeaseKeepAlive";
    LeaseTimeToLive = "unary" "etcdserverpb.Lease" "LeaseTimeToLive";
    LeaseLeases = "unary" "etcdserverpb.Lease" "LeaseLeases";
    MemberAdd = "unary" "etcdserverpb.Cluster" "MemberAdd";
    MemberRemove = "unary" "etcdserverpb.Cluster" "MemberRemove";
    MemberUpdate = "unary" "etcdserverpb.Cluster" "MemberUpdate";
    MemberList = "unary" "etcdserverpb.Cluster" "MemberList";
    MemberPromote = "unary" "etcdserverpb.Cluster" "MemberPromote";
    Alarm = "unary" "etcdserverpb.Maintenance" "Alarm";
    Status = "unary" "etcdserverpb.Maintenance" "Status";
    Defragment = "unary" "etcdserverpb.Maintenance" "Defragment";
    Hash = "unary" "etcdserverpb.Maintenance" "Hash";
    HashKv = "unary" "etcdserverpb.Maintenance" "HashKV";
    Snapshot = "server_stream" "etcdserverpb.Maintenance" "Snapshot";
    MoveLeader = "unary" "etcdserverpb.Maintenance" "MoveLeader";
}

/// gRPC's codes by number, with the names Prometheus knows them by.
const CODES: [&str; 17] = [
    "OK",
    "Canceled",
    "Unknown",
    "InvalidArgument",
    "DeadlineExceeded",
    "NotFound",
    "AlreadyExists",
    "PermissionDenied",
    "ResourceExhausted",
    "FailedPrecondition",
    "Aborted",
    "OutOfRange",
    "Unimplemented",
    "Internal",
    "Unavailable",
    "DataLoss",
    "Unauthenticated",
];

/// The counters of one member, with handles that other rooms feed.
pub struct Metrics {
    registry: Registry,
    /// Per procedure, then per code.
    handled: Vec<Vec<IntCounter>>,
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
    state: StateGauges,
}

impl Metrics {
    /// All counters at zero, in a registry of their own.
    pub fn new() -> prometheus::Result<Self> {
        let registry = Registry::new();
        let r = &registry;
        r.register(Box::new(ProcessCollector::for_self()))?;
        Ok(Self {
            handled: handled(r)?,
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
            state: StateGauges::new(r)?,
            registry,
        })
    }

    /// Counts a call that ended.
    pub(crate) fn handled(&self, rpc: Rpc, code: Code) {
        let counters = self.handled.get(rpc as usize);
        if let Some(counter) = counters.and_then(|codes| codes.get(code as usize)) {
            counter.inc();
        }
    }

    /// The text that Prometheus reads, with the gauges as they are now.
    pub(crate) fn render(&self, member: &Member) -> prometheus::Result<Vec<u8>> {
        self.state.set(member);
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
        self.size.set(number(size.total));
        self.size_in_use.set(number(size.in_use));
        self.quota.set(number(member.settings.quota_bytes));
    }
}

fn counter(registry: &Registry, name: &str, help: &str) -> prometheus::Result<IntCounter> {
    let counter = IntCounter::new(name, help)?;
    registry.register(Box::new(counter.clone()))?;
    Ok(counter)
}

fn gauge(registry: &Registry, name: &str, help: &str) -> prometheus::Result<IntGauge> {
    let gauge = IntGauge::new(name, help)?;
    registry.register(Box::new(gauge.clone()))?;
    Ok(gauge)
}

/// A histogram with etcd's buckets for disk latencies: 1 ms doubled to 8 s, and two finer ones below
/// because an SSD's fdatasync would all fall into the first.
fn seconds(registry: &Registry, name: &str, help: &str) -> prometheus::Result<Histogram> {
    let mut buckets = vec![0.000_25, 0.000_5];
    buckets.extend(prometheus::exponential_buckets(0.001, 2.0, 14)?);
    let histogram = Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets))?;
    registry.register(Box::new(histogram.clone()))?;
    Ok(histogram)
}

/// One counter per procedure and code, made once so that a call only adds to an atomic.
fn handled(registry: &Registry) -> prometheus::Result<Vec<Vec<IntCounter>>> {
    let opts = Opts::new(
        "grpc_server_handled_total",
        "Total number of RPCs completed on the server, regardless of success or failure.",
    );
    let labels = ["grpc_type", "grpc_service", "grpc_method", "grpc_code"];
    let family = IntCounterVec::new(opts, &labels)?;
    registry.register(Box::new(family.clone()))?;
    let of = |rpc: &(&str, &str, &str)| {
        let (kind, service, method) = *rpc;
        let codes = CODES.iter();
        codes
            .map(|code| family.get_metric_with_label_values(&[kind, service, method, code]))
            .collect()
    };
    RPCS.iter().map(of).collect()
}
