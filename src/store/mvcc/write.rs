//! Writing: the changes of one revision, with their effect on leases and the events they make.

use bytes::Bytes;

use super::super::lease::Leases;
use super::super::types::{
    DeleteOutcome, DeleteRange, Event, LeaseId, Put, PutOutcome, RangeQuery, RangeResult, Revision,
    StoreError,
};
use super::catchup::event;
use super::{Counts, History, Mvcc, Version, range, weight};

/// The writing of one revision. All checks were made before: nothing here can fail.
pub(crate) struct Writer<'a> {
    mvcc: &'a mut Mvcc,
    leases: &'a mut Leases,
    begin: Revision,
    changes: u32,
    events: Option<Vec<Event>>,
    done: Counts,
}

impl<'a> Writer<'a> {
    /// Begins a revision. `record` asks for the events it makes.
    pub(crate) fn new(mvcc: &'a mut Mvcc, leases: &'a mut Leases, record: bool) -> Self {
        let begin = mvcc.revision;
        let events = record.then(Vec::new);
        Self { mvcc, leases, begin, changes: 0, events, done: Counts::default() }
    }

    /// The revision as it stands: one ahead of where it began as soon as something changed.
    pub(crate) fn revision(&self) -> Revision {
        self.begin + i64::from(self.changes > 0)
    }

    /// Ends the revision: the store moves on if something changed. Gives the events in order.
    pub(crate) fn finish(self) -> Vec<Event> {
        self.mvcc.revision = self.revision();
        self.mvcc.counts.add(self.done);
        self.events.unwrap_or_default()
    }

    /// Reads, seeing what was written so far.
    pub(crate) fn range(&mut self, query: &RangeQuery) -> Result<RangeResult, StoreError> {
        self.done.ranges += 1;
        range::range(query, self.mvcc, self.revision())
    }

    /// Writes a key. With `ignore_value` or `ignore_lease` on a key that is not there (which is
    /// refused before) the value is empty and the lease none.
    pub(crate) fn put(&mut self, put: &Put) -> PutOutcome {
        let current = self.mvcc.keys.get(&put.key).and_then(History::latest);
        let prev_kv = current.filter(|_| put.prev_kv).map(|version| version.to_pair(&put.key));
        let value = match current {
            Some(version) if put.ignore_value => version.value.clone(),
            None if put.ignore_value => Bytes::new(),
            // A copy, because the request's buffer holds more than this value and would live as
            // long.
            _ => Bytes::copy_from_slice(&put.value),
        };
        let lease = match current {
            Some(version) if put.ignore_lease => version.lease,
            _ => put.lease,
        };
        self.done.puts += 1;
        self.done.put_bytes += (put.key.len() + value.len()) as u64;
        self.write(&put.key, value, lease);
        PutOutcome { revision: self.revision(), prev_kv }
    }

    fn write(&mut self, key: &[u8], value: Bytes, lease: LeaseId) {
        let modified = self.begin + 1;
        let mut version =
            Version { modified, sub: self.changes, created: modified, number: 1, lease, value };
        let mut old_lease = 0;
        let mut replaced = None;
        let added = weight(key, &version);
        let events = &mut self.events;
        let key = if let Some((key, history)) = self.mvcc.entry(key) {
            // The bytes that journal, leases and events share are those of the index.
            let key = key.clone();
            if let Some(current) = history.latest() {
                old_lease = current.lease;
                version.created = current.created;
                version.number = current.number + 1;
                replaced = Some(weight(&key, current));
            }
            if let Some(events) = events {
                let before = history.at(self.begin).filter(|_| version.created < modified);
                events.push(event(&key, &version, before.map(|before| before.to_pair(&key))));
            }
            history.push(version);
            key
        } else {
            let key = Bytes::copy_from_slice(key);
            if let Some(events) = events {
                events.push(event(&key, &version, None));
            }
            // Moved, not cloned: bytes that were never shared take less memory.
            self.mvcc.keys.insert(key.clone(), History::One(version));
            key
        };
        self.mvcc.live_bytes = self.mvcc.live_bytes - replaced.unwrap_or(0) + added;
        self.mvcc.live_keys += u64::from(replaced.is_none());
        self.mvcc.count_written(added);
        if old_lease != lease {
            self.leases.detach(old_lease, &key);
            self.leases.attach(lease, &key);
        }
        self.changed(key);
    }

    /// Deletes the keys of a range that exist now.
    pub(crate) fn delete_range(&mut self, delete: &DeleteRange) -> DeleteOutcome {
        self.done.deletes += 1;
        let mut keys = Vec::new();
        let mut prev_kvs = Vec::new();
        for (key, history) in self.mvcc.histories(&delete.range, None) {
            if let Some(version) = history.latest() {
                keys.push(key.clone());
                if delete.prev_kv {
                    prev_kvs.push(version.to_pair(key));
                }
            }
        }
        let deleted = i64::try_from(keys.len()).unwrap_or(i64::MAX);
        for key in keys {
            self.delete(key);
        }
        DeleteOutcome { revision: self.revision(), deleted, prev_kvs }
    }

    /// Deletes one key; nothing happens when it does not exist.
    pub(crate) fn delete_key(&mut self, key: Bytes) {
        self.done.deletes += 1;
        self.delete(key);
    }

    fn delete(&mut self, key: Bytes) {
        let tombstone = Version::tombstone(self.begin + 1, self.changes);
        let Some(history) = self.mvcc.keys.get_mut(&key) else { return };
        let Some(current) = history.latest() else { return };
        let lease = current.lease;
        self.mvcc.live_bytes -= weight(&key, current);
        self.mvcc.live_keys -= 1;
        let added = weight(&key, &tombstone);
        if let Some(events) = &mut self.events {
            let prev_kv = history.at(self.begin).map(|version| version.to_pair(&key));
            events.push(event(&key, &tombstone, prev_kv));
        }
        history.push(tombstone);
        self.mvcc.count_written(added);
        self.leases.detach(lease, &key);
        self.changed(key);
    }

    fn changed(&mut self, key: Bytes) {
        self.changes += 1;
        self.mvcc.journal.push(self.begin + 1, key);
    }
}
