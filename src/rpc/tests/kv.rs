//! The KV service.

use tonic::codec::CompressionEncoding;
use tonic::metadata::MetadataValue;
use tonic::{Code, Request};

use super::{Fixture, assert_refused, bytes, pb, put};
use crate::limits::REQUEST_BYTES_MAX;
use crate::raft::api::{Consensus, ConsensusError};
use crate::rpc::member::Settings;
use crate::store::types::AlarmKind;
use pb::request_op::Request as Op;
use pb::response_op::Response as Answer;

fn get(key: &str) -> pb::RangeRequest {
    pb::RangeRequest { key: bytes(key), ..Default::default() }
}

fn op(request: Op) -> pb::RequestOp {
    pb::RequestOp { request: Some(request) }
}

/// The kind of transaction an API server sends: if unchanged then put, else read.
fn swap(key: &str, mod_revision: i64, value: &str) -> pb::TxnRequest {
    pb::TxnRequest {
        compare: vec![pb::Compare {
            result: pb::compare::CompareResult::Equal.into(),
            target: pb::compare::CompareTarget::Mod.into(),
            key: bytes(key),
            target_union: Some(pb::compare::TargetUnion::ModRevision(mod_revision)),
            range_end: bytes::Bytes::new(),
        }],
        success: vec![op(Op::RequestPut(put(key, value)))],
        failure: vec![op(Op::RequestRange(get(key)))],
    }
}

#[tokio::test]
async fn a_put_is_read_back_with_its_revisions() {
    let fixture = Fixture::new().await;
    let mut kv = fixture.client.kv.clone();
    let first = kv.put(put("a", "1")).await.unwrap().into_inner();
    let expected = pb::ResponseHeader { cluster_id: 0xc1, member_id: 1, revision: 2, raft_term: 3 };
    assert_eq!(first.header, Some(expected));
    let again = kv.put(pb::PutRequest { prev_kv: true, ..put("a", "2") }).await.unwrap();
    assert_eq!(again.into_inner().prev_kv.unwrap().value, bytes("1"));
    fixture.put("b", "3").await;

    let range = kv.range(get("a")).await.unwrap().into_inner();
    assert_eq!(range.header.unwrap().revision, 4);
    let [pair] = &range.kvs[..] else { panic!("{range:?}") };
    assert_eq!((&pair.key, &pair.value), (&bytes("a"), &bytes("2")));
    assert_eq!((pair.create_revision, pair.mod_revision, pair.version), (2, 3, 2));
    let old = kv.range(pb::RangeRequest { revision: 2, ..get("a") }).await.unwrap().into_inner();
    assert_eq!((old.header.unwrap().revision, &old.kvs[0].value), (4, &bytes("1")));
}

#[tokio::test]
async fn a_range_is_sorted_cut_and_counted() {
    use pb::range_request::{SortOrder, SortTarget};
    let fixture = Fixture::new().await;
    for (key, value) in [("k1", "c"), ("k2", "a"), ("k3", "b")] {
        fixture.put(key, value).await;
    }
    let request = pb::RangeRequest {
        range_end: bytes("l"),
        limit: 2,
        sort_order: SortOrder::Descend.into(),
        sort_target: SortTarget::Value.into(),
        ..get("k")
    };
    let range = fixture.client.kv.clone().range(request).await.unwrap().into_inner();
    let keys: Vec<_> = range.kvs.iter().map(|kv| kv.key.clone()).collect();
    assert_eq!((keys, range.more, range.count), (vec![bytes("k1"), bytes("k3")], true, 3));
}

#[tokio::test]
async fn a_delete_tells_what_it_deleted() {
    let fixture = Fixture::new().await;
    fixture.put("a", "1").await;
    fixture.put("b", "2").await;
    let request = pb::DeleteRangeRequest { key: bytes("a"), range_end: bytes("\0"), prev_kv: true };
    let mut kv = fixture.client.kv.clone();
    let deleted = kv.delete_range(request.clone()).await.unwrap().into_inner();
    assert_eq!((deleted.deleted, deleted.prev_kvs.len()), (2, 2));
    assert_eq!(deleted.header.unwrap().revision, 4);
    let nothing = kv.delete_range(request).await.unwrap().into_inner();
    assert_eq!((nothing.deleted, nothing.header.unwrap().revision), (0, 4));
}

#[tokio::test]
async fn a_transaction_takes_one_branch() {
    let fixture = Fixture::new().await;
    let mut kv = fixture.client.kv.clone();
    let made = kv.txn(swap("a", 0, "1")).await.unwrap().into_inner();
    assert!(made.succeeded);
    let Some(Answer::ResponsePut(inner)) = &made.responses[0].response else { panic!("{made:?}") };
    // Inside, the header holds the revision alone.
    let revision_only = pb::ResponseHeader { revision: 2, ..Default::default() };
    assert_eq!(inner.header, Some(revision_only));
    let refused = kv.txn(swap("a", 0, "2")).await.unwrap().into_inner();
    assert!(!refused.succeeded);
    let Some(Answer::ResponseRange(range)) = &refused.responses[0].response else {
        panic!("{refused:?}")
    };
    assert_eq!(range.kvs[0].value, bytes("1"));
    assert_eq!(refused.header.unwrap().revision, 2);
}

#[tokio::test]
async fn malformed_requests_are_refused_before_anything_is_done() {
    let fixture = Fixture::new().await;
    // Whatever reaches consensus would answer with this instead.
    fixture.solo.fail(Some(ConsensusError::Stopped));
    let mut kv = fixture.client.kv.clone();
    let invalid = Code::InvalidArgument;
    let empty = "etcdserver: key is not provided";
    assert_refused(kv.range(get("")).await, invalid, empty);
    assert_refused(kv.put(put("", "v")).await, invalid, empty);
    assert_refused(kv.delete_range(pb::DeleteRangeRequest::default()).await, invalid, empty);
    let sort = pb::RangeRequest { sort_target: 9, ..get("a") };
    assert_refused(kv.range(sort).await, invalid, "etcdserver: invalid sort option");
    let value = pb::PutRequest { ignore_value: true, ..put("a", "1") };
    assert_refused(kv.put(value).await, invalid, "etcdserver: value is provided");
    let lease = pb::PutRequest { ignore_lease: true, lease: 7, ..put("a", "1") };
    assert_refused(kv.put(lease).await, invalid, "etcdserver: lease is provided");
    let large = put("a", &"x".repeat(REQUEST_BYTES_MAX));
    assert_refused(kv.put(large).await, invalid, "etcdserver: request is too large");
    let ops = vec![op(Op::RequestPut(put("a", "1"))); 2];
    let twice = pb::TxnRequest { success: ops, ..Default::default() };
    let duplicate = "etcdserver: duplicate key given in txn request";
    assert_refused(kv.txn(twice).await, invalid, duplicate);
    let many = vec![op(Op::RequestRange(get("a"))); 129];
    let many = pb::TxnRequest { failure: many, ..Default::default() };
    let too_many = "etcdserver: too many operations in txn request";
    assert_refused(kv.txn(many).await, invalid, too_many);
}

#[tokio::test]
async fn the_store_refuses_with_etcds_words() {
    let fixture = Fixture::new().await;
    let mut kv = fixture.client.kv.clone();
    let missing = "etcdserver: key not found";
    let keep = pb::PutRequest { ignore_value: true, ..put("a", "") };
    assert_refused(kv.put(keep).await, Code::InvalidArgument, missing);
    let leased = pb::PutRequest { lease: 7, ..put("a", "1") };
    assert_refused(kv.put(leased).await, Code::NotFound, "etcdserver: requested lease not found");
    for n in 0..4 {
        fixture.put("a", &n.to_string()).await;
    }
    let compacted = "etcdserver: mvcc: required revision has been compacted";
    let future = "etcdserver: mvcc: required revision is a future revision";
    let compact = |revision| pb::CompactionRequest { revision, physical: true };
    let done = kv.compact(compact(4)).await.unwrap().into_inner();
    assert_eq!(done.header.unwrap().revision, 5);
    assert_refused(kv.compact(compact(4)).await, Code::OutOfRange, compacted);
    assert_refused(kv.compact(compact(9)).await, Code::OutOfRange, future);
    let at = |revision| pb::RangeRequest { revision, ..get("a") };
    assert_refused(kv.range(at(3)).await, Code::OutOfRange, compacted);
    assert_refused(kv.range(at(9)).await, Code::OutOfRange, future);
    assert_eq!(kv.range(at(4)).await.unwrap().into_inner().kvs[0].value, bytes("2"));
}

#[tokio::test]
async fn every_failure_of_consensus_has_etcds_code_and_text() {
    let unavailable = Code::Unavailable;
    let fixture = Fixture::new().await;
    let mut kv = fixture.client.kv.clone();
    for (failure, code, text) in [
        (ConsensusError::NoLeader, unavailable, "no leader"),
        (ConsensusError::LeaderChanged, unavailable, "leader changed"),
        (ConsensusError::Timeout, unavailable, "request timed out"),
        (
            ConsensusError::ConnectionLost,
            unavailable,
            "request timed out, possibly due to connection lost",
        ),
        (ConsensusError::Stopped, unavailable, "server stopped"),
        (ConsensusError::TooManyRequests, Code::ResourceExhausted, "too many requests"),
    ] {
        fixture.solo.fail(Some(failure));
        let text = format!("etcdserver: {text}");
        assert_refused(kv.put(put("a", "1")).await, code, &text);
        assert_refused(kv.range(get("a")).await, code, &text);
    }
}

#[tokio::test]
async fn stale_reads_need_no_consensus() {
    let fixture = Fixture::new().await;
    fixture.put("a", "1").await;
    fixture.solo.fail(Some(ConsensusError::NoLeader));
    let mut kv = fixture.client.kv.clone();
    let stale = pb::RangeRequest { serializable: true, ..get("a") };
    assert_eq!(kv.range(stale.clone()).await.unwrap().into_inner().count, 1);
    let ops = |range: &pb::RangeRequest| vec![op(Op::RequestRange(range.clone()))];
    let txn = pb::TxnRequest { success: ops(&stale), ..Default::default() };
    assert!(kv.txn(txn).await.unwrap().into_inner().succeeded);
    let txn = pb::TxnRequest { success: ops(&get("a")), ..Default::default() };
    assert_refused(kv.txn(txn).await, Code::Unavailable, "etcdserver: no leader");
}

#[tokio::test]
async fn a_call_that_asks_for_a_leader_is_refused_without_one() {
    let fixture = Fixture::new().await;
    fixture.solo.change_status(|status| status.leader = None);
    let mut request = Request::new(pb::RangeRequest { serializable: true, ..get("a") });
    request.metadata_mut().insert("hasleader", MetadataValue::from_static("true"));
    let answer = fixture.client.kv.clone().range(request).await;
    assert_refused(answer, Code::Unavailable, "etcdserver: no leader");
}

#[tokio::test]
async fn a_learner_only_serves_stale_reads() {
    let fixture = Fixture::new().await;
    fixture.solo.change_status(|status| status.learners = vec![status.id]);
    let mut kv = fixture.client.kv.clone();
    let text = "etcdserver: rpc not supported for learner";
    assert_refused(kv.put(put("a", "1")).await, Code::Unavailable, text);
    assert_refused(kv.range(get("a")).await, Code::Unavailable, text);
    let stale = pb::RangeRequest { serializable: true, ..get("a") };
    assert_eq!(kv.range(stale).await.unwrap().into_inner().count, 0);
}

#[tokio::test]
async fn a_full_disk_raises_the_alarm_and_costs_no_more_log() {
    let fixture = Fixture::new().await;
    let mut kv = fixture.client.kv.clone();
    kv.put(put("a", "1")).await.unwrap();
    let low = || Some("no space left".to_owned());
    fixture.solo.change_status(|status| status.low_space = low());
    let text = "etcdserver: mvcc: database space exceeded";
    assert_refused(kv.put(put("b", "1")).await, Code::ResourceExhausted, text);
    assert_eq!(fixture.solo.alarms(), [(1, AlarmKind::NoSpace)]);
    let index = fixture.solo.status().borrow().last_log_index;
    assert_refused(kv.put(put("b", "1")).await, Code::ResourceExhausted, text);
    assert_eq!(fixture.solo.status().borrow().last_log_index, index);
    fixture.delete("a").await;
}

#[tokio::test]
async fn a_full_store_raises_the_alarm_and_takes_deletes_only() {
    let settings = Settings { quota_bytes: 2000, ..Settings::default() };
    let fixture = Fixture::with(settings).await;
    let mut kv = fixture.client.kv.clone();
    let text = "etcdserver: mvcc: database space exceeded";
    let large = put("a", &"x".repeat(4000));
    assert_refused(kv.put(large).await, Code::ResourceExhausted, text);
    assert_eq!(fixture.solo.alarms(), [(1, AlarmKind::NoSpace)]);
    assert_refused(kv.put(put("a", "1")).await, Code::ResourceExhausted, text);
    fixture.delete("a").await;
}

#[tokio::test]
async fn a_compressed_request_gets_a_compressed_answer() {
    let fixture = Fixture::new().await;
    fixture.put("a", &"1".repeat(10_000)).await;
    let accepting = fixture.client.kv.clone().accept_compressed(CompressionEncoding::Gzip);
    let mut compressing = accepting.clone().send_compressed(CompressionEncoding::Gzip);
    let encoding = |answer: &tonic::Response<pb::RangeResponse>| {
        answer.metadata().get("grpc-encoding").map(|value| value.to_str().unwrap().to_owned())
    };
    let answer = compressing.range(get("a")).await.unwrap();
    assert_eq!(encoding(&answer).as_deref(), Some("gzip"));
    assert_eq!(answer.into_inner().kvs[0].value.len(), 10_000);
    let answer = accepting.clone().range(get("a")).await.unwrap();
    assert_eq!(encoding(&answer), None);
    assert_eq!(answer.into_inner().kvs[0].value.len(), 10_000);
    // What would be too long when it is unpacked is refused.
    let long = put("b", &"1".repeat(4 * 1024 * 1024));
    assert!(compressing.put(long).await.is_err());
    assert_eq!(compressing.range(get("b")).await.unwrap().into_inner().count, 0);
}
