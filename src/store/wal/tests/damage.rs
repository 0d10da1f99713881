//! Damage: whatever byte changes, the log holds exactly what was acknowledged, or refuses.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::mem::MemDisk;
use super::model::{Call, Driver, Model, calls, reread};
use crate::store::wal::WalError;
use crate::store::wal::writer::PART_NAME;

type Files = BTreeMap<String, Vec<u8>>;

/// The files of a log that went through `calls`; all of it acknowledged, closed or killed.
fn written(calls: &[Call], closed: bool) -> (Files, Model) {
    let mut driver = Driver::new(MemDisk::default());
    for call in calls {
        driver.run(call);
    }
    driver.run(&Call::Wait);
    let state = driver.state().clone();
    if closed {
        driver.wal().close().unwrap();
    }
    (driver.disk.files(), state)
}

/// Gives whether it was refused.
fn check(files: &Files, state: &Model, what: &str) -> bool {
    match reread(&MemDisk::with(files.clone())) {
        Ok(found) => {
            assert_eq!(&found, state, "{what}");
            false
        }
        Err(WalError::Damaged { .. } | WalError::NewerFormat { .. }) => true,
        Err(other) => panic!("{what}: {other}"),
    }
}

fn each_byte(files: &Files, state: &Model, step: usize, change: impl Fn(&mut u8)) -> usize {
    let mut refused = 0;
    for (name, content) in files {
        for at in (0..content.len()).step_by(step) {
            let mut changed = files.clone();
            let byte = &mut changed.get_mut(name).unwrap()[at];
            let before = *byte;
            change(byte);
            if *byte != before && check(&changed, state, &format!("{name} at {at}")) {
                refused += 1;
            }
        }
    }
    refused
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, ..Default::default() })]

    #[test]
    fn a_flipped_bit(calls in calls(16), closed: bool, bit in 0u8..8) {
        let (files, state) = written(&calls, closed);
        each_byte(&files, &state, 7, |byte| *byte ^= 1 << bit);
    }

    #[test]
    fn a_zeroed_byte(calls in calls(16), closed: bool) {
        let (files, state) = written(&calls, closed);
        each_byte(&files, &state, 5, |byte| *byte = 0);
    }

    #[test]
    fn a_missing_or_shortened_file(calls in calls(24), closed: bool, cut in 0usize..4096) {
        let (files, state) = written(&calls, closed);
        for name in files.keys() {
            let mut changed = files.clone();
            changed.remove(name);
            check(&changed, &state, &format!("{name} missing"));
            let mut changed = files.clone();
            changed.get_mut(name).unwrap().truncate(cut);
            let refused = check(&changed, &state, &format!("{name} shortened to {cut}"));
            // One that was still being prepared is no part of the log.
            prop_assert!(refused || files[name].len() <= cut || name == PART_NAME, "{}", name);
        }
    }
}

#[test]
fn every_bit_of_acknowledged_records_counts() {
    let entries = vec![(100, None), (700, Some(0)), (1500, None)];
    let (files, state) = written(&[Call::Vote(3), Call::Append(entries)], true);
    let content = &files["0000000000000001.wal"];
    // All bytes that are not zero belong to a record or a header: each must be missed.
    let used = content.iter().filter(|byte| **byte != 0).count();
    let refused = each_byte(&files, &state, 1, |byte| {
        if *byte != 0 {
            *byte ^= 0x10;
        }
    });
    let headers: usize = 512 * files.len();
    assert!(refused + headers >= used, "{refused} of {used} refused");
}

#[test]
fn a_changed_zero_is_no_torn_write() {
    // The last group, with nothing after it that says that it was durable.
    let entries = vec![(700, None), (2000, Some(0))];
    let (files, state) = written(&[Call::Append(entries)], false);
    let refused = each_byte(&files, &state, 3, |byte| *byte ^= 0x40);
    assert!(refused > 2700 / 3, "{refused}");
}

#[test]
fn a_lost_sector_is_noticed_by_what_follows_it() {
    let mut calls = Vec::new();
    for at in 0..6 {
        calls.extend([Call::Append(vec![(450, None); 2]), Call::Wait, Call::Vote(at), Call::Wait]);
    }
    calls.extend([Call::Vote(9), Call::Wait, Call::Vote(10)]);
    let (files, state) = written(&calls, false);
    let mut refused = 0;
    for (name, content) in &files {
        for at in (512..content.len()).step_by(512) {
            let mut changed = files.clone();
            changed.get_mut(name).unwrap()[at..at + 512].fill(0);
            let lost = changed != files;
            let nothing_after = lost && !content[at + 512..].iter().any(|byte| *byte != 0);
            // The very last sector of the log is all there is of the last group.
            let is_tail = nothing_after && files.keys().rev().nth(1) == Some(name);
            if lost && !is_tail {
                assert!(check(&changed, &state, &format!("{name} sector {at}")));
                refused += 1;
            }
        }
    }
    assert!(refused > 8, "{refused}");
}

#[test]
fn a_segment_of_another_log_is_refused() {
    let append = Call::Append(vec![(1800, None); 4]);
    let (mut files, state) = written(&[append.clone(), Call::Vote(1)], true);
    let (others, _) = written(&[append, Call::Vote(1)], true);
    let last = files.keys().next_back().unwrap().clone();
    files.insert(last.clone(), others[&last].clone());
    assert!(check(&files, &state, "mixed"));
}

#[test]
fn a_newer_format_is_named() {
    let (mut files, _) = written(&[Call::Vote(1)], true);
    let content = files.get_mut("0000000000000001.wal").unwrap();
    content[8] = 2;
    let crc = crc32c::crc32c(&content[..508]);
    content[508..512].copy_from_slice(&crc.to_le_bytes());
    let error = reread(&MemDisk::with(files)).unwrap_err();
    assert!(error.to_string().contains("has format 2, this version reads up to 1"), "{error}");
}
