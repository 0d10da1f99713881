//! How revisions are counted, and what a transaction sees.

use super::*;
use crate::store::mvcc::validate;
use crate::store::types::OpOutcome;

#[test]
fn a_fresh_store_is_at_revision_1_and_its_first_write_makes_2() {
    let mut bench = Bench::new();
    assert_eq!((bench.state.revision(), bench.state.compact_revision()), (1, -1));
    assert_eq!(bench.put("a", "1").revision, 2);
    assert_eq!(bench.state.revision(), 2);
    assert_eq!(bench.state.applied(), (1, 1));
}

#[test]
fn one_revision_per_transaction_whatever_it_changes() {
    let mut bench = Bench::new();
    bench.put("c", "0");
    let outcome =
        bench.txn(success(vec![put_op("a", "1"), put_op("b", "1"), delete_op("c", "")])).unwrap();
    assert_eq!(outcome.revision, 3);
    assert_eq!(bench.get("a").unwrap().mod_revision, 3);
    assert_eq!(bench.get("b").unwrap().mod_revision, 3);
    assert_eq!(bench.get("c"), None);
}

#[test]
fn what_changes_nothing_makes_no_revision() {
    let mut bench = Bench::new();
    bench.put("a", "1");
    assert_eq!(bench.delete("none", "").revision, 2);
    let failed = Txn {
        compare: vec![value_is("a", "other")],
        success: vec![put_op("a", "2")],
        failure: vec![get_op("a")],
    };
    let outcome = bench.txn(failed).unwrap();
    assert_eq!((outcome.succeeded, outcome.revision), (false, 2));
    bench.grant(7, 60).unwrap();
    bench.apply(Command::LeaseRevoke { id: 7 }).unwrap();
    bench
        .apply(Command::SystemPut { key: "x".into(), value: Some(bytes("1")), expect: None })
        .unwrap();
    assert_eq!(bench.state.revision(), 2);
}

#[test]
fn a_range_in_a_transaction_sees_what_was_put_before_it() {
    let mut bench = Bench::new();
    bench.put("a", "1");
    let outcome = bench.txn(success(vec![get_op("a"), put_op("a", "2"), get_op("a")])).unwrap();
    let [OpOutcome::Range(before), OpOutcome::Put(put), OpOutcome::Range(after)] =
        &outcome.responses[..]
    else {
        panic!("{outcome:?}")
    };
    assert_eq!((before.revision, before.kvs[0].value.as_ref()), (2, b"1".as_ref()));
    assert_eq!(put.revision, 3);
    assert_eq!((after.revision, after.kvs[0].value.as_ref()), (3, b"2".as_ref()));
    assert_eq!(outcome.revision, 3);
}

#[test]
fn a_delete_of_nothing_after_a_put_answers_the_new_revision() {
    let mut bench = Bench::new();
    let outcome = bench.txn(success(vec![put_op("a", "1"), delete_op("none", "")])).unwrap();
    let [_, OpOutcome::Delete(delete)] = &outcome.responses[..] else { panic!("{outcome:?}") };
    assert_eq!((delete.deleted, delete.revision), (0, 2));
}

#[test]
fn a_key_made_again_starts_a_new_generation() {
    let mut bench = Bench::new();
    bench.put("a", "1");
    bench.put("a", "2");
    let pair = bench.get("a").unwrap();
    assert_eq!((pair.create_revision, pair.mod_revision, pair.version), (2, 3, 2));
    bench.delete("a", "");
    bench.put("a", "3");
    let pair = bench.get("a").unwrap();
    assert_eq!((pair.create_revision, pair.mod_revision, pair.version), (5, 5, 1));
    assert_eq!(bench.get_at("a", 4).unwrap(), None);
    assert_eq!(bench.get_at("a", 3).unwrap().unwrap().value, "2");
}

#[test]
fn conditions_of_all_levels_see_the_state_before_the_transaction() {
    let mut bench = Bench::new();
    bench.put("a", "old");
    let inner = Txn {
        compare: vec![value_is("a", "new")],
        success: vec![put_op("inner", "yes")],
        failure: vec![put_op("inner", "no")],
    };
    let outcome = bench.txn(success(vec![put_op("a", "new"), TxnOp::Txn(inner)])).unwrap();
    assert_eq!(bench.get("inner").unwrap().value, "no");
    let OpOutcome::Txn(nested) = &outcome.responses[1] else { panic!("{outcome:?}") };
    assert_eq!((nested.succeeded, nested.revision), (false, 0));
}

#[test]
fn nested_branches_are_taken_in_the_order_they_stand() {
    let mut bench = Bench::new();
    let choose = |holds: bool, deeper: Option<Txn>, key: &str| {
        let compare = if holds { vec![] } else { vec![value_is("none", "x")] };
        let ops =
            |word| deeper.clone().map(TxnOp::Txn).into_iter().chain([put_op(key, word)]).collect();
        Txn { compare, success: ops("then"), failure: ops("else") }
    };
    let first = choose(false, Some(choose(true, None, "a")), "b");
    let second = choose(true, Some(choose(false, None, "c")), "d");
    bench.txn(success(vec![TxnOp::Txn(first), TxnOp::Txn(second)])).unwrap();
    let value = |key| bench.get(key).unwrap().value;
    assert_eq!([value("a"), value("b"), value("c"), value("d")], ["then", "else", "else", "then"]);
}

#[test]
fn a_refused_transaction_changes_nothing() {
    let refused = [
        (TxnOp::Put(Put { lease: 99, ..put("b", "1") }), StoreError::LeaseNotFound),
        (TxnOp::Put(Put { ignore_value: true, ..put("b", "") }), StoreError::KeyNotFound),
        (TxnOp::Put(Put { ignore_lease: true, ..put("b", "1") }), StoreError::KeyNotFound),
        (TxnOp::Range(RangeQuery { revision: 99, ..query("a", "") }), StoreError::FutureRevision),
        (TxnOp::Range(RangeQuery { revision: 2, ..query("a", "") }), StoreError::Compacted),
    ];
    for (op, error) in refused {
        let mut bench = Bench::new();
        bench.put("x", "1");
        bench.put("x", "2");
        bench.compact(3).unwrap();
        let nested =
            Txn { failure: vec![op.clone()], compare: vec![value_is("x", "no")], ..Txn::default() };
        assert_eq!(bench.txn(success(vec![put_op("a", "1"), op])), Err(error.clone()));
        assert_eq!(bench.txn(success(vec![put_op("a", "1"), TxnOp::Txn(nested)])), Err(error));
        assert_eq!(bench.state.revision(), 3);
        assert_eq!(bench.get("a"), None);
    }
}

#[test]
fn a_branch_not_taken_is_not_checked() {
    let mut bench = Bench::new();
    let bad = TxnOp::Put(Put { lease: 99, ..put("b", "1") });
    let txn = Txn { success: vec![put_op("a", "1")], failure: vec![bad], ..Txn::default() };
    assert!(bench.txn(txn).is_ok());
}

#[test]
fn put_gives_the_previous_pair_and_keeps_value_or_lease_when_told() {
    let mut bench = Bench::new();
    bench.grant(7, 60).unwrap();
    bench.apply(Command::Put(Put { lease: 7, ..put("a", "1") })).unwrap();
    let keep_value = Put { ignore_value: true, prev_kv: true, ..put("a", "") };
    let Ok(Reply::Put(outcome)) = bench.apply(Command::Put(keep_value)) else { panic!() };
    assert_eq!(outcome.prev_kv.unwrap().lease, 7);
    let pair = bench.get("a").unwrap();
    assert_eq!((pair.value.as_ref(), pair.lease, pair.version), (b"1".as_ref(), 0, 2));
    bench.apply(Command::Put(Put { lease: 7, ..put("a", "2") })).unwrap();
    bench.apply(Command::Put(Put { ignore_lease: true, ..put("a", "3") })).unwrap();
    let pair = bench.get("a").unwrap();
    assert_eq!((pair.value.as_ref(), pair.lease), (b"3".as_ref(), 7));
    let absent = Put { ignore_value: true, ..put("none", "") };
    assert_eq!(bench.apply(Command::Put(absent)), Err(StoreError::KeyNotFound));
}

#[test]
fn compaction_keeps_the_newest_version_at_its_revision() {
    let mut bench = Bench::new();
    for value in ["1", "2", "3"] {
        bench.put("a", value);
    }
    bench.put("b", "1");
    bench.compact(3).unwrap();
    while bench.state.trim(8) {}
    assert_eq!(bench.get_at("a", 3).unwrap().unwrap().value, "2");
    assert_eq!(bench.get_at("a", 4).unwrap().unwrap().value, "3");
    assert_eq!(bench.get_at("a", 2), Err(StoreError::Compacted));
    assert_eq!(bench.compact(3), Err(StoreError::Compacted));
    assert_eq!(bench.compact(6), Err(StoreError::FutureRevision));
    assert_eq!(bench.state.compact_revision(), 3);
}

#[test]
fn compaction_forgets_deleted_keys_and_their_memory() {
    let mut bench = Bench::new();
    let empty = bench.state.size_bytes();
    for round in 0..20 {
        for key in ["a", "b", "c"] {
            bench.put(key, &"x".repeat(round));
        }
    }
    bench.delete("a", "z");
    assert!(bench.state.size_bytes().total > empty.total);
    assert_eq!(bench.state.size_bytes().in_use, 0);
    bench.compact(bench.state.revision()).unwrap();
    while bench.state.trim(8) {}
    // The deletions at the compacted revision itself can still be read by a watch.
    assert!(bench.state.size_bytes().total < 3 * 300);
    bench.put("d", "");
    bench.compact(bench.state.revision()).unwrap();
    while bench.state.trim(8) {}
    assert_eq!(bench.state.size_bytes().total, bench.state.size_bytes().in_use);
}

#[test]
fn a_transaction_that_only_reads_needs_no_log() {
    let mut bench = Bench::new();
    bench.put("a", "1");
    let txn =
        Txn { compare: vec![value_is("a", "1")], success: vec![get_op("a")], failure: vec![] };
    assert!(crate::store::state::txn_is_readonly(&txn));
    let outcome = bench.state.txn_read(&txn).unwrap();
    assert_eq!((outcome.revision, outcome.succeeded), (2, true));
    assert_eq!(bench.txn(txn).unwrap(), outcome);
    assert!(!crate::store::state::txn_is_readonly(&success(vec![TxnOp::Txn(Txn::default())])));
}

#[test]
fn duplicate_keys_are_refused_as_etcd_refuses_them() {
    let nested = |then: Vec<TxnOp>, otherwise: Vec<TxnOp>| {
        TxnOp::Txn(Txn { compare: vec![], success: then, failure: otherwise })
    };
    let refused = [
        vec![put_op("a", "1"), put_op("a", "2")],
        vec![put_op("b", "1"), delete_op("a", "c")],
        vec![put_op("a", "1"), nested(vec![], vec![put_op("a", "2")])],
        vec![put_op("b", "1"), nested(vec![delete_op("a", "c")], vec![])],
        vec![delete_op("a", "c"), nested(vec![put_op("b", "1")], vec![])],
        vec![nested(vec![put_op("a", "1")], vec![]), nested(vec![put_op("a", "1")], vec![])],
        vec![nested(vec![delete_op("a", "c")], vec![]), nested(vec![put_op("b", "1")], vec![])],
    ];
    for ops in refused {
        assert_eq!(validate(&success(ops.clone())), Err(StoreError::DuplicateKey), "{ops:?}");
        let failure = Txn { failure: ops, ..Txn::default() };
        assert_eq!(validate(&failure), Err(StoreError::DuplicateKey));
    }
    let allowed = [
        vec![put_op("a", "1"), put_op("b", "1"), delete_op("c", "")],
        vec![delete_op("a", "c"), delete_op("b", "d")],
        vec![nested(vec![put_op("a", "1")], vec![put_op("a", "2")])],
        vec![nested(vec![put_op("b", "1")], vec![]), nested(vec![delete_op("a", "c")], vec![])],
        vec![delete_op("c", "a"), put_op("b", "1")],
        vec![delete_op("a", "\0"), put_op("b", "1")],
    ];
    for ops in allowed {
        assert_eq!(validate(&success(ops.clone())), Ok(()), "{ops:?}");
    }
    let both =
        Txn { success: vec![put_op("a", "1")], failure: vec![put_op("a", "2")], ..Txn::default() };
    assert_eq!(validate(&both), Ok(()));
}
