//! The Lock service.

use tonic::{Request, Response, Status};

use super::member::Member;
use super::metrics::Rpc;
use super::pb::etcdserverpb as pb;
use super::pb::v3lockpb::{self, lock_server};
use super::recipe::{
    Place, Recipe, created_at, first_created, first_read, get, key, op, prefix, revision,
};
use pb::request_op::Request as Op;

/// Lock over a member.
#[derive(Clone)]
pub(crate) struct LockService(Member);

impl LockService {
    pub(crate) fn new(member: &Member) -> Self {
        Self(member.clone())
    }

    async fn acquire(
        &self,
        request: Request<v3lockpb::LockRequest>,
    ) -> Result<v3lockpb::LockResponse, Status> {
        let (recipe, v3lockpb::LockRequest { name, lease }) = Recipe::of(&self.0, request);
        let lease = recipe.lease(lease).await?;
        let prefix = prefix(&name);
        let own = key(&prefix, lease);
        let owner = op(Op::RequestRange(first_created(&prefix)));
        let put = pb::PutRequest { key: own.clone(), lease, ..Default::default() };
        let txn = pb::TxnRequest {
            compare: vec![created_at(&own, 0)],
            success: vec![op(Op::RequestPut(put)), owner.clone()],
            failure: vec![op(Op::RequestRange(get(&own))), owner],
        };
        let answer = recipe.txn(txn).await?;
        let place = Place::hold(&recipe, &own);
        let mine = match first_read(&answer, 0) {
            Some(kv) if !answer.succeeded => kv.create_revision,
            _ => revision(answer.header.as_ref()),
        };
        if first_read(&answer, 1).is_none_or(|owner| owner.create_revision == mine) {
            place.keep();
            return Ok(v3lockpb::LockResponse { header: answer.header, key: own });
        }
        recipe.wait_for_older(&prefix, mine - 1).await?;
        let found = recipe.range(get(&own)).await?;
        if found.kvs.is_empty() {
            return Err(Status::unknown("mutex: session is expired"));
        }
        place.keep();
        Ok(v3lockpb::LockResponse { header: found.header, key: own })
    }
}

#[tonic::async_trait]
impl lock_server::Lock for LockService {
    async fn lock(
        &self,
        request: Request<v3lockpb::LockRequest>,
    ) -> Result<Response<v3lockpb::LockResponse>, Status> {
        self.0.answer(Rpc::Lock, self.acquire(request).await)
    }

    async fn unlock(
        &self,
        request: Request<v3lockpb::UnlockRequest>,
    ) -> Result<Response<v3lockpb::UnlockResponse>, Status> {
        let (recipe, v3lockpb::UnlockRequest { key }) = Recipe::of(&self.0, request);
        let deleted = recipe.delete(key).await;
        let answer = deleted.map(|deleted| v3lockpb::UnlockResponse { header: deleted.header });
        self.0.answer(Rpc::Unlock, answer)
    }
}
