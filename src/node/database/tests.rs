//! Tests of the state as etcd's database: out and in again it is the same, damage is refused.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;
use sha2::{Digest as _, Sha256};

use super::*;
use crate::store::auth::{Access, AuthChange, Permission};
use crate::store::state::State;
use crate::store::types::{
    AlarmKind, Command, DeleteRange, KeyRange, MemberRecord, Put, RangeQuery, Txn, TxnOp,
};

const CLUSTER: u64 = 0xC1_u64;

fn load(file: &File) -> Result<crate::raft::reset::Loaded, DatabaseError> {
    super::load(file, HashCheck::IfThere)
}

fn body(file: &File) -> Result<Body, DatabaseError> {
    super::body(file, HashCheck::IfThere)
}

fn put(key: &str, value: &str, lease: i64) -> Put {
    Put {
        key: Bytes::copy_from_slice(key.as_bytes()),
        value: Bytes::copy_from_slice(value.as_bytes()),
        lease,
        ..Put::default()
    }
}

fn delete(from: &str, to: &str) -> DeleteRange {
    let [key, end] = [from, to].map(|text| Bytes::copy_from_slice(text.as_bytes()));
    DeleteRange { range: KeyRange { key, end }, ..DeleteRange::default() }
}

fn state_of(commands: impl IntoIterator<Item = Command>) -> Arc<State> {
    let state = Arc::new(State::new());
    for (index, command) in (1..).zip(commands) {
        // A compaction of what is compacted is refused, among others.
        drop(state.apply(index, 3, command));
    }
    state
}

fn auth() -> Vec<AuthChange> {
    let name = |name: &str| name.to_owned();
    let range = KeyRange { key: Bytes::from_static(b"a"), end: Bytes::from_static(b"b") };
    let permission = Permission { access: Access::ReadWrite, range };
    vec![
        AuthChange::UserAdd { name: name("root"), password: Some(name("$2a$10$hash")) },
        AuthChange::UserAdd { name: name("nobody"), password: None },
        AuthChange::RoleAdd { name: name("root") },
        AuthChange::RoleAdd { name: name("writer") },
        AuthChange::RoleGrant { name: name("writer"), permission },
        AuthChange::UserGrant { name: name("root"), role: name("root") },
        AuthChange::UserGrant { name: name("nobody"), role: name("writer") },
    ]
}

/// A state with something of everything, except members, which do not come over.
fn filled(keys: usize, compact: Option<i64>) -> Arc<State> {
    let mut commands = vec![
        Command::LeaseGrant { id: 7, ttl: 60 },
        Command::LeaseGrant { id: -8, ttl: 600 },
        Command::LeaseCheckpoint { remaining: vec![(-8, 41)] },
    ];
    for number in 0..keys {
        let lease = [0, 7, -8][number % 3];
        commands.push(Command::Put(put(&format!("k{}", number % 50), &"x".repeat(number), lease)));
    }
    let txn = Txn {
        success: vec![TxnOp::Put(put("a", "1", 0)), TxnOp::Delete(delete("k1", "k3"))],
        ..Txn::default()
    };
    commands.push(Command::Txn(txn));
    commands.push(Command::DeleteRange(delete("k4", "")));
    commands.extend(compact.map(|revision| Command::Compact { revision }));
    commands.push(Command::Put(put("a", "2", 0)));
    commands.push(Command::Alarm { active: true, member: 5, kind: AlarmKind::NoSpace });
    let value = Some(Bytes::from_static(b"{}"));
    let key = "cluster/settings".to_owned();
    commands.push(Command::SystemPut { key, value, expect: None });
    commands.extend(auth().into_iter().map(Command::Auth));
    state_of(commands)
}

fn database_of(state: &Arc<State>) -> File {
    let file = tempfile::NamedTempFile::new().unwrap();
    write(file.reopen().unwrap(), CLUSTER, &state.dump()).unwrap();
    file.into_file()
}

fn content(file: &File) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(file.metadata().unwrap().len()).unwrap()];
    file.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

fn file_of(bytes: &[u8]) -> File {
    let file = tempfile::tempfile().unwrap();
    file.write_all_at(bytes, 0).unwrap();
    file
}

fn assert_same(one: &State, other: &State) {
    let all = KeyRange { key: Bytes::from_static(b"\0"), end: Bytes::from_static(b"\0") };
    assert_eq!(one.applied(), other.applied());
    assert_eq!(one.revision(), other.revision());
    assert_eq!(one.compact_revision(), other.compact_revision());
    assert_eq!(one.lease_times(), other.lease_times());
    for (id, _) in one.leases() {
        assert_eq!(one.lease(id), other.lease(id));
    }
    assert_eq!(one.alarms(), other.alarms());
    assert_eq!(one.system_prefix(""), other.system_prefix(""));
    one.rights(|auth, _| other.rights(|found, _| assert_eq!(auth, found)));
    for revision in one.compact_revision().max(1)..=one.revision() {
        let query = RangeQuery { range: all.clone(), revision, ..RangeQuery::default() };
        assert_eq!(one.range(&query), other.range(&query), "at {revision}");
        assert_eq!(one.hash_kv(revision), other.hash_kv(revision), "at {revision}");
    }
}

#[test]
fn out_and_in_again_it_is_the_same() {
    for (keys, compact) in [(0, None), (10, None), (300, None), (300, Some(100)), (300, Some(303))]
    {
        let state = filled(keys, compact);
        let loaded = load(&database_of(&state)).unwrap();
        assert_same(&state, &loaded.state);
        assert_eq!((loaded.cluster, loaded.term), (CLUSTER, 3));
    }
    let empty = Arc::new(State::new());
    assert_same(&empty, &load(&database_of(&empty)).unwrap().state);
}

#[test]
fn many_keys_keep_their_order() {
    // More than are looked at in one step, before the compaction and after.
    let keys = |from: i64| {
        (0..3000).map(move |at| put(&format!("{:05}", at * 7 % 3001), &from.to_string(), 0))
    };
    let mut commands: Vec<Command> = keys(1).chain(keys(2)).map(Command::Put).collect();
    commands.push(Command::Compact { revision: 4000 });
    let state = state_of(commands);
    let loaded = load(&database_of(&state)).unwrap();
    assert_eq!(state.hash_kv(0), loaded.state.hash_kv(0));
    assert_eq!(state.hash_kv(4000), loaded.state.hash_kv(4000));
}

#[test]
fn it_is_of_its_moment() {
    let state = filled(100, Some(30));
    let dump = state.dump();
    let before = state.hash_kv(0).unwrap();
    for (index, revision) in (1000..).zip(40..100) {
        state.apply(index, 3, Command::Compact { revision }).unwrap();
        let later = delete(&format!("k{revision}"), "");
        state.apply(index, 3, Command::DeleteRange(later)).unwrap();
        while state.trim(1000) {}
    }
    let file = tempfile::NamedTempFile::new().unwrap();
    write(file.reopen().unwrap(), CLUSTER, &dump).unwrap();
    let loaded = load(file.as_file()).unwrap();
    assert_eq!(loaded.state.hash_kv(0).unwrap(), before);
}

#[test]
fn members_are_known_by_number() {
    let member = MemberRecord { id: 0xAB, name: "one".into(), ..MemberRecord::default() };
    let state = state_of([Command::MemberPut(member)]);
    let members = load(&database_of(&state)).unwrap().state.members();
    assert_eq!(members.iter().map(|member| member.id).collect::<Vec<_>>(), [0xAB]);
}

#[test]
fn a_hash_behind_it_is_checked() {
    let database = content(&database_of(&filled(50, None)));
    let mut hashed = [&database[..], &Sha256::digest(&database)].concat();
    assert!(body(&file_of(&hashed)).unwrap().is_hashed);
    assert!(load(&file_of(&hashed)).is_ok());
    // A place that nothing else looks at: the end of the last page.
    hashed[database.len() - 1] ^= 1;
    assert!(matches!(load(&file_of(&hashed)), Err(DatabaseError::Hash)));
    assert!(super::load(&file_of(&hashed), HashCheck::Skipped).is_ok());
    let copied = super::load(&file_of(&database), HashCheck::Needed);
    assert!(matches!(copied, Err(DatabaseError::NoHash)));
    assert!(!body(&file_of(&database)).unwrap().is_hashed);
    assert!(matches!(body(&file_of(&database[1..])), Err(DatabaseError::Size)));
}

#[test]
fn it_is_told_what_is_in_it() {
    let key = "cluster/settings".to_owned();
    let state = state_of([
        Command::Put(put("/bootstrap/0a0b", "x", 0)),
        Command::Put(put("/a", "x", 0)),
        Command::Put(put("/b", "x", 0)),
        Command::DeleteRange(delete("/b", "")),
        Command::DeleteRange(delete("/bootstrap/0a0b", "")),
        Command::Put(put("/bootstrap/0c0d", "x", 0)),
        Command::SystemPut { key, value: Some(Bytes::from_static(b"{}")), expect: None },
    ]);
    let file = database_of(&state);
    let told = tell(&file, body(&file).unwrap(), &["cluster/settings"]).unwrap();
    assert_eq!((told.revision, told.keys, told.cluster), (7, 2, Some(CLUSTER)));
    assert_eq!(told.bootstrap, ["0c0d"]);
    assert_eq!(told.system.get("cluster/settings").map(|value| &value[..]), Some(&b"{}"[..]));
    assert!(told.created_unix_ms.is_some());
}

#[test]
fn what_etcd_would_not_write_is_refused() {
    use crate::store::bolt::Writer;
    let with = |bucket: &str, key: &[u8], value: &[u8]| {
        let mut out = Writer::new(tempfile::tempfile().unwrap()).unwrap();
        let mut buckets = [schema::KEY, schema::LEASE, schema::META, schema::ROLES];
        buckets.sort_unstable();
        for name in buckets {
            out.bucket(name).unwrap();
            if name == bucket {
                out.put(key, value).unwrap();
            }
        }
        load(&out.finish().unwrap()).map(|_| ()).unwrap_err().to_string()
    };
    let at = schema::revision_key(5, 0, false);
    assert!(with(schema::KEY, b"k", b"").contains("a key is no revision"));
    assert!(with(schema::KEY, &at, b"\xff\xff").contains("bucket `key` is damaged"));
    // A pair of another revision.
    let pair = [0x0a, 1, b'k', 0x10, 4, 0x18, 4, 0x20, 1];
    assert!(with(schema::KEY, &at, &pair).contains("revision 5 holds that of another"));
    let leased = [0x0a, 1, b'k', 0x10, 5, 0x18, 5, 0x20, 1, 0x30, 9];
    assert!(with(schema::KEY, &at, &leased).contains("attached to lease 9"));
    let huge = schema::revision_key(i64::MAX, 0, false);
    assert!(with(schema::KEY, &huge, &pair).contains("a key is no revision"));
    assert!(with(schema::META, b"term", &[0xff; 8]).contains("a number is absurd"));
    assert!(with(schema::META, b"term", &[0; 3]).contains("eight bytes"));
    assert!(with(schema::LEASE, &[0; 8], b"").contains("bucket `lease`"));
    let mut empty = Writer::new(tempfile::tempfile().unwrap()).unwrap();
    empty.bucket("other").unwrap();
    let refused = load(&empty.finish().unwrap()).map(|_| ());
    assert!(matches!(refused, Err(DatabaseError::NoKeys)));
}

#[test]
fn a_revision_without_a_pair_counts() {
    use crate::store::bolt::Writer;
    let mut out = Writer::new(tempfile::tempfile().unwrap()).unwrap();
    out.bucket(schema::KEY).unwrap();
    out.put(&schema::revision_key(900, 0, false), b"").unwrap();
    out.bucket(schema::META).unwrap();
    let compacted = schema::revision_key(900, 0, false);
    out.put(schema::COMPACT_SCHEDULED.as_bytes(), &compacted).unwrap();
    let state = load(&out.finish().unwrap()).unwrap().state;
    assert_eq!((state.revision(), state.compact_revision()), (900, 900));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..Default::default() })]

    /// Whatever is changed in it, loading ends: with an error, or with what can be read.
    #[test]
    fn damage_is_survived(
        changes in proptest::collection::vec((any::<usize>(), any::<u8>()), 1..30),
        cut in proptest::option::of(0..100_usize),
    ) {
        static CONTENT: std::sync::LazyLock<Vec<u8>> =
            std::sync::LazyLock::new(|| content(&database_of(&filled(200, Some(50)))));
        let mut bytes = CONTENT.clone();
        for (at, to) in changes {
            let at = at % bytes.len();
            bytes[at] = to;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut * 512);
        }
        let file = file_of(&bytes);
        if load(&file).is_ok() {
            prop_assert!(tell(&file, body(&file).unwrap(), &[]).is_ok());
        }
        if cut.is_some_and(|cut| cut * 512 < CONTENT.len()) {
            prop_assert!(load(&file).is_err(), "it is cut off");
        }
    }

    /// With a hash behind it, no change goes unseen.
    #[test]
    fn with_a_hash_no_change_goes_unseen(at in any::<usize>(), bit in 0..8_u8) {
        static CONTENT: std::sync::LazyLock<Vec<u8>> = std::sync::LazyLock::new(|| {
            let database = content(&database_of(&filled(20, None)));
            [&database[..], &Sha256::digest(&database)].concat()
        });
        let mut bytes = CONTENT.clone();
        let at = at % bytes.len();
        bytes[at] ^= 1 << bit;
        prop_assert!(matches!(load(&file_of(&bytes)), Err(DatabaseError::Hash)));
    }
}
