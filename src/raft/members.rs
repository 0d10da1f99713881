//! Changes of membership, on the leader. The rules are etcd's
//! (`server/etcdserver/server.go`, `AddMember`, `PromoteMember`, `RemoveMember`), with one
//! difference: a member that is to vote joins as a learner first, so that adding a dead one costs
//! no quorum.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::{ChangeMembershipError, ClientWriteError, RaftError};
use openraft::{ChangeMembers, Instant as _};
use tokio::time::{Instant, sleep};

use super::api::{ConsensusError, RaftStatus};
use super::config::peer_addresses;
use super::net::wire::Lane;
use super::shared::Shared;
use super::status::{fresh, shows};
use super::types::MemberNode;
use crate::cluster::quorum::quorum;
use crate::store::types::{Command, MemberId, MemberRecord};

/// Pause before a change is tried again while another one is under way.
const RETRY_PAUSE: Duration = Duration::from_millis(50);

/// A learner is in sync when it has this share of the leader's log (etcd's `readyPercent`).
const READY_PERCENT: u64 = 90;

/// Whether those of the voters that are up are a quorum also with one more that never comes; one alone
/// must be able to grow (etcd `server/etcdserver/util.go`,
/// `isConnectedToQuorumAfterAddingNewMemberSince`).
fn bears_one_more(up: usize, voters: usize) -> bool {
    voters == 1 || up > voters.div_ceil(2)
}

type Change = ChangeMembers<MemberId, MemberNode>;

impl Shared {
    /// Adds a learner, and asks for its promotion if it is to vote.
    pub(crate) async fn member_add_here(
        &self,
        member: MemberRecord,
        voter: bool,
    ) -> Result<(), ConsensusError> {
        let _changing = self.changing.lock().await;
        let status = fresh(self);
        self.check_new(&status, &member)?;
        if !status.learners.is_empty() {
            return Err(ConsensusError::TooManyLearners);
        }
        if voter {
            self.check_can_add(&status)?;
        }
        let addresses = peer_addresses(&member.peer_urls).map_err(|error| {
            tracing::warn!(%error, "a member cannot be added");
            ConsensusError::PeerUrlExists
        })?;
        self.finish_change().await?;
        let node = MemberNode { addresses, name: member.name.clone(), promote: voter };
        tracing::info!(id = member.id, name = member.name, voter, "adding a member");
        self.change(Change::AddNodes(BTreeMap::from([(member.id, node)])), true).await?;
        self.propose(&Command::MemberPut(member)).await?;
        Ok(())
    }

    fn check_new(&self, status: &RaftStatus, member: &MemberRecord) -> Result<(), ConsensusError> {
        let taken = status.voters.contains(&member.id) || status.learners.contains(&member.id);
        if member.id == 0 || taken || self.links.context.is_removed(member.id) {
            return Err(ConsensusError::MemberExists);
        }
        for other in self.state.members() {
            if other.id == member.id || (!member.name.is_empty() && other.name == member.name) {
                return Err(ConsensusError::MemberExists);
            }
            if other.peer_urls.iter().any(|url| member.peer_urls.contains(url)) {
                return Err(ConsensusError::PeerUrlExists);
            }
        }
        Ok(())
    }

    /// One more voter must leave a quorum of those that are up (etcd's strict reconfig check).
    fn check_can_add(&self, status: &RaftStatus) -> Result<(), ConsensusError> {
        if bears_one_more(self.voters_up(status).len(), status.voters.len()) {
            Ok(())
        } else {
            Err(ConsensusError::Unhealthy)
        }
    }

    /// Voters that are connected: the leader itself, and those it heard of lately.
    fn voters_up(&self, status: &RaftStatus) -> BTreeSet<MemberId> {
        let lately = self.timing.election();
        let metrics = self.raft.metrics().borrow_watched().clone();
        let heard = |id: &MemberId| {
            let acked = metrics.heartbeat.as_ref().and_then(|all| all.get(id)).copied().flatten();
            acked.is_some_and(|acked| acked.elapsed() < lately)
        };
        status.voters.iter().copied().filter(|id| *id == self.id || heard(id)).collect()
    }

    /// Whether a member answered the leader lately.
    pub(crate) fn is_up(&self, id: MemberId) -> bool {
        let metrics = self.raft.metrics().borrow_watched().clone();
        let acked = metrics.heartbeat.as_ref().and_then(|all| all.get(&id)).copied().flatten();
        acked.is_some_and(|acked| acked.elapsed() < self.timing.election())
    }

    /// Makes a learner that is in sync a voter.
    pub(crate) async fn member_promote_here(&self, id: MemberId) -> Result<(), ConsensusError> {
        let _changing = self.changing.lock().await;
        let status = fresh(self);
        if status.voters.contains(&id) {
            return Err(ConsensusError::NotLearner);
        }
        if !status.learners.contains(&id) {
            return Err(ConsensusError::MemberNotFound);
        }
        if !self.is_in_sync(&status, id) {
            return Err(ConsensusError::LearnerNotReady);
        }
        self.finish_change().await?;
        tracing::info!(id, "promoting a learner");
        self.change(Change::AddVoterIds(BTreeSet::from([id])), true).await
    }

    /// Whether a learner has enough of the log to vote.
    pub(crate) fn is_in_sync(&self, status: &RaftStatus, id: MemberId) -> bool {
        let matched = status.matched.get(&id).copied().unwrap_or(0);
        matched > 0
            && matched.saturating_mul(100) >= status.last_log_index.saturating_mul(READY_PERCENT)
            && self.is_up(id)
    }

    /// Removes a member. A leader hands over before it is removed, and the new one does it.
    pub(crate) async fn member_remove_here(&self, id: MemberId) -> Result<(), ConsensusError> {
        if id == self.id {
            self.check_can_remove(&fresh(self), id)?;
            self.transfer(None).await?;
            return Err(ConsensusError::NotLeader);
        }
        let _changing = self.changing.lock().await;
        let status = fresh(self);
        let change = if status.voters.contains(&id) {
            self.check_can_remove(&status, id)?;
            Change::RemoveVoters(BTreeSet::from([id]))
        } else if status.learners.contains(&id) {
            Change::RemoveNodes(BTreeSet::from([id]))
        } else {
            return Err(ConsensusError::MemberNotFound);
        };
        self.finish_change().await?;
        tracing::info!(id, "removing a member");
        self.change(change, false).await?;
        self.propose(&Command::MemberDelete { id }).await?;
        Ok(())
    }

    /// What stays must have a quorum of members that are up.
    fn check_can_remove(&self, status: &RaftStatus, id: MemberId) -> Result<(), ConsensusError> {
        let staying = status.voters.len().saturating_sub(1);
        if staying == 0 {
            return Err(ConsensusError::NotEnoughStarted);
        }
        let mut up = self.voters_up(status);
        if !up.remove(&id) {
            return Ok(());
        }
        if up.len() < staying / 2 + 1 {
            return Err(ConsensusError::Unhealthy);
        }
        Ok(())
    }

    /// Changes where a member is reached.
    pub(crate) async fn member_update_here(
        &self,
        id: MemberId,
        peer_urls: Vec<String>,
    ) -> Result<(), ConsensusError> {
        let _changing = self.changing.lock().await;
        let mut record = self.state.member(id).ok_or(ConsensusError::MemberNotFound)?;
        let others = self.state.members();
        let taken = |other: &MemberRecord| {
            other.id != id && other.peer_urls.iter().any(|url| peer_urls.contains(url))
        };
        let addresses = peer_addresses(&peer_urls);
        let Ok(addresses) = addresses else { return Err(ConsensusError::PeerUrlExists) };
        if others.iter().any(taken) {
            return Err(ConsensusError::PeerUrlExists);
        }
        let roster = self.links.context.roster.load_full();
        let mut node = roster.nodes.get(&id).cloned().ok_or(ConsensusError::MemberNotFound)?;
        node.addresses = addresses;
        self.change(Change::SetNodes(BTreeMap::from([(id, node)])), true).await?;
        record.peer_urls = peer_urls;
        self.propose(&Command::MemberPut(record)).await?;
        Ok(())
    }

    /// Ends a change of voters whose leader died in the middle of it, between the joint membership
    /// and the new one.
    pub(crate) async fn finish_change(&self) -> Result<(), ConsensusError> {
        let joint = {
            let metrics = self.raft.metrics();
            let metrics = metrics.borrow_watched();
            metrics.membership_config.membership().get_joint_config().len() > 1
        };
        if joint {
            tracing::info!("finishing a change of membership that was left half done");
            self.change(Change::AddVoterIds(BTreeSet::new()), false).await?;
        }
        Ok(())
    }

    /// Commits a change; waits for another one that is under way.
    async fn change(&self, change: Change, retain: bool) -> Result<(), ConsensusError> {
        let deadline = Instant::now() + self.timing.request_timeout();
        while Instant::now() < deadline {
            let error = match self.raft.change_membership(change.clone(), retain).await {
                Ok(written) => {
                    shows(self, written.log_id).await;
                    return Ok(());
                }
                Err(RaftError::Fatal(_)) => return Err(ConsensusError::Stopped),
                Err(RaftError::APIError(error)) => error,
            };
            match error {
                ClientWriteError::ForwardToLeader(_) => return Err(ConsensusError::NotLeader),
                ClientWriteError::LogEntryDiscarded(_) => {
                    return Err(ConsensusError::LeaderChanged);
                }
                ClientWriteError::ChangeMembershipError(ChangeMembershipError::InProgress(_)) => {
                    sleep(RETRY_PAUSE).await;
                }
                ClientWriteError::ChangeMembershipError(
                    ChangeMembershipError::LearnerNotFound(_),
                ) => return Err(ConsensusError::MemberNotFound),
                error => {
                    tracing::warn!(%error, "the membership cannot be changed");
                    return Err(ConsensusError::Unhealthy);
                }
            }
        }
        Err(ConsensusError::Timeout)
    }

    /// Hands leadership to `to`, or to a voter that answers, those first that have most of the log;
    /// waits until it is done. Gives up when for an election time-out no quorum of voters can be reached.
    pub(crate) async fn transfer(&self, to: Option<MemberId>) -> Result<(), ConsensusError> {
        let status = fresh(self);
        if !status.is_leader() {
            return Err(ConsensusError::NotLeader);
        }
        match to {
            Some(to) if to == self.id => return Ok(()),
            Some(to) if !status.voters.contains(&to) => return Err(ConsensusError::BadTransferee),
            None if status.voters.len() < 2 => return Err(ConsensusError::BadTransferee),
            _ => {}
        }
        let begun = Instant::now();
        let (hopeless, deadline) =
            (begun + self.timing.election(), begun + 4 * self.timing.election());
        let mut watching = self.status.subscribe();
        // Each has more time than the one before, so that an election on a slow machine is not
        // disturbed for ever.
        let mut patience = self.timing.election() / 4;
        for turn in 0.. {
            if Instant::now() >= deadline {
                break;
            }
            let to = match to {
                Some(to) => to,
                None => match self.heir(&status, turn).await {
                    Err(ConsensusError::Unhealthy) if Instant::now() < hopeless => {
                        sleep(RETRY_PAUSE).await;
                        continue;
                    }
                    heir => heir?,
                },
            };
            tracing::info!(to, "handing leadership over");
            if self.raft.trigger().transfer_leader(to).await.is_err() {
                return Err(ConsensusError::Stopped);
            }
            let moved = watching.wait_for(|status| status.leader.is_some_and(|id| id != self.id));
            if tokio::time::timeout(patience, moved).await.is_ok() {
                return Ok(());
            }
            patience *= 2;
        }
        Err(ConsensusError::Timeout)
    }

    /// Who is to lead next: of the other voters that can be reached the one with most of the log, after
    /// it the next, and so on; those that are slow to answer last.
    async fn heir(&self, status: &RaftStatus, turn: usize) -> Result<MemberId, ConsensusError> {
        let others = status.voters.iter().copied().filter(|id| *id != self.id);
        let asked = others.map(async |id| (self.answers(id).await, id));
        let mut there = futures::future::join_all(asked).await;
        there.retain(|(answers, _)| *answers != Some(false));
        if there.len() + 1 < quorum(status.voters.len()) {
            return Err(ConsensusError::Unhealthy);
        }
        let matched = |id: &MemberId| status.matched.get(id).copied().unwrap_or(0);
        there.sort_by_key(|(answers, id)| (answers.is_none(), Reverse(matched(id))));
        let heir = there.get(turn % there.len().max(1));
        heir.map(|(_, id)| *id).ok_or(ConsensusError::BadTransferee)
    }

    /// Whether a member answers at this moment. `None`: not in time, which says little of one on a
    /// machine that has much to do. The leader's heartbeats cannot tell: while it hands over there are
    /// none.
    async fn answers(&self, id: MemberId) -> Option<bool> {
        let Some(link) = self.links.to(id, Lane::Urgent) else { return Some(false) };
        let answer = tokio::time::timeout(self.timing.election() / 4, link.ping()).await;
        answer.ok().map(|answer| answer.is_ok())
    }
}

#[cfg(test)]
mod tests {
    use super::bears_one_more;

    #[test]
    fn a_voter_is_added_where_a_quorum_with_it_is_up() {
        for (voters, needed) in [(1, 1), (2, 2), (3, 3), (4, 3), (5, 4), (6, 4), (7, 5)] {
            assert!(bears_one_more(needed, voters), "{needed} of {voters}");
            assert!(!bears_one_more(needed - 1, voters) || voters == 1, "{voters}");
        }
    }
}
