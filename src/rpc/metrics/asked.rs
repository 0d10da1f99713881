//! What was asked of a member beside keys and leases, and how it ended (etcd `server/etcdserver/metrics.go`,
//! `server/mvcc/metrics.go`, `server/mvcc/backend/metrics.go`).

use prometheus::{Histogram, HistogramTimer, IntCounter, IntCounterVec, IntGauge, Registry};

use super::{counter, counters, gauge, histogram};

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
    /// Duration of each snapshot that a client gets, until it has all of it, in seconds.
    pub(crate) snapshot_seconds: Histogram,
    /// Duration of each defragmentation, in seconds.
    defragment_seconds: Histogram,
    /// 1 while one is under way.
    defragmenting: IntGauge,
}

/// A defragmentation that is under way until this is dropped.
pub(crate) struct Defragmenting {
    under_way: IntGauge,
    _timer: HistogramTimer,
}

impl Drop for Defragmenting {
    fn drop(&mut self) {
        self.under_way.set(0);
    }
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
            hash_seconds: doubling(
                r,
                "etcd_mvcc_hash_duration_seconds",
                "The latency distribution of storage hash operation.",
                (0.01, 15),
            )?,
            hash_revision_seconds: doubling(
                r,
                "etcd_mvcc_hash_rev_duration_seconds",
                "The latency distribution of storage hash by revision operation.",
                (0.01, 15),
            )?,
            snapshot_seconds: doubling(
                r,
                "etcd_disk_backend_snapshot_duration_seconds",
                "The latency distribution of backend snapshots.",
                (0.01, 17),
            )?,
            defragment_seconds: doubling(
                r,
                "etcd_disk_backend_defrag_duration_seconds",
                "The latency distribution of backend defragmentation.",
                (0.1, 13),
            )?,
            defragmenting: gauge(
                r,
                "etcd_disk_defrag_inflight",
                "Whether or not defrag is active on the member. 1 means active, 0 means not.",
            )?,
        })
    }

    /// A defragmentation begins.
    pub(crate) fn defragment(&self) -> Defragmenting {
        self.defragmenting.set(1);
        let under_way = self.defragmenting.clone();
        Defragmenting { under_way, _timer: self.defragment_seconds.start_timer() }
    }
}

/// A histogram with buckets of etcd's: so many, the first of so many seconds, each twice the one before.
fn doubling(
    registry: &Registry,
    name: &str,
    help: &str,
    (first, count): (f64, usize),
) -> prometheus::Result<Histogram> {
    histogram(registry, name, help, prometheus::exponential_buckets(first, 2.0, count)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_defragmentation_is_under_way_until_it_is_dropped() {
        let asked = Asked::new(&Registry::new()).unwrap();
        let under_way = asked.defragment();
        assert_eq!(
            (asked.defragmenting.get(), asked.defragment_seconds.get_sample_count()),
            (1, 0)
        );
        drop(under_way);
        assert_eq!(
            (asked.defragmenting.get(), asked.defragment_seconds.get_sample_count()),
            (0, 1)
        );
    }
}
