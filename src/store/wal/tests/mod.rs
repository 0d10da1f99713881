//! Tests of the log: against a model, under power cuts, with damage, on a real directory.

mod damage;
mod mem;
mod model;
mod power;

use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use bytes::Bytes;
use mem::{FaultAt, MemDisk};
use model::{Call, Driver, calls, options, payload, read_all, wait};
use proptest::prelude::*;

use super::{Wal, WalError, WalOptions};

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..Default::default() })]

    #[test]
    fn it_holds_what_the_model_holds(calls in calls(60)) {
        let mut driver = Driver::new(MemDisk::default());
        for call in &calls {
            driver.run(call);
        }
        driver.run(&Call::Reopen);
        driver.run(&Call::Reopen);
    }
}

fn answer() -> (super::Done, mpsc::Receiver<io::Result<()>>) {
    let (sender, receiver) = mpsc::channel();
    (Box::new(move |result| sender.send(result).unwrap()), receiver)
}

fn ignore() -> super::Done {
    Box::new(|_| ())
}

#[test]
fn on_a_real_directory() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("member/wal");
    let (wal, recovered) = Wal::open(&dir, options()).unwrap();
    assert!(recovered.fresh);
    assert!(matches!(Wal::open(&dir, options()), Err(WalError::InUse { .. })));
    let entries: Vec<_> = (0..200).map(|index| (index, payload(index, 300, None))).collect();
    wal.append(entries.clone(), ignore()).unwrap();
    wal.save_vote(Bytes::from_static(b"vote"), ignore()).unwrap();
    wal.purge_upto(99, Bytes::from_static(b"marker")).unwrap();
    wal.save_committed(Bytes::from_static(b"150")).unwrap();
    wal.close().unwrap();
    assert!(matches!(wal.sync(ignore()), Err(WalError::Closed)));
    drop(wal);
    for file in std::fs::read_dir(&dir).unwrap() {
        assert_eq!(file.unwrap().metadata().unwrap().permissions().mode() & 0o777, 0o600);
    }
    assert_eq!(std::fs::metadata(&dir).unwrap().permissions().mode() & 0o777, 0o700);
    let (wal, recovered) = Wal::open(&dir, options()).unwrap();
    assert_eq!((recovered.first_index, recovered.last_index), (100, Some(199)));
    assert_eq!(recovered.vote.as_deref(), Some(&b"vote"[..]));
    assert_eq!(recovered.purged.as_deref(), Some(&b"marker"[..]));
    assert_eq!(recovered.committed.as_deref(), Some(&b"150"[..]));
    assert_eq!(read_all(&wal).unwrap().into_iter().collect::<Vec<_>>(), entries[100..]);
}

#[test]
fn purging_deletes_whole_segments() {
    let mut driver = Driver::new(MemDisk::default());
    for _ in 0..20 {
        driver.run(&Call::Append(vec![(900, None); 3]));
    }
    driver.run(&Call::Wait);
    let before = driver.disk.files().len();
    driver.run(&Call::Purge(4));
    driver.run(&Call::Wait);
    // The purge's files go after its answer, before the next group's.
    driver.run(&Call::Vote(1));
    driver.run(&Call::Wait);
    let after = driver.disk.files().len();
    assert!(before >= 15 && after <= 4, "{before} segments, then {after}");
    driver.run(&Call::Reopen);
}

#[test]
fn one_sync_covers_all_that_waits_and_answers_come_in_order() {
    let disk = MemDisk::default();
    let big = WalOptions { segment_bytes: 1 << 20, ..options() };
    let (wal, _) = Wal::open_on(Arc::new(disk.clone()), big).unwrap();
    wait(&wal);
    // The flush thread is held in a callback while the others queue up.
    let (release, gate) = mpsc::channel::<()>();
    let (entered, inside) = mpsc::channel();
    let hold: super::Done = Box::new(move |_| {
        entered.send(()).unwrap();
        gate.recv().unwrap();
    });
    wal.save_vote(Bytes::from_static(b"v"), hold).unwrap();
    inside.recv().unwrap();
    let syncs =
        |disk: &MemDisk| disk.ops().iter().filter(|op| matches!(op, mem::Op::Sync { .. })).count();
    let before = syncs(&disk);
    let (sender, order) = mpsc::channel();
    for index in 0..500 {
        let sender = sender.clone();
        let done = Box::new(move |result: io::Result<()>| {
            result.unwrap();
            sender.send(index).unwrap();
        });
        wal.append(vec![(index, payload(index, 256, None))], done).unwrap();
    }
    release.send(()).unwrap();
    let indexes: Vec<u64> = order.iter().take(500).collect();
    assert_eq!(indexes, (0..500).collect::<Vec<_>>());
    assert_eq!(syncs(&disk) - before, 1);
}

#[test]
fn holes_and_bad_ranges_are_refused() {
    let mut driver = Driver::new(MemDisk::default());
    driver.run(&Call::Append(vec![(10, None); 3]));
    let wal = driver.wal();
    let gap = wal.append(vec![(4, Bytes::new())], ignore()).unwrap_err();
    assert!(matches!(gap, WalError::Gap { expected: 3, got: 4 }));
    let two = wal.append(vec![(3, Bytes::new()), (5, Bytes::new())], ignore()).unwrap_err();
    assert!(matches!(two, WalError::Gap { expected: 4, got: 5 }));
    assert_eq!(wal.bounds(), 0..3);
    assert!(matches!(wal.read(1..4, 100), Err(WalError::OutOfRange { .. })));
    assert_eq!(wal.read(1..3, 0).unwrap().len(), 1);
    assert_eq!(wal.read(2..2, 100).unwrap().len(), 0);
}

#[test]
fn an_entry_larger_than_a_segment_gets_one_of_its_size() {
    let mut driver = Driver::new(MemDisk::default());
    driver.run(&Call::Append(vec![(10, None), (100_000, None), (100_000, Some(0)), (10, None)]));
    driver.run(&Call::Reopen);
}

#[test]
fn after_an_error_nothing_is_tried_again() {
    for at in [FaultAt::Write, FaultAt::Sync] {
        let disk = MemDisk::default();
        let (wal, _) = Wal::open_on(Arc::new(disk.clone()), options()).unwrap();
        wait(&wal);
        disk.fail(at, 0, io::ErrorKind::StorageFull);
        let (done, answered) = answer();
        wal.append(vec![(0, payload(1, 50, None))], done).unwrap();
        assert_eq!(answered.recv().unwrap().unwrap_err().kind(), io::ErrorKind::StorageFull);
        let ops = disk.len();
        let error = wal.save_vote(Bytes::new(), ignore()).unwrap_err();
        assert!(matches!(error, WalError::Failed { kind: io::ErrorKind::StorageFull, .. }));
        assert!(wal.read(0..1, 10).is_err());
        assert!(wal.close().is_err());
        assert_eq!(disk.len(), ops);
    }
}

#[test]
fn when_there_is_room_again_it_is_known_without_a_write() {
    let disk = MemDisk::default();
    disk.fail(FaultAt::Create, 1, io::ErrorKind::StorageFull);
    let (wal, _) = Wal::open_on(Arc::new(disk.clone()), options()).unwrap();
    wait(&wal);
    while wal.low_space().is_none() {
        std::thread::yield_now();
    }
    disk.mend();
    while wal.low_space().is_some() {
        std::thread::yield_now();
    }
}

#[test]
fn a_full_disk_is_known_of_before_the_log_ends() {
    let disk = MemDisk::default();
    let (wal, _) = Wal::open_on(Arc::new(disk.clone()), options()).unwrap();
    wait(&wal);
    disk.fail(FaultAt::Create, 0, io::ErrorKind::StorageFull);
    let mut index = 0;
    let error = loop {
        let (done, answered) = answer();
        wal.append(vec![(index, payload(index, 500, None))], done).unwrap();
        match answered.recv().unwrap() {
            Ok(()) => index += 1,
            Err(error) => break error,
        }
    };
    // The current segment and the prepared one were used up; the warning came in between.
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    assert!(index > 7 && wal.low_space().is_some(), "{index}");
    drop(wal);
    let found = model::reread(&MemDisk::with(disk.files())).unwrap();
    assert_eq!(found.next, index);
}

#[test]
fn an_idle_log_is_sealed_without_a_sync() {
    let disk = MemDisk::default();
    let quick = WalOptions { seal_after: Duration::from_millis(1), ..options() };
    let (wal, _) = Wal::open_on(Arc::new(disk.clone()), quick).unwrap();
    wal.append(vec![(0, payload(1, 600, None))], ignore()).unwrap();
    wal.save_committed(Bytes::from_static(b"mark")).unwrap();
    while !disk.files()["0000000000000001.wal"].windows(4).any(|bytes| bytes == b"mark") {
        std::thread::yield_now();
    }
    wait(&wal);
    assert_eq!(wal.bounds(), 0..1);
}
