//! openraft's view of the peers: its calls as frames on links.

use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use futures::stream::{BoxStream, StreamExt};
use futures::{Stream, future::BoxFuture};
use openraft::StorageError;
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{RPCOption, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendResult,
    TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
};
use serde::{Serialize, de::DeserializeOwned};
use tokio::sync::oneshot;

use super::super::snapshot::SnapshotFile;
use super::super::types::{LogId, MemberNode, TypeConfig, Vote};
use super::link::{Answer, CallError, Link};
use super::links::Links;
use super::server::SnapshotHead;
use super::traffic::{Passage, Way};
use super::wire::{self, Kind, Lane, WireError};
use crate::store::types::MemberId;

/// Append requests on their way to one peer at the same time.
const APPEND_WINDOW: usize = 64;
/// Snapshot chunks on their way to one peer at the same time.
const SNAPSHOT_WINDOW: usize = 8;
/// Bytes of a snapshot in one frame.
const SNAPSHOT_CHUNK_BYTES: usize = 256 * 1024;

type Snapshot = openraft::type_config::alias::SnapshotOf<TypeConfig, SnapshotFile>;
type RpcError = RPCError<TypeConfig>;

/// Makes [`Peer`]s for openraft.
pub(crate) struct PeerFactory(pub(crate) Arc<Links>);

/// openraft's handle on one peer.
pub(crate) struct Peer {
    links: Arc<Links>,
    target: MemberId,
    node: MemberNode,
    append_lane: Lane,
}

impl PeerFactory {
    fn peer(&self, target: MemberId, node: &MemberNode, append_lane: Lane) -> Peer {
        Peer { links: self.0.clone(), target, node: node.clone(), append_lane }
    }
}

impl RaftNetworkFactory<TypeConfig> for PeerFactory {
    type Network = Peer;

    async fn new_client(&mut self, target: MemberId, node: &MemberNode) -> Peer {
        self.peer(target, node, Lane::Append)
    }

    async fn new_heartbeat_client(&mut self, target: MemberId, node: &MemberNode) -> Peer {
        self.peer(target, node, Lane::Urgent)
    }
}

impl Peer {
    fn link(&self, lane: Lane) -> Arc<Link> {
        self.links.get(self.target, &self.node, lane)
    }

    /// One question and its answer, both postcard, on the urgent lane.
    async fn ask<Q: Serialize, A: DeserializeOwned>(
        &self,
        kind: Kind,
        question: &Q,
    ) -> Result<A, RpcError> {
        let link = self.link(Lane::Urgent);
        let id = link.next_id();
        let frame = wire::frame_of(kind, id, question).map_err(|error| garbled(&error))?;
        let body = link.call(id, frame).await.map_err(|error| failed(&error))?;
        wire::body_of(&body).map_err(|error| garbled(&error))
    }

    async fn send_snapshot(&self, vote: Vote, snapshot: Snapshot) -> Result<Vote, SendError> {
        let link = self.link(Lane::Snapshot);
        let call = |kind, body: &[u8]| {
            let id = link.next_id();
            answer(link.send(id, wire::frame_raw(kind, id, body)))
        };
        let file = &snapshot.snapshot;
        let length = file.length()?;
        let head = SnapshotHead { vote, meta: snapshot.meta, length };
        let head = postcard::to_stdvec(&head).map_err(WireError::Body)?;
        call(Kind::SnapshotBegin, &head).await?;
        let mut sent = VecDeque::new();
        let mut offset = 0;
        while offset < length {
            if sent.len() == SNAPSHOT_WINDOW
                && let Some(oldest) = sent.pop_front()
            {
                answer(oldest).await?;
            }
            let left = usize::try_from(length - offset).unwrap_or(usize::MAX);
            let chunk = file.read(offset, left.min(SNAPSHOT_CHUNK_BYTES)).await?;
            offset += chunk.len() as u64;
            let id = link.next_id();
            sent.push_back(link.send(id, wire::frame_raw(Kind::SnapshotChunk, id, &chunk)));
        }
        for queued in sent {
            answer(queued).await?;
        }
        let body = call(Kind::SnapshotEnd, &[]).await?;
        Ok(wire::body_of(&body)?)
    }
}

impl RaftNetworkV2<TypeConfig> for Peer {
    type SnapshotData = SnapshotFile;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<TypeConfig>,
        _option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RpcError> {
        let link = self.link(self.append_lane);
        let id = link.next_id();
        let frame = wire::append_frame(id, &rpc).map_err(|error| garbled(&error))?;
        let body = link.call(id, frame).await.map_err(|error| failed(&error))?;
        wire::body_of(&body).map_err(|error| garbled(&error))
    }

    /// Keeps up to [`APPEND_WINDOW`] requests on the way. Frames leave in the order in which the
    /// requests come, and the answers are given in that order.
    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        _option: RPCOption,
    ) -> BoxFuture<
        's,
        Result<BoxStream<'s, Result<StreamAppendResult<TypeConfig>, RpcError>>, RpcError>,
    >
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + Send + Unpin + 'static,
    {
        let link = self.link(self.append_lane);
        let answers = input.map(move |request| {
            let previous = request.prev_log_id;
            let last = request.entries.last().map(|entry| entry.log_id).or(previous);
            let id = link.next_id();
            let queued = wire::append_frame(id, &request).map(|frame| link.send(id, frame));
            async move {
                let body = answer(queued.map_err(|error| garbled(&error))?)
                    .await
                    .map_err(|error| failed(&error))?;
                let response: AppendEntriesResponse<TypeConfig> =
                    wire::body_of(&body).map_err(|error| garbled(&error))?;
                stream_result(response, previous, last)
            }
        });
        let answers: BoxStream<'s, _> = Box::pin(answers.buffered(APPEND_WINDOW));
        Box::pin(futures::future::ready(Ok(answers)))
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        _option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RpcError> {
        self.ask(Kind::Vote, &rpc).await
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        _option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RpcError> {
        self.ask(Kind::PreVote, &rpc).await
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let passage = Passage::begin(&self.links.context.traffic, self.target, Way::Out);
        tokio::select! {
            closed = cancel => Err(StreamingError::Closed(closed)),
            sent = self.send_snapshot(vote, snapshot) => match sent {
                Ok(vote) => {
                    passage.arrived();
                    Ok(SnapshotResponse::new(vote))
                }
                Err(error) => Err(error.into()),
            },
        }
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<TypeConfig>,
        _option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, RpcError> {
        self.ask(Kind::Transfer, &request).await
    }
}

/// Why a snapshot was not sent.
#[derive(Debug, thiserror::Error)]
enum SendError {
    #[error(transparent)]
    File(#[from] io::Error),
    #[error(transparent)]
    Call(#[from] CallError),
    #[error(transparent)]
    Wire(#[from] WireError),
}

impl From<SendError> for StreamingError<TypeConfig> {
    fn from(error: SendError) -> Self {
        match error {
            SendError::File(error) => Self::StorageError(StorageError::read_snapshot(
                None,
                openraft::errors::ErrorSource::from_error(&error),
            )),
            SendError::Call(error) => failed(&error).into(),
            SendError::Wire(error) => garbled(&error).into(),
        }
    }
}

async fn answer(queued: oneshot::Receiver<Answer>) -> Answer {
    queued.await.unwrap_or(Err(CallError::Lost))
}

fn stream_result(
    response: AppendEntriesResponse<TypeConfig>,
    previous: Option<LogId>,
    last: Option<LogId>,
) -> Result<StreamAppendResult<TypeConfig>, RpcError> {
    if response.is_conflict() && previous.is_none() {
        return Err(NetworkError::from_string("a conflict before the first entry").into());
    }
    Ok(response.into_stream_result(previous, last))
}

/// A peer that cannot be reached is tried again after a while, a lost connection at once.
fn failed(error: &CallError) -> RpcError {
    match error {
        CallError::NotSent(_) | CallError::Failed(_) => {
            Unreachable::from_string(error.to_string()).into()
        }
        CallError::Lost => NetworkError::from_string(error.to_string()).into(),
    }
}

fn garbled(error: &WireError) -> RpcError {
    Unreachable::from_string(error.to_string()).into()
}

/// The body of a reply.
pub(crate) fn reply<T: Serialize>(id: u64, value: &T) -> Result<Bytes, WireError> {
    wire::frame_of(Kind::Reply, id, value)
}
