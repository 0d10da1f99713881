//! The types that openraft is instantiated with, and their names in this room.

use std::fmt;

use bytes::Bytes;
use openraft::type_config::alias;
use serde::{Deserialize, Serialize};

use crate::store::types::{MemberId, Outcome};

/// A command in its encoded form (`store::codec`), as it stands in the log and on the wire.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Proposal(pub(crate) Bytes);

impl fmt::Debug for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "command of {} bytes", self.0.len())
    }
}

impl fmt::Display for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// What the membership itself says of a member, so that peers can be reached before any state is
/// there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct MemberNode {
    /// `host:port` of its peer listeners, in order of preference.
    pub(crate) addresses: Vec<String>,
    /// Its name; empty until it is known.
    pub(crate) name: String,
    /// It was added to become a voter: the leader promotes it once it has caught up.
    pub(crate) promote: bool,
}

openraft::declare_raft_types!(
    /// How openraft is instantiated. The standard leader id allows one leader in a term, which is
    /// what etcd's clients expect of `raft_term`.
    pub(crate) TypeConfig:
        D = Proposal,
        R = Option<Outcome>,
        NodeId = MemberId,
        Node = MemberNode,
        Term = u64,
        LeaderId = openraft::impls::leader_id_std::LeaderId<u64, MemberId>,
);

pub(crate) type LogId = alias::LogIdOf<TypeConfig>;
pub(crate) type Vote = alias::VoteOf<TypeConfig>;
pub(crate) type Entry = alias::EntryOf<TypeConfig>;
pub(crate) type Payload = alias::PayloadOf<TypeConfig>;
pub(crate) type Membership = openraft::Membership<MemberId, MemberNode>;
pub(crate) type StoredMembership = alias::StoredMembershipOf<TypeConfig>;
pub(crate) type SnapshotMeta = alias::SnapshotMetaOf<TypeConfig>;
pub(crate) type LeaderTerm = alias::CommittedLeaderIdOf<TypeConfig>;
