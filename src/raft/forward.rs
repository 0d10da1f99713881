//! Requests that only the leader can answer: asked here, or sent on to where the leader is.
//!
//! A request is sent again only while it is certain that it was not made: it never left, or the
//! other side was not the leader.

use std::time::Duration;

use bytes::Bytes;
use openraft::errors::{ClientWriteError, RaftError};
use openraft::impls::ProgressResponder;
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::api::{Applied, ConsensusError, LeaseView};
use super::net::link::CallError;
use super::net::wire::{self, Kind, Lane};
use super::shared::Shared;
use super::types::{LeaderTerm, Proposal};
use crate::store::types::{Command, LeaseId, MemberId, MemberRecord, Outcome};

/// Pause before a request is tried again.
const RETRY_PAUSE: Duration = Duration::from_millis(10);

/// What a member asks the leader, beside proposals.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Call {
    ReadIndex,
    LeaseRenew(LeaseId),
    LeaseView { id: LeaseId, keys: bool },
    MemberAdd { member: MemberRecord, voter: bool },
    MemberPromote(MemberId),
    MemberRemove(MemberId),
    MemberUpdate { id: MemberId, peer_urls: Vec<String> },
}

/// What a request is told that found no leader (etcd `server/etcdserver/v3_server.go`, `waitLeader`,
/// and `server.go`, `mayAddMember`).
#[derive(Clone, Copy)]
enum Leaderless {
    /// It waits as long as it may, and its time is over.
    Timeout,
    /// It waits as long as it may, and is told why it waited.
    NoLeader,
    /// It waits for an election time-out only: the cluster is not well enough for it.
    Unhealthy,
}

impl Leaderless {
    fn error(self) -> ConsensusError {
        match self {
            Self::Timeout => ConsensusError::Timeout,
            Self::NoLeader => ConsensusError::NoLeader,
            Self::Unhealthy => ConsensusError::Unhealthy,
        }
    }
}

impl Call {
    fn leaderless(&self) -> Leaderless {
        match self {
            Self::ReadIndex | Self::MemberRemove(_) | Self::MemberUpdate { .. } => {
                Leaderless::Timeout
            }
            Self::LeaseRenew(_) | Self::LeaseView { .. } | Self::MemberPromote(_) => {
                Leaderless::NoLeader
            }
            Self::MemberAdd { .. } => Leaderless::Unhealthy,
        }
    }
}

/// What the leader answers.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Told {
    Index(u64),
    Ttl(i64),
    Lease(LeaseView),
    Done,
}

/// The leader's answer to a proposal: index, term, outcome.
type Committed = Result<(u64, u64, Outcome), ConsensusError>;

impl Shared {
    /// Replicates a command and waits until it is applied here.
    pub(crate) async fn propose(&self, command: &Command) -> Result<Applied, ConsensusError> {
        let _permit = self.admit()?;
        let bytes = crate::store::codec::encode(command);
        self.until_made(Leaderless::Timeout, |leader| self.propose_at(leader, bytes.clone())).await
    }

    /// Has the leader answer `call`.
    pub(crate) async fn ask(&self, call: Call) -> Result<Told, ConsensusError> {
        self.until_made(call.leaderless(), |leader| self.call_at(leader, call.clone())).await
    }

    /// Repeats `attempt` while it answers that nothing was done, until the request's time is over.
    async fn until_made<T, F: Future<Output = Result<T, ConsensusError>>>(
        &self,
        leaderless: Leaderless,
        attempt: impl Fn(MemberId) -> F,
    ) -> Result<T, ConsensusError> {
        let deadline = Instant::now() + self.timing.request_timeout();
        let mut status = self.status.subscribe();
        let tried = async {
            loop {
                let leader = {
                    let now = status.borrow_and_update();
                    if now.failed.is_some() || self.is_closing() {
                        return Err(ConsensusError::Stopped);
                    }
                    now.leader
                };
                if let Some(leader) = leader {
                    match attempt(leader).await {
                        Err(ConsensusError::NotLeader | ConsensusError::NoLeader) => {}
                        result => return result,
                    }
                    sleep(RETRY_PAUSE).await;
                    continue;
                }
                let wait = match leaderless {
                    Leaderless::Unhealthy => self.timing.election(),
                    Leaderless::Timeout | Leaderless::NoLeader => self.timing.request_timeout(),
                };
                let found = status.wait_for(|now| {
                    now.leader.is_some() || now.failed.is_some() || self.is_closing()
                });
                match timeout(wait, found).await {
                    Ok(Ok(_)) => {}
                    Ok(Err(_)) => return Err(ConsensusError::Stopped),
                    Err(_) => return Err(leaderless.error()),
                }
            }
        };
        let gone = || match self.status.borrow().leader {
            None => leaderless.error(),
            Some(_) => ConsensusError::Timeout,
        };
        timeout_at(deadline, tried).await.unwrap_or_else(|_| Err(gone()))
    }

    async fn propose_at(&self, leader: MemberId, bytes: Bytes) -> Result<Applied, ConsensusError> {
        if leader == self.id {
            // Answered when it is applied.
            let (index, term, outcome) = self.propose_here(bytes).await?;
            return Ok(Applied { index, term, outcome });
        }
        let reply = self.send(leader, |id| Ok(wire::frame_raw(Kind::Propose, id, &bytes)));
        let committed: Committed = reply.await?;
        let (index, term, outcome) = committed?;
        self.applied_upto(index).await?;
        Ok(Applied { index, term, outcome })
    }

    /// Proposes on this member. [`ConsensusError::NotLeader`] means that nothing was done.
    async fn propose_here(&self, bytes: Bytes) -> Committed {
        let written = match self.raft.client_write(Proposal(bytes)).await {
            Ok(written) => written,
            Err(RaftError::APIError(ClientWriteError::ForwardToLeader(_))) => {
                return Err(ConsensusError::NotLeader);
            }
            Err(RaftError::APIError(ClientWriteError::LogEntryDiscarded(_))) => {
                return Err(ConsensusError::LeaderChanged);
            }
            Err(error) => {
                tracing::error!(%error, "a proposal failed");
                return Err(ConsensusError::Stopped);
            }
        };
        let outcome = written.data.ok_or(ConsensusError::LeaderChanged)?;
        Ok((written.log_id.index, written.log_id.leader_id.term, outcome))
    }

    /// Proposes on this member if it still leads in `term`, and waits until it is applied.
    pub(crate) async fn propose_in_term(
        &self,
        bytes: Bytes,
        term: u64,
    ) -> Result<(), ConsensusError> {
        let (responder, written) = ProgressResponder::complete_only();
        let leader = LeaderTerm { term };
        let write = self.raft.write(Proposal(bytes)).responder(responder).with_leader(leader);
        write.await.map_err(|_| ConsensusError::Stopped)?;
        match written.await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(ConsensusError::NotLeader),
            Err(_) => Err(ConsensusError::Stopped),
        }
    }

    async fn call_at(&self, leader: MemberId, call: Call) -> Result<Told, ConsensusError> {
        if leader == self.id {
            return self.serve_call(call).await;
        }
        let told: Result<Told, ConsensusError> =
            self.send(leader, |id| wire::frame_of(Kind::Call, id, &call)).await?;
        told
    }

    /// Sends a frame to a member and reads the answer. [`ConsensusError::NotLeader`] when it never
    /// left, so that it may be tried again.
    async fn send<T: serde::de::DeserializeOwned>(
        &self,
        to: MemberId,
        frame: impl FnOnce(u64) -> Result<Bytes, wire::WireError>,
    ) -> Result<T, ConsensusError> {
        let link = self.links.to(to, Lane::Client).ok_or(ConsensusError::NotLeader)?;
        let id = link.next_id();
        let frame = frame(id).map_err(|_| ConsensusError::NotLeader)?;
        let body = link.call(id, frame).await.map_err(|error| match error {
            CallError::NotSent(_) => ConsensusError::NotLeader,
            CallError::Lost | CallError::Failed(_) => ConsensusError::ConnectionLost,
        })?;
        wire::body_of(&body).map_err(|_| ConsensusError::ConnectionLost)
    }

    /// A proposal that came from another member.
    pub(crate) async fn serve_propose(&self, bytes: Bytes) -> Committed {
        let _permit = self.admit()?;
        self.propose_here(bytes).await
    }

    /// A question that came from another member, or from this one, which leads.
    pub(crate) async fn serve_call(&self, call: Call) -> Result<Told, ConsensusError> {
        if !self.status.borrow().is_leader() {
            return Err(ConsensusError::NotLeader);
        }
        match call {
            Call::ReadIndex => self.read_index().await.map(Told::Index),
            Call::LeaseRenew(id) => self.lease_renew_here(id).await.map(Told::Ttl),
            Call::LeaseView { id, keys } => self.lease_view_here(id, keys).await.map(Told::Lease),
            Call::MemberAdd { member, voter } => {
                self.member_add_here(member, voter).await.map(|()| Told::Done)
            }
            Call::MemberPromote(id) => self.member_promote_here(id).await.map(|()| Told::Done),
            Call::MemberRemove(id) => self.member_remove_here(id).await.map(|()| Told::Done),
            Call::MemberUpdate { id, peer_urls } => {
                self.member_update_here(id, peer_urls).await.map(|()| Told::Done)
            }
        }
    }
}
