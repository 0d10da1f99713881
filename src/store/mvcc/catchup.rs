//! Events from history, for a watcher that is behind.

use bytes::Bytes;

use super::super::types::{Event, EventKind, KeyRange, KeyValue, Revision, StoreError};
use super::{Mvcc, Version, contains};

impl Mvcc {
    /// Gives the events of the keys in `range`, one revision after the other from `from` on, also
    /// revisions without any; until `give` wants no more or about `budget` changes were visited.
    /// Gives up to which revision all was given.
    pub(crate) fn events_since(
        &self,
        range: &KeyRange,
        from: Revision,
        budget: usize,
        mut give: impl FnMut(Revision, Vec<Event>) -> bool,
    ) -> Result<Revision, StoreError> {
        if from < self.compact_revision {
            return Err(StoreError::Compacted);
        }
        let mut changes = self.journal.since(from, 0).peekable();
        let mut visited = 0;
        while let Some(first) = changes.next() {
            let revision = first.revision;
            let mut found = Vec::new();
            let mut change = Some(first);
            while let Some(current) = change {
                visited += 1;
                if contains(range, &current.key) {
                    self.events_of(&current.key, revision, &mut found);
                }
                change = changes.next_if(|next| next.revision == revision);
            }
            // A key that changed twice was found twice.
            found.sort_by_key(|(sub, _)| *sub);
            found.dedup_by_key(|(sub, _)| *sub);
            let events = found.into_iter().map(|(_, event)| event).collect();
            if !give(revision, events) || visited >= budget {
                return Ok(revision);
            }
        }
        Ok(self.revision)
    }

    /// Gives the versions made in `from..=to`, whole revisions, until about `budget` were visited.
    /// Gives the revision to go on with.
    pub(crate) fn versions_since(
        &self,
        from: Revision,
        to: Revision,
        budget: usize,
        mut give: impl FnMut(&Bytes, &Version),
    ) -> Revision {
        let mut last: Option<(Revision, &Bytes)> = None;
        for (visited, change) in self.journal.since(from, 0).enumerate() {
            if change.revision > to {
                break;
            }
            let is_next = last.is_some_and(|(revision, _)| revision != change.revision);
            if is_next && visited >= budget {
                return change.revision;
            }
            let Some(history) = self.keys.get(&change.key) else { continue };
            for version in history.changes_of(change.revision) {
                give(&change.key, version);
            }
            last = Some((change.revision, &change.key));
        }
        to + 1
    }

    /// The changes of one key in one revision, each with its place in the revision.
    fn events_of(&self, key: &Bytes, revision: Revision, found: &mut Vec<(u32, Event)>) {
        let Some(history) = self.keys.get(key) else { return };
        // As etcd, which reads at the revision before: compacted there, it is left out.
        let before = (revision > self.compact_revision).then(|| history.at(revision - 1)).flatten();
        for version in history.changes_of(revision) {
            let is_creation = version.created == revision;
            let prev_kv = before.filter(|_| !is_creation).map(|before| before.to_pair(key));
            found.push((version.sub, event(key, version, prev_kv)));
        }
    }
}

/// The event that a change made.
pub(super) fn event(key: &Bytes, version: &Version, prev_kv: Option<KeyValue>) -> Event {
    if version.is_tombstone() {
        let kv =
            KeyValue { key: key.clone(), mod_revision: version.modified, ..KeyValue::default() };
        Event { kind: EventKind::Delete, kv, prev_kv }
    } else {
        Event { kind: EventKind::Put, kv: version.to_pair(key), prev_kv }
    }
}
