//! Compaction: history up to a revision is forgotten. What can be read changes at once; memory is
//! given back in steps, so that no writer waits for it.

use super::super::types::{Revision, StoreError};
use super::{Mvcc, Version, weight};

/// How far the memory of forgotten versions was given back.
#[derive(Debug, Default)]
pub(super) struct Trim {
    /// All keys were trimmed to this revision.
    done: Revision,
    /// The revision that keys are trimmed to now, and how many of the changes made in that very
    /// revision were visited. These changes stay in the journal: they can still be read.
    under_way: Option<(Revision, usize)>,
}

/// A version that is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Forgotten {
    /// Its revision.
    pub(crate) revision: Revision,
    /// Its place in the revision.
    pub(crate) sub: u32,
}

impl Mvcc {
    /// Forgets the history before `revision`, which itself stays readable.
    pub(crate) fn compact(&mut self, revision: Revision) -> Result<(), StoreError> {
        if revision <= self.compact_revision {
            return Err(StoreError::Compacted);
        }
        if revision > self.revision {
            return Err(StoreError::FutureRevision);
        }
        self.compact_revision = revision;
        Ok(())
    }

    /// Gives back the memory of up to `budget` changes, of none that a reader of `floor` may
    /// need. Tells each version that went. Gives whether more is to be done.
    pub(crate) fn trim(
        &mut self,
        floor: Revision,
        budget: usize,
        mut forgotten: impl FnMut(Forgotten),
    ) -> bool {
        for _ in 0..budget {
            if self.trim.under_way.is_none() {
                let target = self.compact_revision.min(floor);
                self.trim.under_way = (target > self.trim.done).then_some((target, 0));
            }
            let Some((target, visited)) = self.trim.under_way else { return false };
            let visited = self.trim_next(target, visited, &mut forgotten);
            self.trim.under_way = visited.map(|visited| (target, visited));
            if visited.is_none() {
                self.trim.done = target;
            }
        }
        true
    }

    /// Trims the key of one change. Gives how many changes of `target` itself were visited, or
    /// nothing when all is done.
    fn trim_next(
        &mut self,
        target: Revision,
        visited: usize,
        forgotten: &mut impl FnMut(Forgotten),
    ) -> Option<usize> {
        let is_older = self.journal.front().is_some_and(|change| change.modified < target);
        if is_older {
            let change = self.journal.pop_front()?;
            self.trim_key(change.key(), target, forgotten);
            return Some(visited);
        }
        let change = self.journal.since(target, visited).next()?;
        if change.modified != target {
            return None;
        }
        let key = change.key().clone();
        self.trim_key(&key, target, forgotten);
        Some(visited + 1)
    }

    fn trim_key(&mut self, key: &[u8], target: Revision, forgotten: &mut impl FnMut(Forgotten)) {
        let Some(history) = self.keys.get_mut(key) else { return };
        let (mut freed, mut count) = (0, 0);
        let is_left = history.trim(target, |version: &Version| {
            freed += weight(version);
            count += 1;
            forgotten(Forgotten { revision: version.modified, sub: version.sub });
        });
        self.bytes -= freed;
        self.counts.forgotten += count;
        if !is_left {
            self.keys.remove(key);
        }
    }
}
