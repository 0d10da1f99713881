//! What the Maintenance service asks of this member's disk. All else it reads is in memory.

use std::fs::File;
use std::io;

use futures::future::BoxFuture;

/// The files of this member.
pub trait Disk: Send + Sync + 'static {
    /// How many bytes the log and the checkpoint take, as far as it is known.
    fn size(&self) -> Option<u64>;

    /// Gives space of deleted records back to the file system. Done at once when there is none.
    fn defragment(&self) -> BoxFuture<'_, io::Result<()>>;

    /// A snapshot file of the state as it is now, open at its start; it may have no name.
    fn snapshot(&self) -> BoxFuture<'_, io::Result<File>>;
}
