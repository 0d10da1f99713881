//! Tests of the snapshot file.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use proptest::prelude::*;
use sha2::{Digest as _, Sha256};

use super::*;

fn header() -> SnapshotHeader {
    SnapshotHeader {
        cluster_id: 0xC1,
        revision: 77,
        applied_index: 1234,
        term: 5,
        created_unix_ms: 1_790_000_000_000,
        membership: Bytes::from_static(b"voters 1 2 3"),
    }
}

fn write(path: &Path, records: &[Vec<u8>]) -> SnapshotInfo {
    let mut writer = SnapshotWriter::create(path, header()).unwrap();
    for record in records {
        writer.record(record).unwrap();
    }
    writer.finish().unwrap()
}

fn home() -> (tempfile::TempDir, PathBuf) {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("a.snap");
    (home, path)
}

fn some_records() -> Vec<Vec<u8>> {
    (0..50u8).map(|at| vec![at; usize::from(at) * 13]).collect()
}

/// Puts a right hash at the end of what was changed on purpose.
fn rehash(content: &mut Vec<u8>) {
    content.truncate(content.len() - 32);
    let hash = Sha256::digest(&content);
    content.extend_from_slice(&hash);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..Default::default() })]

    #[test]
    fn what_is_written_is_read(
        records in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..2000), 0..60)
    ) {
        let (_home, path) = home();
        let info = write(&path, &records);
        prop_assert_eq!(&verify(&path).unwrap(), &info);
        prop_assert_eq!(&info.header, &header());
        prop_assert_eq!(info.file_bytes, std::fs::metadata(&path).unwrap().len());
        prop_assert_eq!(info.file_bytes % 512, 32);
        let found: Vec<Bytes> =
            SnapshotReader::open(&path).unwrap().collect::<Result<_, _>>().unwrap();
        prop_assert_eq!(found, records);
    }
}

#[test]
fn it_is_private_and_leaves_no_part() {
    let (home, path) = home();
    write(&path, &some_records());
    let names: Vec<_> = std::fs::read_dir(home.path()).unwrap().collect();
    assert_eq!(names.len(), 1);
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn an_abandoned_one_leaves_nothing() {
    let (home, path) = home();
    std::fs::write(home.path().join("a.snap.part"), b"of an earlier run").unwrap();
    let mut writer = SnapshotWriter::create(&path, header()).unwrap();
    writer.record(b"one").unwrap();
    drop(writer);
    assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), 0);
}

#[test]
fn nothing_is_replaced_and_no_link_followed() {
    let (home, path) = home();
    let victim = home.path().join("victim");
    std::fs::write(&victim, b"precious").unwrap();
    let link = home.path().join("link.snap");
    std::os::unix::fs::symlink(&victim, &link).unwrap();
    std::os::unix::fs::symlink(&victim, home.path().join("a.snap.part")).unwrap();
    for taken in [&victim, &link] {
        let refused = SnapshotWriter::create(taken, header()).err().unwrap();
        assert!(matches!(refused, SnapshotError::Exists { .. }), "{refused}");
    }
    // The name is taken while it is being written.
    let mut writer = SnapshotWriter::create(&path, header()).unwrap();
    writer.record(b"one").unwrap();
    std::os::unix::fs::symlink(&victim, &path).unwrap();
    assert!(matches!(writer.finish().unwrap_err(), SnapshotError::Exists { .. }));
    assert_eq!(std::fs::read(&victim).unwrap(), b"precious");
    assert!(!home.path().join("a.snap.part").exists());
}

#[test]
fn any_change_is_refused() {
    let (_home, path) = home();
    write(&path, &some_records());
    let content = std::fs::read(&path).unwrap();
    for at in 0..content.len() {
        let mut changed = content.clone();
        changed[at] ^= 1 << (at % 8);
        std::fs::write(&path, &changed).unwrap();
        assert!(verify(&path).is_err(), "byte {at}");
        assert!(SnapshotReader::open(&path).is_err(), "byte {at}");
    }
    for len in 0..content.len() {
        std::fs::write(&path, &content[..len]).unwrap();
        assert!(verify(&path).is_err(), "cut to {len}");
    }
    let longer = [&content[..], &[0; 512]].concat();
    std::fs::write(&path, longer).unwrap();
    assert!(verify(&path).is_err());
}

#[test]
fn what_etcdctl_saved_is_read_as_it_is() {
    let (_home, path) = home();
    let info = write(&path, &some_records());
    let mut saved = std::fs::read(&path).unwrap();
    saved.resize(saved.len().next_multiple_of(512), 0);
    let hash = Sha256::digest(&saved);
    saved.extend_from_slice(&hash);
    std::fs::write(&path, &saved).unwrap();
    assert_eq!(verify(&path).unwrap(), info);
}

#[test]
fn another_format_and_another_file_are_named() {
    let (_home, path) = home();
    write(&path, &some_records());
    let mut content = std::fs::read(&path).unwrap();
    content[8] = 9;
    rehash(&mut content);
    std::fs::write(&path, &content).unwrap();
    let newer = verify(&path).unwrap_err();
    assert!(newer.to_string().contains("has format 9, this version reads up to 1"), "{newer}");
    for other in [&b"SQLite format 3\0 and more"[..], b"", b"k3supSNP"] {
        std::fs::write(&path, other).unwrap();
        assert!(matches!(verify(&path).unwrap_err(), SnapshotError::NotASnapshot { .. }));
    }
}

/// Changes one of the footer's numbers: 0 records, 1 bytes, 2 stream bytes.
fn with_footer(path: &Path, number: usize, value: u64) -> Vec<u8> {
    let mut content = std::fs::read(path).unwrap();
    let at = content.len() - 32 - 24 + number * 8;
    content[at..at + 8].copy_from_slice(&value.to_le_bytes());
    rehash(&mut content);
    content
}

#[test]
fn it_must_hold_just_what_it_says() {
    let (_home, path) = home();
    let info = write(&path, &some_records());
    let lies = [
        (0, info.records - 1),
        (0, info.records + 1),
        (1, info.record_bytes - 1),
        (1, info.record_bytes + 1),
        (1, u64::MAX),
        (2, 10),
        (2, u64::MAX),
    ];
    for (number, value) in lies {
        let other = path.with_extension("lie");
        std::fs::write(&other, with_footer(&path, number, value)).unwrap();
        let error = verify(&other).unwrap_err();
        assert!(matches!(error, SnapshotError::Damaged { .. }), "{number} {value}: {error}");
    }
}

#[test]
fn a_small_file_cannot_hold_much() {
    let (_home, path) = home();
    // What compresses best is padded, so that every file stands by the ratio.
    let info = write(&path, &vec![vec![0; 1 << 20]; 64]);
    assert!(info.record_bytes <= info.file_bytes * format::RATIO_MAX);
    // The padding cut away, and the rest made consistent: a bomb.
    let content = std::fs::read(&path).unwrap();
    let stream = u64::from_le_bytes(content[content.len() - 40..][..8].try_into().unwrap());
    let start = 16 + 40 + header().membership.len();
    let mut bomb = content[..start + usize::try_from(stream).unwrap()].to_vec();
    bomb.resize((bomb.len() + 24).next_multiple_of(512) - 24, 0);
    bomb.extend_from_slice(&content[content.len() - 56..]);
    rehash(&mut bomb);
    std::fs::write(&path, &bomb).unwrap();
    let error = verify(&path).unwrap_err();
    assert!(error.to_string().contains("holds more than it can"), "{error}");
}

#[test]
fn a_record_that_is_too_large_is_refused() {
    let mut encoder = SnapshotEncoder::new(Vec::new(), header()).unwrap();
    assert!(encoder.record(&vec![0; RECORD_BYTES_MAX + 1]).is_err());
    let big = SnapshotHeader { membership: vec![0; (1 << 20) + 1].into(), ..header() };
    assert!(SnapshotEncoder::new(Vec::new(), big).is_err());
}
