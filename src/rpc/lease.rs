//! The Lease service.

use futures::FutureExt;
use futures::future::BoxFuture;
use futures::stream::{self, BoxStream, StreamExt};
use tonic::{Code, Request, Response, Status, Streaming};

use super::caller::{Credentials, signed};
use super::errors::ApiError;
use super::member::{Member, On, needs_leader};
use super::metrics::Rpc;
use super::pb::etcdserverpb as pb;
use crate::limits::LEASE_TTL_SECONDS_MAX;
use crate::store::types::{Caller, Command, LeaseId, Reply};

/// How often another number is drawn when the drawn one is taken. One in 2^63 is.
const DRAWS_MAX: usize = 3;

/// Lease over a member.
#[derive(Clone)]
pub(crate) struct LeaseService(pub(crate) Member);

impl LeaseService {
    async fn grant(
        &self,
        request: Request<pb::LeaseGrantRequest>,
    ) -> Result<pb::LeaseGrantResponse, ApiError> {
        self.0.admit(request.metadata(), On::Voters)?;
        let caller = self.0.caller(&request).await?;
        let pb::LeaseGrantRequest { id, ttl } = request.into_inner();
        if ttl > LEASE_TTL_SECONDS_MAX {
            return Err(ApiError::LEASE_TTL_TOO_LARGE);
        }
        let ttl = ttl.max(self.shortest_ttl());
        let mut draws = if id == 0 { DRAWS_MAX } else { 1 };
        loop {
            draws -= 1;
            let id = if id == 0 { random_id() } else { id };
            let command = signed(caller.clone(), Command::LeaseGrant { id, ttl });
            match self.0.propose_growth(command).await {
                Ok(Reply::LeaseGranted { revision, id, ttl }) => {
                    let header = Some(self.0.header(revision));
                    return Ok(pb::LeaseGrantResponse { header, id, ttl, error: String::new() });
                }
                Ok(_) => return Err(ApiError::MISMATCH),
                Err(ApiError::LEASE_EXISTS) if draws > 0 => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// In seconds: one and a half election time-outs rounded up (etcd `server/etcdserver/server.go`,
    /// `minTTL`), so that a lease outlives an election.
    fn shortest_ttl(&self) -> i64 {
        let milliseconds = self.0.settings.election_timeout.as_millis() * 3 / 2;
        i64::try_from(milliseconds.div_ceil(1000)).unwrap_or(LEASE_TTL_SECONDS_MAX)
    }

    async fn revoke(
        &self,
        request: Request<pb::LeaseRevokeRequest>,
    ) -> Result<pb::LeaseRevokeResponse, ApiError> {
        self.0.admit(request.metadata(), On::Voters)?;
        let caller = self.0.caller(&request).await?;
        // Named even when it is nobody: what has no caller is the cluster's own doing.
        let nobody = || Caller { user: String::new(), revision: 0 };
        let caller = self.0.state.auth_enabled().then(|| caller.unwrap_or_else(nobody));
        let id = request.into_inner().id;
        self.0.propose(signed(caller, Command::LeaseRevoke { id })).await?;
        Ok(pb::LeaseRevokeResponse { header: Some(self.0.header_now()) })
    }

    async fn time_to_live(
        &self,
        request: Request<pb::LeaseTimeToLiveRequest>,
    ) -> Result<pb::LeaseTimeToLiveResponse, ApiError> {
        self.0.admit(request.metadata(), On::Voters)?;
        let caller = self.0.caller(&request).await?;
        let caller = caller.as_ref();
        self.0.permit_known(caller)?;
        let pb::LeaseTimeToLiveRequest { id, keys } = request.into_inner();
        if keys {
            self.0.permit(|auth, leases| auth.permit_lease_keys(caller, leases, id))?;
        }
        let view = self.0.consensus.lease_view(id, keys).await?;
        if keys {
            self.0.permit_still(caller)?;
        }
        Ok(pb::LeaseTimeToLiveResponse {
            header: Some(self.0.header_now()),
            id,
            ttl: view.ttl,
            granted_ttl: view.granted_ttl,
            keys: view.keys,
        })
    }

    async fn leases(
        &self,
        request: Request<pb::LeaseLeasesRequest>,
    ) -> Result<pb::LeaseLeasesResponse, ApiError> {
        self.0.admit(request.metadata(), On::Voters)?;
        let caller = self.0.caller(&request).await?;
        let caller = caller.as_ref();
        self.0.permit_known(caller)?;
        let leases = self.0.state.leases();
        self.0.permit(|auth, all| {
            let mut ids = leases.iter().map(|(id, _)| *id);
            ids.try_for_each(|id| auth.permit_lease_keys(caller, all, id))
        })?;
        let mut leases: Vec<_> = leases.into_iter().map(|(id, _)| id).collect();
        self.0.consensus.lease_sort(&mut leases);
        Ok(pb::LeaseLeasesResponse {
            header: Some(self.0.header_now()),
            leases: leases.into_iter().map(|id| pb::LeaseStatus { id }).collect(),
        })
    }

    /// Answers renewals, over gRPC or not.
    pub(crate) fn renewals(
        &self,
        request: Request<Requests>,
    ) -> Result<BoxStream<'static, Result<pb::LeaseKeepAliveResponse, Status>>, Status> {
        self.0.admit(request.metadata(), On::Voters)?;
        let end = self.0.end_of_stream(needs_leader(request.metadata())).boxed();
        let (member, credentials) = (self.0.clone(), Credentials::of(&request));
        let requests = request.into_inner();
        let state = KeepAlive { member, credentials, requests, end, over: false };
        let answers = stream::unfold(state, |mut state| async move {
            state.next().await.map(|answer| (answer, state))
        });
        Ok(answers.boxed())
    }
}

/// A positive number that no other lease is likely to have.
fn random_id() -> LeaseId {
    rand::random_range(1..=LeaseId::MAX)
}

/// One renewal. The header is taken before it, as a client may rely on the lease from then on.
async fn renew(
    member: &Member,
    credentials: &Credentials,
    id: LeaseId,
) -> Result<pb::LeaseKeepAliveResponse, ApiError> {
    let header = Some(member.header_now());
    let caller = member.caller_with(credentials).await?;
    member.permit(|auth, leases| auth.permit_renewal(caller.as_ref(), leases, id))?;
    let ttl = member.consensus.lease_renew(id).await?;
    Ok(pb::LeaseKeepAliveResponse { header, id, ttl })
}

/// What a client wants renewed, in order.
pub(crate) type Requests = BoxStream<'static, Result<pb::LeaseKeepAliveRequest, Status>>;

/// What a stream of renewals holds.
struct KeepAlive {
    member: Member,
    credentials: Credentials,
    requests: Requests,
    /// Becomes ready when the member ends the stream.
    end: BoxFuture<'static, ApiError>,
    over: bool,
}

impl KeepAlive {
    /// Answers the next request; `None` when the client sends no more.
    async fn next(&mut self) -> Option<Result<pb::LeaseKeepAliveResponse, Status>> {
        if self.over {
            return None;
        }
        let answer = tokio::select! {
            request = self.requests.next() => match request {
                Some(Ok(request)) => {
                    self.member.metrics.heard(Rpc::LeaseKeepAlive);
                    renew(&self.member, &self.credentials, request.id).await.map_err(Status::from)
                }
                None => {
                    self.over = true;
                    self.member.metrics.handled(Rpc::LeaseKeepAlive, Code::Ok);
                    return None;
                }
                Some(Err(status)) => Err(status),
            },
            reason = &mut self.end => Err(reason.into()),
        };
        match &answer {
            Ok(_) => self.member.metrics.said(Rpc::LeaseKeepAlive),
            Err(status) => {
                self.over = true;
                self.member.metrics.handled(Rpc::LeaseKeepAlive, status.code());
            }
        }
        Some(answer)
    }
}

#[tonic::async_trait]
impl pb::lease_server::Lease for LeaseService {
    async fn lease_grant(
        &self,
        request: Request<pb::LeaseGrantRequest>,
    ) -> Result<Response<pb::LeaseGrantResponse>, Status> {
        self.0.answer(Rpc::LeaseGrant, self.grant(request).await)
    }

    async fn lease_revoke(
        &self,
        request: Request<pb::LeaseRevokeRequest>,
    ) -> Result<Response<pb::LeaseRevokeResponse>, Status> {
        self.0.answer(Rpc::LeaseRevoke, self.revoke(request).await)
    }

    type LeaseKeepAliveStream = BoxStream<'static, Result<pb::LeaseKeepAliveResponse, Status>>;

    async fn lease_keep_alive(
        &self,
        request: Request<Streaming<pb::LeaseKeepAliveRequest>>,
    ) -> Result<Response<Self::LeaseKeepAliveStream>, Status> {
        self.renewals(request.map(StreamExt::boxed)).map(Response::new)
    }

    async fn lease_time_to_live(
        &self,
        request: Request<pb::LeaseTimeToLiveRequest>,
    ) -> Result<Response<pb::LeaseTimeToLiveResponse>, Status> {
        self.0.answer(Rpc::LeaseTimeToLive, self.time_to_live(request).await)
    }

    async fn lease_leases(
        &self,
        request: Request<pb::LeaseLeasesRequest>,
    ) -> Result<Response<pb::LeaseLeasesResponse>, Status> {
        self.0.answer(Rpc::LeaseLeases, self.leases(request).await)
    }
}
