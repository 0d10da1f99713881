//! Random commands and queries over few keys, so that they meet.

use proptest::collection::vec;
use proptest::prelude::*;

use super::super::*;
use crate::store::types::{SortOrder, SortTarget};

fn some_key() -> impl Strategy<Value = Bytes> {
    "[abc]{1,2}".prop_map(Bytes::from)
}

pub(super) fn some_range() -> impl Strategy<Value = KeyRange> {
    let end =
        prop_oneof![3 => Just(Bytes::new()), 1 => Just(Bytes::from_static(&[0])), 3 => some_key()];
    (some_key(), end).prop_map(|(key, end)| KeyRange { key, end })
}

/// A revision, old, present or future, relative to the present when it is used.
fn some_revision() -> impl Strategy<Value = Revision> {
    prop_oneof![4 => Just(0), 4 => 1..30_i64]
}

fn some_put() -> impl Strategy<Value = Put> {
    (some_key(), "[xyz]{0,2}", prop_oneof![3 => Just(0), 1 => 1..4_i64], any::<bool>(), 0..10)
        .prop_map(|(key, value, lease, prev_kv, kind)| Put {
            key,
            value: value.into(),
            lease,
            prev_kv,
            ignore_value: kind == 0,
            ignore_lease: kind == 1,
        })
}

fn some_delete() -> impl Strategy<Value = DeleteRange> {
    (some_range(), any::<bool>()).prop_map(|(range, prev_kv)| DeleteRange { range, prev_kv })
}

pub(super) fn some_query() -> impl Strategy<Value = RangeQuery> {
    let order =
        prop_oneof![Just(SortOrder::None), Just(SortOrder::Ascend), Just(SortOrder::Descend)];
    let target = prop_oneof![
        2 => Just(SortTarget::Key),
        1 => Just(SortTarget::Version),
        1 => Just(SortTarget::Create),
        1 => Just(SortTarget::Mod),
        1 => Just(SortTarget::Value)
    ];
    let bound = || prop_oneof![3 => Just(0), 1 => 1..20_i64];
    (
        (some_range(), 0..4_i64, some_revision(), order, target),
        (any::<bool>(), 0..6, bound(), bound(), bound(), bound()),
    )
        .prop_map(
            |((range, limit, revision, order, target), (keys_only, count, a, b, c, d))| {
                RangeQuery {
                    range,
                    limit,
                    revision,
                    order,
                    target,
                    keys_only,
                    count_only: count == 0,
                    min_mod_revision: a,
                    max_mod_revision: b,
                    min_create_revision: c,
                    max_create_revision: d,
                }
            },
        )
}

fn some_compare() -> impl Strategy<Value = Compare> {
    let op = prop_oneof![
        Just(CompareOp::Equal),
        Just(CompareOp::NotEqual),
        Just(CompareOp::Less),
        Just(CompareOp::Greater)
    ];
    let target = prop_oneof![
        (0..4_i64).prop_map(CompareTarget::Version),
        (0..20_i64).prop_map(CompareTarget::Create),
        (0..20_i64).prop_map(CompareTarget::Mod),
        (0..4_i64).prop_map(CompareTarget::Lease),
        "[xyz]{0,1}".prop_map(|value| CompareTarget::Value(value.into()))
    ];
    (some_range(), op, target).prop_map(|(range, op, target)| Compare { range, op, target })
}

/// Also such transactions as etcd's gate refuses, because a state machine must not depend on it.
fn some_txn() -> impl Strategy<Value = Txn> {
    let plain = || {
        prop_oneof![
            3 => some_put().prop_map(TxnOp::Put),
            1 => some_delete().prop_map(TxnOp::Delete),
            1 => some_query().prop_map(|query| TxnOp::Range(RangeQuery { revision: 0, ..query })),
            1 => some_query().prop_map(TxnOp::Range)
        ]
    };
    let txn = move |op: BoxedStrategy<TxnOp>| {
        (vec(some_compare(), 0..2), vec(op.clone(), 0..4), vec(op, 0..3))
            .prop_map(|(compare, success, failure)| Txn { compare, success, failure })
    };
    txn(plain().boxed()).prop_recursive(2, 8, 3, move |inner| {
        txn(prop_oneof![2 => plain(), 1 => inner.prop_map(TxnOp::Txn)].boxed())
    })
}

pub(super) fn some_command() -> impl Strategy<Value = Command> {
    prop_oneof![
        6 => some_put().prop_map(Command::Put),
        2 => some_delete().prop_map(Command::DeleteRange),
        4 => some_txn().prop_map(Command::Txn),
        1 => (0..30_i64).prop_map(|revision| Command::Compact { revision }),
        1 => (1..4_i64).prop_map(|id| Command::LeaseGrant { id, ttl: 60 }),
        1 => (1..4_i64).prop_map(|id| Command::LeaseRevoke { id }),
    ]
}

/// `ignore_*` on a key that an earlier operation of the same transaction deleted is the one case
/// that etcd leaves open (it panics); its gate lets no such transaction in.
pub(super) fn is_open(command: &Command) -> bool {
    fn keeps(ops: &[TxnOp]) -> bool {
        ops.iter().any(|op| match op {
            TxnOp::Put(put) => put.ignore_value || put.ignore_lease,
            TxnOp::Txn(inner) => keeps(&inner.success) || keeps(&inner.failure),
            _ => false,
        })
    }
    match command {
        Command::Txn(txn) => keeps(&txn.success) || keeps(&txn.failure),
        _ => false,
    }
}
