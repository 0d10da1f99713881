//! What watchers are given, and when.

use std::time::Duration;

use super::*;
use crate::store::types::{Event, EventKind};
use crate::store::watch::{Delivery, WatchError, WatchId, WatchRequest, WatchStream};

const PLENTY: usize = 1 << 20;

fn watch(key: &str, end: &str, start_revision: Revision) -> WatchRequest {
    WatchRequest { range: range(key, end), start_revision, ..WatchRequest::default() }
}

/// An event in short: `2+a=1` is a put, `3-a` a deletion, `(…)` the value before.
fn short(event: &Event) -> String {
    let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
    let prev =
        event.prev_kv.as_ref().map_or(String::new(), |prev| format!("({})", text(&prev.value)));
    match event.kind {
        EventKind::Put => {
            format!(
                "{}+{}={}{prev}",
                event.kv.mod_revision,
                text(&event.kv.key),
                text(&event.kv.value)
            )
        }
        EventKind::Delete => format!("{}-{}{prev}", event.kv.mod_revision, text(&event.kv.key)),
    }
}

/// Pulls everything there is: pairs of watcher and its events in short.
fn pull(stream: &mut WatchStream) -> Vec<(WatchId, Vec<String>)> {
    let mut all = Vec::new();
    while let Some(delivery) = stream.next_batch(PLENTY) {
        all.push(match delivery {
            Delivery::Events { watch_id, events, revision, .. } => {
                assert!(events.last().unwrap().revision() <= revision);
                (watch_id, events.iter().map(|event| short(event.event())).collect())
            }
            Delivery::Compacted { watch_id, compact_revision } => {
                (watch_id, vec![format!("compacted {compact_revision}")])
            }
        });
    }
    all
}

/// The events of a stream with one watcher.
fn events(stream: &mut WatchStream) -> Vec<String> {
    pull(stream).into_iter().flat_map(|(_, events)| events).collect()
}

#[test]
fn from_now_on_means_after_the_revision_at_registration() {
    let mut bench = Bench::new();
    bench.put("a", "1");
    let mut stream = bench.state.watch_stream();
    let subscribed = stream.subscribe(watch("a", "", 0)).unwrap();
    assert_eq!((subscribed.watch_id, subscribed.revision), (0, 2));
    assert_eq!(events(&mut stream), Vec::<String>::new());
    bench.put("a", "2");
    bench.put("b", "2");
    bench.delete("a", "");
    assert_eq!(events(&mut stream), ["3+a=2(1)", "5-a(2)"]);
}

#[test]
fn an_old_start_is_served_from_history() {
    let mut bench = Bench::new();
    bench.put("a", "1");
    bench.put("b", "1");
    bench.put("a", "2");
    bench.delete("a", "c");
    let mut stream = bench.state.watch_stream();
    stream.subscribe(watch("a", "z", 3)).unwrap();
    assert_eq!(events(&mut stream), ["3+b=1", "4+a=2(1)", "5-a(2)", "5-b(1)"]);
    bench.put("a", "3");
    assert_eq!(events(&mut stream), ["6+a=3"]);
}

#[test]
fn a_future_start_waits() {
    let mut bench = Bench::new();
    let mut stream = bench.state.watch_stream();
    stream.subscribe(watch("a", "", 4)).unwrap();
    for value in ["2", "3"] {
        bench.put("a", value);
        assert_eq!(events(&mut stream), Vec::<String>::new());
    }
    assert_eq!(stream.synced_revision(), None);
    bench.put("a", "4");
    assert_eq!(events(&mut stream), ["4+a=4(3)"]);
    assert_eq!(stream.synced_revision(), Some(4));
}

#[test]
fn a_start_at_the_compacted_revision_is_served_and_one_before_it_is_cancelled() {
    let mut bench = Bench::new();
    bench.put("a", "1");
    bench.put("a", "2");
    bench.delete("a", "");
    bench.put("b", "1");
    for (revision, at) in [(3, "3+a=2"), (4, "4-a")] {
        bench.compact(revision).unwrap();
        while bench.state.trim(100) {}
        let mut stream = bench.state.watch_stream();
        stream.subscribe(watch("a", "", revision)).unwrap();
        assert_eq!(events(&mut stream)[0], at);
        stream.subscribe(watch("a", "", revision - 1)).unwrap();
        assert_eq!(pull(&mut stream), [(1, vec![format!("compacted {revision}")])]);
        assert!(!stream.cancel(1));
    }
}

#[test]
fn a_negative_start_and_an_empty_range_are_refused() {
    let bench = Bench::new();
    let mut stream = bench.state.watch_stream();
    assert_eq!(stream.subscribe(watch("a", "", -1)), Err(WatchError::NegativeRevision));
    assert_eq!(stream.subscribe(watch("b", "a", 0)), Err(WatchError::EmptyRange));
    assert_eq!(stream.subscribe(watch("a", "a", 0)), Err(WatchError::EmptyRange));
}

#[test]
fn numbers_are_the_clients_or_counted_from_0_and_never_double() {
    let bench = Bench::new();
    let mut stream = bench.state.watch_stream();
    let mut subscribe = |watch_id| {
        stream
            .subscribe(WatchRequest { watch_id, ..watch("a", "", 0) })
            .map(|subscribed| subscribed.watch_id)
    };
    assert_eq!(subscribe(0), Ok(0));
    assert_eq!(subscribe(2), Ok(2));
    assert_eq!(subscribe(0), Ok(1));
    assert_eq!(subscribe(0), Ok(3));
    assert_eq!(subscribe(2), Err(WatchError::DuplicateId));
    assert_eq!(stream.watch_ids().collect::<Vec<_>>(), [0, 1, 2, 3]);
    assert!(stream.cancel(2));
    assert!(!stream.cancel(2));
}

#[test]
fn an_empty_key_and_the_zero_end_watch_everything() {
    let mut bench = Bench::new();
    let mut stream = bench.state.watch_stream();
    stream.subscribe(watch("", "\0", 0)).unwrap();
    stream.subscribe(watch("b", "\0", 0)).unwrap();
    bench.put("a", "1");
    bench.put("c", "1");
    assert_eq!(
        pull(&mut stream),
        [(0, vec!["2+a=1".to_owned(), "3+c=1".to_owned()]), (1, vec!["3+c=1".to_owned()])]
    );
}

#[test]
fn a_revision_is_never_split_however_small_the_batch() {
    let mut bench = Bench::new();
    bench.put("z", "1");
    let ops = || success(vec![put_op("a", "1"), put_op("b", "1"), delete_op("z", "")]);
    bench.txn(ops()).unwrap();
    let mut stream = bench.state.watch_stream();
    stream.subscribe(watch("a", "\0", 2)).unwrap();
    bench.txn(ops()).unwrap();
    let mut sizes = Vec::new();
    while let Some(Delivery::Events { events, .. }) = stream.next_batch(1) {
        sizes.push(events.len());
    }
    assert_eq!(sizes, [1, 3, 2]);
}

#[test]
fn the_previous_pair_is_that_of_the_revision_before() {
    let mut bench = Bench::new();
    bench.put("a", "1");
    let nested = |op| TxnOp::Txn(success(vec![op]));
    let live = {
        let mut stream = bench.state.watch_stream();
        stream.subscribe(watch("a", "z", 0)).unwrap();
        bench.txn(success(vec![nested(put_op("a", "2")), nested(delete_op("a", "z"))])).unwrap();
        bench.txn(success(vec![nested(put_op("b", "1")), nested(delete_op("b", ""))])).unwrap();
        events(&mut stream)
    };
    // The deletion in the same revision does not see the put, and a key that was made and deleted
    // in one revision had nothing before.
    assert_eq!(live, ["3+a=2(1)", "3-a(1)", "4+b=1", "4-b"]);
    let mut stream = bench.state.watch_stream();
    stream.subscribe(watch("a", "z", 3)).unwrap();
    assert_eq!(events(&mut stream), live);
}

#[test]
fn a_compacted_previous_pair_is_left_out() {
    let mut bench = Bench::new();
    bench.put("a", "1");
    bench.put("a", "2");
    bench.compact(3).unwrap();
    let mut stream = bench.state.watch_stream();
    stream.subscribe(watch("a", "", 3)).unwrap();
    assert_eq!(events(&mut stream), ["3+a=2"]);
}

#[test]
fn filters_leave_events_out_and_nothing_is_delivered_for_nothing() {
    let mut bench = Bench::new();
    let mut stream = bench.state.watch_stream();
    stream.subscribe(WatchRequest { no_put: true, ..watch("a", "", 0) }).unwrap();
    stream.subscribe(WatchRequest { no_delete: true, ..watch("a", "", 0) }).unwrap();
    bench.put("a", "1");
    assert_eq!(pull(&mut stream), [(1, vec!["2+a=1".to_owned()])]);
    assert_eq!(stream.synced_revision(), Some(2));
    bench.delete("a", "");
    assert_eq!(pull(&mut stream), [(0, vec!["3-a(1)".to_owned()])]);
}

#[test]
fn progress_is_told_only_when_all_watchers_of_the_stream_have_everything() {
    let mut bench = Bench::new();
    let mut stream = bench.state.watch_stream();
    stream.subscribe(watch("a", "", 0)).unwrap();
    stream.subscribe(watch("b", "", 0)).unwrap();
    assert_eq!(stream.synced_revision(), Some(1));
    bench.put("a", "1");
    bench.put("c", "1");
    assert_eq!(stream.synced_revision(), None);
    assert_eq!((stream.synced_revision_of(0), stream.synced_revision_of(1)), (None, Some(3)));
    let Some(Delivery::Events { revision, .. }) = stream.next_batch(PLENTY) else { panic!() };
    assert_eq!(revision, 3);
    assert_eq!(stream.synced_revision(), Some(3));
}

#[test]
fn a_slow_watcher_catches_up_and_misses_nothing() {
    let mut bench = Bench::new();
    let mut stream = bench.state.watch_stream();
    stream.subscribe(watch("a", "", 0)).unwrap();
    // More than the ring of recent revisions holds.
    let count = 20_000;
    for value in 0..count {
        bench.put("a", &value.to_string());
    }
    let mut next = 2;
    while let Some(Delivery::Events { events, .. }) = stream.next_batch(10_000) {
        for event in events {
            assert_eq!(event.revision(), next);
            assert_eq!(event.event().kv.value, (next - 2).to_string());
            next += 1;
        }
    }
    assert_eq!(next, count + 2);
    assert_eq!(stream.synced_revision(), Some(bench.state.revision()));
}

#[test]
fn a_watcher_that_compaction_overtook_is_told_so() {
    let mut bench = Bench::new();
    let mut stream = bench.state.watch_stream();
    stream.subscribe(watch("a", "", 0)).unwrap();
    stream.subscribe(watch("b", "", 0)).unwrap();
    for value in 0..20_000 {
        bench.put("a", &value.to_string());
    }
    bench.compact(15_000).unwrap();
    assert_eq!(pull(&mut stream), [(0, vec!["compacted 15000".to_owned()])]);
    bench.put("b", "1");
    assert_eq!(pull(&mut stream).len(), 1);
}

#[test]
fn an_event_is_encoded_once_for_all_watchers_with_the_same_wish() {
    let mut bench = Bench::new();
    let mut streams = [(); 3].map(|()| bench.state.watch_stream());
    for stream in &mut streams {
        stream.subscribe(watch("a", "", 0)).unwrap();
    }
    bench.put("a", "1");
    let mut encoded = 0;
    for stream in &mut streams {
        let Some(Delivery::Events { events, prev_kv, .. }) = stream.next_batch(PLENTY) else {
            panic!()
        };
        let wire = events[0].encoded(prev_kv, |event, _| {
            encoded += 1;
            event.kv.key.clone()
        });
        assert_eq!(wire, "a");
    }
    assert_eq!(encoded, 1);
}

#[test]
fn watchers_that_come_and_go_between_revisions_miss_none() {
    let mut bench = Bench::new();
    for _ in 0..3 {
        let mut stream = bench.state.watch_stream();
        stream.subscribe(watch("a", "", 0)).unwrap();
        bench.put("a", "1");
        assert_eq!(events(&mut stream).len(), 1);
        drop(stream);
        // Nobody watches: this is not recorded, and must not be taken for nothing.
        bench.put("a", "2");
        let mut stream = bench.state.watch_stream();
        stream.subscribe(watch("a", "", bench.state.revision())).unwrap();
        assert_eq!(events(&mut stream).len(), 1);
    }
}

#[tokio::test]
async fn a_stream_sleeps_until_there_is_something_for_it() {
    let mut bench = Bench::new();
    let mut stream = bench.state.watch_stream();
    stream.subscribe(watch("a", "", 0)).unwrap();
    bench.put("b", "1");
    let idle = tokio::time::timeout(Duration::from_millis(20), stream.ready()).await;
    assert!(idle.is_err());
    let writer = tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(5)).await;
        bench.put("a", "1");
        bench
    });
    stream.ready().await;
    assert_eq!(events(&mut stream), ["3+a=1"]);
    writer.await.unwrap();
}

#[test]
fn concurrent_writers_readers_and_streams_see_one_history() {
    const WRITES: i64 = 3000;
    let mut bench = Bench::new();
    let state = bench.state.clone();
    std::thread::scope(|scope| {
        for reader in 0..3 {
            let state = state.clone();
            scope.spawn(move || {
                let mut next = 2;
                let mut stream = state.watch_stream();
                while next < WRITES + 2 {
                    // Now and then on a new stream, from where the old one ended.
                    if next % 500 == 2 || stream.watch_ids().next().is_none() {
                        stream = state.watch_stream();
                        stream.subscribe(watch("k", "l", next)).unwrap();
                    }
                    match stream.next_batch(100 * (reader + 1)) {
                        Some(Delivery::Events { events, .. }) => {
                            for event in events {
                                assert_eq!(event.revision(), next);
                                next += 1;
                            }
                        }
                        Some(other) => panic!("{other:?}"),
                        None => std::thread::yield_now(),
                    }
                }
            });
        }
        for value in 0..WRITES {
            bench.put(&format!("k{}", value % 7), &value.to_string());
        }
    });
}
