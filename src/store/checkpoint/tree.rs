//! The backend: an index, one sled tree, and the file of blocks. The only file that knows sled.
//!
//! sled writes each record some five times until its page is full and at rest, and copies the page for each of
//! them: so most records are in blocks, of which it has a few bytes each.
//!
//! sled 0.34.7 does not fsync on its `flush` (Linux: `sync_file_range`), and loses keys
//! silently when a byte flips. Hence the checksums, the directory, the sync of all its files by
//! `disk`, and that everything here may be thrown away.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, SyncSender};
use std::thread::{sleep, yield_now};
use std::time::Duration;

use bytes::Bytes;

use super::blocks::Blocks;
use super::digest::{Directory, unseal};
use super::edit::{BLOCK, DIRECTORY, Pair, Present, RECORD, edit, read_entry};
use super::{Backend, Change, CheckpointError, Mark, damaged};

/// Enough to write, which is done at one end; reading is done once, in order. What sled counts is a part
/// of what it takes.
const CACHE_BYTES: u64 = 2 * 1024 * 1024;
/// Entries that are read together, and how many such wait to be taken in. A thread of its own reads them: it is
/// done sooner, and what it has in memory for a while lies in other pages than what is made of the records, so
/// that these pages can be given back.
const LOAD_ENTRIES: usize = 16;
const LOAD_BATCHES: usize = 4;
/// Rounds after which what cannot be freed stays until the next time.
/// A round frees up to 512 pieces (crossbeam-epoch 0.9, `Global::COLLECT_STEPS` bags of `MAX_OBJECTS`).
const FREE_ROUNDS: u32 = 16 * 1024;
/// A database that was closed just now may hold its lock a little longer.
const LOCK_TRIES: u32 = 100;
const LOCK_PAUSE: Duration = Duration::from_millis(20);

pub(super) struct Tree {
    db: sled::Db,
    blocks: Blocks,
    directory: Directory,
}

#[expect(clippy::needless_pass_by_value, reason = "it is what map_err hands over")]
fn backend(error: sled::Error) -> CheckpointError {
    CheckpointError::Backend(error.to_string())
}

impl Tree {
    /// Opens the database in `dir`, which exists.
    pub(super) fn open(dir: &Path) -> Result<Self, CheckpointError> {
        let config = sled::Config::new().path(dir).cache_capacity(CACHE_BYTES).flush_every_ms(None);
        let mut tries = 0;
        let db = loop {
            match config.open() {
                Err(sled::Error::Io(error))
                    if tries < LOCK_TRIES && error.to_string().contains("lock") =>
                {
                    tries += 1;
                    sleep(LOCK_PAUSE);
                }
                other => break other.map_err(backend)?,
            }
        };
        let directory = match db.get(DIRECTORY).map_err(backend)? {
            Some(sealed) => read_directory(&sealed)?,
            None if db.is_empty() => Directory::default(),
            None => return Err(damaged("its directory is missing")),
        };
        let blocks = Blocks::open(dir, directory.blocks_end)?;
        free_replaced();
        Ok(Self { db, blocks, directory })
    }
}

fn read_directory(sealed: &[u8]) -> Result<Directory, CheckpointError> {
    let (_, value) =
        unseal(DIRECTORY, sealed).ok_or_else(|| damaged("its directory's checksum is wrong"))?;
    Directory::decode(value).ok_or_else(|| damaged("its directory is of another format"))
}

/// An entry and, of a block, what stands in it.
enum Found {
    Own { key: Vec<u8>, sum: u128, value: Bytes },
    Block { sum: u128, records: Vec<(Bytes, Bytes)> },
}

type FoundSome = Result<Vec<Found>, CheckpointError>;

/// Reads all entries, for as long as somebody wants them.
fn read(db: &sled::Db, blocks: &Blocks, found: &SyncSender<FoundSome>) {
    let mut all = db.iter().filter_map(|entry| match entry {
        Ok((key, sealed)) => read_found(blocks, &key, &sealed).transpose(),
        Err(error) => Some(Err(backend(error))),
    });
    loop {
        let some: FoundSome = all.by_ref().take(LOAD_ENTRIES).collect();
        let is_last = some.as_ref().map_or(true, Vec::is_empty);
        if found.send(some).is_err() || is_last {
            return;
        }
    }
}

/// Reads one entry; the directory is none.
fn read_found(
    blocks: &Blocks,
    key: &[u8],
    sealed: &[u8],
) -> Result<Option<Found>, CheckpointError> {
    match key.split_first() {
        Some((&RECORD, own)) => {
            let (sum, value) =
                unseal(key, sealed).ok_or_else(|| damaged("a record's checksum is wrong"))?;
            let value = Bytes::copy_from_slice(value);
            Ok(Some(Found::Own { key: own.to_vec(), sum, value }))
        }
        Some((&BLOCK, first)) => read_block(blocks, key, first, sealed).map(Some),
        _ if key == DIRECTORY => Ok(None),
        _ => Err(damaged("it holds a key that was never written")),
    }
}

/// Reads a block, and checks it.
fn read_block(
    blocks: &Blocks,
    key: &[u8],
    first: &[u8],
    sealed: &[u8],
) -> Result<Found, CheckpointError> {
    let (sum, entry) = read_entry(key, sealed)?;
    let all = entry.read(first, blocks.read(entry.offset, entry.len)?.into())?;
    let live = (0..).zip(all).filter(|(number, _)| entry.is_live(*number));
    let records = live.map(|(_, record)| record).collect();
    Ok(Found::Block { sum, records })
}

/// Frees what sled has replaced. It leaves that to its further use, a little each time: of what a large
/// batch replaced most would stay in memory, for ever when no other batch comes.
pub(super) fn free_replaced() {
    let freed = Arc::new(AtomicBool::new(false));
    let flag = freed.clone();
    // Freed in the order of being left: this one is the last.
    crossbeam_epoch::pin().defer(move || flag.store(true, Ordering::Relaxed));
    for _ in 0..FREE_ROUNDS {
        crossbeam_epoch::pin().flush();
        if freed.load(Ordering::Relaxed) {
            return;
        }
        // Nothing is freed while a thread of sled's is in the middle of something.
        yield_now();
    }
}

/// Adds what was found to the numbers, and hands the records out.
fn hand_out(entry: Found, found: &mut Directory, each: &mut dyn FnMut(&[u8], Bytes)) {
    let mut give = |found: &mut Directory, key: &[u8], value: Bytes| {
        found.add_record(key.len() + value.len());
        each(key, value);
    };
    match entry {
        Found::Own { key, sum, value } => {
            found.add_entry(sum);
            give(found, &key, value);
        }
        Found::Block { sum, records } => {
            found.add_entry(sum);
            for (key, value) in records {
                give(found, &key, value);
            }
        }
    }
}

impl Present for Tree {
    fn entry(&self, key: &[u8]) -> Result<Option<Vec<u8>>, CheckpointError> {
        Ok(self.db.get(key).map_err(backend)?.map(|sealed| sealed.to_vec()))
    }

    fn entry_before(&self, key: &[u8]) -> Result<Option<Pair>, CheckpointError> {
        let found = self.db.range(..=key).next_back().transpose().map_err(backend)?;
        Ok(found.map(|(key, sealed)| (key.to_vec(), sealed.to_vec())))
    }

    fn content(&self, offset: u64, len: u64) -> Result<Bytes, CheckpointError> {
        Ok(self.blocks.read(offset, len)?.into())
    }
}

impl Backend for Tree {
    fn load(
        &mut self,
        each: &mut dyn FnMut(&[u8], Bytes),
    ) -> Result<Option<Mark>, CheckpointError> {
        let Some(mark) = self.directory.mark.clone() else { return Ok(None) };
        let mut found = self.directory.uncounted();
        let (sender, receiver) = mpsc::sync_channel(LOAD_BATCHES);
        let (db, blocks) = (&self.db, &self.blocks);
        std::thread::scope(|scope| {
            scope.spawn(move || read(db, blocks, &sender));
            receiver.into_iter().try_for_each(|some: FoundSome| {
                some?.into_iter().for_each(|entry| hand_out(entry, &mut found, each));
                Ok::<_, CheckpointError>(())
            })
        })?;
        if found != self.directory {
            let reason = format!(
                "it holds {} records and should hold {}, or some are old",
                found.records, self.directory.records
            );
            return Err(CheckpointError::Damaged(reason));
        }
        Ok(Some(mark))
    }

    fn commit(&mut self, changes: &[Change], mark: Option<&Mark>) -> Result<(), CheckpointError> {
        let edited = edit(self, &self.directory, changes, mark)?;
        self.blocks.append(self.directory.blocks_end, &edited.content)?;
        if mark.is_some() {
            // Before the index says so.
            self.blocks.sync()?;
        }
        let mut batch = sled::Batch::default();
        for (key, value) in edited.entries {
            match value {
                Some(value) => batch.insert(key, value),
                None => batch.remove(key),
            }
        }
        self.db.apply_batch(batch).map_err(backend)?;
        self.directory = edited.directory;
        free_replaced();
        Ok(())
    }

    fn flush(&mut self) -> Result<(), CheckpointError> {
        self.db.flush().map(drop).map_err(backend)
    }

    fn live(&self) -> (u64, u64) {
        (self.directory.records, self.directory.live_bytes)
    }
}
