//! The versions of a state in the order of revisions, read in steps while commands go on being applied.

use std::sync::Arc;

use bytes::Bytes;

use super::super::mvcc::{History, Key, Mvcc, Version};
use super::super::types::{KeyRange, Revision};
use super::transfer::Replaced;
use super::{READ_STEP, State};

/// Versions up to a revision, none of which may be forgotten before all were given: whoever has this
/// pins them.
#[derive(Debug)]
pub(super) struct Versions {
    state: Arc<State>,
    generation: u64,
    /// Those that the compaction left are still to be found.
    floor: Option<Revision>,
    /// What is to be read next, and the last.
    from: Revision,
    to: Revision,
    found: std::vec::IntoIter<Version>,
}

impl Versions {
    /// All up to `to` that a compaction at `floor` leaves, of the contents of this generation.
    pub(super) fn left(state: Arc<State>, generation: u64, floor: Revision, to: Revision) -> Self {
        let floor = floor.max(0);
        let all = Self::after(state, generation, floor, to);
        Self { floor: (floor > 0).then_some(floor), ..all }
    }

    /// Those made after `from` and up to `to`.
    pub(super) fn after(state: Arc<State>, generation: u64, from: Revision, to: Revision) -> Self {
        let found = Vec::new().into_iter();
        Self { state, generation, floor: None, from: from + 1, to, found }
    }

    /// Reads some more.
    fn read(&mut self) -> Result<(), Replaced> {
        let mut found = Vec::new();
        if let Some(floor) = self.floor.take() {
            found = self.kept(floor)?;
        } else {
            let (from, to) = (self.from, self.to);
            self.from = self.look(|mvcc| {
                mvcc.versions_since(from, to, READ_STEP, |version| found.push(version.clone()))
            })?;
        }
        self.found = found.into_iter();
        Ok(())
    }

    /// The versions that the compaction left from before it and from its own revision, at most one for
    /// each key.
    fn kept(&self, floor: Revision) -> Result<Vec<Version>, Replaced> {
        let all = KeyRange { key: Bytes::new(), end: Bytes::from_static(&[0]) };
        let mut kept = Vec::new();
        let mut next = Some(Key::new(&[]));
        while let Some(from) = next.take() {
            next = self.look(|mvcc| {
                for (visited, (key, history)) in mvcc.histories(&all, Some(&from)).enumerate() {
                    if visited == READ_STEP {
                        return Some(key.clone());
                    }
                    kept.extend(left_by(history, floor).cloned());
                }
                None
            })?;
        }
        kept.sort_unstable_by_key(|version: &Version| version.place());
        Ok(kept)
    }

    fn look<R>(&self, look: impl FnOnce(&Mvcc) -> R) -> Result<R, Replaced> {
        Ok(look(&self.state.contents_of(self.generation)?.mvcc))
    }
}

impl Iterator for Versions {
    type Item = Result<Version, Replaced>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(version) = self.found.next() {
                return Some(Ok(version));
            }
            if self.floor.is_none() && self.from > self.to {
                return None;
            }
            if let Err(replaced) = self.read() {
                // There is nothing more.
                (self.floor, self.from) = (None, self.to + 1);
                return Some(Err(replaced));
            }
        }
    }
}

/// What a compaction at `floor` leaves of what is not later.
fn left_by(history: &History, floor: Revision) -> Option<&Version> {
    let oldest = history.versions().get(history.unseen_from(floor))?;
    (oldest.modified <= floor).then_some(oldest)
}
