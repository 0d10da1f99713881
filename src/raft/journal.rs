//! What the log store needs of the disk. `store::wal` is the one in use; tests break things here.

use std::io;
use std::ops::Range;

use bytes::Bytes;

use crate::store::wal::Wal;
pub(crate) use crate::store::wal::{Done, Recovered};

/// A durable sequence of entries numbered from 0, and a vote. Writes take effect in the order of
/// the calls, all of which return at once; what was handed over can be read at once. After a failed
/// write every further call fails.
pub(crate) trait Journal: Send + Sync + 'static {
    /// Appends entries; the first follows the last one there.
    fn append(&self, entries: Vec<(u64, Bytes)>, done: Done) -> io::Result<()>;

    /// Replaces the vote.
    fn save_vote(&self, vote: Bytes, done: Done) -> io::Result<()>;

    /// Notes how far the log is committed, without making that durable.
    fn save_committed(&self, committed: Bytes) -> io::Result<()>;

    /// Drops the entries after `last`, or all of them.
    fn truncate_after(&self, last: Option<u64>, done: Done) -> io::Result<()>;

    /// Drops entries up to and including `index`, and keeps `marker` in their place. The next entry
    /// after a purge beyond the end is `index + 1`.
    fn purge_upto(&self, index: u64, marker: Bytes) -> io::Result<()>;

    /// Entries from the beginning of `range`: at least one, and then as many as fit into
    /// `bytes_max`. Blocks on the disk.
    fn read(&self, range: Range<u64>, bytes_max: usize) -> io::Result<Vec<(u64, Bytes)>>;

    /// Why only little more can be written, if so: the disk is (nearly) full.
    fn low_space(&self) -> Option<String> {
        None
    }

    /// About how many bytes the entries that are held have.
    fn entry_bytes(&self) -> u64;

    /// Makes everything durable and stops. Blocks on the disk.
    fn close(&self) -> io::Result<()>;
}

impl Journal for Wal {
    fn append(&self, entries: Vec<(u64, Bytes)>, done: Done) -> io::Result<()> {
        Ok(Self::append(self, entries, done)?)
    }

    fn save_vote(&self, vote: Bytes, done: Done) -> io::Result<()> {
        Ok(Self::save_vote(self, vote, done)?)
    }

    fn save_committed(&self, committed: Bytes) -> io::Result<()> {
        Ok(Self::save_committed(self, committed)?)
    }

    fn truncate_after(&self, last: Option<u64>, done: Done) -> io::Result<()> {
        Ok(Self::truncate_after(self, last, done)?)
    }

    fn purge_upto(&self, index: u64, marker: Bytes) -> io::Result<()> {
        Ok(Self::purge_upto(self, index, marker)?)
    }

    fn read(&self, range: Range<u64>, bytes_max: usize) -> io::Result<Vec<(u64, Bytes)>> {
        Ok(Self::read(self, range, bytes_max)?)
    }

    fn low_space(&self) -> Option<String> {
        Self::low_space(self)
    }

    fn entry_bytes(&self) -> u64 {
        Self::entry_bytes(self)
    }

    fn close(&self) -> io::Result<()> {
        Ok(Self::close(self)?)
    }
}
