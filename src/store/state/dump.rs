//! The state as etcd's database holds it: what is small at once, then the versions of all keys in the
//! order of revisions, while commands go on being applied.

use std::io;
use std::sync::Arc;

use bytes::Bytes;

use super::super::auth::Auth;
use super::super::mvcc::Version;
use super::super::types::{AlarmKind, LeaseId, MemberId, MemberRecord, Revision};
use super::State;
use super::pins::Pin;
use super::versions::Versions;

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
        let (state, generation) = (self.state.clone(), self.generation);
        let mut versions = Versions::left(state, generation, self.compact_revision, self.revision);
        versions.try_for_each(|version| give(&version.map_err(io::Error::other)?))
    }
}
