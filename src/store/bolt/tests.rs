//! Tests of the database's format: what is written is read, what is damaged is refused.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::os::unix::fs::FileExt as _;

use proptest::prelude::*;

use super::page::PAGE_BYTES;
use super::*;

type Pairs = Vec<(Vec<u8>, Vec<u8>)>;

fn write(buckets: &[(&str, Pairs)]) -> File {
    let file = tempfile::tempfile().unwrap();
    let mut writer = Writer::new(BufWriter::new(file)).unwrap();
    for (name, pairs) in buckets {
        writer.bucket(name).unwrap();
        for (key, value) in pairs {
            writer.put(key, value).unwrap();
        }
    }
    writer.finish().unwrap().into_inner().unwrap()
}

fn read(file: &File) -> Result<Vec<(String, Pairs)>, BoltError> {
    let mut database = Database::open(file, file.metadata()?.len())?;
    let mut found = Vec::new();
    for bucket in database.buckets()? {
        let mut pairs = Vec::new();
        database.pairs(&bucket, |key, value| {
            pairs.push((key.to_vec(), value.to_vec()));
            Ok::<_, BoltError>(())
        })?;
        // A damaged name need not be text.
        found.push((String::from_utf8_lossy(&bucket.name).into_owned(), pairs));
    }
    Ok(found)
}

fn numbered(count: u32, bytes: usize) -> Pairs {
    (0..count).map(|at| (at.to_be_bytes().to_vec(), vec![at.to_le_bytes()[0]; bytes])).collect()
}

fn content(file: &File) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(file.metadata().unwrap().len()).unwrap()];
    file.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

fn file_of(bytes: &[u8]) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    file
}

#[test]
fn what_is_written_is_read() {
    // None, one, a leaf, levels of branches, values larger than a page.
    for (count, bytes) in [(0, 0), (1, 0), (20, 10), (60_000, 100), (7, 3 * PAGE_BYTES)] {
        let buckets = [("empty", Pairs::new()), ("key", numbered(count, bytes))];
        let file = write(&buckets);
        assert_eq!(file.metadata().unwrap().len() % 4096, 0);
        let expected = buckets.map(|(name, pairs)| (name.to_owned(), pairs));
        assert!(read(&file).unwrap() == expected, "{count} of {bytes} bytes");
    }
}

#[test]
fn keys_out_of_order_are_not_written() {
    let mut writer = Writer::new(std::io::Cursor::new(Vec::new())).unwrap();
    assert!(writer.put(b"a", b"").is_err(), "without a bucket");
    writer.bucket("b").unwrap();
    writer.put(b"b", b"").unwrap();
    assert!(writer.put(b"b", b"").is_err());
    assert!(writer.put(b"a", b"").is_err());
    writer.bucket("a").unwrap();
    assert!(writer.finish().is_err());
}

#[test]
fn one_right_meta_page_is_enough_and_none_is_refused() {
    let mut bytes = content(&write(&[("key", numbered(10, 10))]));
    bytes[30] ^= 1;
    assert!(read(&file_of(&bytes)).is_ok());
    bytes[PAGE_BYTES + 30] ^= 1;
    let refused = read(&file_of(&bytes)).unwrap_err().to_string();
    assert!(refused.contains("neither meta page is right"), "{refused}");
    assert!(read(&file_of(&[])).is_err());
}

#[test]
fn a_database_that_is_cut_off_is_refused() {
    let bytes = content(&write(&[("key", numbered(2000, 100))]));
    for length in (0..bytes.len()).step_by(511) {
        assert!(read(&file_of(&bytes[..length])).is_err(), "{length}");
    }
}

/// Changes the bytes of a page of a small database whose pages are known: 3 is the leaf of `key`, or
/// with many keys their first leaf.
fn changed(count: u32, at: usize, to: &[u8]) -> String {
    let mut bytes = content(&write(&[("key", numbered(count, 100))]));
    bytes[at..at + to.len()].copy_from_slice(to);
    read(&file_of(&bytes)).unwrap_err().to_string()
}

#[test]
fn what_leads_nowhere_is_refused() {
    let leaf = 3 * PAGE_BYTES;
    let refused = changed(10, leaf + 16 + 8, &u32::MAX.to_le_bytes());
    assert!(refused.contains("goes beyond its page"), "{refused}");
    let refused = changed(10, leaf + 12, &u32::MAX.to_le_bytes());
    assert!(refused.contains("page 3 is not there"), "{refused}");
    let refused = changed(10, leaf + 8, &0x40_u16.to_le_bytes());
    assert!(refused.contains("no known kind"), "{refused}");
    // The second key like the first one.
    let refused = changed(10, leaf + 32 + 4, &(10 * 16_u32 - 16).to_le_bytes());
    assert!(refused.contains("not in order"), "{refused}");
    // A branch that leads to itself.
    let mut bytes = content(&write(&[("key", numbered(2000, 100))]));
    let branch = bytes.chunks(PAGE_BYTES).position(|page| page[8..10] == [1, 0]).unwrap();
    let id = u64::try_from(branch).unwrap();
    let at = branch * PAGE_BYTES + 16 + 8;
    bytes[at..at + 8].copy_from_slice(&id.to_le_bytes());
    let refused = read(&file_of(&bytes)).unwrap_err().to_string();
    assert!(refused.contains("its pages lead"), "{refused}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..Default::default() })]

    /// Whatever is changed in it, reading ends, with an error or with what can be read.
    #[test]
    fn damage_is_survived(
        count in 0..400_u32,
        size in 0..300_usize,
        changes in proptest::collection::vec((any::<usize>(), any::<u8>()), 1..20),
        cut in proptest::option::of(any::<usize>()),
    ) {
        let mut bytes = content(&write(&[("key", numbered(count, size)), ("meta", numbered(3, 8))]));
        for (at, to) in changes {
            let at = at % bytes.len();
            bytes[at] = to;
        }
        if let Some(cut) = cut {
            let length = bytes.len();
            bytes.truncate(cut % length);
        }
        drop(read(&file_of(&bytes)));
    }

    /// Headers and elements changed at their very places.
    #[test]
    fn wild_numbers_are_survived(
        changes in proptest::collection::vec((0..60_usize, 0..40_usize, any::<u32>()), 1..6),
    ) {
        let mut bytes = content(&write(&[("key", numbered(1500, 100))]));
        for (page, word, to) in changes {
            let at = page * PAGE_BYTES + word * 4;
            if let Some(place) = bytes.get_mut(at..at + 4) {
                place.copy_from_slice(&to.to_le_bytes());
            }
        }
        drop(read(&file_of(&bytes)));
    }
}
