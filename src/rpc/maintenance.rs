//! The Maintenance service.

use std::fs::File;
use std::io;

use bytes::{Bytes, BytesMut};
use futures::stream::{self, BoxStream, StreamExt};
use prometheus::{Histogram, HistogramTimer};
use sha2::{Digest, Sha256};
use tokio::io::AsyncReadExt;
use tonic::{Code, Request, Response, Status};

use super::ETCD_API_VERSION;
use super::convert::{alarm_kind, alarm_member, alarm_type};
use super::errors::ApiError;
use super::member::{Member, On};
use super::metrics::Rpc;
use super::pb::etcdserverpb as pb;
use crate::store::mvcc::KeyHash;
use crate::store::types::{AlarmKind, Command, MemberId, Reply};
use pb::alarm_request::AlarmAction;

/// How much of a snapshot one message carries, in bytes.
const SNAPSHOT_CHUNK_BYTES: usize = 128 * 1024;

/// etcd's tools know a snapshot with a checksum at its end by its size: a multiple of this plus the
/// checksum (etcd `etcdutl/snapshot/v3_snapshot.go`, `hasChecksum`).
const SNAPSHOT_ALIGN_BYTES: u64 = 512;

/// Maintenance over a member.
#[derive(Clone)]
pub(crate) struct MaintenanceService(pub(crate) Member);

impl MaintenanceService {
    async fn status(
        &self,
        request: Request<pb::StatusRequest>,
    ) -> Result<pb::StatusResponse, ApiError> {
        self.0.admit(request.metadata(), On::All)?;
        self.0.permit_known(self.0.caller(&request).await?.as_ref())?;
        let status = self.0.status.borrow().clone();
        let size = self.0.size();
        let no_leader = status.leader.is_none().then(|| ApiError::NO_LEADER.1.to_owned());
        let alarms = self.0.state.alarms();
        // As Go prints the message, with the space at its end.
        let alarms = alarms.iter().map(|(member, kind)| {
            format!("memberID:{member} alarm:{} ", alarm_type(*kind).as_str_name())
        });
        Ok(pb::StatusResponse {
            header: Some(self.0.header_now()),
            version: ETCD_API_VERSION.to_owned(),
            db_size: number(size.total),
            leader: status.leader.unwrap_or(0),
            raft_index: status.committed_index,
            raft_term: status.term,
            raft_applied_index: status.applied_index,
            errors: no_leader.into_iter().chain(alarms).collect(),
            db_size_in_use: number(size.in_use),
            is_learner: status.is_learner(),
            storage_version: String::new(),
            db_size_quota: number(self.0.settings.quota_bytes),
        })
    }

    async fn alarm(
        &self,
        request: Request<pb::AlarmRequest>,
    ) -> Result<pb::AlarmResponse, ApiError> {
        self.0.admit(request.metadata(), On::Voters)?;
        let caller = self.0.caller(&request).await?;
        let request = request.into_inner();
        match request.action() {
            AlarmAction::Get => self.0.permit_known(caller.as_ref())?,
            _ => self.0.permit_root(caller.as_ref())?,
        }
        let kind = alarm_kind(request.alarm());
        let alarms = match (request.action(), kind) {
            (AlarmAction::Get, kind) => {
                self.0.barrier().await?;
                let standing = self.0.state.alarms().into_iter();
                standing.filter(|(_, standing)| kind.is_none_or(|kind| kind == *standing)).collect()
            }
            (AlarmAction::Activate | AlarmAction::Deactivate, None) => Vec::new(),
            (action, Some(kind)) => self.set_alarm(action, request.member_id, kind).await?,
        };
        Ok(pb::AlarmResponse {
            header: Some(self.0.header_now()),
            alarms: alarms.into_iter().map(alarm_member).collect(),
        })
    }

    /// Answers with the alarm that was raised or cleared, if it was.
    async fn set_alarm(
        &self,
        action: AlarmAction,
        member: MemberId,
        kind: AlarmKind,
    ) -> Result<Vec<(MemberId, AlarmKind)>, ApiError> {
        let active = action == AlarmAction::Activate;
        let stood = self.0.state.alarms().contains(&(member, kind));
        let Reply::Alarms(_) = self.0.propose(Command::Alarm { active, member, kind }).await?
        else {
            return Err(ApiError::MISMATCH);
        };
        Ok(if active || stood { vec![(member, kind)] } else { Vec::new() })
    }

    async fn defragment(
        &self,
        request: Request<pb::DefragmentRequest>,
    ) -> Result<pb::DefragmentResponse, Status> {
        self.0.admit(request.metadata(), On::Voters)?;
        self.0.permit_root(self.0.caller(&request).await?.as_ref())?;
        let _under_way = self.0.metrics.asked.defragment();
        self.0.disk.defragment().await.map_err(|error| failed("defragment", &error))?;
        // Etcd sends no header here, and none when the leader moves.
        Ok(pb::DefragmentResponse { header: None })
    }

    /// Off the runtime's threads: a hash walks through all history.
    async fn hash_of<T>(
        &self,
        request: Request<T>,
        revision: i64,
        seconds: &Histogram,
    ) -> Result<KeyHash, ApiError> {
        self.0.admit(request.metadata(), On::Voters)?;
        self.0.permit_root(self.0.caller(&request).await?.as_ref())?;
        let state = self.0.state.clone();
        let timer = seconds.start_timer();
        let hash = tokio::task::spawn_blocking(move || state.hash_kv(revision)).await;
        drop(timer);
        // It can only have been cut off by the runtime's end.
        Ok(hash.map_err(|_| ApiError::STOPPED)??)
    }

    async fn hash(&self, request: Request<pb::HashRequest>) -> Result<pb::HashResponse, ApiError> {
        let KeyHash { hash, revision, .. } =
            self.hash_of(request, 0, &self.0.metrics.asked.hash_seconds).await?;
        Ok(pb::HashResponse { header: Some(self.0.header(revision)), hash })
    }

    async fn hash_kv(
        &self,
        request: Request<pb::HashKvRequest>,
    ) -> Result<pb::HashKvResponse, ApiError> {
        let revision = request.get_ref().revision;
        let seconds = &self.0.metrics.asked.hash_revision_seconds;
        let hash = self.hash_of(request, revision, seconds).await?;
        Ok(pb::HashKvResponse {
            header: Some(self.0.header_now()),
            hash: hash.hash,
            compact_revision: hash.compact_revision,
            hash_revision: hash.revision,
        })
    }

    async fn snapshot(&self, request: Request<pb::SnapshotRequest>) -> Result<Sending, Status> {
        self.0.admit(request.metadata(), On::All)?;
        self.0.permit_root(self.0.caller(&request).await?.as_ref())?;
        let timer = self.0.metrics.asked.snapshot_seconds.start_timer();
        let file = self.0.disk.snapshot().await;
        let file = file.map_err(|error| failed("take a snapshot", &error))?;
        let sending = Sending::new(self.0.clone(), file, timer);
        sending.map_err(|error| failed("read the snapshot", &error))
    }

    async fn move_leader(
        &self,
        request: Request<pb::MoveLeaderRequest>,
    ) -> Result<pb::MoveLeaderResponse, ApiError> {
        self.0.admit(request.metadata(), On::Voters)?;
        self.0.permit_root(self.0.caller(&request).await?.as_ref())?;
        let target = request.into_inner().target_id;
        {
            let status = self.0.status.borrow();
            if !status.is_leader() {
                return Err(ApiError::NOT_LEADER);
            }
            if !status.voters.contains(&target) {
                return Err(ApiError::BAD_TRANSFEREE);
            }
        }
        self.0.consensus.transfer_leader(Some(target)).await?;
        Ok(pb::MoveLeaderResponse { header: None })
    }
}

/// A failure of this member's own disk.
fn failed(what: &str, error: &io::Error) -> Status {
    tracing::error!(%error, "cannot {what}");
    Status::internal(format!("etcdserver: cannot {what}: {error}"))
}

fn number(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

/// A snapshot on its way to a client: the file, zeros up to a round size, then the SHA-256 of both.
struct Sending {
    member: Member,
    file: tokio::fs::File,
    /// Bytes of the file that are left.
    left: u64,
    /// Zeros that follow.
    padding: u64,
    hash: Sha256,
    over: bool,
    /// Runs until this is dropped.
    _timer: HistogramTimer,
}

impl Sending {
    fn new(member: Member, file: File, timer: HistogramTimer) -> io::Result<Self> {
        let left = file.metadata()?.len();
        let padding = left.next_multiple_of(SNAPSHOT_ALIGN_BYTES) - left;
        let file = tokio::fs::File::from_std(file);
        let hash = Sha256::new();
        Ok(Self { member, file, left, padding, hash, over: false, _timer: timer })
    }

    /// The next piece of the body, `None` at its end.
    async fn piece(&mut self) -> io::Result<Option<Bytes>> {
        if self.left > 0 {
            let mut buffer = BytesMut::with_capacity(SNAPSHOT_CHUNK_BYTES);
            let read = (&mut self.file).take(self.left).read_buf(&mut buffer).await?;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.left = self.left.saturating_sub(u64::try_from(read).unwrap_or(u64::MAX));
            return Ok(Some(buffer.freeze()));
        }
        let padding = usize::try_from(std::mem::take(&mut self.padding)).unwrap_or(0);
        Ok((padding > 0).then(|| Bytes::from(vec![0; padding])))
    }

    async fn next(&mut self) -> Option<Result<pb::SnapshotResponse, Status>> {
        if self.over {
            return None;
        }
        let blob = match self.piece().await {
            Ok(Some(piece)) => {
                self.hash.update(&piece);
                piece
            }
            Ok(None) => {
                self.over = true;
                self.member.metrics.handled(Rpc::Snapshot, Code::Ok);
                Bytes::copy_from_slice(&self.hash.finalize_reset())
            }
            Err(error) => {
                self.over = true;
                self.member.metrics.handled(Rpc::Snapshot, Code::Internal);
                return Some(Err(failed("read the snapshot", &error)));
            }
        };
        self.member.metrics.said(Rpc::Snapshot);
        Some(Ok(pb::SnapshotResponse {
            header: None,
            remaining_bytes: self.left + self.padding,
            blob,
            version: String::new(),
        }))
    }
}

#[tonic::async_trait]
impl pb::maintenance_server::Maintenance for MaintenanceService {
    async fn alarm(
        &self,
        request: Request<pb::AlarmRequest>,
    ) -> Result<Response<pb::AlarmResponse>, Status> {
        self.0.answer(Rpc::Alarm, self.alarm(request).await)
    }

    async fn status(
        &self,
        request: Request<pb::StatusRequest>,
    ) -> Result<Response<pb::StatusResponse>, Status> {
        self.0.answer(Rpc::Status, self.status(request).await)
    }

    async fn defragment(
        &self,
        request: Request<pb::DefragmentRequest>,
    ) -> Result<Response<pb::DefragmentResponse>, Status> {
        self.0.answer(Rpc::Defragment, self.defragment(request).await)
    }

    async fn hash(
        &self,
        request: Request<pb::HashRequest>,
    ) -> Result<Response<pb::HashResponse>, Status> {
        self.0.answer(Rpc::Hash, self.hash(request).await)
    }

    async fn hash_kv(
        &self,
        request: Request<pb::HashKvRequest>,
    ) -> Result<Response<pb::HashKvResponse>, Status> {
        self.0.answer(Rpc::HashKv, self.hash_kv(request).await)
    }

    type SnapshotStream = BoxStream<'static, Result<pb::SnapshotResponse, Status>>;

    async fn snapshot(
        &self,
        request: Request<pb::SnapshotRequest>,
    ) -> Result<Response<Self::SnapshotStream>, Status> {
        let sending = self.snapshot(request).await.inspect_err(|status| {
            self.0.metrics.handled(Rpc::Snapshot, status.code());
        })?;
        let messages = stream::unfold(sending, |mut sending| async move {
            sending.next().await.map(|message| (message, sending))
        });
        Ok(Response::new(messages.boxed()))
    }

    async fn downgrade(
        &self,
        request: Request<pb::DowngradeRequest>,
    ) -> Result<Response<pb::DowngradeResponse>, Status> {
        self.0.answer(Rpc::Downgrade, self.0.downgrade(request).await)
    }

    async fn move_leader(
        &self,
        request: Request<pb::MoveLeaderRequest>,
    ) -> Result<Response<pb::MoveLeaderResponse>, Status> {
        self.0.answer(Rpc::MoveLeader, self.move_leader(request).await)
    }
}
