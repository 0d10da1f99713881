//! What `etcdutl snapshot status` says of a database, computed as etcd does it
//! (`etcdutl/snapshot/v3_snapshot.go`, `Status`).

use std::fs::File;

use super::{Body, DatabaseError, schema};
use crate::store::bolt::{BoltError, Database};
use crate::store::types::Revision;

/// A database in four numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Status {
    /// CRC-32C of all buckets' names, keys and values.
    pub(crate) hash: u32,
    /// The newest revision.
    pub(crate) revision: Revision,
    /// The pairs of all buckets.
    pub(crate) total_keys: u64,
    /// Size of the database, a multiple of its pages.
    pub(crate) bytes: u64,
}

/// Reads all of a database. Blocks on the disk.
pub(crate) fn status(file: &File, body: Body) -> Result<Status, DatabaseError> {
    let mut database = Database::open(file, body.bytes)?;
    let mut status = Status { hash: 0, revision: 0, total_keys: 0, bytes: database.bytes() };
    for bucket in database.buckets()? {
        status.hash = crc32c::crc32c_append(status.hash, &bucket.name);
        let has_revisions = bucket.name == schema::KEY.as_bytes();
        database.pairs(&bucket, |key, value| {
            status.hash = crc32c::crc32c_append(status.hash, key);
            status.hash = crc32c::crc32c_append(status.hash, value);
            if let Some((revision, ..)) = schema::parse_revision(key).filter(|_| has_revisions) {
                status.revision = revision;
            }
            status.total_keys += 1;
            Ok::<_, BoltError>(())
        })?;
    }
    Ok(status)
}
