//! What changed since the last checkpoint. Versions are not marked one by one: those since the
//! last recorded revision stand in the journal, which is not trimmed beyond it.

use std::collections::BTreeSet;

use super::super::mvcc::Forgotten;
use super::super::types::{AlarmKind, LeaseId, MemberId, Revision};
use super::contents::{Applied, Contents};
use super::records::{Header, Record};

/// What a change that holds no version is counted for.
const SMALL_BYTES: u64 = 64;

/// Marks since the last call of [`super::State::take_dirty`].
#[derive(Debug, Default)]
pub(super) struct Tracker {
    /// Everything up to this entry was taken.
    pub(super) applied: Applied,
    /// All versions up to this revision were taken.
    pub(super) revision: Revision,
    /// Bytes of versions that were ever written by then.
    pub(super) written_bytes: u64,
    /// Versions that were taken and are gone since.
    pub(super) forgotten: Vec<Forgotten>,
    pub(super) leases: BTreeSet<LeaseId>,
    pub(super) members: BTreeSet<MemberId>,
    pub(super) alarms: BTreeSet<(MemberId, AlarmKind)>,
    pub(super) system: BTreeSet<String>,
    pub(super) auth: bool,
}

/// Records that changed, to be written together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changes {
    /// With these the records stand at this log index.
    pub applied_index: u64,
    /// The term of that entry.
    pub applied_term: u64,
    /// And at this revision.
    pub revision: Revision,
    /// What changed; empty when no entry was applied since.
    pub records: Vec<Record>,
}

impl Contents {
    /// Begins to mark changes from here on.
    pub(super) fn track(&mut self) {
        self.tracker = Some(Tracker {
            applied: self.applied,
            revision: self.mvcc.revision(),
            written_bytes: self.mvcc.written_bytes(),
            ..Tracker::default()
        });
    }

    /// The records of what is marked, except versions, and begins afresh.
    pub(super) fn take_marks(&mut self) -> Option<(Tracker, Vec<Record>)> {
        self.tracker.as_ref()?;
        let taken = self.tracker.take()?;
        self.track();
        if taken.applied == self.applied && taken.forgotten.is_empty() {
            return Some((taken, Vec::new()));
        }
        let mut records = vec![Record::header(&self.header())];
        records.extend(taken.forgotten.iter().copied().map(Record::forgotten));
        records.extend(taken.leases.iter().map(|id| Record::lease(*id, self.leases.get(*id))));
        records.extend(taken.members.iter().map(|id| Record::member(*id, self.members.get(id))));
        records.extend(taken.alarms.iter().map(|(member, kind)| {
            Record::alarm(*member, *kind, self.alarms.contains(&(*member, *kind)))
        }));
        records.extend(taken.system.iter().map(|name| Record::system(name, self.system.get(name))));
        records.extend(taken.auth.then(|| Record::auth(&self.auth)).flatten());
        Some((taken, records))
    }

    /// About how many bytes of changes are marked.
    pub(super) fn marked_bytes(&self) -> u64 {
        self.tracker.as_ref().map_or(0, |tracker| {
            let entries = self.applied.index.saturating_sub(tracker.applied.index);
            let small = entries.saturating_add(tracker.forgotten.len() as u64) * SMALL_BYTES;
            small.saturating_add(self.mvcc.written_bytes().saturating_sub(tracker.written_bytes))
        })
    }

    /// The numbers of the state as a whole.
    pub(super) fn header(&self) -> Header {
        Header {
            revision: self.mvcc.revision(),
            compact_revision: self.mvcc.compact_revision(),
            applied: self.applied,
            membership: self.membership.clone(),
        }
    }

    /// Marks something, if anybody cares.
    pub(super) fn mark(&mut self, mark: impl FnOnce(&mut Tracker)) {
        if let Some(tracker) = &mut self.tracker {
            mark(tracker);
        }
    }
}
