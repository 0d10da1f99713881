//! Tests of the checkpoint: what is loaded is exactly a state that was committed, or nothing.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;

type State = BTreeMap<Vec<u8>, Bytes>;

fn home() -> (tempfile::TempDir, PathBuf) {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("checkpoint");
    (home, dir)
}

fn open(dir: &Path) -> (Checkpointer, Loaded, State) {
    let mut state = State::new();
    let (checkpointer, loaded) =
        Checkpointer::open(dir, |key, value| drop(state.insert(key.to_owned(), value))).unwrap();
    (checkpointer, loaded, state)
}

fn wait<T: Send + 'static>(ask: impl FnOnce(Done<T>)) -> Result<T, CheckpointError> {
    let (sender, receiver) = mpsc::channel();
    ask(Box::new(move |result| sender.send(result).unwrap()));
    receiver.recv().unwrap()
}

fn commit(checkpointer: &Checkpointer, batch: Batch) -> Result<(), CheckpointError> {
    wait(|done| checkpointer.commit(one(batch), done))
}

fn one(batch: Batch) -> Batches {
    Box::new(std::iter::once(Ok(batch)))
}

fn mark(index: u64) -> Mark {
    Mark { index, term: 3, beside: Bytes::from(format!("members at {index}")) }
}

/// The changes that lead to state `index`, and the state.
fn step(index: u64, state: &mut State) -> Batch {
    let changes: Vec<Change> = (0..20)
        .map(|at| {
            let number = index.wrapping_mul(31).wrapping_add(at * 7) % 97;
            let value = !(number + at).is_multiple_of(5);
            let size = usize::try_from(number * 11).unwrap();
            let value = value.then(|| Bytes::from(vec![u8::try_from(index % 251).unwrap(); size]));
            (format!("key {number}").into_bytes(), value)
        })
        .collect();
    for (key, value) in &changes {
        match value {
            Some(value) => drop(state.insert(key.clone(), value.clone())),
            None => drop(state.remove(key)),
        }
    }
    Batch { reset: index == 1, changes, mark: Some(mark(index)) }
}

/// A checkpoint of so many steps, closed; and all states it had.
fn written(dir: &Path, steps: u64) -> Vec<State> {
    let (checkpointer, loaded, _) = open(dir);
    assert_eq!(loaded, Loaded::Nothing { reason: None });
    let mut states = vec![State::new()];
    for index in 1..=steps {
        let mut state = states.last().unwrap().clone();
        commit(&checkpointer, step(index, &mut state)).unwrap();
        states.push(state);
    }
    states
}

fn copy_dir(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            copy_dir(&entry.path(), &to.join(entry.file_name()));
        } else if let Ok(content) = std::fs::read(entry.path()) {
            std::fs::write(to.join(entry.file_name()), content).unwrap();
        }
    }
}

/// Opens and checks that it holds one of `states` at its mark, or nothing. Gives whether it did.
fn check(dir: &Path, states: &[State]) -> bool {
    let (_checkpointer, loaded, state) = open(dir);
    match loaded {
        Loaded::State(found) => {
            assert_eq!(found, mark(found.index));
            assert_eq!(state, states[usize::try_from(found.index).unwrap()]);
            true
        }
        Loaded::Nothing { .. } => false,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 8, failure_persistence: None, ..Default::default() })]

    #[test]
    fn it_holds_what_was_committed(
        batches in proptest::collection::vec(
            proptest::collection::vec((0u8..40, proptest::option::of(0usize..3000)), 0..30), 1..12
        )
    ) {
        let (_home, dir) = home();
        let mut state = State::new();
        for (at, batch) in batches.iter().enumerate() {
            let (checkpointer, _, found) = open(&dir);
            prop_assert_eq!(&found, &state);
            let mut changes = Vec::new();
            for (key, size) in batch {
                let value = size.map(|size| Bytes::from(vec![*key; size]));
                changes.push((vec![*key], value.clone()));
                match value {
                    Some(value) => drop(state.insert(vec![*key], value)),
                    None => drop(state.remove(&vec![*key])),
                }
            }
            let batch = Batch { reset: at == 0, changes, mark: Some(mark(at as u64)) };
            commit(&checkpointer, batch).unwrap();
            let size = wait(|done| checkpointer.size(done)).unwrap();
            prop_assert_eq!(size.records, state.len() as u64);
        }
    }
}

#[test]
fn all_of_it_is_private() {
    fn modes(dir: &Path) {
        assert_eq!(std::fs::metadata(dir).unwrap().permissions().mode() & 0o777, 0o700);
        for entry in std::fs::read_dir(dir).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_dir() {
                modes(&entry.path());
            } else {
                assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o777, 0o600);
            }
        }
    }
    let (_home, dir) = home();
    let (checkpointer, ..) = open(&dir);
    commit(&checkpointer, step(1, &mut State::new())).unwrap();
    modes(&dir);
}

#[test]
fn changes_to_a_state_that_is_not_there_are_refused() {
    let (_home, dir) = home();
    let (checkpointer, ..) = open(&dir);
    let batch = Batch { reset: false, ..step(1, &mut State::new()) };
    assert_eq!(commit(&checkpointer, batch).unwrap_err(), CheckpointError::NeedsReset);
}

#[test]
fn a_whole_state_in_parts_counts_only_when_complete() {
    let (_home, dir) = home();
    drop(written(&dir, 3));
    let (checkpointer, ..) = open(&dir);
    let part = |reset, key: &str, mark| Batch {
        reset,
        changes: vec![(key.as_bytes().to_vec(), Some(Bytes::from_static(b"v")))],
        mark,
    };
    commit(&checkpointer, part(true, "one", None)).unwrap();
    drop(checkpointer);
    let (checkpointer, loaded, _) = open(&dir);
    assert!(matches!(loaded, Loaded::Nothing { reason: Some(_) }), "{loaded:?}");
    commit(&checkpointer, part(true, "one", None)).unwrap();
    commit(&checkpointer, part(false, "two", Some(mark(9)))).unwrap();
    drop(checkpointer);
    let (_checkpointer, loaded, state) = open(&dir);
    assert_eq!(loaded, Loaded::State(mark(9)));
    assert_eq!(state.len(), 2);
}

#[test]
fn changes_in_parts_count_only_when_complete() {
    let (_home, dir) = home();
    let states = written(&dir, 3);
    let (checkpointer, ..) = open(&dir);
    let mut state = states[3].clone();
    let whole = step(4, &mut state);
    let part = |range: std::ops::Range<usize>, mark| Batch {
        reset: false,
        changes: whole.changes[range].to_vec(),
        mark,
    };
    commit(&checkpointer, part(0..10, None)).unwrap();
    copy_dir(&dir, &dir.with_file_name("killed"));
    commit(&checkpointer, part(10..20, Some(mark(4)))).unwrap();
    drop(checkpointer);
    let (_checkpointer, loaded, found) = open(&dir);
    assert_eq!((loaded, found), (Loaded::State(mark(4)), state));
    // Never half of it.
    check(&dir.with_file_name("killed"), &states);
}

#[test]
fn batches_that_are_cut_short_are_no_state() {
    let (_home, dir) = home();
    drop(written(&dir, 3));
    let (checkpointer, ..) = open(&dir);
    let half = Batch { mark: None, ..step(4, &mut State::new()) };
    let cut = || CheckpointError::Interrupted("cut".to_owned());
    let batches = vec![Ok(half), Err(cut()), Ok(step(4, &mut State::new()))];
    let refused = wait(|done| checkpointer.commit(Box::new(batches.into_iter()), done));
    assert_eq!(refused.unwrap_err(), cut());
    drop(checkpointer);
    let (_checkpointer, loaded, _) = open(&dir);
    assert!(matches!(loaded, Loaded::Nothing { reason: Some(_) }), "{loaded:?}");
}

#[test]
fn copied_while_it_is_written_it_is_exact_or_nothing() {
    let (home, dir) = home();
    let (checkpointer, ..) = open(&dir);
    let mut states = vec![State::new()];
    let (mut exact, mut copies) = (0, 0);
    for index in 1..=60 {
        let mut state = states.last().unwrap().clone();
        let (sender, receiver) = mpsc::channel();
        let batch = step(index, &mut state);
        states.push(state);
        checkpointer.commit(one(batch), Box::new(move |result| sender.send(result).unwrap()));
        if index % 3 == 0 {
            let copy = home.path().join(format!("copy{index}"));
            copy_dir(&dir, &copy);
            exact += usize::from(check(&copy, &states));
            copies += 1;
        }
        receiver.recv().unwrap().unwrap();
    }
    assert!(exact > 0, "{exact} of {copies}");
}

#[test]
fn killed_before_a_flush_it_is_an_earlier_state_or_nothing() {
    let (home, dir) = home();
    let states = written(&dir, 5);
    let mut tree = tree::Tree::open(&dir).unwrap();
    let mut state = states[5].clone();
    let batch = step(6, &mut state);
    tree.commit(&batch.changes, batch.mark.as_ref()).unwrap();
    let copy = home.path().join("copy");
    copy_dir(&dir, &copy);
    assert!(check(&copy, &[&states[..], &[state]].concat()));
}

#[test]
fn flipped_bits_are_noticed() {
    for file in ["db", blocks::BLOCKS] {
        flip_bits(file);
    }
}

fn flip_bits(file: &str) {
    let (home, dir) = home();
    let states = written(&dir, 12);
    let mut refused = 0;
    let content = std::fs::read(dir.join(file)).unwrap();
    let used = content.iter().rposition(|byte| *byte != 0).unwrap();
    for (run, at) in (0..used).step_by((used / 300).max(1)).enumerate() {
        let copy = home.path().join(format!("copy{run}/checkpoint"));
        copy_dir(&dir, &copy);
        let mut changed = content.clone();
        changed[at] ^= 1 << (run % 8);
        std::fs::write(copy.join(file), changed).unwrap();
        if !check(&copy, &states) {
            refused += 1;
            let (again, loaded, _) = open(&copy);
            assert!(matches!(loaded, Loaded::Nothing { .. }));
            let whole = Batch { reset: true, ..step(1, &mut State::new()) };
            commit(&again, whole).unwrap();
        }
    }
    assert!(refused > 0, "{file} of {used}");
}

#[test]
fn a_rewrite_keeps_the_state_and_gives_back_the_rest() {
    let (home, dir) = home();
    let (checkpointer, ..) = open(&dir);
    let put = |round: u64| Batch {
        reset: round == 0,
        changes: (0..200u64)
            .map(|key| {
                (
                    key.to_le_bytes().to_vec(),
                    Some(Bytes::from(vec![u8::try_from((round + key) % 251).unwrap(); 4000])),
                )
            })
            .collect(),
        mark: Some(mark(round)),
    };
    for round in 0..8 {
        commit(&checkpointer, put(round)).unwrap();
    }
    let before = wait(|done| checkpointer.size(done)).unwrap();
    wait(|done| checkpointer.defragment(done)).unwrap();
    let after = wait(|done| checkpointer.size(done)).unwrap();
    assert!(after.disk_bytes < before.disk_bytes, "{before:?} {after:?}");
    assert_eq!((after.records, after.live_bytes), (before.records, before.live_bytes));
    commit(&checkpointer, put(9)).unwrap();
    drop(checkpointer);
    let (_checkpointer, loaded, state) = open(&dir);
    assert_eq!(loaded, Loaded::State(mark(9)));
    assert_eq!(state.len(), 200);
    assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), 1);
}

/// A backend that does what its directory's name says.
struct Faulty(PathBuf);

impl Backend for Faulty {
    fn load(&mut self, _: &mut dyn FnMut(&[u8], Bytes)) -> Result<Option<Mark>, CheckpointError> {
        assert!(!self.0.join("panic").exists(), "on load");
        Ok(None)
    }

    fn commit(&mut self, changes: &[Change], _: Option<&Mark>) -> Result<(), CheckpointError> {
        assert!(changes.is_empty(), "on commit");
        Ok(())
    }

    fn flush(&mut self) -> Result<(), CheckpointError> {
        Ok(())
    }

    fn live(&self) -> (u64, u64) {
        (0, 0)
    }
}

impl Drop for Faulty {
    fn drop(&mut self) {
        assert!(!self.0.join("panic").exists(), "on drop");
    }
}

#[test]
fn a_backend_that_panics_costs_the_checkpoint_only() {
    let (home, dir) = home();
    std::fs::create_dir(&dir).unwrap();
    std::fs::write(dir.join("panic"), b"").unwrap();
    let (checkpointer, loaded) =
        Checkpointer::open_with(&dir, |dir| Ok(Box::new(Faulty(dir.to_owned()))), &mut |_, _| ())
            .unwrap();
    let Loaded::Nothing { reason: Some(reason) } = loaded else { panic!("{loaded:?}") };
    assert!(reason.contains("it panicked: on load"), "{reason}");
    let names = |home: &Path| -> Vec<String> {
        let entries = std::fs::read_dir(home).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    };
    let aside = names(home.path());
    assert!(aside.len() == 1 && aside[0].starts_with("checkpoint.damaged-2"), "{aside:?}");
    let empty = Batch { reset: false, changes: Vec::new(), mark: Some(mark(1)) };
    let refused = commit(&checkpointer, empty.clone()).unwrap_err();
    assert_eq!(refused, CheckpointError::NeedsReset);
    commit(&checkpointer, Batch { reset: true, ..empty.clone() }).unwrap();
    let change = vec![(b"key".to_vec(), None)];
    let failed = commit(&checkpointer, Batch { changes: change, ..empty.clone() }).unwrap_err();
    assert!(failed.to_string().contains("it panicked: on commit"), "{failed}");
    assert_eq!(names(home.path()).len(), 1, "one is kept for a person to look at");
    assert_eq!(commit(&checkpointer, empty).unwrap_err(), CheckpointError::NeedsReset);
}

#[test]
fn what_a_batch_replaced_is_freed_without_another() {
    let freed = Arc::new(AtomicUsize::new(0));
    for _ in 0..10_000 {
        let freed = freed.clone();
        crossbeam_epoch::pin().defer(move || freed.fetch_add(1, Ordering::Relaxed));
    }
    let begun = Instant::now();
    // Another test may be in the middle of something.
    while freed.load(Ordering::Relaxed) < 10_000 {
        assert!(begun.elapsed() < Duration::from_secs(60), "{freed:?} were freed");
        tree::free_replaced();
    }
}
