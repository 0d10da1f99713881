//! Leases, alarms and the records beside the key space.

use super::*;
use crate::limits::LEASE_TTL_SECONDS_MAX;
use crate::store::types::{AlarmKind, MemberRecord};

#[test]
fn a_grant_is_refused_for_a_bad_number_or_time_to_live() {
    let mut bench = Bench::new();
    assert_eq!(bench.grant(7, 60), Ok(Reply::LeaseGranted { revision: 1, id: 7, ttl: 60 }));
    assert_eq!(bench.grant(7, 60), Err(StoreError::LeaseExists));
    assert_eq!(bench.grant(0, 60), Err(StoreError::LeaseNotFound));
    assert_eq!(bench.grant(8, LEASE_TTL_SECONDS_MAX + 1), Err(StoreError::LeaseTtlTooLarge));
    assert!(bench.grant(8, LEASE_TTL_SECONDS_MAX).is_ok());
}

#[test]
fn a_revoked_lease_takes_its_keys_along_in_one_revision() {
    let mut bench = Bench::new();
    bench.grant(7, 60).unwrap();
    for key in ["c", "a", "b"] {
        bench.apply(Command::Put(Put { lease: 7, ..put(key, "1") })).unwrap();
    }
    bench.put("d", "1");
    assert_eq!(bench.state.lease(7).unwrap().keys(), ["a", "b", "c"]);
    let revision = bench.state.revision();
    let outcome = bench.apply(Command::LeaseRevoke { id: 7 });
    assert_eq!(outcome, Ok(Reply::Done { revision: revision + 1 }));
    assert_eq!(bench.keys(&query("a", "z")), ["d"]);
    assert_eq!(bench.state.lease(7), None);
    assert_eq!(bench.apply(Command::LeaseRevoke { id: 7 }), Err(StoreError::LeaseNotFound));
}

#[test]
fn a_key_belongs_to_the_lease_of_its_last_put_and_to_none_once_deleted() {
    let mut bench = Bench::new();
    bench.grant(7, 60).unwrap();
    bench.grant(8, 60).unwrap();
    for lease in [7, 8] {
        bench.apply(Command::Put(Put { lease, ..put("a", "1") })).unwrap();
        bench.apply(Command::Put(Put { lease, ..put("b", "1") })).unwrap();
    }
    bench.put("b", "2");
    let keys = |id| bench.state.lease(id).unwrap().keys();
    assert_eq!((keys(7), keys(8)), (vec![], vec![bytes("a")]));
    bench.delete("a", "");
    assert_eq!(bench.state.lease(8).unwrap().keys(), Vec::<Bytes>::new());
    bench.apply(Command::LeaseRevoke { id: 8 }).unwrap();
    assert_eq!(bench.get("b").unwrap().value, "2");
}

#[test]
fn what_is_left_of_a_lease_is_recorded_and_cleared() {
    let mut bench = Bench::new();
    bench.grant(7, 600).unwrap();
    bench.grant(8, 60).unwrap();
    bench.apply(Command::LeaseCheckpoint { remaining: vec![(7, 41), (99, 5)] }).unwrap();
    assert_eq!(bench.state.lease_times(), [(7, 600, 41), (8, 60, 0)]);
    bench.apply(Command::LeaseCheckpoint { remaining: vec![(7, 0)] }).unwrap();
    assert_eq!(bench.state.lease_times(), [(7, 600, 0), (8, 60, 0)]);
}

#[test]
fn without_space_only_what_grows_the_store_is_refused() {
    let mut bench = Bench::new();
    bench.put("a", "1");
    bench.grant(7, 60).unwrap();
    let raise = Command::Alarm { active: true, member: 3, kind: AlarmKind::NoSpace };
    assert_eq!(bench.apply(raise), Ok(Reply::Alarms(vec![(3, AlarmKind::NoSpace)])));
    assert_eq!(bench.apply(Command::Put(put("b", "1"))), Err(StoreError::NoSpace));
    assert_eq!(bench.grant(8, 60), Err(StoreError::NoSpace));
    let puts = Txn { failure: vec![put_op("b", "1")], ..Txn::default() };
    assert_eq!(bench.txn(puts), Err(StoreError::NoSpace));
    bench.txn(success(vec![delete_op("none", "")])).unwrap();
    assert_eq!(bench.delete("a", "").deleted, 1);
    bench.compact(2).unwrap();
    bench.apply(Command::LeaseRevoke { id: 7 }).unwrap();
    let clear = Command::Alarm { active: false, member: 3, kind: AlarmKind::NoSpace };
    assert_eq!(bench.apply(clear), Ok(Reply::Alarms(vec![])));
    bench.put("b", "1");
}

#[test]
fn with_corruption_every_change_is_refused() {
    let mut bench = Bench::new();
    bench.put("a", "1");
    bench.apply(Command::Alarm { active: true, member: 3, kind: AlarmKind::Corrupt }).unwrap();
    assert_eq!(bench.apply(Command::Put(put("b", "1"))), Err(StoreError::Corrupt));
    let delete = DeleteRange { range: range("a", ""), prev_kv: false };
    assert_eq!(bench.apply(Command::DeleteRange(delete)), Err(StoreError::Corrupt));
    assert_eq!(bench.compact(2), Err(StoreError::Corrupt));
    bench.apply(Command::MemberPut(MemberRecord { id: 3, ..MemberRecord::default() })).unwrap();
    bench.apply(Command::MemberDelete { id: 3 }).unwrap();
    assert_eq!(bench.state.alarms(), []);
    bench.put("b", "1");
}

#[test]
fn the_quota_counts_what_a_command_would_add() {
    let mut bench = Bench::new();
    let put_command = Command::Put(put("a", &"x".repeat(1000)));
    assert!(!bench.state.exceeds_quota(&put_command, 2000));
    bench.apply(put_command.clone()).unwrap();
    assert!(bench.state.exceeds_quota(&put_command, 2000));
    let delete = DeleteRange { range: range("a", ""), prev_kv: false };
    assert!(!bench.state.exceeds_quota(&Command::DeleteRange(delete), 1));
}

#[test]
fn system_records_are_compared_and_set() {
    let mut bench = Bench::new();
    let mut set = |value: Option<&str>, expect: Option<Option<&str>>| {
        let command = Command::SystemPut {
            key: "nodes/a".into(),
            value: value.map(bytes),
            expect: expect.map(|expect| expect.map(bytes)),
        };
        match bench.apply(command) {
            Ok(Reply::SystemPut { made, current }) => (made, current),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(set(Some("1"), Some(None)), (true, Some(bytes("1"))));
    assert_eq!(set(Some("2"), Some(None)), (false, Some(bytes("1"))));
    assert_eq!(set(Some("2"), Some(Some("1"))), (true, Some(bytes("2"))));
    assert_eq!(set(None, Some(Some("2"))), (true, None));
    assert_eq!(set(Some("3"), None), (true, Some(bytes("3"))));
    assert_eq!(bench.state.system("nodes/a"), Some(bytes("3")));
    assert_eq!(bench.state.system_prefix("nodes/"), [("nodes/a".to_owned(), bytes("3"))]);
    assert_eq!(bench.state.system_prefix("nodes/b"), []);
}

#[test]
fn an_unknown_member_cannot_be_forgotten() {
    let mut bench = Bench::new();
    assert_eq!(bench.apply(Command::MemberDelete { id: 3 }), Err(StoreError::MemberNotFound));
}
