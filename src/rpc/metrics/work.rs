//! How much a member's store did, under etcd's names (`server/storage/mvcc/metrics.go`,
//! `server/lease/metrics.go`).

use parking_lot::Mutex;
use prometheus::{IntCounter, IntGauge, Registry};

use super::{counter, gauge};
use crate::store::state::State;

/// What the state counts itself, copied at the time of asking.
pub(super) struct WorkCounters {
    puts: [IntCounter; 1],
    deletes: [IntCounter; 1],
    ranges: [IntCounter; 2],
    txns: [IntCounter; 1],
    granted: [IntCounter; 1],
    revoked: [IntCounter; 1],
    renewed: [IntCounter; 1],
    expired: [IntCounter; 1],
    put_bytes: IntGauge,
    keys: IntGauge,
    auth_revision: IntGauge,
    alone: Mutex<()>,
}

impl WorkCounters {
    pub(super) fn new(r: &Registry) -> prometheus::Result<Self> {
        let put_bytes = "The total size of put kv pairs seen by this member.";
        let ranges = "Total number of ranges seen by this member.";
        Ok(Self {
            puts: [counter(r, "etcd_mvcc_put_total", "Total number of puts seen by this member.")?],
            deletes: [counter(
                r,
                "etcd_mvcc_delete_total",
                "Total number of deletes seen by this member.",
            )?],
            ranges: [
                counter(r, "etcd_mvcc_range_total", ranges)?,
                counter(r, "etcd_debugging_mvcc_range_total", ranges)?,
            ],
            txns: [counter(r, "etcd_mvcc_txn_total", "Total number of txns seen by this member.")?],
            granted: [counter(
                r,
                "etcd_debugging_lease_granted_total",
                "The total number of granted leases.",
            )?],
            revoked: [counter(
                r,
                "etcd_debugging_lease_revoked_total",
                "The total number of revoked leases.",
            )?],
            renewed: [counter(
                r,
                "etcd_debugging_lease_renewed_total",
                "The number of renewed leases seen by the leader.",
            )?],
            expired: [counter(
                r,
                "etcd_debugging_server_lease_expired_total",
                "The total number of expired leases.",
            )?],
            put_bytes: gauge(r, "etcd_debugging_mvcc_total_put_size_in_bytes", put_bytes)?,
            keys: gauge(r, "etcd_debugging_mvcc_keys_total", "Total number of keys.")?,
            auth_revision: gauge(
                r,
                "etcd_debugging_auth_revision",
                "The current revision of auth store.",
            )?,
            alone: Mutex::new(()),
        })
    }

    pub(super) fn set(&self, state: &State) {
        // Two who ask at once must not both add what is new.
        let _alone = self.alone.lock();
        let work = state.work();
        for (counters, now) in [
            (&self.puts[..], work.keys.puts),
            (&self.deletes, work.keys.deletes),
            (&self.ranges, work.keys.ranges),
            (&self.txns, work.keys.txns),
            (&self.granted, work.granted),
            (&self.revoked, work.revoked),
            (&self.renewed, work.renewed),
            (&self.expired, work.expired),
        ] {
            for counter in counters {
                counter.inc_by(now.saturating_sub(counter.get()));
            }
        }
        let number = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        self.put_bytes.set(number(work.keys.put_bytes));
        self.keys.set(number(state.key_count()));
        self.auth_revision.set(number(state.rights(|auth, _| auth.revision)));
    }
}
