//! A journal in memory that outlives its member, and that can be told to fail.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use crate::raft::journal::{Done, Journal, Recovered};

#[derive(Clone, Default)]
pub(super) struct MemJournal(Arc<Mutex<Held>>);

#[derive(Default)]
struct Held {
    vote: Option<Bytes>,
    purged: Option<Bytes>,
    committed: Option<Bytes>,
    next: u64,
    entries: BTreeMap<u64, Bytes>,
    broken: bool,
}

impl MemJournal {
    pub(super) fn recovered(&self) -> Recovered {
        let held = self.0.lock();
        Recovered {
            vote: held.vote.clone(),
            purged: held.purged.clone(),
            committed: held.committed.clone(),
            last_index: held.entries.last_key_value().map(|(index, _)| *index),
            ..Recovered::default()
        }
    }

    pub(super) fn break_it(&self) {
        self.0.lock().broken = true;
    }

    fn write(&self, change: impl FnOnce(&mut Held)) -> io::Result<()> {
        let mut held = self.0.lock();
        if held.broken {
            return Err(io::Error::other("the disk is broken"));
        }
        change(&mut held);
        Ok(())
    }
}

impl Journal for MemJournal {
    fn append(&self, entries: Vec<(u64, Bytes)>, done: Done) -> io::Result<()> {
        let written = self.write(|held| {
            for (index, bytes) in entries {
                assert_eq!(index, held.next, "a hole in the log");
                held.next = index + 1;
                held.entries.insert(index, bytes);
            }
        });
        done(written);
        Ok(())
    }

    fn save_vote(&self, vote: Bytes, done: Done) -> io::Result<()> {
        done(self.write(|held| held.vote = Some(vote)));
        Ok(())
    }

    fn save_committed(&self, committed: Bytes) -> io::Result<()> {
        self.write(|held| held.committed = Some(committed))
    }

    fn truncate_after(&self, last: Option<u64>, done: Done) -> io::Result<()> {
        let from = last.map_or(0, |last| last + 1);
        done(self.write(|held| {
            held.entries.split_off(&from);
            held.next = held.next.min(from);
        }));
        Ok(())
    }

    fn purge_upto(&self, index: u64, marker: Bytes) -> io::Result<()> {
        self.write(|held| {
            held.entries = held.entries.split_off(&(index + 1));
            held.next = held.next.max(index + 1);
            held.purged = Some(marker);
        })
    }

    fn entry_bytes(&self) -> u64 {
        self.0.lock().entries.values().map(|bytes| bytes.len() as u64).sum()
    }

    fn close(&self) -> io::Result<()> {
        Ok(())
    }

    fn read(&self, range: Range<u64>, bytes_max: usize) -> io::Result<Vec<(u64, Bytes)>> {
        let mut bytes = 0;
        let held = self.0.lock();
        let fits = |(_, entry): &(&u64, &Bytes)| {
            let fits = bytes == 0 || bytes < bytes_max;
            bytes += entry.len();
            fits
        };
        let entries = held.entries.range(range).take_while(fits);
        Ok(entries.map(|(index, bytes)| (*index, bytes.clone())).collect())
    }
}
