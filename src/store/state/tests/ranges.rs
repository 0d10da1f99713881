//! Reading with every option.

use std::sync::Arc;

use super::*;
use crate::store::types::{SortOrder, SortTarget};

fn filled() -> Bench {
    let mut bench = Bench::new();
    for (key, value) in [("a", "3"), ("b", "2"), ("c", "1"), ("a", "9"), ("d", "5")] {
        bench.put(key, value);
    }
    bench
}

#[test]
fn single_keys_intervals_and_everything_from_a_key() {
    let bench = filled();
    assert_eq!(bench.keys(&query("b", "")), ["b"]);
    assert_eq!(bench.keys(&query("b", "d")), ["b", "c"]);
    assert_eq!(bench.keys(&query("b", "\0")), ["b", "c", "d"]);
    assert_eq!(bench.keys(&query("\0", "\0")), ["a", "b", "c", "d"]);
    assert_eq!(bench.keys(&query("d", "b")), Vec::<String>::new());
    assert_eq!(bench.keys(&query("b", "b")), Vec::<String>::new());
}

#[test]
fn the_limit_cuts_and_the_count_does_not_know_it() {
    let bench = filled();
    let result = bench.range(&RangeQuery { limit: 2, ..query("a", "z") }).unwrap();
    assert_eq!(
        (names(&result), result.more, result.count),
        (vec!["a".into(), "b".into()], true, 4)
    );
    let result = bench.range(&RangeQuery { limit: 4, ..query("a", "z") }).unwrap();
    assert_eq!((result.kvs.len(), result.more), (4, false));
    let result =
        bench.range(&RangeQuery { limit: 1, count_only: true, ..query("a", "z") }).unwrap();
    assert_eq!((result.kvs.len(), result.more, result.count), (0, false, 4));
}

#[test]
fn orders_by_each_field_before_the_limit() {
    let bench = filled();
    let by = |target, order| bench.keys(&RangeQuery { target, order, limit: 3, ..query("a", "z") });
    assert_eq!(by(SortTarget::Key, SortOrder::None), ["a", "b", "c"]);
    assert_eq!(by(SortTarget::Key, SortOrder::Descend), ["d", "c", "b"]);
    assert_eq!(by(SortTarget::Mod, SortOrder::Ascend), ["b", "c", "a"]);
    assert_eq!(by(SortTarget::Create, SortOrder::Descend), ["d", "c", "b"]);
    assert_eq!(by(SortTarget::Version, SortOrder::Descend), ["a", "b", "c"]);
    assert_eq!(by(SortTarget::Value, SortOrder::Ascend), ["c", "b", "d"]);
}

/// As etcd 3.4 to 3.6.
#[test]
fn a_field_without_an_order_orders_what_the_limit_and_one_more_left() {
    let bench = filled();
    let by = |limit, min_mod_revision| {
        let query =
            RangeQuery { target: SortTarget::Mod, limit, min_mod_revision, ..query("a", "z") };
        let result = bench.range(&query).unwrap();
        (names(&result), result.more)
    };
    assert_eq!(by(0, 0).0, ["b", "c", "a", "d"]);
    assert_eq!(by(1, 0), (vec!["b".to_owned()], true));
    assert_eq!(by(2, 0).0, ["b", "c"]);
    // a is at 5, d at 6.
    assert_eq!(by(1, 5).0, ["a"]);
    assert_eq!(by(1, 4).0, ["c"]);
}

#[test]
fn keys_only_leaves_the_values_out_but_can_order_by_them() {
    let bench = filled();
    let query = RangeQuery { keys_only: true, target: SortTarget::Value, ..query("a", "z") };
    let result = bench.range(&query).unwrap();
    assert_eq!(names(&result), ["c", "b", "d", "a"]);
    assert!(result.kvs.iter().all(|pair| pair.value.is_empty()));
    assert_eq!(result.kvs[3].version, 2);
}

#[test]
fn filters_by_revisions_count_towards_more_but_not_count() {
    let bench = filled();
    let query =
        RangeQuery { min_mod_revision: 3, max_mod_revision: 5, limit: 1, ..query("a", "z") };
    let result = bench.range(&query).unwrap();
    assert_eq!((names(&result), result.more, result.count), (vec!["a".into()], true, 4));
    let query =
        RangeQuery { min_create_revision: 3, max_create_revision: 4, ..super::query("a", "z") };
    assert_eq!(bench.keys(&query), ["b", "c"]);
}

#[test]
fn an_old_revision_is_read_with_the_present_revision_in_the_answer() {
    let bench = filled();
    let result = bench.range(&RangeQuery { revision: 3, ..query("a", "z") }).unwrap();
    assert_eq!(
        (names(&result), result.count, result.revision),
        (vec!["a".into(), "b".into()], 2, 6)
    );
    assert_eq!(result.kvs[0].value, "3");
    let future = RangeQuery { revision: 7, ..query("a", "z") };
    assert_eq!(bench.range(&future), Err(StoreError::FutureRevision));
}

#[test]
fn a_long_range_is_one_revision_while_writes_and_compactions_go_on() {
    let keys = 5 * crate::store::state::READ_STEP;
    let mut bench = Bench::new();
    for key in 0..keys {
        bench.put(&format!("{key:06}"), "0");
    }
    let state = bench.state.clone();
    let going = Arc::new(());
    let written = Arc::downgrade(&going);
    std::thread::scope(|scope| {
        // An assertion that fails drops it too.
        let going = going;
        scope.spawn(|| {
            for round in 1.. {
                if written.strong_count() == 0 {
                    break;
                }
                let value = round.to_string();
                // First and last key always change together.
                let last = format!("{:06}", keys - 1);
                bench.txn(success(vec![put_op("000000", &value), put_op(&last, &value)])).unwrap();
                bench.compact(bench.state.revision()).unwrap();
            }
        });
        for _ in 0..50 {
            let result = state.range(&query("0", "\0")).unwrap();
            assert_eq!(result.kvs.len(), keys);
            assert_eq!(result.kvs[0].value, result.kvs[keys - 1].value);
        }
        drop(going);
    });
}
