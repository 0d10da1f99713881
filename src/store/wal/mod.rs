//! The write-ahead log: the Raft log's entries and the vote of one member, on disk.
//!
//! Knows nothing of Raft: entries, vote, purge marker and committed mark are opaque bytes, entries
//! have contiguous indexes from 0. One flush thread writes; a call returns at once, and its callback
//! is called when one fdatasync has made it and all that waited with it durable.
//!
//! # Policies
//!
//! - **Segments** of [`WalOptions::segment_bytes`] are preallocated with `fallocate` and keep their
//!   size for life, so that an fdatasync has no file size to write (measured on ext4: 82 µs instead
//!   of 112). They are never used twice. The next one is prepared ahead, so that a full disk is
//!   known of ([`Wal::low_space`]) while there is a segment's room for what must still be written.
//! - **Every segment begins with the whole state** but for the entries (vote, purge marker, ends of
//!   the log), so purging is deleting whole segments, oldest first, once the purge is durable.
//! - **An error of a write or fsync ends the log**: every later call answers [`WalError::Failed`],
//!   nothing is tried again, and the member must stop.
//! - **Recovery** cuts what a power cut left of the last group that was being written, which was
//!   never acknowledged. Anything else that is not as written is [`WalError::Damaged`]. The rules
//!   by which the two are told apart are in `scan`; the format is in docs/storage.md.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::{Condvar, Mutex, MutexGuard};

mod disk;
mod error;
mod flush;
mod format;
mod index;
mod read;
mod recover;
mod scan;
mod writer;

#[cfg(test)]
mod tests;

use disk::{Disk, DiskFile, RealDisk};
pub use error::WalError;
pub use flush::{Done, SyncObserver};
use flush::{Failure, Operation, Shared, State};
use format::{Meta, SECTOR};
use index::{Cache, Slots};
use recover::Recovery;
use writer::{Open, PART_NAME, Writer};

/// Largest entry, vote or marker, in bytes.
pub const PAYLOAD_BYTES_MAX: usize = 64 * 1024 * 1024;

/// How the log is kept.
#[derive(Clone)]
pub struct WalOptions {
    /// Size of a segment in bytes, from 4 KiB to 1 GiB; one that must hold a larger entry is larger.
    pub segment_bytes: u64,
    /// How much of the newest entries stays in memory, in bytes.
    pub cache_bytes: usize,
    /// After how long without writes a mark is written that says all is durable: from then on
    /// damage to the last entries cannot be taken for an unfinished write.
    pub seal_after: Duration,
    /// Told how long each fdatasync took.
    pub observer: Option<SyncObserver>,
}

impl Default for WalOptions {
    fn default() -> Self {
        Self {
            segment_bytes: 32 * 1024 * 1024,
            cache_bytes: 16 * 1024 * 1024,
            seal_after: Duration::from_millis(200),
            observer: None,
        }
    }
}

/// What a log holds when it is opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Whether the log was created just now.
    pub fresh: bool,
    /// The vote last saved.
    pub vote: Option<Bytes>,
    /// First index held, which is the one after the last purged.
    pub first_index: u64,
    /// Last index held; `None` when the log holds no entry.
    pub last_index: Option<u64>,
    /// What was handed in with the last purge.
    pub purged: Option<Bytes>,
    /// A committed mark that was saved; not always the last.
    pub committed: Option<Bytes>,
}

/// The directory of a log, which nobody else can open while this lives.
pub struct Claimed(RealDisk);

impl Claimed {
    /// Opens the log, beginning it when there is none, and reads what it holds.
    pub fn open(self, options: WalOptions) -> Result<(Wal, Recovered), WalError> {
        Wal::open_on(Arc::new(self.0), options)
    }
}

/// The log, open. Closed when dropped.
pub struct Wal {
    shared: Arc<Shared>,
    log_id: u64,
    directory: std::path::PathBuf,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Wal {
    /// Opens the log in `dir`, creating both when missing, and reads what it holds. Only one
    /// process can have it open.
    pub fn open(dir: &Path, options: WalOptions) -> Result<(Self, Recovered), WalError> {
        Self::claim(dir)?.open(options)
    }

    /// Keeps others from opening the log in `dir`, which is created when missing. Reads nothing yet.
    pub fn claim(dir: &Path) -> Result<Claimed, WalError> {
        match RealDisk::open(dir) {
            Ok(disk) => Ok(Claimed(disk)),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                Err(WalError::InUse { path: dir.to_owned() })
            }
            Err(error) => Err(WalError::io("open", dir)(error)),
        }
    }

    fn open_on(disk: Arc<dyn Disk>, options: WalOptions) -> Result<(Self, Recovered), WalError> {
        let directory = disk.path().to_owned();
        let segment_bytes =
            options.segment_bytes.clamp(4096, 1024 * 1024 * 1024).next_multiple_of(SECTOR as u64);
        let names = disk.list().map_err(WalError::io("list", &directory))?;
        if names.iter().any(|name| name == PART_NAME) {
            disk.remove(PART_NAME).map_err(WalError::io("clean up", &directory))?;
        }
        let (recovery, fresh) = match recover::recover(&*disk)? {
            Some(recovery) => (recovery, false),
            None => (begin(&*disk, segment_bytes)?, true),
        };
        let Recovery { log_id, meta, slots, files, current, spare } = recovery;
        let open = |number, bytes| {
            files.get(&number).map(|file| Open { number, bytes, file: file.clone() })
        };
        let (number, bytes, end) = current;
        let current = open(number, bytes).ok_or(WalError::Closed)?;
        let spare = spare.and_then(|(number, bytes)| open(number, bytes));
        let recovered = Recovered {
            fresh,
            vote: meta.vote.clone(),
            first_index: meta.first,
            last_index: (meta.next > meta.first).then(|| meta.next - 1),
            purged: meta.marker.clone(),
            committed: meta.committed.clone(),
        };
        let state = new_state(&meta, slots, files, options.cache_bytes);
        let writer = Writer::new(disk, log_id, segment_bytes, meta, (current, end), spare)
            .map_err(WalError::io("write into", &directory))?;
        let shared = Arc::new(Shared { state: Mutex::new(state), wake: Condvar::new() });
        let for_thread = shared.clone();
        let thread = std::thread::Builder::new()
            .name("wal".to_owned())
            .spawn(move || {
                let WalOptions { seal_after, observer, .. } = options;
                flush::run(&for_thread, writer, seal_after, observer.as_ref());
            })
            .map_err(WalError::io("start the thread of", &directory))?;
        Ok((Self { shared, log_id, directory, thread: Mutex::new(Some(thread)) }, recovered))
    }

    /// Appends entries with contiguous indexes that follow the last one (0 in a fresh log). They
    /// can be read at once; `done` is called when they are durable. On an error nothing is appended
    /// and `done` is not called.
    pub fn append(&self, entries: Vec<(u64, Bytes)>, done: Done) -> Result<(), WalError> {
        let mut state = self.usable()?;
        let mut expected = state.next;
        for (index, payload) in &entries {
            if *index != expected {
                return Err(WalError::Gap { expected, got: *index });
            }
            check_size(*index, payload)?;
            expected += 1;
        }
        state.next = expected;
        let operation = state.queued + 1;
        for (_, payload) in &entries {
            state.cache.push(payload.clone(), operation);
        }
        self.queue(state, Operation::Entries { entries, done });
        Ok(())
    }

    /// Saves the vote; `done` is called when it is durable.
    pub fn save_vote(&self, vote: Bytes, done: Done) -> Result<(), WalError> {
        check_size(0, &vote)?;
        self.queue(self.usable()?, Operation::Vote { vote, done });
        Ok(())
    }

    /// Notes how far the log is committed. Written with what is written next or when the log is
    /// idle, never synced for its own sake: after a power cut an older mark may be found.
    pub fn save_committed(&self, committed: Bytes) -> Result<(), WalError> {
        check_size(0, &committed)?;
        self.usable()?.committed = Some(committed);
        Ok(())
    }

    /// Removes the entries after `last`, or all with `None`. They are gone at once; `done` is
    /// called when that is durable.
    pub fn truncate_after(&self, last: Option<u64>, done: Done) -> Result<(), WalError> {
        let mut state = self.usable()?;
        let next = last.map_or(0, |last| last.saturating_add(1)).clamp(state.first, state.next);
        state.next = next;
        state.cache.truncate(next);
        self.queue(state, Operation::Truncate { next, done });
        Ok(())
    }

    /// Forgets the entries up to and including `index`, which a snapshot holds, and keeps `marker`
    /// instead. `index` may lie after the last entry: then the log is empty and goes on after it.
    /// The files that this makes superfluous are deleted later, on the flush thread.
    pub fn purge_upto(&self, index: u64, marker: Bytes) -> Result<(), WalError> {
        check_size(index, &marker)?;
        let mut state = self.usable()?;
        if index < state.first {
            return Ok(());
        }
        state.first = index.saturating_add(1);
        state.next = state.next.max(state.first);
        let next = state.next;
        state.cache.purge(index, next);
        self.queue(state, Operation::Purge { index, marker });
        Ok(())
    }

    /// Calls `done` when everything before is durable.
    pub fn sync(&self, done: Done) -> Result<(), WalError> {
        self.queue(self.usable()?, Operation::Sync { done });
        Ok(())
    }

    /// The indexes held: first, and the one after the last.
    pub fn bounds(&self) -> Range<u64> {
        let state = self.shared.state.lock();
        state.first..state.next
    }

    /// Payload bytes of the entries held, as far as they are written.
    pub fn entry_bytes(&self) -> u64 {
        self.shared.state.lock().slots.bytes()
    }

    /// Why the next segment could not be prepared, if so: the disk is (nearly) full, and what is
    /// left of the current segment is all that can be written.
    pub fn low_space(&self) -> Option<String> {
        self.shared.state.lock().low_space.clone()
    }

    /// Makes all durable, marks it as complete and stops. Later calls answer [`WalError::Closed`].
    pub fn close(&self) -> Result<(), WalError> {
        self.shared.state.lock().closing = true;
        self.shared.wake.notify_one();
        if let Some(thread) = self.thread.lock().take() {
            let _ = thread.join();
        }
        match &self.shared.state.lock().failure {
            Some(failure) => Err(failure.to_wal()),
            None => Ok(()),
        }
    }

    fn usable(&self) -> Result<MutexGuard<'_, State>, WalError> {
        let state = self.shared.state.lock();
        match &state.failure {
            Some(failure) => Err(failure.to_wal()),
            None if state.closing => Err(WalError::Closed),
            None => Ok(state),
        }
    }

    fn queue(&self, mut state: MutexGuard<'_, State>, operation: Operation) {
        state.queued += 1;
        state.queue.push(operation);
        drop(state);
        self.shared.wake.notify_one();
    }
}

impl Drop for Wal {
    fn drop(&mut self) {
        if let Err(error) = self.close() {
            tracing::warn!(%error, "write-ahead log: closed after an error");
        }
    }
}

fn check_size(index: u64, payload: &Bytes) -> Result<(), WalError> {
    if payload.len() > PAYLOAD_BYTES_MAX {
        return Err(WalError::TooLarge { index, bytes: payload.len(), limit: PAYLOAD_BYTES_MAX });
    }
    Ok(())
}

/// The first segment of a new log.
fn begin(disk: &dyn Disk, segment_bytes: u64) -> Result<Recovery, WalError> {
    let log_id = getrandom::u64().map_err(|error| {
        WalError::io("create", disk.path())(std::io::Error::other(error.to_string()))
    })?;
    let first = Writer::create(disk, log_id, 1, segment_bytes)
        .map_err(WalError::io("create a segment in", disk.path()))?;
    Ok(Recovery {
        log_id,
        meta: Meta::default(),
        slots: Slots::default(),
        files: [(1, first.file)].into(),
        current: (1, first.bytes, format::DATA_START),
        spare: None,
    })
}

fn new_state(
    meta: &Meta,
    slots: Slots,
    files: std::collections::BTreeMap<u64, Arc<dyn DiskFile>>,
    cache_bytes: usize,
) -> State {
    State {
        first: meta.first,
        next: meta.next,
        cache: Cache::new(meta.next, cache_bytes),
        slots,
        files,
        queue: Vec::new(),
        queued: 0,
        committed: None,
        failure: None::<Failure>,
        closing: false,
        low_space: None,
    }
}
