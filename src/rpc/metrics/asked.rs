//! What was asked of a member beside keys and leases, and how it ended (etcd `server/etcdserver/metrics.go`,
//! `server/mvcc/metrics.go`).

use prometheus::{Histogram, IntCounter, IntCounterVec, Registry};

use super::{counter, counters, histogram};

/// Counted by the member that was asked.
pub(crate) struct Asked {
    /// Linearizable reads that waited for the leader's word in vain.
    pub(crate) reads_slow: IntCounter,
    /// Linearizable reads that failed otherwise.
    pub(crate) reads_failed: IntCounter,
    /// Learners that were promoted as this member was asked to.
    pub(crate) promoted: IntCounter,
    /// By reason.
    pub(crate) not_promoted: IntCounterVec,
    /// Duration of each hash of all there is, in seconds.
    pub(crate) hash_seconds: Histogram,
    /// Duration of each hash of the keys up to a revision, in seconds.
    pub(crate) hash_revision_seconds: Histogram,
}

impl Asked {
    pub(super) fn new(r: &Registry) -> prometheus::Result<Self> {
        Ok(Self {
            reads_slow: counter(
                r,
                "etcd_server_slow_read_indexes_total",
                "The total number of pending read indexes not in sync with leader's or timed out read \
                 index requests.",
            )?,
            reads_failed: counter(
                r,
                "etcd_server_read_indexes_failed_total",
                "The total number of failed read indexes seen.",
            )?,
            promoted: counter(
                r,
                "etcd_server_learner_promote_successes",
                "The total number of successful learner promotions while this member is leader.",
            )?,
            not_promoted: counters(
                r,
                "etcd_server_learner_promote_failures",
                "The total number of failed learner promotions (likely learner not ready) while this \
                 member is leader.",
                &["Reason"],
            )?,
            hash_seconds: hash_seconds(
                r,
                "etcd_mvcc_hash_duration_seconds",
                "The latency distribution of storage hash operation.",
            )?,
            hash_revision_seconds: hash_seconds(
                r,
                "etcd_mvcc_hash_rev_duration_seconds",
                "The latency distribution of storage hash by revision operation.",
            )?,
        })
    }
}

/// A histogram with etcd's buckets for hashes: 10 ms doubled to 164 s.
fn hash_seconds(registry: &Registry, name: &str, help: &str) -> prometheus::Result<Histogram> {
    histogram(registry, name, help, prometheus::exponential_buckets(0.01, 2.0, 15)?)
}
