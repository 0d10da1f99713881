//! What locks and elections are made of (etcd `client/v3/concurrency`): each who waits has a key of
//! its own below a common prefix, tied to a lease, and it is the turn of the oldest.
//!
//! All goes through the services, in the name of who asked, so that rights are checked there.

use bytes::Bytes;
use futures::StreamExt;
use futures::stream;
use tonic::metadata::MetadataMap;
use tonic::{Extensions, Request, Status};

use super::kv::KvService;
use super::lease::LeaseService;
use super::member::Member;
use super::pb::etcdserverpb as pb;
use super::pb::mvccpb::KeyValue;
use super::pb::mvccpb::event::EventType;
use super::watch::WatchService;
use pb::kv_server::Kv;
use pb::lease_server::Lease;
use pb::request_op::Request as Op;

/// Seconds that a lease lasts which nobody named.
const LEASE_SECONDS: i64 = 60;

/// The services, in the name of one caller.
#[derive(Clone)]
pub(super) struct Recipe {
    member: Member,
    metadata: MetadataMap,
    extensions: Extensions,
}

impl Recipe {
    /// In the name of who made a call; gives what the call says.
    pub(super) fn of<T>(member: &Member, request: Request<T>) -> (Self, T) {
        let (metadata, extensions, message) = request.into_parts();
        (Self { member: member.clone(), metadata, extensions }, message)
    }

    fn request<T>(&self, message: T) -> Request<T> {
        Request::from_parts(self.metadata.clone(), self.extensions.clone(), message)
    }

    fn kv(&self) -> KvService {
        KvService(self.member.clone())
    }

    /// The lease that was named, or a new one.
    pub(super) async fn lease(&self, named: i64) -> Result<i64, Status> {
        if named != 0 {
            return Ok(named);
        }
        let request = pb::LeaseGrantRequest { ttl: LEASE_SECONDS, id: 0 };
        let service = LeaseService(self.member.clone());
        Ok(service.lease_grant(self.request(request)).await?.into_inner().id)
    }

    pub(super) async fn txn(&self, txn: pb::TxnRequest) -> Result<pb::TxnResponse, Status> {
        Ok(Kv::txn(&self.kv(), self.request(txn)).await?.into_inner())
    }

    pub(super) async fn range(&self, range: pb::RangeRequest) -> Result<pb::RangeResponse, Status> {
        Ok(Kv::range(&self.kv(), self.request(range)).await?.into_inner())
    }

    pub(super) async fn delete(&self, key: Bytes) -> Result<pb::DeleteRangeResponse, Status> {
        let request = pb::DeleteRangeRequest { key, ..Default::default() };
        Ok(Kv::delete_range(&self.kv(), self.request(request)).await?.into_inner())
    }

    /// Waits until no key below `prefix` is older than `revision`, one after the other.
    pub(super) async fn wait_for_older(&self, prefix: &Bytes, revision: i64) -> Result<(), Status> {
        loop {
            let request = pb::RangeRequest {
                max_create_revision: revision,
                sort_order: pb::range_request::SortOrder::Descend.into(),
                ..first_created(prefix)
            };
            let found = self.range(request).await?;
            let Some(last) = found.kvs.into_iter().next() else { return Ok(()) };
            let from = found.header.map_or(0, |header| header.revision);
            self.wait_for(last.key, Bytes::new(), from, EventType::Delete).await?;
        }
    }

    /// Waits for something of this kind to happen in a range; gives the pair it happened to.
    pub(super) async fn wait_for(
        &self,
        key: Bytes,
        range_end: Bytes,
        start_revision: i64,
        kind: EventType,
    ) -> Result<KeyValue, Status> {
        let mut events = self.watch(key, range_end, start_revision)?;
        while let Some(response) = events.next().await {
            let mut events = watched(response?)?.events.into_iter();
            if let Some(event) = events.find(|event| event.r#type() == kind) {
                return Ok(event.kv.unwrap_or_default());
            }
        }
        Err(Status::cancelled("the watch ended"))
    }

    /// What happens in a range from a revision on.
    pub(super) fn watch(
        &self,
        key: Bytes,
        range_end: Bytes,
        start_revision: i64,
    ) -> Result<stream::BoxStream<'static, Result<pb::WatchResponse, Status>>, Status> {
        let create =
            pb::WatchCreateRequest { key, range_end, start_revision, ..Default::default() };
        let create = pb::watch_request::RequestUnion::CreateRequest(create);
        let create = pb::WatchRequest { request_union: Some(create) };
        let requests = stream::iter([Ok(create)]).chain(stream::pending()).boxed();
        WatchService(self.member.clone()).open(self.request(requests))
    }
}

/// A response of a watch that goes on.
pub(super) fn watched(response: pb::WatchResponse) -> Result<pb::WatchResponse, Status> {
    if !response.canceled {
        return Ok(response);
    }
    if response.compact_revision > 0 {
        return Err(super::errors::ApiError::COMPACTED.into());
    }
    Err(Status::cancelled(response.cancel_reason))
}

/// The prefix of all keys of a lock or an election.
pub(super) fn prefix(name: &[u8]) -> Bytes {
    [name, b"/"].concat().into()
}

/// The key of who waits with a lease.
pub(super) fn key(prefix: &[u8], lease: i64) -> Bytes {
    [prefix, format!("{lease:x}").as_bytes()].concat().into()
}

/// The end of all keys below a prefix, which ends with a slash.
pub(super) fn end(prefix: &[u8]) -> Bytes {
    let mut end = prefix.to_vec();
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    end.into()
}

/// The oldest key below a prefix.
pub(super) fn first_created(prefix: &Bytes) -> pb::RangeRequest {
    pb::RangeRequest {
        key: prefix.clone(),
        range_end: end(prefix),
        limit: 1,
        sort_order: pb::range_request::SortOrder::Ascend.into(),
        sort_target: pb::range_request::SortTarget::Create.into(),
        ..Default::default()
    }
}

/// That a key was created at this revision; 0: that there is none.
pub(super) fn created_at(key: &Bytes, revision: i64) -> pb::Compare {
    pb::Compare {
        result: pb::compare::CompareResult::Equal.into(),
        target: pb::compare::CompareTarget::Create.into(),
        key: key.clone(),
        target_union: Some(pb::compare::TargetUnion::CreateRevision(revision)),
        range_end: Bytes::new(),
    }
}

/// An operation of a transaction.
pub(super) fn op(request: Op) -> pb::RequestOp {
    pb::RequestOp { request: Some(request) }
}

/// Reads one key.
pub(super) fn get(key: &Bytes) -> pb::RangeRequest {
    pb::RangeRequest { key: key.clone(), ..Default::default() }
}

/// The first pair that an operation of a transaction read.
pub(super) fn first_read(answer: &pb::TxnResponse, at: usize) -> Option<&KeyValue> {
    match answer.responses.get(at)?.response.as_ref()? {
        pb::response_op::Response::ResponseRange(range) => range.kvs.first(),
        _ => None,
    }
}

/// The revision of an answer.
pub(super) fn revision(header: Option<&pb::ResponseHeader>) -> i64 {
    header.map_or(0, |header| header.revision)
}

/// Deletes a key that its owner waits with, unless the wait ended well: a client that goes away
/// must not hold up those behind it.
pub(super) struct Place {
    recipe: Option<Recipe>,
    key: Bytes,
}

impl Place {
    /// From now on the key is deleted when this is dropped.
    pub(super) fn hold(recipe: &Recipe, key: &Bytes) -> Self {
        Self { recipe: Some(recipe.clone()), key: key.clone() }
    }

    /// The key stays.
    pub(super) fn keep(mut self) {
        self.recipe = None;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some(recipe) = self.recipe.take() else { return };
        let key = std::mem::take(&mut self.key);
        tokio::spawn(async move {
            if let Err(status) = recipe.delete(key).await {
                tracing::debug!(%status, "a place in a queue is left; its lease ends it");
            }
        });
    }
}
