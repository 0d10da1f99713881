//! The member as its services see it: consensus, state, identity, settings and counters.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::metadata::MetadataMap;
use tonic::{Code, Response, Status};

use super::caller::{Login, TokenUse, Tokens};
use super::disk::Disk;
use super::errors::ApiError;
use super::gateway::Access;
use super::limits::Limits;
use super::metrics::{Metrics, Rpc};
use super::pb::etcdserverpb::ResponseHeader;
use crate::limits::QUOTA_BYTES_DEFAULT;
use crate::raft::api::{Consensus, ConsensusError, RaftStatus};
use crate::store::state::{Size, State};
use crate::store::types::{AlarmKind, ClusterId, Command, MemberId, Reply, Revision};

/// Who this member is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The cluster's number.
    pub cluster: ClusterId,
    /// This member's number.
    pub member: MemberId,
}

/// Election time-outs in a row without a leader, until streams that need one are ended (etcd
/// `server/etcdserver/api/v3rpc/interceptor.go`, `maxNoLeaderCnt`).
const LEADERLESS_CHECKS_MAX: u32 = 3;

/// How often a member looks whether its disk is full.
const SPACE_PACE: Duration = Duration::from_millis(500);

/// What may be set of the API.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// The election time-out of consensus: shortest lease and patience without a leader follow
    /// from it.
    pub election_timeout: Duration,
    /// How often a watcher that asked for it hears that nothing happened.
    pub progress_notify_interval: Duration,
    /// The space quota, in bytes, as `Status` tells it.
    pub quota_bytes: u64,
    /// How much clients may ask at once.
    pub limits: Limits,
}

impl Default for Settings {
    /// etcd's defaults.
    fn default() -> Self {
        Self {
            election_timeout: Duration::from_secs(1),
            progress_notify_interval: Duration::from_secs(10 * 60),
            quota_bytes: QUOTA_BYTES_DEFAULT,
            limits: Limits::default(),
        }
    }
}

/// All that a service needs; cheap to clone.
#[derive(Clone)]
pub struct Member {
    pub(crate) consensus: Arc<dyn Consensus>,
    pub(crate) state: Arc<State>,
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) status: watch::Receiver<RaftStatus>,
    pub(crate) identity: Identity,
    pub(crate) settings: Settings,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) access: Arc<Access>,
    pub(crate) login: Login,
    pub(crate) tokens: Tokens,
    pub(super) token_use: Arc<TokenUse>,
    /// Cancelled when the server stops: streams end then.
    pub(crate) stop: CancellationToken,
    /// Whether there has been no leader for so long that streams that need one are ended.
    leaderless: Arc<watch::Sender<bool>>,
}

impl Member {
    /// A member whose services answer from `state` and change things through `consensus`.
    pub fn new(
        consensus: Arc<dyn Consensus>,
        state: Arc<State>,
        disk: Arc<dyn Disk>,
        identity: Identity,
        settings: Settings,
        metrics: Arc<Metrics>,
    ) -> Self {
        let status = consensus.status();
        let stop = CancellationToken::new();
        let leaderless = Arc::new(watch::Sender::new(false));
        let access = Arc::default();
        Self {
            consensus,
            state,
            disk,
            status,
            identity,
            settings,
            metrics,
            access,
            login: Login::default(),
            tokens: Tokens::default(),
            token_use: Arc::default(),
            stop,
            leaderless,
        }
    }

    /// Lets in over plain HTTP whom `access` names, instead of everyone.
    pub fn with_access(self, access: Access) -> Self {
        Self { access: Arc::new(access), ..self }
    }

    /// Lets users log in as `login` says, instead of as by default.
    pub fn with_login(self, login: Login) -> Self {
        Self { login, ..self }
    }

    /// Gives those who log in `tokens`, instead of simple ones.
    pub fn with_tokens(self, tokens: Tokens) -> Self {
        Self { tokens, ..self }
    }

    /// A header with everything, at this revision of the store.
    pub(crate) fn header(&self, revision: Revision) -> ResponseHeader {
        ResponseHeader {
            cluster_id: self.identity.cluster,
            member_id: self.identity.member,
            revision,
            raft_term: self.status.borrow().term,
        }
    }

    /// A header at the store's current revision.
    pub(crate) fn header_now(&self) -> ResponseHeader {
        self.header(self.state.revision())
    }

    /// Refuses what a learner does not serve, and a call that asks for a leader when there is none
    /// (etcd `server/etcdserver/api/v3rpc/interceptor.go`).
    pub(crate) fn admit(&self, metadata: &MetadataMap, on: On) -> Result<(), ApiError> {
        let status = self.status.borrow();
        if on == On::Voters && status.is_learner() {
            return Err(ApiError::NOT_SUPPORTED_FOR_LEARNER);
        }
        if status.leader.is_none() && needs_leader(metadata) {
            return Err(ApiError::NO_LEADER);
        }
        Ok(())
    }

    /// Keeps watch over there being a leader, until the server stops. One for all streams: they
    /// would otherwise each wake with every change of how the member stands.
    pub(crate) async fn watch_leader(self) {
        let mut checks_without = 0;
        let mut leader = None;
        loop {
            tokio::select! {
                () = tokio::time::sleep(self.settings.election_timeout) => {}
                () = self.stop.cancelled() => return,
            }
            let now = self.status.borrow().leader;
            if now.is_some() && now != leader {
                self.metrics.leader_changes.inc();
            }
            leader = now;
            checks_without = if now.is_some() { 0 } else { checks_without + 1 };
            let leaderless = checks_without >= LEADERLESS_CHECKS_MAX;
            self.leaderless
                .send_if_modified(|now| std::mem::replace(now, leaderless) != leaderless);
        }
    }

    /// Waits for what ends a stream from this side: the server stops, or, if the client wants to be
    /// told, there is no leader any more.
    pub(crate) fn end_of_stream(
        &self,
        needs_leader: bool,
    ) -> impl Future<Output = ApiError> + Send + use<> {
        let stop = self.stop.clone();
        let mut leaderless = self.leaderless.subscribe();
        async move {
            tokio::select! {
                () = stop.cancelled() => ApiError::STOPPED,
                Ok(_) = leaderless.wait_for(|now| *now), if needs_leader => ApiError::NO_LEADER,
            }
        }
    }

    /// Counts how a call ended and makes it what tonic wants.
    pub(crate) fn answer<T, E: Into<Status>>(
        &self,
        rpc: Rpc,
        result: Result<T, E>,
    ) -> Result<Response<T>, Status> {
        let result = result.map_err(Into::into);
        let code = result.as_ref().map_or_else(Status::code, |_| Code::Ok);
        self.metrics.handled(rpc, code);
        result.map(Response::new)
    }

    /// Proposes and takes a refusal of the store for an error.
    pub(crate) async fn propose(&self, command: Command) -> Result<Reply, ApiError> {
        let pending = Pending::new(&self.metrics);
        let applied = self.consensus.propose(command).await;
        drop(pending);
        let applied = applied.inspect_err(|_| self.metrics.proposals_failed.inc())?;
        Ok(applied.outcome?)
    }

    /// Proposes what may grow the store, unless the store or this member's disk is full: then raises
    /// the alarm, as etcd does (`server/etcdserver/apply/quota.go`), so that all members refuse from
    /// then on. What is left of the disk is for what must still be written, so nothing is logged for
    /// a refusal once the alarm stands.
    pub(crate) async fn propose_growth(&self, command: Command) -> Result<Reply, ApiError> {
        let is_low = self.status.borrow().low_space.is_some();
        if is_low || self.state.exceeds_quota(&command, self.settings.quota_bytes) {
            self.raise_no_space().await?;
            return Err(ApiError::NO_SPACE);
        }
        self.propose(command).await
    }

    async fn raise_no_space(&self) -> Result<(), ApiError> {
        let member = self.identity.member;
        if self.state.alarms().contains(&(member, AlarmKind::NoSpace)) {
            return Ok(());
        }
        let alarm = Command::Alarm { active: true, member, kind: AlarmKind::NoSpace };
        self.propose(alarm).await.map(drop)
    }

    /// Raises the alarm when this member's disk fills up, whoever writes, until the server stops.
    pub(crate) async fn watch_space(self) {
        loop {
            tokio::select! {
                () = tokio::time::sleep(SPACE_PACE) => {}
                () = self.stop.cancelled() => return,
            }
            let Some(why) = self.status.borrow().low_space.clone() else { continue };
            match self.raise_no_space().await {
                Ok(()) => tracing::debug!("the alarm NOSPACE stands: {why}"),
                Err(error) => {
                    tracing::warn!("cannot raise the alarm NOSPACE ({why}): {}", error.text());
                }
            }
        }
    }

    /// Bytes on disk, at least those that will be there with the next checkpoint, and of those that
    /// are in use.
    pub(crate) fn size(&self) -> Size {
        let Size { total, in_use } = self.state.size_bytes();
        Size { total: total.max(self.disk.size().unwrap_or(0)), in_use }
    }

    /// Waits until a local read is linearizable.
    pub(crate) async fn barrier(&self) -> Result<(), ApiError> {
        let done = self.consensus.read_barrier().await;
        match &done {
            Ok(()) | Err(ConsensusError::Stopped) => {}
            Err(ConsensusError::Timeout) => self.metrics.asked.reads_slow.inc(),
            Err(_) => self.metrics.asked.reads_failed.inc(),
        }
        Ok(done?)
    }
}

/// A proposal that waits; it is counted out even when its client goes away half-way.
struct Pending<'a>(&'a Metrics);

impl<'a> Pending<'a> {
    fn new(metrics: &'a Metrics) -> Self {
        metrics.proposals_pending.inc();
        Self(metrics)
    }
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        self.0.proposals_pending.dec();
    }
}

/// Which members serve a call.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum On {
    /// Only those that vote.
    Voters,
    /// Learners too.
    All,
}

/// Whether the client would rather fail than be served by a member without a leader.
pub(crate) fn needs_leader(metadata: &MetadataMap) -> bool {
    metadata.get("hasleader").is_some_and(|value| value.as_bytes() == b"true")
}
