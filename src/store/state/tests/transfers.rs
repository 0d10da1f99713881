//! Out into records and in again: snapshots and checkpoints.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::*;
use crate::store::state::{Import, ImportError, Record, Replaced, State};
use crate::store::types::{AlarmKind, MemberRecord};
use crate::store::watch::{Delivery, WatchRequest};

pub(super) type Stored = BTreeMap<Vec<u8>, Bytes>;

fn gather(all: impl Iterator<Item = Result<Record, Replaced>>) -> Stored {
    let mut stored = Stored::new();
    for record in all {
        let Record { key, value } = record.unwrap();
        assert_eq!(stored.insert(key, value.unwrap()), None, "a record came twice");
    }
    stored
}

pub(super) fn store(into: &mut Stored, changes: impl Iterator<Item = Result<Record, Replaced>>) {
    for record in changes {
        let Record { key, value } = record.unwrap();
        match value {
            Some(value) => into.insert(key, value),
            None => into.remove(&key),
        };
    }
}

/// All that two equal states have in common.
pub(super) fn assert_equal(one: &State, other: &State) {
    let all = query("\0", "\0");
    assert_eq!(one.applied(), other.applied());
    assert_eq!(one.membership(), other.membership());
    assert_eq!(one.revision(), other.revision());
    assert_eq!(one.compact_revision(), other.compact_revision());
    assert_eq!(one.hash_kv(0), other.hash_kv(0));
    assert_eq!(one.range(&all), other.range(&all));
    assert_eq!(one.lease_times(), other.lease_times());
    for (id, _) in one.leases() {
        assert_eq!(one.lease(id), other.lease(id));
    }
    assert_eq!(one.members(), other.members());
    assert_eq!(one.alarms(), other.alarms());
    assert_eq!(one.system_prefix(""), other.system_prefix(""));
    for revision in one.compact_revision().max(1)..=one.revision() {
        let query = RangeQuery { revision, ..all.clone() };
        assert_eq!(one.range(&query), other.range(&query));
        assert_eq!(one.hash_kv(revision), other.hash_kv(revision));
    }
}

/// A bench with something of everything.
fn filled() -> Bench {
    let mut bench = Bench::new();
    bench.grant(7, 60).unwrap();
    bench.grant(-8, 600).unwrap();
    bench.apply(Command::LeaseCheckpoint { remaining: vec![(-8, 41)] }).unwrap();
    for key in 0..30 {
        let lease = if key % 3 == 0 { 7 } else { 0 };
        bench.apply(Command::Put(Put { lease, ..put(&format!("k{key:02}"), "1") })).unwrap();
    }
    bench
        .txn(success(vec![put_op("k01", "2"), put_op("k03", "2"), delete_op("k1", "k2")]))
        .unwrap();
    bench.compact(20).unwrap();
    bench.put("k15", "again");
    bench.apply(Command::Alarm { active: true, member: 3, kind: AlarmKind::NoSpace }).unwrap();
    let member = MemberRecord {
        id: u64::MAX,
        name: "a-1".into(),
        peer_urls: vec!["https://127.0.0.1:2380".into()],
        client_urls: vec![],
    };
    bench.apply(Command::MemberPut(member)).unwrap();
    bench
        .apply(Command::SystemPut { key: "nodes/ä".into(), value: Some(bytes("x")), expect: None })
        .unwrap();
    bench.state.advance(bench.index + 1, 2, Some(bytes("members")));
    bench.index += 1;
    bench
}

#[test]
fn an_import_of_an_export_is_equal() {
    let bench = filled();
    let stored = gather(bench.state.export());
    assert_equal(&State::import(stored.clone()).unwrap(), &bench.state);
    // In any order.
    assert_equal(&State::import(stored.into_iter().rev()).unwrap(), &bench.state);
    assert_equal(&State::import(gather(Bench::new().state.export())).unwrap(), &State::new());
}

#[test]
fn an_imported_state_goes_on_as_the_other_would() {
    let mut bench = filled();
    let imported = Arc::new(State::import(gather(bench.state.export())).unwrap());
    let mut twin = Bench { state: imported, index: bench.index };
    for bench in [&mut bench, &mut twin] {
        bench.apply(Command::Alarm { active: false, member: 3, kind: AlarmKind::NoSpace }).unwrap();
        bench.put("k15", "more");
        bench.compact(33).unwrap();
        bench.apply(Command::LeaseRevoke { id: 7 }).unwrap();
        while bench.state.trim(3) {}
    }
    assert_equal(&bench.state, &twin.state);
    assert_eq!(bench.state.size_bytes(), twin.state.size_bytes());
}

#[test]
fn an_export_is_of_one_moment_while_commands_go_on() {
    let keys = 3 * crate::store::state::READ_STEP;
    let mut bench = Bench::new();
    for key in 0..keys {
        bench.put(&format!("{key:06}"), "0");
    }
    for _ in 0..3 {
        let frozen = Arc::new(State::import(gather(bench.state.export())).unwrap());
        let mut export = bench.state.export();
        let mut stored = Stored::new();
        for record in export.by_ref() {
            let Record { key, value } = record.unwrap();
            stored.insert(key, value.unwrap());
            if stored.len().is_multiple_of(500) {
                bench.put(&format!("{:06}", stored.len()), "1");
                bench.delete(&format!("{:06}", stored.len() + 7), "");
                bench.compact(bench.state.revision()).unwrap();
            }
        }
        drop(export);
        let imported = State::import(stored).unwrap();
        assert_eq!(imported.hash_kv(0), frozen.hash_kv(0));
        assert_eq!(imported.applied(), frozen.applied());
    }
}

#[test]
fn dirty_records_keep_a_checkpoint_up_to_date() {
    let mut bench = filled();
    assert!(bench.state.take_dirty().is_none());
    let mut stored = gather(bench.state.take_all());
    assert!(bench.state.take_dirty().unwrap().is_empty());
    let clear = Command::Alarm { active: false, member: 3, kind: AlarmKind::NoSpace };
    let system = |value: Option<&str>| Command::SystemPut {
        key: "nodes/a".into(),
        value: value.map(bytes),
        expect: None,
    };
    let steps: Vec<Vec<Command>> = vec![
        vec![clear],
        vec![Command::Put(put("a", "1")), Command::Put(put("a", "2")), system(Some("1"))],
        vec![Command::Compact { revision: 34 }, Command::Put(put("b", "2"))],
        vec![Command::LeaseRevoke { id: 7 }, system(None)],
        vec![Command::LeaseGrant { id: 9, ttl: 5 }, Command::MemberDelete { id: u64::MAX }],
        vec![Command::LeaseCheckpoint { remaining: vec![(9, 3)] }],
        vec![Command::Compact { revision: 36 }],
    ];
    for commands in steps {
        for command in commands {
            bench.apply(command).unwrap();
        }
        while bench.state.trim(2) {}
        let changes = bench.state.take_dirty().unwrap();
        assert_eq!(changes.applied_index, bench.state.applied_index());
        store(&mut stored, changes);
        assert_equal(&State::import(stored.clone()).unwrap(), &bench.state);
    }
    // Nothing that was forgotten is left behind.
    while bench.state.trim(100) {}
    store(&mut stored, bench.state.take_dirty().unwrap());
    assert_eq!(stored, gather(bench.state.export()));
}

#[test]
fn a_checkpoint_that_was_loaded_is_kept_up_without_an_export() {
    let bench = filled();
    let mut stored = gather(bench.state.export());
    let state = Arc::new(State::import(stored.clone()).unwrap());
    state.track();
    let mut bench = Bench { state, index: bench.index };
    bench.apply(Command::Alarm { active: false, member: 3, kind: AlarmKind::NoSpace }).unwrap();
    bench.put("a", "1");
    while bench.state.trim(100) {}
    store(&mut stored, bench.state.take_dirty().unwrap());
    assert_eq!(stored, gather(bench.state.export()));
}

#[test]
fn dirty_records_are_complete_under_concurrent_writes() {
    let mut bench = Bench::new();
    let state = bench.state.clone();
    let mut stored = gather(state.take_all());
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for round in 0..4000 {
                bench.put(&format!("k{}", round % 97), &round.to_string());
                if round % 50 == 0 {
                    bench.delete("k1", "k3");
                    bench.compact(bench.state.revision()).unwrap();
                }
            }
        });
        while !writer.is_finished() {
            store(&mut stored, state.take_dirty().unwrap());
            // Each is a state of its own.
            State::import(stored.clone()).unwrap().hash_kv(0).unwrap();
        }
    });
    store(&mut stored, state.take_dirty().unwrap());
    assert_equal(&State::import(stored).unwrap(), &state);
}

#[test]
fn an_install_replaces_everything_and_watchers_go_on() {
    let mut leader = filled();
    let clear = Command::Alarm { active: false, member: 3, kind: AlarmKind::NoSpace };
    leader.apply(clear).unwrap();
    let follower = Arc::new(State::import(gather(leader.state.export())).unwrap());
    follower.track();
    let mut stream = follower.watch_stream();
    let watch = |key: &str| WatchRequest { range: range(key, ""), ..WatchRequest::default() };
    stream.subscribe(watch("w")).unwrap();
    stream.subscribe(watch("none")).unwrap();
    let future = follower.revision() + 100;
    stream.subscribe(WatchRequest { start_revision: future, ..watch("w") }).unwrap();
    for value in ["1", "2", "3"] {
        leader.put("w", value);
    }
    let mut export = follower.export();
    assert!(export.next().unwrap().is_ok());
    follower.install(Import::of(gather(leader.state.export()))).unwrap();
    assert_equal(&follower, &leader.state);
    let Some(Delivery::Events { watch_id: 0, events, .. }) = stream.next_batch(1 << 20) else {
        panic!()
    };
    let values: Vec<_> = events.iter().map(|event| event.event().kv.value.clone()).collect();
    assert_eq!(values, ["1", "2", "3"]);
    assert!(stream.next_batch(1 << 20).is_none());
    assert_eq!(stream.synced_revision_of(1), Some(leader.state.revision()));
    assert!(follower.take_dirty().is_none());
    assert!(export.any(|record| record.is_err()));
}

#[test]
fn an_install_that_skipped_compacted_history_cancels_those_who_needed_it() {
    let mut leader = Bench::new();
    let follower = Arc::new(State::import(gather(leader.state.export())).unwrap());
    let mut stream = follower.watch_stream();
    stream.subscribe(WatchRequest { range: range("a", ""), ..WatchRequest::default() }).unwrap();
    leader.put("a", "1");
    leader.put("a", "2");
    leader.compact(3).unwrap();
    follower.install(Import::of(gather(leader.state.export()))).unwrap();
    let delivery = stream.next_batch(1);
    assert!(matches!(delivery, Some(Delivery::Compacted { compact_revision: 3, .. })));
}

#[test]
fn records_that_make_no_state_are_refused_and_change_nothing() {
    let bench = filled();
    let good = gather(bench.state.export());
    let refused = |stored: Stored| State::import(stored).unwrap_err();
    let mut no_header = good.clone();
    no_header.remove(b"h".as_slice());
    assert_eq!(refused(no_header), ImportError::NoHeader);
    let mut no_lease = good.clone();
    no_lease.retain(|key, _| key[0] != b'l');
    assert!(matches!(refused(no_lease), ImportError::Contradiction(_)));
    let mut unknown = good.clone();
    unknown.insert(b"?".to_vec(), Bytes::new());
    assert!(matches!(refused(unknown), ImportError::Record { .. }));
    for (key, value) in &good {
        if key[0] == b's' || value.is_empty() {
            continue;
        }
        let mut cut = good.clone();
        cut.insert(key.clone(), value.slice(..value.len() - 1));
        assert!(matches!(refused(cut), ImportError::Record { .. }), "{key:?}");
    }
    let before = bench.state.hash_kv(0);
    assert!(bench.state.install(Import::of([(b"h".to_vec(), Bytes::new())])).is_err());
    assert_eq!(bench.state.hash_kv(0), before);
}
