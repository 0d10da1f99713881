//! The snapshot file: the whole state of the store at one revision, in one file.
//!
//! The same file installs a follower that lags, is what a person saves, and what a restore reads.
//! Knows nothing of what is in a record: records are opaque bytes in an order that the state machine
//! gives and takes. Memory is bounded both ways, whatever a file says of itself.
//!
//! A file is written as `<name>.part`, synced, read back and verified, and only then gets its name,
//! which never replaces another file. All of it is hashed before the first record is handed out.
//! docs/storage.md has the format.

mod error;
mod format;
mod read;
#[cfg(test)]
mod tests;
mod write;

use bytes::Bytes;

pub use error::SnapshotError;
pub use read::{SnapshotReader, peek, verify, verify_file};
pub use write::{SnapshotEncoder, SnapshotWriter};

use crate::store::types::{ClusterId, Revision};

/// Largest record, in bytes.
pub const RECORD_BYTES_MAX: usize = 64 * 1024 * 1024;

/// What a snapshot says of itself before its records.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SnapshotHeader {
    /// The cluster it was taken of.
    pub cluster_id: ClusterId,
    /// The store's revision.
    pub revision: Revision,
    /// The last log entry in it: its index.
    pub applied_index: u64,
    /// Its term.
    pub term: u64,
    /// When it was taken: milliseconds since 1970 UTC, by the clock of the member that took it.
    pub created_unix_ms: i64,
    /// Raft's membership, opaque here; at most 1 MiB.
    pub membership: Bytes,
}

/// What is known of a snapshot file that was read to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotInfo {
    /// Its header.
    pub header: SnapshotHeader,
    /// Number of records.
    pub records: u64,
    /// Size of all records with their length prefixes, uncompressed, in bytes.
    pub record_bytes: u64,
    /// Size of the file in bytes.
    pub file_bytes: u64,
    /// SHA-256 of all but the last 32 bytes, which hold it.
    pub sha256: [u8; 32],
}
