//! The Election service.

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use tonic::{Code, Request, Response, Status};

use super::member::Member;
use super::metrics::Rpc;
use super::pb::etcdserverpb as pb;
use super::pb::mvccpb::KeyValue;
use super::pb::mvccpb::event::EventType;
use super::pb::v3electionpb::{self as election, election_server};
use super::recipe::{
    Place, Recipe, created_at, end, first_created, first_read, get, key, op, prefix, revision,
    watched,
};
use pb::request_op::Request as Op;

/// Election over a member.
#[derive(Clone)]
pub(crate) struct ElectionService(Member);

type Leaders = BoxStream<'static, Result<election::LeaderResponse, Status>>;

impl ElectionService {
    pub(crate) fn new(member: &Member) -> Self {
        Self(member.clone())
    }

    async fn stand(
        &self,
        request: Request<election::CampaignRequest>,
    ) -> Result<election::CampaignResponse, Status> {
        let (recipe, request) = Recipe::of(&self.0, request);
        let election::CampaignRequest { name, lease, value } = request;
        let lease = recipe.lease(lease).await?;
        let prefix = prefix(&name);
        let own = key(&prefix, lease);
        let put =
            pb::PutRequest { key: own.clone(), value: value.clone(), lease, ..Default::default() };
        let txn = pb::TxnRequest {
            compare: vec![created_at(&own, 0)],
            success: vec![op(Op::RequestPut(put))],
            failure: vec![op(Op::RequestRange(get(&own)))],
        };
        let answer = recipe.txn(txn).await?;
        let place = Place::hold(&recipe, &own);
        let standing = first_read(&answer, 0).filter(|_| !answer.succeeded);
        let rev = standing.map_or(revision(answer.header.as_ref()), |kv| kv.create_revision);
        let leader = election::LeaderKey { name, key: own, rev, lease };
        // Who stands already may have another value by now.
        if standing.is_some_and(|kv| kv.value != value) {
            proclaim(&recipe, &leader, value).await?;
        }
        recipe.wait_for_older(&prefix, rev - 1).await?;
        place.keep();
        Ok(election::CampaignResponse { header: answer.header, leader: Some(leader) })
    }
}

/// Changes the value of a leader.
async fn proclaim(
    recipe: &Recipe,
    leader: &election::LeaderKey,
    value: Bytes,
) -> Result<Option<pb::ResponseHeader>, Status> {
    let (key, lease) = (leader.key.clone(), leader.lease);
    let put = pb::PutRequest { key, value, lease, ..Default::default() };
    let txn = pb::TxnRequest {
        compare: vec![created_at(&leader.key, leader.rev)],
        success: vec![op(Op::RequestPut(put))],
        failure: vec![],
    };
    let answer = recipe.txn(txn).await?;
    if answer.succeeded { Ok(answer.header) } else { Err(Status::unknown("election: not leader")) }
}

/// The key that shows who leads; without it nothing can be done in a leader's name.
fn given(leader: Option<election::LeaderKey>) -> Result<election::LeaderKey, Status> {
    leader.ok_or_else(|| Status::unknown("\"leader\" field must be provided"))
}

/// Who leads, and from which revision on to look for changes.
struct Observed {
    recipe: Recipe,
    prefix: Bytes,
    leader: Option<(Bytes, BoxStream<'static, Result<pb::WatchResponse, Status>>)>,
    ready: Vec<election::LeaderResponse>,
}

impl Observed {
    /// The next leader, or value of the leader.
    async fn next(&mut self) -> Result<election::LeaderResponse, Status> {
        loop {
            if let Some(response) = self.ready.pop() {
                return Ok(response);
            }
            match &mut self.leader {
                None => return self.find().await,
                Some((_, events)) => {
                    let Some(response) = events.next().await else {
                        return Err(Status::cancelled("the watch ended"));
                    };
                    let response = watched(response?)?;
                    self.take(response);
                }
            }
        }
    }

    /// Waits for a leader, and begins to watch it.
    async fn find(&mut self) -> Result<election::LeaderResponse, Status> {
        let found = self.recipe.range(first_created(&self.prefix)).await?;
        let mut header = found.header.unwrap_or_default();
        let kv: KeyValue = if let Some(kv) = found.kvs.into_iter().next() {
            kv
        } else {
            let all = (self.prefix.clone(), end(&self.prefix));
            let kv = self.recipe.wait_for(all.0, all.1, header.revision, EventType::Put).await?;
            header.revision = kv.mod_revision;
            kv
        };
        let events = self.recipe.watch(kv.key.clone(), Bytes::new(), header.revision + 1)?;
        self.leader = Some((kv.key.clone(), events));
        Ok(election::LeaderResponse { header: Some(header), kv: Some(kv) })
    }

    fn take(&mut self, response: pb::WatchResponse) {
        for event in response.events {
            if event.r#type() == EventType::Delete {
                self.leader = None;
                break;
            }
            let header = response.header;
            self.ready.insert(0, election::LeaderResponse { header, kv: event.kv });
        }
    }
}

#[tonic::async_trait]
impl election_server::Election for ElectionService {
    async fn campaign(
        &self,
        request: Request<election::CampaignRequest>,
    ) -> Result<Response<election::CampaignResponse>, Status> {
        self.0.answer(Rpc::Campaign, self.stand(request).await)
    }

    async fn proclaim(
        &self,
        request: Request<election::ProclaimRequest>,
    ) -> Result<Response<election::ProclaimResponse>, Status> {
        let answer = async {
            let (recipe, request) = Recipe::of(&self.0, request);
            let header = proclaim(&recipe, &given(request.leader)?, request.value).await?;
            Ok::<_, Status>(election::ProclaimResponse { header })
        };
        self.0.answer(Rpc::Proclaim, answer.await)
    }

    async fn leader(
        &self,
        request: Request<election::LeaderRequest>,
    ) -> Result<Response<election::LeaderResponse>, Status> {
        let answer = async {
            let (recipe, request) = Recipe::of(&self.0, request);
            let found = recipe.range(first_created(&prefix(&request.name))).await?;
            let kv = found.kvs.into_iter().next();
            let kv = kv.ok_or_else(|| Status::unknown("election: no leader"))?;
            Ok::<_, Status>(election::LeaderResponse { header: found.header, kv: Some(kv) })
        };
        self.0.answer(Rpc::Leader, answer.await)
    }

    type ObserveStream = Leaders;

    async fn observe(
        &self,
        request: Request<election::LeaderRequest>,
    ) -> Result<Response<Leaders>, Status> {
        let (recipe, request) = Recipe::of(&self.0, request);
        let prefix = prefix(&request.name);
        let observed = Observed { recipe, prefix, leader: None, ready: Vec::new() };
        let metrics = self.0.metrics.clone();
        let leaders = stream::unfold(Some(observed), move |observed| {
            let metrics = metrics.clone();
            async move {
                let mut observed = observed?;
                let next = observed.next().await;
                let code = next.as_ref().map_or_else(Status::code, |_| Code::Ok);
                if code == Code::Ok {
                    metrics.said(Rpc::Observe);
                    return Some((next, Some(observed)));
                }
                metrics.handled(Rpc::Observe, code);
                Some((next, None))
            }
        });
        Ok(Response::new(leaders.boxed()))
    }

    async fn resign(
        &self,
        request: Request<election::ResignRequest>,
    ) -> Result<Response<election::ResignResponse>, Status> {
        let answer = async {
            let (recipe, request) = Recipe::of(&self.0, request);
            let leader = given(request.leader)?;
            let delete = pb::DeleteRangeRequest { key: leader.key.clone(), ..Default::default() };
            let txn = pb::TxnRequest {
                compare: vec![created_at(&leader.key, leader.rev)],
                success: vec![op(Op::RequestDeleteRange(delete))],
                failure: vec![],
            };
            let header = recipe.txn(txn).await?.header;
            Ok::<_, Status>(election::ResignResponse { header })
        };
        self.0.answer(Rpc::Resign, answer.await)
    }
}
