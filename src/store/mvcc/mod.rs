//! Multi-version store: every change of a key makes a version, and a reader sees one revision.
//!
//! Pure memory: no lock, no clock, no disk; knows no Raft, protobuf or network. Reading order:
//! `version`, `history` (the versions of one key), `journal` (which keys changed, in order), `range` and
//! `write` (what a query sees, what a change does), `txn`, `validate`, `catchup` (events from
//! history), `compact`, `restore`, `hash`.

mod catchup;
mod compact;
mod hash;
mod history;
mod journal;
mod range;
mod restore;
mod txn;
mod validate;
mod version;
mod write;

use std::collections::BTreeMap;
use std::ops::Bound;

pub(crate) use self::compact::Forgotten;
pub(crate) use self::hash::Gathered;
pub use self::hash::KeyHash;
pub(crate) use self::history::History;
pub(crate) use self::range::Scan;
pub(crate) use self::restore::{Inconsistent, Restore};
pub(crate) use self::txn::{check_put, is_read_only, puts_anything, read, run};
pub use self::validate::validate;
pub(crate) use self::version::{Key, Numbers, Version};
pub(crate) use self::write::Writer;

use self::compact::Trim;
use self::journal::Journal;
use super::types::{KeyRange, Revision};

/// What a version is counted for beside its key and value, in bytes: measured: what it takes in the
/// index, the journal and the allocator.
const VERSION_OVERHEAD: u64 = 160;

/// The keys with all their versions.
#[derive(Debug)]
pub(crate) struct Mvcc {
    keys: BTreeMap<Key, History>,
    journal: Journal,
    revision: Revision,
    compact_revision: Revision,
    trim: Trim,
    /// Bytes of all versions that are in memory.
    bytes: u64,
    /// Bytes of all versions that were ever written here.
    written_bytes: u64,
    /// Bytes of the versions that the latest revision sees.
    live_bytes: u64,
    /// Keys that the latest revision sees.
    live_keys: u64,
    /// What was done so far.
    pub(crate) counts: Counts,
}

/// How much was done by commands, for metrics, as etcd counts it (`server/storage/mvcc/metrics_txn.go`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Puts.
    pub puts: u64,
    /// Bytes of their keys and values.
    pub put_bytes: u64,
    /// Deletions, however many keys they met.
    pub deletes: u64,
    /// Reads.
    pub ranges: u64,
    /// Revisions and reads that took more than one of these.
    pub txns: u64,
    /// Versions that compactions forgot.
    pub forgotten: u64,
}

impl Counts {
    /// Adds what one transaction did.
    fn add(&mut self, done: Self) {
        self.puts += done.puts;
        self.put_bytes += done.put_bytes;
        self.deletes += done.deletes;
        self.ranges += done.ranges;
        self.txns += u64::from(done.puts + done.deletes + done.ranges > 1);
    }
}

impl Mvcc {
    /// An empty store at revision 1, never compacted.
    pub(crate) fn new() -> Self {
        Self {
            keys: BTreeMap::new(),
            journal: Journal::default(),
            revision: 1,
            compact_revision: -1,
            trim: Trim::default(),
            bytes: 0,
            written_bytes: 0,
            live_bytes: 0,
            live_keys: 0,
            counts: Counts::default(),
        }
    }

    /// The latest revision.
    pub(crate) fn revision(&self) -> Revision {
        self.revision
    }

    /// How many keys the latest revision sees.
    pub(crate) fn live_keys(&self) -> u64 {
        self.live_keys
    }

    /// Lets revisions go on `by` further: those between do not exist.
    pub(crate) fn bump_revision(&mut self, by: Revision) {
        self.revision = self.revision.saturating_add(by.max(0));
    }

    /// The revision of the last compaction, -1 when there was none.
    pub(crate) fn compact_revision(&self) -> Revision {
        self.compact_revision
    }

    /// Bytes of all versions, and of those that the latest revision sees.
    pub(crate) fn size(&self) -> (u64, u64) {
        (self.bytes, self.live_bytes)
    }

    /// Bytes of all versions that were ever written here, those that are gone too.
    pub(crate) fn written_bytes(&self) -> u64 {
        self.written_bytes
    }

    /// Counts a version that was written just now.
    fn count_written(&mut self, bytes: u64) {
        self.bytes += bytes;
        self.written_bytes += bytes;
    }

    /// The versions of one key.
    pub(crate) fn history(&self, key: &[u8]) -> Option<&History> {
        self.keys.get(key)
    }

    /// The one key with its versions, to be changed.
    fn entry(&mut self, key: &[u8]) -> Option<(&Key, &mut History)> {
        self.keys.range_mut::<[u8], _>((Bound::Included(key), Bound::Included(key))).next()
    }

    /// The versions of the keys in `range`, from `from` on when given, in order of keys.
    pub(crate) fn histories<'a>(
        &'a self,
        range: &KeyRange,
        from: Option<&[u8]>,
    ) -> impl Iterator<Item = (&'a Key, &'a History)> + use<'a> {
        let bounds = bounds(range);
        bounds
            .map(|(first, last)| {
                let first = match from {
                    Some(from) if from > range.key.as_ref() => Bound::Included(from),
                    _ => first,
                };
                self.keys.range::<[u8], _>((first, last))
            })
            .into_iter()
            .flatten()
    }
}

/// Whether `range` holds `key`.
pub(crate) fn contains(range: &KeyRange, key: &[u8]) -> bool {
    match range.end.as_ref() {
        [] => range.key.as_ref() == key,
        [0] => range.key.as_ref() <= key,
        end => range.key.as_ref() <= key && key < end,
    }
}

type Bounds<'a> = (Bound<&'a [u8]>, Bound<&'a [u8]>);

/// The bounds of a set of keys in etcd's encoding; `None` when it is empty.
fn bounds(range: &KeyRange) -> Option<Bounds<'_>> {
    let first = Bound::Included(range.key.as_ref());
    match range.end.as_ref() {
        [] => Some((first, Bound::Included(range.key.as_ref()))),
        [0] => Some((first, Bound::Unbounded)),
        end if end <= range.key.as_ref() => None,
        end => Some((first, Bound::Excluded(end))),
    }
}

/// What a version counts for in [`Mvcc::size`].
fn weight(version: &Version) -> u64 {
    VERSION_OVERHEAD + version.key().len() as u64 + version.value().len() as u64
}
