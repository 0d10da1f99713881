//! Writing: the changes of one revision, with their effect on leases and the events they make.

use super::super::lease::Leases;
use super::super::types::{
    DeleteOutcome, DeleteRange, Event, LeaseId, Put, PutOutcome, RangeQuery, RangeResult, Revision,
    StoreError,
};
use super::catchup::event;
use super::{Counts, History, Key, Mvcc, Numbers, Version, range, weight};

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
        let current = self.mvcc.history(&put.key).and_then(History::latest).cloned();
        let value = match &current {
            Some(version) if put.ignore_value => version.value(),
            None if put.ignore_value => &[],
            _ => &put.value,
        };
        let lease = match &current {
            Some(version) if put.ignore_lease => version.lease,
            _ => put.lease,
        };
        self.done.puts += 1;
        self.done.put_bytes += (put.key.len() + value.len()) as u64;
        self.write(&put.key, value, lease);
        let prev_kv = current.filter(|_| put.prev_kv).as_ref().map(Version::to_pair);
        PutOutcome { revision: self.revision(), prev_kv }
    }

    fn write(&mut self, key: &[u8], value: &[u8], lease: LeaseId) {
        let modified = self.begin + 1;
        let mut numbers =
            Numbers { modified, sub: self.changes, created: modified, number: 1, lease };
        let mut old_lease = 0;
        let mut replaced = None;
        let version = if let Some((key, history)) = self.mvcc.entry(key) {
            if let Some(current) = history.latest() {
                old_lease = current.lease;
                numbers.created = current.created;
                numbers.number = current.number + 1;
                replaced = Some(weight(current));
            }
            let version = Version::new(key.clone(), numbers, value);
            if let Some(events) = &mut self.events {
                let before = history.at(self.begin).filter(|_| version.created < modified);
                events.push(event(&version, before.map(Version::to_pair)));
            }
            history.push(version.clone());
            version
        } else {
            let key = Key::new(key);
            let version = Version::new(key.clone(), numbers, value);
            if let Some(events) = &mut self.events {
                events.push(event(&version, None));
            }
            self.mvcc.keys.insert(key, History::One(version.clone()));
            version
        };
        let added = weight(&version);
        self.mvcc.live_bytes = self.mvcc.live_bytes - replaced.unwrap_or(0) + added;
        self.mvcc.live_keys += u64::from(replaced.is_none());
        self.mvcc.count_written(added);
        if old_lease != lease {
            self.leases.detach(old_lease, version.key());
            if lease != 0 {
                self.leases.attach(lease, version.key().to_bytes());
            }
        }
        self.changed(version);
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
                    prev_kvs.push(version.to_pair());
                }
            }
        }
        let deleted = i64::try_from(keys.len()).unwrap_or(i64::MAX);
        for key in keys {
            self.delete(&key);
        }
        DeleteOutcome { revision: self.revision(), deleted, prev_kvs }
    }

    /// Deletes one key; nothing happens when it does not exist.
    pub(crate) fn delete_key(&mut self, key: &[u8]) {
        self.done.deletes += 1;
        self.delete(key);
    }

    fn delete(&mut self, key: &[u8]) {
        let numbers = Numbers::tombstone(self.begin + 1, self.changes);
        let Some((key, history)) = self.mvcc.entry(key) else { return };
        let Some(current) = history.latest() else { return };
        let (lease, replaced) = (current.lease, weight(current));
        let tombstone = Version::new(key.clone(), numbers, &[]);
        if let Some(events) = &mut self.events {
            let prev_kv = history.at(self.begin).map(Version::to_pair);
            events.push(event(&tombstone, prev_kv));
        }
        history.push(tombstone.clone());
        self.mvcc.live_bytes -= replaced;
        self.mvcc.live_keys -= 1;
        self.mvcc.count_written(weight(&tombstone));
        self.leases.detach(lease, tombstone.key());
        self.changed(tombstone);
    }

    fn changed(&mut self, version: Version) {
        self.changes += 1;
        self.mvcc.journal.push(version);
    }
}
