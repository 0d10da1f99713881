//! What the Maintenance service asks of this member's disk. All else it reads is in memory.

use std::fs::File;
use std::io;

use futures::future::BoxFuture;

/// The files of this member.
pub trait Disk: Send + Sync + 'static {
    /// How many bytes the checkpoint of the state takes, as far as it is known.
    fn size(&self) -> Option<u64>;

    /// Writes the checkpoint afresh, which gives space of deleted records back to the file system.
    fn defragment(&self) -> BoxFuture<'_, io::Result<()>>;

    /// A snapshot file of the state as it is now, open at its start; it may have no name.
    fn snapshot(&self) -> BoxFuture<'_, io::Result<File>>;
}
