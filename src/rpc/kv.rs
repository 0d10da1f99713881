//! The KV service.

use tonic::{Request, Response, Status};

use super::caller::{Credentials, signed};
use super::errors::ApiError;
use super::member::{Member, On};
use super::metrics::Rpc;
use super::pb::etcdserverpb as pb;
use super::{check, convert};
use crate::store::types::{Command, Reply};

/// How many forgotten changes a physical compaction gives back before it lets others work.
const TRIM_STEP: usize = 1000;

/// KV over a member.
#[derive(Clone)]
pub(crate) struct KvService(pub(crate) Member);

impl KvService {
    async fn range(
        &self,
        request: Request<pb::RangeRequest>,
    ) -> Result<pb::RangeResponse, ApiError> {
        let serializable = request.get_ref().serializable;
        let on = if serializable { On::All } else { On::Voters };
        self.0.admit(request.metadata(), on)?;
        let credentials = Credentials::of(&request);
        let request = request.into_inner();
        check::range(&request)?;
        if !serializable {
            self.0.barrier().await?;
        }
        let caller = self.0.caller_with(&credentials).await?;
        let query = convert::range(request);
        self.0.permit(|auth, _| auth.permit_read(caller.as_ref(), &query.range))?;
        let result = self.0.state.range(&query)?;
        self.0.permit_still(caller.as_ref())?;
        let header = Some(self.0.header(result.revision));
        Ok(convert::range_response(result, header))
    }

    async fn put(&self, request: Request<pb::PutRequest>) -> Result<pb::PutResponse, ApiError> {
        self.0.admit(request.metadata(), On::Voters)?;
        let caller = self.0.caller(&request).await?;
        let request = request.into_inner();
        check::put(&request)?;
        check::size(&request, self.0.settings.limits.request_bytes)?;
        let command = signed(caller, Command::Put(convert::put(&request)));
        drop(request);
        let Reply::Put(outcome) = self.0.propose_growth(command).await? else {
            return Err(ApiError::MISMATCH);
        };
        Ok(pb::PutResponse {
            header: Some(self.0.header(outcome.revision)),
            prev_kv: outcome.prev_kv.map(convert::key_value),
        })
    }

    async fn delete_range(
        &self,
        request: Request<pb::DeleteRangeRequest>,
    ) -> Result<pb::DeleteRangeResponse, ApiError> {
        self.0.admit(request.metadata(), On::Voters)?;
        let caller = self.0.caller(&request).await?;
        let request = request.into_inner();
        check::delete(&request)?;
        check::size(&request, self.0.settings.limits.request_bytes)?;
        let command = signed(caller, Command::DeleteRange(convert::delete(request)));
        let Reply::Delete(outcome) = self.0.propose(command).await? else {
            return Err(ApiError::MISMATCH);
        };
        let header = Some(self.0.header(outcome.revision));
        Ok(convert::delete_response(outcome, header))
    }

    async fn txn(&self, request: Request<pb::TxnRequest>) -> Result<pb::TxnResponse, ApiError> {
        self.0.admit(request.metadata(), On::Voters)?;
        let credentials = Credentials::of(&request);
        let request = request.into_inner();
        check::txn(&request, self.0.settings.limits.txn_ops)?;
        let outcome = if check::is_read_only(&request) {
            if !check::is_serializable(&request) {
                self.0.barrier().await?;
            }
            let caller = self.0.caller_with(&credentials).await?;
            let txn = convert::txn(request)?;
            self.0.permit(|auth, leases| auth.permit_txn(caller.as_ref(), &txn, leases))?;
            let outcome = self.0.state.txn_read(&txn)?;
            self.0.permit_still(caller.as_ref())?;
            outcome
        } else {
            check::size(&request, self.0.settings.limits.request_bytes)?;
            let caller = self.0.caller_with(&credentials).await?;
            let command = signed(caller, Command::Txn(convert::txn(request)?));
            match self.0.propose_growth(command).await? {
                Reply::Txn(outcome) => outcome,
                _ => return Err(ApiError::MISMATCH),
            }
        };
        let header = Some(self.0.header(outcome.revision));
        Ok(convert::txn_response(outcome, header))
    }

    async fn compact(
        &self,
        request: Request<pb::CompactionRequest>,
    ) -> Result<pb::CompactionResponse, ApiError> {
        self.0.admit(request.metadata(), On::Voters)?;
        self.0.permit_known(self.0.caller(&request).await?.as_ref())?;
        let pb::CompactionRequest { revision, physical } = request.into_inner();
        self.0.propose(Command::Compact { revision }).await?;
        while physical && self.0.state.trim(TRIM_STEP) {
            tokio::task::yield_now().await;
        }
        Ok(pb::CompactionResponse { header: Some(self.0.header_now()) })
    }
}

#[tonic::async_trait]
impl pb::kv_server::Kv for KvService {
    async fn range(
        &self,
        request: Request<pb::RangeRequest>,
    ) -> Result<Response<pb::RangeResponse>, Status> {
        self.0.answer(Rpc::Range, self.range(request).await)
    }

    async fn put(
        &self,
        request: Request<pb::PutRequest>,
    ) -> Result<Response<pb::PutResponse>, Status> {
        self.0.answer(Rpc::Put, self.put(request).await)
    }

    async fn delete_range(
        &self,
        request: Request<pb::DeleteRangeRequest>,
    ) -> Result<Response<pb::DeleteRangeResponse>, Status> {
        self.0.answer(Rpc::DeleteRange, self.delete_range(request).await)
    }

    async fn txn(
        &self,
        request: Request<pb::TxnRequest>,
    ) -> Result<Response<pb::TxnResponse>, Status> {
        self.0.answer(Rpc::Txn, self.txn(request).await)
    }

    async fn compact(
        &self,
        request: Request<pb::CompactionRequest>,
    ) -> Result<Response<pb::CompactionResponse>, Status> {
        self.0.answer(Rpc::Compact, self.compact(request).await)
    }
}
