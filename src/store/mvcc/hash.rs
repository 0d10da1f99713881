//! The hash of the key space, byte for byte etcd's `HashKV`, so that a member of either kind with
//! the same history gives the same number (etcd `server/storage/mvcc/hash.go`).

use bytes::{BufMut, Bytes};

use super::super::types::{KeyRange, Revision};
use super::{History, Key, Mvcc, Version};

/// The hash and what it is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyHash {
    /// CRC-32C of all that `revision` and later compactions can still see.
    pub hash: u32,
    /// Up to which revision.
    pub revision: Revision,
    /// The compaction it starts from, -1 when there was none.
    pub compact_revision: Revision,
}

/// Versions gathered to be hashed: etcd's order is that of revisions, the index's that of keys.
pub(crate) struct Gathered {
    revision: Revision,
    compact_revision: Revision,
    versions: Vec<Version>,
    /// What the compaction kept, as long as no key was found that the revision sees.
    kept: Option<Vec<Version>>,
}

impl Gathered {
    /// Nothing gathered yet.
    pub(crate) fn new(revision: Revision, compact_revision: Revision) -> Self {
        Self { revision, compact_revision, versions: Vec::new(), kept: Some(Vec::new()) }
    }

    /// Gathers from up to `budget` keys from `from` on. Gives the key to go on with.
    pub(crate) fn step(&mut self, mvcc: &Mvcc, from: Option<&[u8]>, budget: usize) -> Option<Key> {
        let all = KeyRange { key: Bytes::new(), end: Bytes::from_static(&[0]) };
        for (visited, (key, history)) in mvcc.histories(&all, from).enumerate() {
            if visited == budget {
                return Some(key.clone());
            }
            self.gather(history);
        }
        None
    }

    /// Everything after the last compaction; from before it only what the revision still sees, or,
    /// when it sees no key at all, what the compaction kept.
    fn gather(&mut self, history: &History) {
        let seen = history.at(self.revision);
        if seen.is_some() {
            self.kept = None;
        }
        if let (Some(kept), Some(version)) = (&mut self.kept, history.at(self.compact_revision)) {
            kept.push(version.clone());
        }
        for version in history.versions() {
            let is_recent =
                version.modified > self.compact_revision && version.modified <= self.revision;
            let is_seen = seen.is_some_and(|seen| std::ptr::eq(seen, version));
            if is_recent || is_seen {
                self.versions.push(version.clone());
            }
        }
    }

    /// The hash.
    pub(crate) fn finish(mut self) -> u32 {
        self.versions.extend(self.kept.take().unwrap_or_default());
        self.versions.sort_unstable_by_key(|version| version.place());
        let mut hash = crc32c::crc32c(b"key");
        let mut record = Vec::new();
        for version in &self.versions {
            record.clear();
            put_revision(&mut record, version);
            put_pair(&mut record, version);
            hash = crc32c::crc32c_append(hash, &record);
        }
        hash
    }
}

/// `main ‖ '_' ‖ sub`, and a `t` on a deletion (etcd `server/storage/mvcc/revision.go`).
fn put_revision(out: &mut Vec<u8>, version: &Version) {
    out.put_i64(version.modified);
    out.put_u8(b'_');
    out.put_u64(u64::from(version.sub));
    if version.is_tombstone() {
        out.put_u8(b't');
    }
}

/// `mvccpb.KeyValue` in the order of its fields, zeros left out; a deletion has only the key.
fn put_pair(out: &mut Vec<u8>, version: &Version) {
    put_field_bytes(out, 1, version.key());
    if version.is_tombstone() {
        return;
    }
    put_field_number(out, 2, version.created);
    put_field_number(out, 3, version.modified);
    put_field_number(out, 4, version.number);
    put_field_bytes(out, 5, version.value());
    put_field_number(out, 6, version.lease);
}

fn put_field_number(out: &mut Vec<u8>, field: u8, value: i64) {
    if value != 0 {
        out.put_u8(field << 3);
        put_varint(out, value.cast_unsigned());
    }
}

fn put_field_bytes(out: &mut Vec<u8>, field: u8, value: &[u8]) {
    if !value.is_empty() {
        out.put_u8(field << 3 | 2);
        put_varint(out, value.len() as u64);
        out.put_slice(value);
    }
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        #[expect(clippy::cast_possible_truncation, reason = "the low seven bits are meant")]
        out.put_u8(value as u8 | 0x80);
        value >>= 7;
    }
    #[expect(clippy::cast_possible_truncation, reason = "it is below 0x80 here")]
    out.put_u8(value as u8);
}
