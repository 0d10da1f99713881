//! Round trips of every command, and hostile bytes.

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::store::types::{
    Compare, CompareOp, CompareTarget, DeleteRange, KeyRange, Put, RangeQuery, Reply, SortOrder,
    SortTarget, StoreError, Txn, TxnOp,
};

fn some_bytes() -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..40).prop_map(Bytes::from)
}

fn some_range() -> impl Strategy<Value = KeyRange> {
    (some_bytes(), some_bytes()).prop_map(|(key, end)| KeyRange { key, end })
}

fn some_put() -> impl Strategy<Value = Put> {
    (some_bytes(), some_bytes(), any::<i64>(), any::<[bool; 3]>()).prop_map(
        |(key, value, lease, [prev_kv, ignore_value, ignore_lease])| Put {
            key,
            value,
            lease,
            prev_kv,
            ignore_value,
            ignore_lease,
        },
    )
}

fn some_delete() -> impl Strategy<Value = DeleteRange> {
    (some_range(), any::<bool>()).prop_map(|(range, prev_kv)| DeleteRange { range, prev_kv })
}

fn some_query() -> impl Strategy<Value = RangeQuery> {
    let order =
        prop_oneof![Just(SortOrder::None), Just(SortOrder::Ascend), Just(SortOrder::Descend)];
    let target = prop_oneof![
        Just(SortTarget::Key),
        Just(SortTarget::Version),
        Just(SortTarget::Create),
        Just(SortTarget::Mod),
        Just(SortTarget::Value)
    ];
    (some_range(), any::<[i64; 6]>(), any::<[bool; 2]>(), order, target).prop_map(
        |(range, numbers, [keys_only, count_only], order, target)| RangeQuery {
            range,
            limit: numbers[0],
            revision: numbers[1],
            order,
            target,
            keys_only,
            count_only,
            min_mod_revision: numbers[2],
            max_mod_revision: numbers[3],
            min_create_revision: numbers[4],
            max_create_revision: numbers[5],
        },
    )
}

fn some_compare() -> impl Strategy<Value = Compare> {
    let op = prop_oneof![
        Just(CompareOp::Equal),
        Just(CompareOp::Greater),
        Just(CompareOp::Less),
        Just(CompareOp::NotEqual)
    ];
    let target = prop_oneof![
        any::<i64>().prop_map(CompareTarget::Version),
        any::<i64>().prop_map(CompareTarget::Create),
        any::<i64>().prop_map(CompareTarget::Mod),
        any::<i64>().prop_map(CompareTarget::Lease),
        some_bytes().prop_map(CompareTarget::Value)
    ];
    (some_range(), op, target).prop_map(|(range, op, target)| Compare { range, op, target })
}

fn some_txn() -> impl Strategy<Value = Txn> {
    let leaf = (vec(some_compare(), 0..3)).prop_map(|compare| Txn { compare, ..Txn::default() });
    leaf.prop_recursive(3, 12, 3, |inner| {
        let op = prop_oneof![
            some_put().prop_map(TxnOp::Put),
            some_delete().prop_map(TxnOp::Delete),
            some_query().prop_map(TxnOp::Range),
            inner.prop_map(TxnOp::Txn)
        ];
        (vec(some_compare(), 0..3), vec(op.clone(), 0..3), vec(op, 0..3))
            .prop_map(|(compare, success, failure)| Txn { compare, success, failure })
    })
}

fn some_command() -> impl Strategy<Value = Command> {
    let optional = || proptest::option::of(some_bytes());
    prop_oneof![
        some_put().prop_map(Command::Put),
        some_delete().prop_map(Command::DeleteRange),
        some_txn().prop_map(Command::Txn),
        any::<i64>().prop_map(|revision| Command::Compact { revision }),
        any::<[i64; 2]>().prop_map(|[id, ttl]| Command::LeaseGrant { id, ttl }),
        any::<i64>().prop_map(|id| Command::LeaseRevoke { id }),
        vec(any::<(i64, i64)>(), 0..9).prop_map(|remaining| Command::LeaseCheckpoint { remaining }),
        (any::<bool>(), any::<u64>(), any::<bool>()).prop_map(|(active, member, space)| {
            let kind = if space { AlarmKind::NoSpace } else { AlarmKind::Corrupt };
            Command::Alarm { active, member, kind }
        }),
        (any::<u64>(), "[a-z0-9-]{0,9}", vec("https://[a-z]{1,9}:23[0-9]{2}", 0..3)).prop_map(
            |(id, name, urls)| {
                Command::MemberPut(MemberRecord {
                    id,
                    name,
                    peer_urls: urls.clone(),
                    client_urls: urls,
                })
            }
        ),
        any::<u64>().prop_map(|id| Command::MemberDelete { id }),
        ("[a-z/]{0,9}", optional(), proptest::option::of(optional()))
            .prop_map(|(key, value, expect)| Command::SystemPut { key, value, expect }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn every_command_survives_a_round_trip(command in some_command()) {
        prop_assert_eq!(decode(encode(&command)), Ok(command));
    }

    #[test]
    fn arbitrary_bytes_are_an_error_or_a_command_but_never_a_panic(input in vec(any::<u8>(), 0..200)) {
        if let Ok(command) = decode(Bytes::from(input)) {
            prop_assert_eq!(decode(encode(&command)), Ok(command));
        }
    }

    #[test]
    fn a_cut_or_changed_encoding_never_panics(
        command in some_command(), cut in any::<prop::sample::Index>(), flip in any::<u8>()
    ) {
        let whole = encode(&command);
        let at = cut.index(whole.len());
        prop_assert!(decode(whole.slice(..at)).is_err());
        let mut changed = whole.to_vec();
        changed[at] ^= flip;
        let _ = decode(Bytes::from(changed));
    }
}

#[test]
fn decoding_does_not_copy_the_value() {
    let put = Put { key: "k".into(), value: vec![7; 4096].into(), ..Put::default() };
    let encoded = encode(&Command::Put(put));
    let Ok(Command::Put(put)) = decode(encoded.clone()) else { panic!("not a put") };
    let inside = encoded.as_ptr_range();
    assert!(inside.contains(&put.value.as_ptr()));
}

#[test]
fn a_put_costs_few_bytes_beside_key_and_value() {
    let put = Put { key: vec![1; 32].into(), value: vec![2; 100].into(), ..Put::default() };
    assert_eq!(encode(&Command::Put(put)).len(), 2 + 1 + 1 + 32 + 1 + 100);
}

#[test]
fn nesting_beyond_the_limit_is_refused() {
    let mut txn = Txn::default();
    for _ in 0..crate::limits::TXN_OPS_MAX {
        txn = Txn { success: vec![TxnOp::Txn(txn)], ..Txn::default() };
    }
    assert_eq!(decode(encode(&Command::Txn(txn))), Err(CodecError::Depth));
}

#[test]
fn another_version_or_tag_is_named() {
    assert_eq!(decode(Bytes::from_static(&[9, 1])), Err(CodecError::Version(9)));
    assert_eq!(decode(Bytes::from_static(&[1, 99])), Err(CodecError::Tag(99)));
}

#[test]
fn outcomes_survive_a_round_trip() {
    for outcome in [Ok(Reply::Done { revision: 7 }), Err(StoreError::Compacted)] {
        let encoded = encode_outcome(&outcome).unwrap();
        assert_eq!(decode_outcome(&encoded), Ok(outcome));
    }
    assert_eq!(decode_outcome(&[77]), Err(CodecError::Outcome));
}
