//! How much a member's store did, under etcd's names (`server/storage/mvcc/metrics.go`,
//! `server/lease/metrics.go`).

use parking_lot::Mutex;
use prometheus::{IntCounter, IntGauge, Registry};

use super::{counter, gauge};
use crate::store::state::{State, Work};

/// What one of them counts.
type Of = fn(&Work) -> u64;

/// Name, help and what is counted.
const COUNTERS: [(&str, &str, Of); 10] = [
    ("etcd_mvcc_put_total", "Total number of puts seen by this member.", |work| work.keys.puts),
    ("etcd_mvcc_delete_total", "Total number of deletes seen by this member.", |work| {
        work.keys.deletes
    }),
    ("etcd_mvcc_range_total", "Total number of ranges seen by this member.", |work| {
        work.keys.ranges
    }),
    ("etcd_debugging_mvcc_range_total", "Total number of ranges seen by this member.", |work| {
        work.keys.ranges
    }),
    ("etcd_mvcc_txn_total", "Total number of txns seen by this member.", |work| work.keys.txns),
    (
        "etcd_debugging_mvcc_db_compaction_keys_total",
        "Total number of db keys compacted.",
        |work| work.keys.forgotten,
    ),
    ("etcd_debugging_lease_granted_total", "The total number of granted leases.", |work| {
        work.granted
    }),
    ("etcd_debugging_lease_revoked_total", "The total number of revoked leases.", |work| {
        work.revoked
    }),
    (
        "etcd_debugging_lease_renewed_total",
        "The number of renewed leases seen by the leader.",
        |work| work.renewed,
    ),
    ("etcd_debugging_server_lease_expired_total", "The total number of expired leases.", |work| {
        work.expired
    }),
];

/// What the state counts itself, copied at the time of asking.
pub(super) struct WorkCounters {
    /// Two who ask at once must not both add what is new.
    counters: Mutex<Vec<(IntCounter, Of)>>,
    put_bytes: IntGauge,
    keys: IntGauge,
    auth_revision: IntGauge,
    watchers_behind: IntGauge,
}

impl WorkCounters {
    pub(super) fn new(r: &Registry) -> prometheus::Result<Self> {
        let made = COUNTERS.into_iter().map(|(name, help, of)| Ok((counter(r, name, help)?, of)));
        Ok(Self {
            counters: Mutex::new(made.collect::<prometheus::Result<_>>()?),
            put_bytes: gauge(
                r,
                "etcd_debugging_mvcc_total_put_size_in_bytes",
                "The total size of put kv pairs seen by this member.",
            )?,
            keys: gauge(r, "etcd_debugging_mvcc_keys_total", "Total number of keys.")?,
            auth_revision: gauge(
                r,
                "etcd_debugging_auth_revision",
                "The current revision of auth store.",
            )?,
            watchers_behind: gauge(
                r,
                "etcd_debugging_mvcc_slow_watcher_total",
                "Total number of unsynced slow watchers.",
            )?,
        })
    }

    pub(super) fn set(&self, state: &State) {
        let counters = self.counters.lock();
        let work = state.work();
        for (counter, of) in counters.iter() {
            counter.inc_by(of(&work).saturating_sub(counter.get()));
        }
        let number = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        self.put_bytes.set(number(work.keys.put_bytes));
        self.keys.set(number(state.key_count()));
        self.watchers_behind.set(number(state.watchers_behind()));
        self.auth_revision.set(number(state.rights(|auth, _| auth.revision)));
    }
}
