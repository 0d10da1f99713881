//! The fixed parts of a snapshot file: what stands before and after its records. Pure.

use bytes::{Buf as _, BufMut as _, Bytes};

use super::SnapshotHeader;

/// First bytes of every snapshot.
pub(super) const MAGIC: [u8; 8] = *b"k3supSNP";
/// The format written here, and the newest that can be read.
pub(super) const FORMAT: u32 = 1;
/// Magic, format and the header's length.
pub(super) const PREFIX_BYTES: usize = 16;
/// The header without the membership.
const HEADER_FIXED_BYTES: usize = 40;
/// Largest membership.
pub(super) const MEMBERSHIP_BYTES_MAX: usize = 1024 * 1024;
/// Largest header.
pub(super) const HEADER_BYTES_MAX: usize = HEADER_FIXED_BYTES + MEMBERSHIP_BYTES_MAX;
/// Three numbers, see [`Footer`].
pub(super) const FOOTER_BYTES: usize = 24;
/// The trailing SHA-256.
pub(super) const HASH_BYTES: usize = 32;
/// etcd's tools take a snapshot for one with a trailing hash when its size is 32 more than a
/// multiple of this (etcd `etcdutl/snapshot/v3_snapshot.go`), so it is padded to that.
pub(super) const ALIGN: u64 = 512;
/// A snapshot never holds more than so many bytes of records per byte of file; the writer pads to
/// keep to it. So a small file cannot cost much memory or time, whatever it says.
pub(super) const RATIO_MAX: u64 = 1000;

/// What stands between the compressed records and the hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Footer {
    /// Number of records.
    pub(super) records: u64,
    /// Bytes of all records with their length prefixes.
    pub(super) record_bytes: u64,
    /// Bytes of the compressed stream, without the padding that follows it.
    pub(super) stream_bytes: u64,
}

impl Footer {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(FOOTER_BYTES);
        out.put_u64_le(self.records);
        out.put_u64_le(self.record_bytes);
        out.put_u64_le(self.stream_bytes);
        out
    }

    pub(super) fn decode(mut bytes: &[u8]) -> Option<Self> {
        (bytes.len() == FOOTER_BYTES).then(|| Self {
            records: bytes.get_u64_le(),
            record_bytes: bytes.get_u64_le(),
            stream_bytes: bytes.get_u64_le(),
        })
    }
}

/// Padding after the compressed stream, which ends at `offset`.
pub(super) fn padding(offset: u64, record_bytes: u64) -> u64 {
    let footer = FOOTER_BYTES as u64;
    let least = (offset + footer).max(record_bytes.div_ceil(RATIO_MAX));
    least.next_multiple_of(ALIGN) - footer - offset
}

/// Everything before the compressed stream.
pub(super) fn encode_header(header: &SnapshotHeader) -> Vec<u8> {
    let mut out = Vec::with_capacity(128);
    out.put_slice(&MAGIC);
    out.put_u32_le(FORMAT);
    let len = HEADER_FIXED_BYTES + header.membership.len();
    // At most `HEADER_BYTES_MAX`, checked by the writer.
    out.put_u32_le(u32::try_from(len).unwrap_or(u32::MAX));
    out.put_u64_le(header.cluster_id);
    out.put_i64_le(header.revision);
    out.put_u64_le(header.applied_index);
    out.put_u64_le(header.term);
    out.put_i64_le(header.created_unix_ms);
    out.put_slice(&header.membership);
    out
}

/// What follows the prefix.
pub(super) fn decode_header(mut bytes: &[u8]) -> Option<SnapshotHeader> {
    (bytes.len() >= HEADER_FIXED_BYTES).then(|| SnapshotHeader {
        cluster_id: bytes.get_u64_le(),
        revision: bytes.get_i64_le(),
        applied_index: bytes.get_u64_le(),
        term: bytes.get_u64_le(),
        created_unix_ms: bytes.get_i64_le(),
        membership: Bytes::copy_from_slice(bytes),
    })
}
