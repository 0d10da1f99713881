//! Events from history, for a watcher that is behind.

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
            let revision = first.modified;
            let mut events = Vec::new();
            let mut change = Some(first);
            while let Some(current) = change {
                visited += 1;
                if contains(range, current.key()) {
                    events.extend(self.event_of(current));
                }
                change = changes.next_if(|next| next.modified == revision);
            }
            if !give(revision, events) || visited >= budget {
                return Ok(revision);
            }
        }
        Ok(self.revision)
    }

    /// Gives the versions made in `from..=to`, whole revisions, until about `budget` were given. `from`
    /// is later than what was trimmed. Gives the revision to go on with.
    pub(crate) fn versions_since(
        &self,
        from: Revision,
        to: Revision,
        budget: usize,
        mut give: impl FnMut(&Version),
    ) -> Revision {
        let mut last = None;
        for (given, change) in self.journal.since(from, 0).enumerate() {
            if change.modified > to {
                break;
            }
            let is_next = last.is_some_and(|revision| revision != change.modified);
            if is_next && given >= budget {
                return change.modified;
            }
            give(change);
            last = Some(change.modified);
        }
        to + 1
    }

    /// The event of a change, unless the compaction of its revision forgot it: of a key that changed
    /// twice in it the last change is left.
    fn event_of(&self, change: &Version) -> Option<Event> {
        let history = self.keys.get(change.key())?;
        history.changes_of(change.modified).iter().find(|left| left.sub == change.sub)?;
        let is_creation = change.created == change.modified;
        // As etcd, which reads at the revision before: compacted there, it is left out.
        let before = (change.modified > self.compact_revision && !is_creation)
            .then(|| history.at(change.modified - 1))
            .flatten();
        Some(event(change, before.map(Version::to_pair)))
    }
}

/// The event that a change made.
pub(super) fn event(version: &Version, prev_kv: Option<KeyValue>) -> Event {
    let kind = if version.is_tombstone() { EventKind::Delete } else { EventKind::Put };
    Event { kind, kv: version.to_pair(), prev_kv }
}
