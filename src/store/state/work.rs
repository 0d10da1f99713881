//! How much was done since the start, for metrics. It is not part of the state: members differ in it.

use std::sync::atomic::{AtomicU64, Ordering};

use super::State;
use crate::store::mvcc::Counts;

/// What was done without the log.
#[derive(Debug, Default)]
pub(super) struct Asides {
    ranges: AtomicU64,
    txns: AtomicU64,
    renewed: AtomicU64,
    expired: AtomicU64,
}

/// What commands did to leases.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct LeaseCounts {
    pub(super) granted: u64,
    pub(super) revoked: u64,
}

/// How much was done since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// To keys.
    pub keys: Counts,
    /// Leases that were granted.
    pub granted: u64,
    /// Leases that were revoked, whoever asked for it.
    pub revoked: u64,
    /// Leases that were renewed here, by the leader.
    pub renewed: u64,
    /// Leases that ended here, on the leader.
    pub expired: u64,
}

impl State {
    /// How much was done since the start.
    pub fn work(&self) -> Work {
        let contents = self.contents.read();
        let (mut keys, leases) = (contents.mvcc.counts, contents.lease_counts);
        drop(contents);
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        keys.ranges += of(&self.asides.ranges);
        keys.txns += of(&self.asides.txns);
        Work {
            keys,
            granted: leases.granted,
            revoked: leases.revoked,
            renewed: of(&self.asides.renewed),
            expired: of(&self.asides.expired),
        }
    }

    /// How many keys there are.
    pub fn key_count(&self) -> u64 {
        self.contents.read().mvcc.live_keys()
    }

    /// How many watchers have something to be told yet.
    pub fn watchers_behind(&self) -> u64 {
        u64::try_from(self.hub.behind()).unwrap_or(u64::MAX)
    }

    /// Notes so many reads of one request.
    pub(super) fn note_ranges(&self, ranges: u64) {
        self.asides.ranges.fetch_add(ranges, Ordering::Relaxed);
        self.asides.txns.fetch_add(u64::from(ranges > 1), Ordering::Relaxed);
    }

    /// Notes that a lease was renewed here.
    pub(crate) fn note_renewal(&self) {
        self.asides.renewed.fetch_add(1, Ordering::Relaxed);
    }

    /// Notes that a lease ended here.
    pub(crate) fn note_expiry(&self) {
        self.asides.expired.fetch_add(1, Ordering::Relaxed);
    }
}
