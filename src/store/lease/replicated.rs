//! What all members know of leases. No time: when one ends is decided by the leader, which then
//! proposes to revoke it.

use std::collections::{BTreeMap, HashSet};

use bytes::Bytes;

use super::super::types::{LeaseId, StoreError};
use crate::limits::LEASE_TTL_SECONDS_MAX;

/// One lease.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lease {
    /// Granted time to live in seconds.
    pub ttl: i64,
    /// Seconds left when it was last recorded; 0 when it was not.
    pub remaining: i64,
    keys: HashSet<Bytes>,
}

impl Lease {
    /// A lease nothing is attached to.
    pub(crate) fn new(ttl: i64, remaining: i64) -> Self {
        Self { ttl, remaining, keys: HashSet::new() }
    }

    /// The attached keys, sorted.
    pub fn keys(&self) -> Vec<Bytes> {
        let mut keys: Vec<_> = self.keys.iter().cloned().collect();
        keys.sort_unstable();
        keys
    }

    /// The seconds that a new leader gives it: what was left when last recorded, else all.
    pub fn seconds_left(&self) -> i64 {
        if self.remaining > 0 { self.remaining } else { self.ttl }
    }
}

/// All leases.
#[derive(Debug, Default)]
pub(crate) struct Leases(BTreeMap<LeaseId, Lease>);

impl Leases {
    /// Creates a lease. The shortest time to live is the proposer's decision.
    pub(crate) fn grant(&mut self, id: LeaseId, ttl: i64) -> Result<(), StoreError> {
        if id == 0 {
            return Err(StoreError::LeaseNotFound);
        }
        if ttl > LEASE_TTL_SECONDS_MAX {
            return Err(StoreError::LeaseTtlTooLarge);
        }
        if self.0.contains_key(&id) {
            return Err(StoreError::LeaseExists);
        }
        self.0.insert(id, Lease::new(ttl, 0));
        Ok(())
    }

    /// Puts back a lease from a record.
    pub(crate) fn restore(&mut self, id: LeaseId, lease: Lease) {
        self.0.insert(id, lease);
    }

    /// Removes a lease. Its keys are the caller's to delete.
    pub(crate) fn remove(&mut self, id: LeaseId) -> Option<Lease> {
        self.0.remove(&id)
    }

    /// One lease.
    pub(crate) fn get(&self, id: LeaseId) -> Option<&Lease> {
        self.0.get(&id)
    }

    /// Records what is left of a lease; gives whether there is such a lease.
    pub(crate) fn checkpoint(&mut self, id: LeaseId, remaining: i64) -> bool {
        match self.0.get_mut(&id) {
            Some(lease) => {
                lease.remaining = remaining;
                true
            }
            None => false,
        }
    }

    /// All leases by number.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (LeaseId, &Lease)> {
        self.0.iter().map(|(id, lease)| (*id, lease))
    }

    /// Attaches a key; 0 is no lease.
    pub(crate) fn attach(&mut self, id: LeaseId, key: Bytes) {
        if let Some(lease) = self.0.get_mut(&id) {
            lease.keys.insert(key);
        }
    }

    /// Detaches a key; 0 is no lease.
    pub(crate) fn detach(&mut self, id: LeaseId, key: &[u8]) {
        if let Some(lease) = self.0.get_mut(&id) {
            lease.keys.remove(key);
        }
    }
}
