//! What the node asks of consensus: propose, read safely, change membership, tell how it stands.
//!
//! The etcd services are written against [`Consensus`] and nothing else of this room.

use std::collections::BTreeMap;

use futures::future::BoxFuture;
use tokio::sync::watch;

use crate::store::types::{ClusterId, Command, LeaseId, MemberId, MemberRecord, Outcome};

/// A command that was committed and applied on this member.
#[derive(Clone, Debug)]
pub struct Applied {
    /// Its log index.
    pub index: u64,
    /// The term it was committed in.
    pub term: u64,
    /// The state machine's answer.
    pub outcome: Outcome,
}

/// Why consensus could not do it. Each maps to one of etcd's errors (rpc layer).
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize, thiserror::Error)]
pub enum ConsensusError {
    /// There is no leader.
    #[error("no leader")]
    NoLeader,
    /// The leader changed while waiting; a write may or may not have been made.
    #[error("leader changed")]
    LeaderChanged,
    /// No answer within the request time-out; a write may or may not have been made.
    #[error("request timed out")]
    Timeout,
    /// The connection to the leader was lost while waiting.
    #[error("request timed out, possibly due to connection lost")]
    ConnectionLost,
    /// Only the leader can do this, and this member is not it.
    #[error("not leader")]
    NotLeader,
    /// No such member.
    #[error("member not found")]
    MemberNotFound,
    /// The member's number or name is taken.
    #[error("member ID already exist")]
    MemberExists,
    /// Another member has one of the peer URLs.
    #[error("Peer URLs already exists")]
    PeerUrlExists,
    /// It is a voter already.
    #[error("can only promote a learner member")]
    NotLearner,
    /// It has not caught up.
    #[error("can only promote a learner member which is in sync with leader")]
    LearnerNotReady,
    /// One learner at a time.
    #[error("too many learner members in cluster")]
    TooManyLearners,
    /// The change would leave too few started members.
    #[error("re-configuration failed due to not enough started members")]
    NotEnoughStarted,
    /// The change would leave the cluster without a healthy quorum.
    #[error("unhealthy cluster")]
    Unhealthy,
    /// Leadership cannot go to this member.
    #[error("bad leader transferee")]
    BadTransferee,
    /// More requests wait than the member takes.
    #[error("too many requests")]
    TooManyRequests,
    /// The member is stopping.
    #[error("server stopped")]
    Stopped,
}

/// How a member stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RaftStatus {
    /// This member.
    pub id: MemberId,
    /// The current term.
    pub term: u64,
    /// The leader, if there is one: `None` also when the last one has been silent, or this member
    /// leads and no quorum answered it, for one and a half election time-outs.
    pub leader: Option<MemberId>,
    /// Last log index on this member.
    pub last_log_index: u64,
    /// Last committed index known here.
    pub committed_index: u64,
    /// Last applied index.
    pub applied_index: u64,
    /// Members that vote.
    pub voters: Vec<MemberId>,
    /// Members that only learn.
    pub learners: Vec<MemberId>,
    /// Of the learners those that are to vote as soon as they have caught up.
    pub voters_to_be: Vec<MemberId>,
    /// On the leader: how far each other member's log is known to match.
    pub matched: BTreeMap<MemberId, u64>,
    /// This member was removed from the cluster: its data is of no use any more, and it must not
    /// be started again under this number.
    pub removed: bool,
    /// A peer said that this cluster took the place of the member's own, by a restore or a reset: its
    /// data is of the past, and it must not go on.
    pub superseded: Option<ClusterId>,
    /// Why this member's log can take only little more, if so: its disk is (nearly) full.
    pub low_space: Option<String>,
    /// Why this member stopped for good, for example an I/O error of its log. It takes no part in
    /// the cluster until it is started again.
    pub failed: Option<String>,
}

impl RaftStatus {
    /// Whether this member leads.
    pub fn is_leader(&self) -> bool {
        self.leader == Some(self.id)
    }

    /// Whether this member leads and another one could instead.
    pub fn can_hand_over(&self) -> bool {
        self.is_leader() && self.voters.len() > 1
    }

    /// Whether this member is a learner.
    pub fn is_learner(&self) -> bool {
        self.learners.contains(&self.id)
    }
}

/// A lease as its leader sees it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct LeaseView {
    /// Granted seconds.
    pub granted_ttl: i64,
    /// Seconds left; -1 when there is no such lease.
    pub ttl: i64,
    /// Keys attached to it, sorted.
    pub keys: Vec<bytes::Bytes>,
}

/// Consensus as the layers above see it. One per member; all methods may be called on any member
/// and are forwarded to the leader where that is needed.
pub trait Consensus: Send + Sync + 'static {
    /// Replicates `command` and waits until it is applied **on this member**, so that a read here
    /// sees it. Times out after etcd's 5 s + 2 × election time-out.
    fn propose(&self, command: Command) -> BoxFuture<'_, Result<Applied, ConsensusError>>;

    /// Waits until this member has applied all that was committed before the call (ReadIndex):
    /// afterwards a local read is linearizable. Calls made together share one round.
    fn read_barrier(&self) -> BoxFuture<'_, Result<(), ConsensusError>>;

    /// Renews a lease on the leader. Gives the new TTL in seconds, 0 when there is no such lease.
    fn lease_renew(&self, id: LeaseId) -> BoxFuture<'_, Result<i64, ConsensusError>>;

    /// Asks the leader how long a lease has left.
    fn lease_view(
        &self,
        id: LeaseId,
        keys: bool,
    ) -> BoxFuture<'_, Result<LeaseView, ConsensusError>>;

    /// Puts leases into the order in which they end, as far as this member knows: only the leader
    /// does, on others they stay as they are.
    fn lease_sort(&self, leases: &mut [LeaseId]);

    /// Adds a member as learner and records it. `voter` asks for automatic promotion once it has
    /// caught up. Answers at once, before the member has started.
    fn member_add(
        &self,
        member: MemberRecord,
        voter: bool,
    ) -> BoxFuture<'_, Result<(), ConsensusError>>;

    /// Makes a learner that is in sync (at least 90 % of the leader's log) a voter.
    fn member_promote(&self, id: MemberId) -> BoxFuture<'_, Result<(), ConsensusError>>;

    /// Removes a member. A leader that is removed hands over first.
    fn member_remove(&self, id: MemberId) -> BoxFuture<'_, Result<(), ConsensusError>>;

    /// Changes a member's peer URLs.
    fn member_update(
        &self,
        id: MemberId,
        peer_urls: Vec<String>,
    ) -> BoxFuture<'_, Result<(), ConsensusError>>;

    /// Moves leadership to `to`, or to the most advanced voter. Only on the leader.
    fn transfer_leader(&self, to: Option<MemberId>) -> BoxFuture<'_, Result<(), ConsensusError>>;

    /// How this member stands, live.
    fn status(&self) -> watch::Receiver<RaftStatus>;

    /// Writes a snapshot file now and lets the log be purged up to it; waits until it is on disk.
    fn snapshot_now(&self) -> BoxFuture<'_, Result<(), ConsensusError>>;

    /// Hands leadership over if this member leads, then stops: nothing is accepted any more and
    /// everything that was acknowledged is on disk.
    fn shutdown(&self) -> BoxFuture<'_, ()>;
}
