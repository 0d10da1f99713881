//! The thresholds of all checks, each with where it comes from. docs/preflight.md has the same table.

/// 99 of 100 writes of a server's log should be durable within this, in microseconds (etcd's FAQ and
/// metrics documentation: "p99 duration should be less than 10ms").
pub(super) const FSYNC_GOOD_US: u64 = 10_000;

/// A server with a slower disk is refused, in microseconds. A heartbeat of 100 ms then waits behind a
/// few writes, and leaders are lost under load.
pub(super) const FSYNC_REFUSED_US: u64 = 25_000;

/// 99 of 100 commits of the applied state should take less, in microseconds (etcd's metrics
/// documentation).
pub(super) const COMMIT_GOOD_US: u64 = 25_000;

/// Processors of a server (K3s's requirements).
pub(super) const SERVER_CPUS: u32 = 2;

/// Memory of a server in bytes: K3s's requirement of 2 GB. A machine sold with 2 GiB has a tenth less
/// for its users, for the kernel takes its part.
pub(super) const SERVER_MEMORY_BYTES: u64 = 1800 * MIB;

/// Memory of an agent in bytes: K3s's 512 MB, likewise.
pub(super) const AGENT_MEMORY_BYTES: u64 = 460 * MIB;

/// Free memory below this is close to being out of it, in bytes: the kubelet's default for evictions.
pub(super) const MEMORY_LEFT_BYTES: u64 = 100 * MIB;

/// A server whose store may grow to its quota should have this left, in bytes (etcd's default quota).
pub(super) const STORE_ROOM_BYTES: u64 = crate::limits::QUOTA_BYTES_DEFAULT;

/// A disk with less than this share left is filling up, in percent (the kubelet's default threshold).
pub(super) const DISK_LEFT_PERCENT: u64 = 10;

/// … and with less than this it is full: K3s's kubelet evicts (`nodefs.available<5%`).
pub(super) const DISK_FULL_PERCENT: u64 = 5;

/// With this much left, in bytes, a share says nothing.
pub(super) const DISK_LEFT_BYTES: u64 = 20 * 1024 * MIB;

/// Clocks that differ more than this from the median are refused, in milliseconds (k0sctl's limit).
pub(super) const SKEW_REFUSED_MS: u64 = 30_000;

/// Clocks that differ more than this are pointed out, in milliseconds: K3s ends when a certificate
/// on disk is this much newer than the datastore's.
pub(super) const SKEW_WARNED_MS: u64 = 3_000;

/// A round trip between servers that takes longer is pointed out, in microseconds: half of the
/// heartbeat interval of 100 ms, and what etcd's metrics documentation wants of peers.
pub(super) const RTT_WARNED_US: u64 = 50_000;

/// Entries that a member may be behind before it is pointed out.
pub(super) const LAG_WARNED: u64 = 1_000;

/// Entries behind at which etcd refuses writes (`maxGapBetweenApplyAndCommitIndex`).
pub(super) const LAG_BAD: u64 = 5_000;

/// Share of the quota at which the store is pointed out, in percent.
pub(super) const QUOTA_WARNED_PERCENT: u64 = 80;

/// … and at which it is about to be refused (etcd's alert `etcdDatabaseQuotaLowSpace`).
pub(super) const QUOTA_BAD_PERCENT: u64 = 95;

/// Leaves with fewer days left are pointed out: they are renewed with 120 days left, so something
/// keeps them from it.
pub(super) const LEAF_DAYS: u64 = 30;

/// CAs with fewer days left are pointed out: nothing renews them.
pub(super) const CA_DAYS: u64 = 180;

/// So many changes of the leader in [`LEADER_WINDOW_S`] are too many (etcd's alert
/// `etcdHighNumberOfLeaderChanges`).
pub(super) const LEADER_CHANGES_BAD: u64 = 4;

/// The alert's window, in seconds.
pub(super) const LEADER_WINDOW_S: u64 = 15 * 60;

/// More changes than this in an hour are pointed out.
pub(super) const LEADER_CHANGES_WARNED_PER_HOUR: u64 = 1;

/// A learner is promoted as soon as it has caught up; older ones are stuck, in seconds.
pub(super) const LEARNER_AGE_S: u64 = 5 * 60;

/// Load per processor above which processes wait, in thousandths.
pub(super) const LOAD_PER_CPU_MILLI: u64 = 2_000;

pub(super) const MIB: u64 = 1024 * 1024;
