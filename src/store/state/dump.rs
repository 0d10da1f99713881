//! The state as etcd's database holds it: what is small at once, then the versions of all keys in the
//! order of revisions, while commands go on being applied.

use std::io;
use std::sync::Arc;

use bytes::Bytes;

use super::super::auth::Auth;
use super::super::mvcc::{History, Key, Version};
use super::super::types::{AlarmKind, KeyRange, LeaseId, MemberId, MemberRecord, Revision};
use super::pins::Pin;
use super::transfer::Replaced;
use super::{READ_STEP, State};

/// One moment of a state. It keeps the versions of its moment from being forgotten.
#[derive(Debug)]
pub(crate) struct Dump {
    state: Arc<State>,
    generation: u64,
    _pin: Pin,
    /// The revision of the moment.
    pub(crate) revision: Revision,
    /// The revision of the last compaction, -1 when there was none.
    pub(crate) compact_revision: Revision,
    /// Log index and term of the moment.
    pub(crate) applied: (u64, u64),
    /// What Raft keeps beside the state.
    pub(crate) membership: Option<Bytes>,
    /// Number, granted seconds, and the seconds left when last recorded.
    pub(crate) leases: Vec<(LeaseId, i64, i64)>,
    /// The members.
    pub(crate) members: Vec<MemberRecord>,
    /// The alarms that stand.
    pub(crate) alarms: Vec<(MemberId, AlarmKind)>,
    /// Users, roles and rights.
    pub(crate) auth: Auth,
    /// The system's own records.
    pub(crate) system: Vec<(String, Bytes)>,
}

impl State {
    /// The state as it stands now.
    pub(crate) fn dump(self: &Arc<Self>) -> Dump {
        let contents = self.contents.read();
        let leases = contents.leases.iter();
        let compact_revision = contents.mvcc.compact_revision();
        Dump {
            state: self.clone(),
            generation: contents.generation,
            _pin: contents.pins.pin(compact_revision),
            revision: contents.mvcc.revision(),
            compact_revision,
            applied: (contents.applied.index, contents.applied.term),
            membership: contents.membership.clone(),
            leases: leases.map(|(id, lease)| (id, lease.ttl, lease.remaining)).collect(),
            members: contents.members.values().cloned().collect(),
            alarms: contents.alarms.iter().copied().collect(),
            auth: contents.auth.clone(),
            system: contents.system.clone().into_iter().collect(),
        }
    }
}

impl Dump {
    /// Gives all versions that a compaction leaves, in the order of revisions.
    pub(crate) fn versions(
        &self,
        mut give: impl FnMut(&Version) -> io::Result<()>,
    ) -> io::Result<()> {
        self.kept()?.iter().try_for_each(&mut give)?;
        let mut from = self.compact_revision + 1;
        while from <= self.revision {
            let mut found: Vec<Version> = Vec::new();
            from = self.look(|mvcc| {
                mvcc.versions_since(from, self.revision, READ_STEP, |version| {
                    found.push(version.clone());
                })
            })?;
            found.iter().try_for_each(&mut give)?;
        }
        Ok(())
    }

    /// The versions that the compaction left from before it and from its own revision, at most one for
    /// each key.
    fn kept(&self) -> io::Result<Vec<Version>> {
        let all = KeyRange { key: Bytes::new(), end: Bytes::from_static(&[0]) };
        let mut kept = Vec::new();
        let mut next = (self.compact_revision > 0).then(|| Key::new(&[]));
        while let Some(from) = next.take() {
            next = self.look(|mvcc| {
                for (visited, (key, history)) in mvcc.histories(&all, Some(&from)).enumerate() {
                    if visited == READ_STEP {
                        return Some(key.clone());
                    }
                    let left = left_by(history, self.compact_revision);
                    kept.extend(left.cloned());
                }
                None
            })?;
        }
        kept.sort_unstable_by_key(|version: &Version| version.place());
        Ok(kept)
    }

    fn look<R>(&self, look: impl FnOnce(&super::mvcc::Mvcc) -> R) -> io::Result<R> {
        let contents = self.state.contents.read();
        if contents.generation == self.generation {
            Ok(look(&contents.mvcc))
        } else {
            Err(io::Error::other(Replaced))
        }
    }
}

/// What a compaction at `floor` leaves of what is not later.
fn left_by(history: &History, floor: Revision) -> Option<&Version> {
    let oldest = history.versions().get(history.unseen_from(floor))?;
    (oldest.modified <= floor).then_some(oldest)
}
