//! What changed since the last checkpoint. Versions are not marked one by one: those since the
//! last recorded revision stand in the journal, which is not trimmed beyond it.

use std::collections::BTreeSet;

use super::super::auth::Auth;
use super::super::mvcc::Forgotten;
use super::super::types::{AlarmKind, LeaseId, MemberId, Revision};
use super::contents::{Applied, Contents};
use super::pins::Pin;
use super::records::{Header, Record};
use super::transfer::Replaced;
use super::versions::Versions;

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

/// Records that changed, or all of them, to be written together: given while commands are applied on.
///
/// Versions come last, in the order of revisions. They are read as they are asked for, so that they are not in
/// memory twice; until this is dropped none of them is forgotten.
#[derive(Debug)]
pub struct Changes {
    /// With these the records stand at this log index.
    pub applied_index: u64,
    /// The term of that entry.
    pub applied_term: u64,
    _pin: Pin,
    ready: std::vec::IntoIter<Record>,
    versions: Versions,
}

impl Changes {
    /// Those of `contents` as it stands, of which no version after `pinned` may be forgotten.
    pub(super) fn of(
        contents: &Contents,
        pinned: Revision,
        ready: Vec<Record>,
        versions: Versions,
    ) -> Self {
        let Applied { index: applied_index, term: applied_term } = contents.applied;
        let pin = contents.pins.pin(pinned);
        Self { applied_index, applied_term, _pin: pin, ready: ready.into_iter(), versions }
    }

    /// Whether no entry was applied since.
    pub fn is_empty(&self) -> bool {
        self.ready.as_slice().is_empty()
    }
}

impl Iterator for Changes {
    type Item = Result<Record, Replaced>;

    fn next(&mut self) -> Option<Self::Item> {
        match self.ready.next() {
            Some(record) => Some(Ok(record)),
            None => Some(self.versions.next()?.map(|version| Record::version(&version))),
        }
    }
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

    /// All records but versions, the header first.
    pub(super) fn small_records(&self) -> Vec<Record> {
        let mut records = vec![Record::header(&self.header())];
        records.extend(self.leases.iter().map(|(id, lease)| Record::lease(id, Some(lease))));
        records.extend(self.members.iter().map(|(id, member)| Record::member(*id, Some(member))));
        let alarms = self.alarms.iter();
        records.extend(alarms.map(|(member, kind)| Record::alarm(*member, *kind, true)));
        records.extend((self.auth != Auth::default()).then(|| Record::auth(&self.auth)).flatten());
        records.extend(self.system.iter().map(|(name, value)| Record::system(name, Some(value))));
        records
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
