//! The backend: one sled tree. The only file that knows sled.
//!
//! sled 0.34.7 does not fsync on its `flush` (Linux: `sync_file_range`), and loses keys
//! silently when a byte flips. Hence the checksums, the directory, the sync of all its files by
//! `disk`, and that everything here may be thrown away.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, SyncSender};
use std::thread::{sleep, yield_now};
use std::time::Duration;

use bytes::Bytes;
use sled::IVec;

use super::digest::{Directory, checksum, encode_record, split_record};
use super::{Backend, CheckpointError, Mark};

/// Key of the directory record.
const DIRECTORY: &[u8] = b"d";
/// First byte of the keys of all others.
const RECORD: u8 = b'r';
/// Enough to write, which is done at one end; reading is done once, in order. What sled counts is a part
/// of what it takes.
const CACHE_BYTES: u64 = 2 * 1024 * 1024;
/// Records that are read together, and how many such wait to be taken in. A thread of its own reads them: it is
/// done sooner, and what sled has in memory for a while lies in other pages than what is made of the records, so
/// that these pages can be given back.
const LOAD_RECORDS: usize = 512;
const LOAD_BATCHES: usize = 4;
/// Rounds after which what cannot be freed stays until the next time.
/// A round frees up to 512 pieces (crossbeam-epoch 0.9, `Global::COLLECT_STEPS` bags of `MAX_OBJECTS`).
const FREE_ROUNDS: u32 = 16 * 1024;
/// A database that was closed just now may hold its lock a little longer.
const LOCK_TRIES: u32 = 100;
const LOCK_PAUSE: Duration = Duration::from_millis(20);

pub(super) struct Tree {
    db: sled::Db,
    directory: Directory,
}

#[expect(clippy::needless_pass_by_value, reason = "it is what map_err hands over")]
fn backend(error: sled::Error) -> CheckpointError {
    CheckpointError::Backend(error.to_string())
}

fn damaged(reason: &str) -> CheckpointError {
    CheckpointError::Damaged(reason.to_owned())
}

fn kept_key(key: &[u8]) -> Vec<u8> {
    [&[RECORD], key].concat()
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
            Some(kept) => decode_directory(&kept)?,
            None if db.is_empty() => Directory::default(),
            None => return Err(damaged("its directory is missing")),
        };
        free_replaced();
        Ok(Self { db, directory })
    }
}

fn decode_directory(kept: &[u8]) -> Result<Directory, CheckpointError> {
    split_record(kept)
        .filter(|(sum, value)| *sum == checksum(DIRECTORY, value))
        .and_then(|(_, value)| Directory::decode(value))
        .ok_or_else(|| damaged("its directory's checksum is wrong"))
}

/// Records that were read together.
type Records = Result<Vec<(IVec, IVec)>, sled::Error>;

/// Reads all records, for as long as somebody wants them.
fn read(db: &sled::Db, records: &SyncSender<Records>) {
    let mut all = db.iter();
    loop {
        let some: Records = all.by_ref().take(LOAD_RECORDS).collect();
        let is_last = some.as_ref().map_or(true, Vec::is_empty);
        if records.send(some).is_err() || is_last {
            return;
        }
    }
}

/// Hands out one record, and adds it to what was found.
fn load_record(
    kept_key: &[u8],
    kept: &[u8],
    found: &mut Directory,
    each: &mut dyn FnMut(&[u8], Bytes),
) -> Result<(), CheckpointError> {
    let key = match kept_key.split_first() {
        Some((&RECORD, key)) => key,
        _ if kept_key == DIRECTORY => return Ok(()),
        _ => return Err(damaged("it holds a key that was never written")),
    };
    let (sum, value) = split_record(kept)
        .filter(|(sum, value)| *sum == checksum(key, value))
        .ok_or_else(|| damaged("a record's checksum is wrong"))?;
    found.add(key, sum, value.len());
    each(key, Bytes::copy_from_slice(value));
    Ok(())
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

impl Backend for Tree {
    fn load(
        &mut self,
        each: &mut dyn FnMut(&[u8], Bytes),
    ) -> Result<Option<Mark>, CheckpointError> {
        let Some(mark) = self.directory.mark.clone() else { return Ok(None) };
        let mut found = Directory { mark: Some(mark.clone()), ..Directory::default() };
        let (sender, receiver) = mpsc::sync_channel(LOAD_BATCHES);
        let db = &self.db;
        std::thread::scope(|scope| {
            scope.spawn(move || read(db, &sender));
            receiver.into_iter().try_for_each(|some| {
                let take =
                    |(kept_key, kept): &(IVec, IVec)| load_record(kept_key, kept, &mut found, each);
                some.map_err(backend)?.iter().try_for_each(take)
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

    fn commit(
        &mut self,
        changes: &[(Vec<u8>, Option<Bytes>)],
        mark: Option<&Mark>,
    ) -> Result<(), CheckpointError> {
        let changes: BTreeMap<&[u8], Option<&Bytes>> =
            changes.iter().map(|(key, value)| (key.as_slice(), value.as_ref())).collect();
        let mut directory = Directory { mark: mark.cloned(), ..self.directory.clone() };
        let mut batch = sled::Batch::default();
        for (key, value) in changes {
            let kept_key = kept_key(key);
            if let Some(old) = self.db.get(&kept_key).map_err(backend)? {
                let (sum, value) =
                    split_record(&old).ok_or_else(|| damaged("a record is too short"))?;
                directory
                    .remove(key, sum, value.len())
                    .ok_or_else(|| damaged("it holds more than it counted"))?;
            }
            match value {
                Some(value) => {
                    let kept = encode_record(key, value);
                    let (sum, _) = split_record(&kept).unwrap_or_default();
                    directory.add(key, sum, value.len());
                    batch.insert(kept_key, kept);
                }
                None => batch.remove(kept_key),
            }
        }
        batch.insert(DIRECTORY, encode_record(DIRECTORY, &directory.encode()));
        self.db.apply_batch(batch).map_err(backend)?;
        self.directory = directory;
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
