//! The end of an etcd member's log, read from its files, whether etcd runs or not.
//!
//! The format is that of etcd's `server/storage/wal`: segments of records, each a length of eight bytes
//! (its upper byte tells the padding) and a `walpb.Record` with a CRC-32C that goes on from one record to
//! the next. What follows the first record that is not whole does not count, as for etcd itself.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use prost::Message;

use crate::cluster::restore::LogEnd;

/// Where the segments are, under K3s's data directory.
const SEGMENTS: &str = "server/db/etcd/member/wal";

/// Longest record that is read: etcd's own limit is far below.
const RECORD_BYTES_MAX: u64 = 256 * 1024 * 1024;

const ENTRY: i64 = 2;
const CRC: i64 = 4;
const SNAPSHOT: i64 = 5;

/// `walpb.Record`.
#[derive(Clone, PartialEq, Eq, Message)]
struct Record {
    #[prost(int64, tag = "1")]
    kind: i64,
    #[prost(uint32, tag = "2")]
    crc: u32,
    #[prost(bytes = "vec", tag = "3")]
    data: Vec<u8>,
}

/// `raftpb.Entry`, as far as it tells where it stands.
#[derive(Clone, PartialEq, Eq, Message)]
struct Entry {
    #[prost(uint64, tag = "2")]
    term: u64,
    #[prost(uint64, tag = "3")]
    index: u64,
}

/// `walpb.Snapshot`: the log up to there is in a snapshot.
#[derive(Clone, PartialEq, Eq, Message)]
struct Snapshot {
    #[prost(uint64, tag = "1")]
    index: u64,
    #[prost(uint64, tag = "2")]
    term: u64,
}

/// What a segment tells.
#[derive(Clone, Copy, Debug, Default)]
struct Told {
    entry: Option<LogEnd>,
    snapshot: Option<LogEnd>,
}

/// How far the log of the server with this data directory goes; `None` without one. Blocks.
pub(super) fn log_end(data_dir: &Path) -> io::Result<Option<LogEnd>> {
    let Some(segments) = segments(&data_dir.join(SEGMENTS))? else { return Ok(None) };
    let mut told = Told::default();
    for segment in segments.iter().rev() {
        let found = read(File::open(segment)?)?;
        told.entry = found.entry;
        told.snapshot = told.snapshot.max(found.snapshot);
        if told.entry.is_some() {
            break;
        }
    }
    // A member that was sent a snapshot has no entry before it.
    let by_index = |end: &LogEnd| end.index;
    let end = told.entry.into_iter().chain(told.snapshot).max_by_key(by_index);
    Ok(Some(end.unwrap_or_default()))
}

/// The segments by age; their names begin with their number. `None`: there is no log.
fn segments(dir: &Path) -> io::Result<Option<Vec<PathBuf>>> {
    let entries = match std::fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    let mut segments = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "wal") {
            segments.push(path);
        }
    }
    segments.sort();
    Ok((!segments.is_empty()).then_some(segments))
}

fn read(file: File) -> io::Result<Told> {
    let mut left = file.metadata()?.len();
    let mut file = BufReader::new(file);
    let mut told = Told::default();
    let mut crc = 0;
    while let Some(record) = next(&mut file, &mut left)? {
        if record.kind == CRC {
            crc = record.crc;
            continue;
        }
        crc = crc32c::crc32c_append(crc, &record.data);
        if crc != record.crc {
            break;
        }
        match record.kind {
            ENTRY => {
                let Ok(entry) = Entry::decode(record.data.as_slice()) else { break };
                told.entry = Some(LogEnd { term: entry.term, index: entry.index });
            }
            SNAPSHOT => {
                let Ok(snapshot) = Snapshot::decode(record.data.as_slice()) else { break };
                told.snapshot = Some(LogEnd { term: snapshot.term, index: snapshot.index });
            }
            _ => {}
        }
    }
    Ok(told)
}

/// The next record; `None` at the end, also when the last one was cut off.
fn next(file: &mut impl Read, left: &mut u64) -> io::Result<Option<Record>> {
    let Some(rest) = left.checked_sub(8) else { return Ok(None) };
    let mut head = [0; 8];
    file.read_exact(&mut head)?;
    let head = u64::from_le_bytes(head);
    let upper = head >> 56;
    let length = head & (u64::MAX >> 8);
    let padding = if upper & 0x80 == 0 { 0 } else { upper & 0x7 };
    // Segments are made ahead, and zeros until they are written.
    if length == 0 || length + padding > rest.min(RECORD_BYTES_MAX) {
        return Ok(None);
    }
    *left = rest - length - padding;
    let mut bytes = vec![0; usize::try_from(length + padding).unwrap_or(0)];
    file.read_exact(&mut bytes)?;
    let record = bytes.get(..usize::try_from(length).unwrap_or(0)).unwrap_or_default();
    Ok(Record::decode(record).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(out: &mut Vec<u8>, crc: &mut u32, kind: i64, data: &[u8]) {
        if kind != CRC {
            *crc = crc32c::crc32c_append(*crc, data);
        }
        let record = Record { kind, crc: *crc, data: data.to_vec() }.encode_to_vec();
        let padding = (8 - record.len() % 8) % 8;
        let upper = if padding == 0 { 0 } else { 0x80 | padding as u64 };
        out.extend((record.len() as u64 | upper << 56).to_le_bytes());
        out.extend(record);
        out.extend(vec![0; padding]);
    }

    fn entry(term: u64, index: u64) -> Vec<u8> {
        Entry { term, index }.encode_to_vec()
    }

    fn put(dir: &Path, name: &str, bytes: &[u8]) {
        let dir = dir.join(SEGMENTS);
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join(name), bytes).unwrap();
    }

    fn end(dir: &Path) -> Option<(u64, u64)> {
        log_end(dir).unwrap().map(|end| (end.term, end.index))
    }

    #[test]
    fn the_last_whole_entry_of_the_last_segment_that_has_one_counts() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        assert_eq!(end(root), None);
        let (mut first, mut crc) = (Vec::new(), 0);
        frame(&mut first, &mut crc, CRC, b"");
        frame(&mut first, &mut crc, 1, b"metadata");
        frame(&mut first, &mut crc, SNAPSHOT, &Snapshot { index: 5, term: 2 }.encode_to_vec());
        put(root, "0000000000000000-0000000000000000.wal", &first);
        assert_eq!(end(root), Some((2, 5)), "all of it is in the snapshot that was sent");
        for index in 6..9 {
            frame(&mut first, &mut crc, ENTRY, &entry(2, index));
        }
        // Another leader's entry takes the place of one.
        frame(&mut first, &mut crc, ENTRY, &entry(3, 7));
        put(root, "0000000000000000-0000000000000000.wal", &first);
        assert_eq!(end(root), Some((3, 7)));
        let mut second = Vec::new();
        frame(&mut second, &mut crc, CRC, b"");
        put(root, "0000000000000001-0000000000000008.wal", &second);
        assert_eq!(end(root), Some((3, 7)), "a new segment is empty at first");
        frame(&mut second, &mut crc, ENTRY, &entry(3, 8));
        let whole = second.len();
        frame(&mut second, &mut crc, ENTRY, &entry(3, 9));
        let mut bytes = second.clone();
        bytes.resize(100_000, 0);
        put(root, "0000000000000001-0000000000000008.wal", &bytes);
        assert_eq!(end(root), Some((3, 9)));
        // The last one was cut off, or its disk lied.
        put(root, "0000000000000001-0000000000000008.wal", &second[..second.len() - 8]);
        assert_eq!(end(root), Some((3, 8)));
        bytes[whole + 12] ^= 1;
        put(root, "0000000000000001-0000000000000008.wal", &bytes);
        assert_eq!(end(root), Some((3, 8)));
    }
}
