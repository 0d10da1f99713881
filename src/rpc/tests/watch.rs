//! The Watch service.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::MetadataValue;
use tonic::{Code, Request, Streaming};

use super::{Fixture, assert_refused, bytes, pb, put};
use crate::rpc::member::Settings;
use crate::rpc::pb::mvccpb::event::EventType;
use pb::watch_request::RequestUnion;

/// One stream of watches.
struct Watch {
    requests: mpsc::Sender<pb::WatchRequest>,
    responses: Streaming<pb::WatchResponse>,
}

impl Watch {
    async fn open(fixture: &Fixture) -> Self {
        Self::open_with(fixture, |_| {}).await
    }

    async fn open_with(
        fixture: &Fixture,
        change: impl FnOnce(&mut Request<ReceiverStream<pb::WatchRequest>>),
    ) -> Self {
        let (requests, receiver) = mpsc::channel(16);
        let mut request = Request::new(ReceiverStream::new(receiver));
        change(&mut request);
        let responses = fixture.client.watch.clone().watch(request).await.unwrap().into_inner();
        Self { requests, responses }
    }

    async fn send(&self, union: RequestUnion) {
        self.requests.send(pb::WatchRequest { request_union: Some(union) }).await.unwrap();
    }

    async fn next(&mut self) -> pb::WatchResponse {
        self.responses.message().await.unwrap().unwrap()
    }

    /// Creates a watcher and gives the answer.
    async fn create(&mut self, request: pb::WatchCreateRequest) -> pb::WatchResponse {
        self.send(RequestUnion::CreateRequest(request)).await;
        let created = self.next().await;
        assert!(created.created && created.events.is_empty(), "{created:?}");
        created
    }

    async fn progress(&self) {
        self.send(RequestUnion::ProgressRequest(pb::WatchProgressRequest {})).await;
    }
}

/// A watch of everything.
fn all() -> pb::WatchCreateRequest {
    pb::WatchCreateRequest { range_end: bytes("\0"), ..Default::default() }
}

/// Key, value and kind of each event.
fn told(response: &pb::WatchResponse) -> Vec<(String, String, EventType)> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let pair = |event: &crate::rpc::pb::mvccpb::Event| {
        let kv = event.kv.as_ref().unwrap();
        (text(&kv.key), text(&kv.value), event.r#type())
    };
    response.events.iter().map(pair).collect()
}

fn revision(response: &pb::WatchResponse) -> i64 {
    response.header.unwrap().revision
}

#[tokio::test]
async fn changes_are_told_in_order_with_the_pair_before() {
    let fixture = Fixture::new().await;
    let mut watch = Watch::open(&fixture).await;
    let created = watch.create(pb::WatchCreateRequest { prev_kv: true, ..all() }).await;
    assert_eq!((created.watch_id, revision(&created)), (0, 1));
    fixture.put("a", "1").await;
    let first = watch.next().await;
    assert_eq!(told(&first), [("a".into(), "1".into(), EventType::Put)]);
    assert_eq!((first.watch_id, revision(&first)), (0, 2));
    assert_eq!(first.events[0].prev_kv, None);
    fixture.put("a", "2").await;
    assert_eq!(watch.next().await.events[0].prev_kv.as_ref().unwrap().value, bytes("1"));
    fixture.delete("a").await;
    let last = watch.next().await;
    assert_eq!(told(&last), [("a".into(), String::new(), EventType::Delete)]);
    let deleted = last.events[0].kv.as_ref().unwrap();
    assert_eq!((deleted.mod_revision, deleted.create_revision, deleted.version), (4, 0, 0));
    assert_eq!(last.events[0].prev_kv.as_ref().unwrap().value, bytes("2"));
}

#[tokio::test]
async fn the_pair_before_is_only_sent_to_those_who_ask() {
    let fixture = Fixture::new().await;
    fixture.put("a", "1").await;
    let mut watch = Watch::open(&fixture).await;
    watch.create(all()).await;
    watch.create(pb::WatchCreateRequest { prev_kv: true, ..all() }).await;
    fixture.put("a", "2").await;
    for response in [watch.next().await, watch.next().await] {
        assert_eq!(response.events[0].prev_kv.is_some(), response.watch_id == 1, "{response:?}");
    }
}

#[tokio::test]
async fn history_is_told_from_the_start_revision_on() {
    let fixture = Fixture::new().await;
    for n in 0..5 {
        fixture.put("a", &n.to_string()).await;
    }
    fixture.put("b", "x").await;
    let mut watch = Watch::open(&fixture).await;
    let request =
        pb::WatchCreateRequest { key: bytes("a"), start_revision: 4, ..Default::default() };
    assert_eq!(revision(&watch.create(request).await), 7);
    let mut values = Vec::new();
    while values.len() < 3 {
        values.extend(told(&watch.next().await).into_iter().map(|(_, value, _)| value));
    }
    assert_eq!(values, ["2", "3", "4"]);
}

#[tokio::test]
async fn a_watch_of_the_future_waits_for_it() {
    let fixture = Fixture::new().await;
    let mut watch = Watch::open(&fixture).await;
    watch.create(pb::WatchCreateRequest { start_revision: 4, ..all() }).await;
    for n in 2..6 {
        assert_eq!(fixture.put("a", &n.to_string()).await, n);
    }
    assert_eq!(told(&watch.next().await)[0].1, "4");
}

#[tokio::test]
async fn the_changes_of_one_transaction_come_in_one_response() {
    let fixture = Fixture::new().await;
    let mut watch = Watch::open(&fixture).await;
    watch.create(all()).await;
    let keys: Vec<String> = (0..100).map(|n| format!("key{n:03}")).collect();
    let value = "x".repeat(10_000);
    let op = |key: &String| pb::RequestOp {
        request: Some(pb::request_op::Request::RequestPut(put(key, &value))),
    };
    let txn = pb::TxnRequest { success: keys.iter().map(op).collect(), ..Default::default() };
    fixture.client.kv.clone().txn(txn).await.unwrap();
    let response = watch.next().await;
    let seen: Vec<String> = told(&response).into_iter().map(|(key, _, _)| key).collect();
    assert_eq!(seen, keys);
}

#[tokio::test]
async fn filters_leave_kinds_of_events_out() {
    use pb::watch_create_request::FilterType;
    let fixture = Fixture::new().await;
    let mut watch = Watch::open(&fixture).await;
    let filtered =
        |filter: FilterType| pb::WatchCreateRequest { filters: vec![filter.into()], ..all() };
    watch.create(filtered(FilterType::Noput)).await;
    watch.create(filtered(FilterType::Nodelete)).await;
    fixture.put("a", "1").await;
    let put = watch.next().await;
    assert_eq!((put.watch_id, told(&put)[0].2), (1, EventType::Put));
    fixture.delete("a").await;
    let deleted = watch.next().await;
    assert_eq!((deleted.watch_id, told(&deleted)[0].2), (0, EventType::Delete));
}

#[tokio::test]
async fn numbers_are_chosen_by_the_client_or_counted_and_never_shared() {
    let fixture = Fixture::new().await;
    let mut watch = Watch::open(&fixture).await;
    let with = |watch_id| pb::WatchCreateRequest { watch_id, ..all() };
    assert_eq!(watch.create(with(0)).await.watch_id, 0);
    assert_eq!(watch.create(with(7)).await.watch_id, 7);
    assert_eq!(watch.create(with(0)).await.watch_id, 1);
    let refused = watch.create(with(7)).await;
    assert_eq!((refused.watch_id, refused.canceled), (-1, true));
    let text = "mvcc: duplicate watch ID provided on the WatchStream";
    assert_eq!(refused.cancel_reason, text);
}

#[tokio::test]
async fn impossible_watches_are_created_and_cancelled_at_once() {
    let fixture = Fixture::new().await;
    let mut watch = Watch::open(&fixture).await;
    let negative = watch.create(pb::WatchCreateRequest { start_revision: -1, ..all() }).await;
    assert_eq!((negative.watch_id, negative.canceled), (-1, true));
    let text = "etcdserver: mvcc: required revision has been compacted";
    assert_eq!(negative.cancel_reason, text);
    let reversed =
        pb::WatchCreateRequest { key: bytes("b"), range_end: bytes("a"), ..Default::default() };
    let reversed = watch.create(reversed).await;
    assert_eq!((reversed.watch_id, reversed.canceled), (-1, true));
    assert_eq!(reversed.cancel_reason, "mvcc: watcher range is empty");
}

#[tokio::test]
async fn a_compacted_start_is_created_and_then_cancelled() {
    let fixture = Fixture::new().await;
    for n in 0..5 {
        fixture.put("a", &n.to_string()).await;
    }
    fixture.compact(5).await;
    let mut watch = Watch::open(&fixture).await;
    watch.create(pb::WatchCreateRequest { start_revision: 4, ..all() }).await;
    let cancelled = watch.next().await;
    assert_eq!((cancelled.canceled, cancelled.compact_revision), (true, 5));
    watch.create(pb::WatchCreateRequest { start_revision: 5, ..all() }).await;
    assert_eq!(told(&watch.next().await)[0].1, "3");
}

#[tokio::test]
async fn a_cancelled_watch_says_so_and_is_silent() {
    let fixture = Fixture::new().await;
    let mut watch = Watch::open(&fixture).await;
    watch.create(all()).await;
    watch.create(all()).await;
    let cancel = |watch_id| RequestUnion::CancelRequest(pb::WatchCancelRequest { watch_id });
    // An unknown number is not answered.
    watch.send(cancel(9)).await;
    watch.send(cancel(0)).await;
    let cancelled = watch.next().await;
    assert_eq!((cancelled.watch_id, cancelled.canceled), (0, true));
    assert_eq!((cancelled.cancel_reason.as_str(), cancelled.compact_revision), ("", 0));
    fixture.put("a", "1").await;
    assert_eq!(watch.next().await.watch_id, 1);
    watch.progress().await;
    assert_eq!(watch.next().await.watch_id, -1);
}

#[tokio::test]
async fn progress_is_told_for_the_whole_stream_after_all_events() {
    let fixture = Fixture::new().await;
    let mut watch = Watch::open(&fixture).await;
    watch.create(all()).await;
    watch.create(pb::WatchCreateRequest { key: bytes("other"), ..Default::default() }).await;
    fixture.put("a", "1").await;
    watch.progress().await;
    assert_eq!(told(&watch.next().await).len(), 1);
    let progress = watch.next().await;
    assert_eq!((progress.watch_id, revision(&progress)), (-1, 2));
    assert!(progress.events.is_empty() && !progress.canceled && !progress.created);
}

#[tokio::test]
async fn no_progress_is_told_before_a_watcher_has_begun() {
    let fixture = Fixture::new().await;
    let mut watch = Watch::open(&fixture).await;
    watch.create(pb::WatchCreateRequest { start_revision: 4, ..all() }).await;
    watch.progress().await;
    for n in 2..=4 {
        fixture.put("a", &n.to_string()).await;
    }
    assert_eq!(told(&watch.next().await)[0].1, "4");
    assert_eq!(revision(&watch.next().await), 4);
}

#[tokio::test]
async fn a_quiet_watcher_that_asked_for_it_hears_how_far_it_is() {
    let settings =
        Settings { progress_notify_interval: Duration::from_millis(100), ..Settings::default() };
    let fixture = Fixture::with(settings).await;
    let mut watch = Watch::open(&fixture).await;
    let request = pb::WatchCreateRequest { progress_notify: true, key: bytes("a"), ..all() };
    watch.create(pb::WatchCreateRequest { range_end: bytes::Bytes::new(), ..request }).await;
    watch.create(pb::WatchCreateRequest { key: bytes("a"), ..Default::default() }).await;
    fixture.put("unwatched", "1").await;
    loop {
        let progress = watch.next().await;
        assert_eq!((progress.watch_id, progress.events.len()), (0, 0));
        if revision(&progress) == 2 {
            break;
        }
    }
}

#[tokio::test]
async fn a_large_revision_comes_in_fragments_to_those_who_take_them() {
    let fixture = Fixture::new().await;
    let value = "x".repeat(1_000_000);
    for key in ["a", "b", "c", "d"] {
        fixture.put(key, &value).await;
    }
    let mut watch = Watch::open(&fixture).await;
    let whole = pb::WatchCreateRequest { prev_kv: true, ..all() };
    watch.create(pb::WatchCreateRequest { fragment: true, ..whole.clone() }).await;
    let delete =
        pb::DeleteRangeRequest { key: bytes("\0"), range_end: bytes("\0"), prev_kv: false };
    fixture.client.kv.clone().delete_range(delete).await.unwrap();
    let mut fragments = vec![watch.next().await];
    while fragments.last().unwrap().fragment {
        fragments.push(watch.next().await);
    }
    assert!(fragments.len() > 1);
    assert_eq!(fragments.iter().map(|part| part.events.len()).sum::<usize>(), 4);

    let mut watch = Watch::open(&fixture).await;
    watch.create(pb::WatchCreateRequest { start_revision: 6, ..whole }).await;
    let response = watch.next().await;
    assert_eq!((response.events.len(), response.fragment), (4, false));
}

#[tokio::test]
async fn watches_go_on_after_the_client_has_said_all() {
    let fixture = Fixture::new().await;
    let mut watch = Watch::open(&fixture).await;
    watch.create(all()).await;
    watch.requests = mpsc::channel(1).0;
    fixture.put("a", "1").await;
    assert_eq!(told(&watch.next().await).len(), 1);
}

#[tokio::test]
async fn a_stream_that_needs_a_leader_ends_when_there_is_none() {
    let settings = Settings { election_timeout: Duration::from_millis(20), ..Settings::default() };
    let fixture = Fixture::with(settings).await;
    let needs_leader = |request: &mut Request<_>| {
        request.metadata_mut().insert("hasleader", MetadataValue::from_static("true"));
    };
    let mut strict = Watch::open_with(&fixture, needs_leader).await;
    let mut lenient = Watch::open(&fixture).await;
    strict.create(all()).await;
    lenient.create(all()).await;
    fixture.solo.change_status(|status| status.leader = None);
    let text = "etcdserver: no leader";
    assert_refused(strict.responses.message().await, Code::Unavailable, text);
    fixture.put("a", "1").await;
    assert_eq!(told(&lenient.next().await).len(), 1);
    let mut request = Request::new(ReceiverStream::new(mpsc::channel(1).1));
    needs_leader(&mut request);
    let again = fixture.client.watch.clone().watch(request).await;
    assert_refused(again, Code::Unavailable, text);
}

#[tokio::test]
async fn streams_end_with_the_server() {
    let fixture = Fixture::new().await;
    let mut watch = Watch::open(&fixture).await;
    watch.create(all()).await;
    fixture.stop.cancel();
    let text = "etcdserver: server stopped";
    assert_refused(watch.responses.message().await, Code::Unavailable, text);
}

#[tokio::test]
async fn a_client_that_goes_leaves_nothing_behind() {
    let fixture = Fixture::new().await;
    let mut watch = Watch::open(&fixture).await;
    watch.create(all()).await;
    let metrics = &fixture.metrics;
    assert_eq!((metrics.watchers.get(), metrics.watch_streams.get()), (1, 1));
    drop(watch);
    while metrics.watch_streams.get() > 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(metrics.watchers.get(), 0);
}
