//! Messages to the store's words and back. Pure.
//!
//! What is going to be stored is copied out of the buffer it was received in: a slice of that
//! buffer would keep all of it alive, 8 KiB at least, for as long as the key lives.

use bytes::Bytes;

use super::errors::ApiError;
use super::pb::{authpb, etcdserverpb as pb, mvccpb};
use crate::store::auth::{Access, Permission};
use crate::store::types::{
    AlarmKind, Compare, CompareOp, CompareTarget, DeleteOutcome, DeleteRange, Event, EventKind,
    KeyRange, KeyValue, MemberId, OpOutcome, Put, RangeQuery, RangeResult, SortOrder, SortTarget,
    Txn, TxnOp, TxnOutcome,
};
use authpb::permission::Type;
use pb::request_op::Request as Op;
use pb::response_op::Response as Answer;

/// A header that stands inside a transaction's answer: only the revision is set there.
fn inner_header(revision: i64) -> pb::ResponseHeader {
    pb::ResponseHeader { revision, ..Default::default() }
}

pub(crate) fn key_value(kv: KeyValue) -> mvccpb::KeyValue {
    mvccpb::KeyValue {
        key: kv.key,
        create_revision: kv.create_revision,
        mod_revision: kv.mod_revision,
        version: kv.version,
        value: kv.value,
        lease: kv.lease,
    }
}

fn key_values(kvs: Vec<KeyValue>) -> Vec<mvccpb::KeyValue> {
    kvs.into_iter().map(key_value).collect()
}

pub(crate) fn event(event: Event) -> mvccpb::Event {
    let kind = match event.kind {
        EventKind::Put => mvccpb::event::EventType::Put,
        EventKind::Delete => mvccpb::event::EventType::Delete,
    };
    mvccpb::Event {
        r#type: kind.into(),
        kv: Some(key_value(event.kv)),
        prev_kv: event.prev_kv.map(key_value),
    }
}

/// A checked range; sort options that [`super::check::range`] refuses count as the default.
pub(crate) fn range(request: pb::RangeRequest) -> RangeQuery {
    use pb::range_request as r;
    let target = match request.sort_target() {
        r::SortTarget::Key => SortTarget::Key,
        r::SortTarget::Version => SortTarget::Version,
        r::SortTarget::Create => SortTarget::Create,
        r::SortTarget::Mod => SortTarget::Mod,
        r::SortTarget::Value => SortTarget::Value,
    };
    let order = match request.sort_order() {
        r::SortOrder::None => SortOrder::None,
        r::SortOrder::Ascend => SortOrder::Ascend,
        r::SortOrder::Descend => SortOrder::Descend,
    };
    RangeQuery {
        range: KeyRange { key: request.key, end: request.range_end },
        limit: request.limit,
        revision: request.revision,
        order,
        target,
        keys_only: request.keys_only,
        count_only: request.count_only,
        min_mod_revision: request.min_mod_revision,
        max_mod_revision: request.max_mod_revision,
        min_create_revision: request.min_create_revision,
        max_create_revision: request.max_create_revision,
    }
}

pub(crate) fn range_response(
    result: RangeResult,
    header: Option<pb::ResponseHeader>,
) -> pb::RangeResponse {
    pb::RangeResponse {
        header,
        kvs: key_values(result.kvs),
        more: result.more,
        count: result.count,
    }
}

pub(crate) fn put(request: &pb::PutRequest) -> Put {
    Put {
        key: Bytes::copy_from_slice(&request.key),
        value: Bytes::copy_from_slice(&request.value),
        lease: request.lease,
        prev_kv: request.prev_kv,
        ignore_value: request.ignore_value,
        ignore_lease: request.ignore_lease,
    }
}

pub(crate) fn delete(request: pb::DeleteRangeRequest) -> DeleteRange {
    DeleteRange {
        range: KeyRange { key: request.key, end: request.range_end },
        prev_kv: request.prev_kv,
    }
}

pub(crate) fn delete_response(
    outcome: DeleteOutcome,
    header: Option<pb::ResponseHeader>,
) -> pb::DeleteRangeResponse {
    pb::DeleteRangeResponse {
        header,
        deleted: outcome.deleted,
        prev_kvs: key_values(outcome.prev_kvs),
    }
}

/// A transaction that [`super::check::txn`] let pass.
pub(crate) fn txn(request: pb::TxnRequest) -> Result<Txn, ApiError> {
    Ok(Txn {
        compare: request.compare.into_iter().map(compare).collect::<Result<_, _>>()?,
        success: operations(request.success)?,
        failure: operations(request.failure)?,
    })
}

fn operations(ops: Vec<pb::RequestOp>) -> Result<Vec<TxnOp>, ApiError> {
    let convert = |op: pb::RequestOp| match op.request {
        Some(Op::RequestRange(request)) => Ok(TxnOp::Range(range(request))),
        Some(Op::RequestPut(request)) => Ok(TxnOp::Put(put(&request))),
        Some(Op::RequestDeleteRange(request)) => Ok(TxnOp::Delete(delete(request))),
        Some(Op::RequestTxn(request)) => Ok(TxnOp::Txn(txn(request)?)),
        None => Err(ApiError::KEY_NOT_FOUND),
    };
    ops.into_iter().map(convert).collect()
}

/// The target says which field is compared; a value given for another field counts as zero, as in
/// etcd. An unknown operator or target, on which etcd says nothing, is refused.
fn compare(compare: pb::Compare) -> Result<Compare, ApiError> {
    use pb::compare as c;
    let unknown = |_| ApiError::INVALID_COMPARE;
    let op = match c::CompareResult::try_from(compare.result).map_err(unknown)? {
        c::CompareResult::Equal => CompareOp::Equal,
        c::CompareResult::Greater => CompareOp::Greater,
        c::CompareResult::Less => CompareOp::Less,
        c::CompareResult::NotEqual => CompareOp::NotEqual,
    };
    let given = compare.target_union;
    let target = match (c::CompareTarget::try_from(compare.target).map_err(unknown)?, given) {
        (c::CompareTarget::Version, Some(c::TargetUnion::Version(n))) => CompareTarget::Version(n),
        (c::CompareTarget::Version, _) => CompareTarget::Version(0),
        (c::CompareTarget::Create, Some(c::TargetUnion::CreateRevision(n))) => {
            CompareTarget::Create(n)
        }
        (c::CompareTarget::Create, _) => CompareTarget::Create(0),
        (c::CompareTarget::Mod, Some(c::TargetUnion::ModRevision(n))) => CompareTarget::Mod(n),
        (c::CompareTarget::Mod, _) => CompareTarget::Mod(0),
        (c::CompareTarget::Value, Some(c::TargetUnion::Value(value))) => {
            CompareTarget::Value(value)
        }
        (c::CompareTarget::Value, _) => CompareTarget::Value(Bytes::new()),
        (c::CompareTarget::Lease, Some(c::TargetUnion::Lease(n))) => CompareTarget::Lease(n),
        (c::CompareTarget::Lease, _) => CompareTarget::Lease(0),
    };
    Ok(Compare { range: KeyRange { key: compare.key, end: compare.range_end }, op, target })
}

pub(crate) fn txn_response(
    outcome: TxnOutcome,
    header: Option<pb::ResponseHeader>,
) -> pb::TxnResponse {
    let answer = |response: OpOutcome| match response {
        OpOutcome::Range(result) => {
            let header = Some(inner_header(result.revision));
            Answer::ResponseRange(range_response(result, header))
        }
        OpOutcome::Put(outcome) => Answer::ResponsePut(pb::PutResponse {
            header: Some(inner_header(outcome.revision)),
            prev_kv: outcome.prev_kv.map(key_value),
        }),
        OpOutcome::Delete(outcome) => {
            let header = Some(inner_header(outcome.revision));
            Answer::ResponseDeleteRange(delete_response(outcome, header))
        }
        OpOutcome::Txn(outcome) => {
            let header = Some(inner_header(outcome.revision));
            Answer::ResponseTxn(txn_response(outcome, header))
        }
    };
    pb::TxnResponse {
        header,
        succeeded: outcome.succeeded,
        responses: outcome
            .responses
            .into_iter()
            .map(|response| pb::ResponseOp { response: Some(answer(response)) })
            .collect(),
    }
}

/// What a role may do; nothing for one of no known kind.
pub(crate) fn permission(given: authpb::Permission) -> Option<Permission> {
    let access = match Type::try_from(given.perm_type).ok()? {
        Type::Read => Access::Read,
        Type::Write => Access::Write,
        Type::Readwrite => Access::ReadWrite,
    };
    Some(Permission { access, range: KeyRange { key: given.key, end: given.range_end } })
}

pub(crate) fn permission_message(permission: &Permission) -> authpb::Permission {
    let kind = match permission.access {
        Access::Read => Type::Read,
        Access::Write => Type::Write,
        Access::ReadWrite => Type::Readwrite,
    };
    authpb::Permission {
        perm_type: kind.into(),
        key: permission.range.key.clone(),
        range_end: permission.range.end.clone(),
    }
}

pub(crate) fn alarm_type(kind: AlarmKind) -> pb::AlarmType {
    match kind {
        AlarmKind::NoSpace => pb::AlarmType::Nospace,
        AlarmKind::Corrupt => pb::AlarmType::Corrupt,
    }
}

pub(crate) fn alarm_kind(kind: pb::AlarmType) -> Option<AlarmKind> {
    match kind {
        pb::AlarmType::None => None,
        pb::AlarmType::Nospace => Some(AlarmKind::NoSpace),
        pb::AlarmType::Corrupt => Some(AlarmKind::Corrupt),
    }
}

pub(crate) fn alarm_member((member_id, kind): (MemberId, AlarmKind)) -> pb::AlarmMember {
    pb::AlarmMember { member_id, alarm: alarm_type(kind).into() }
}
