//! openraft's log over a [`Journal`]: entries are encoded, and the newest are kept in memory.
//!
//! `append` hands entries to the journal and returns; the journal's flush thread calls back in
//! order. Knows nothing of what commands mean.

use std::collections::VecDeque;
use std::fmt::Debug;
use std::io;
use std::ops::{Bound, Range, RangeBounds};
use std::sync::Arc;

use bytes::Bytes;
use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::entry;
use super::journal::{Done, Journal, Recovered};
use super::types::{Entry, LogId, Payload, TypeConfig, Vote};

/// Newest entries kept in memory, in bytes: what followers that keep up and the state machine read.
const TAIL_BYTES_MAX: usize = 1024 * 1024;
/// Most bytes in one append request, unless a single entry is larger.
const REQUEST_BYTES_MAX: usize = 1024 * 1024;
/// Memory an entry takes beside its payload.
const ENTRY_OVERHEAD: usize = 96;

/// The log of one member. Clones share it.
#[derive(Clone)]
pub(crate) struct LogStore {
    journal: Arc<dyn Journal>,
    known: Arc<Mutex<Known>>,
}

/// What is known without asking the disk.
#[derive(Default)]
struct Known {
    vote: Option<Vote>,
    committed: Option<LogId>,
    purged: Option<LogId>,
    last: Option<LogId>,
    tail: Tail,
}

/// The newest entries, contiguous up to the last.
#[derive(Default)]
struct Tail {
    entries: VecDeque<Entry>,
    bytes: usize,
}

impl LogStore {
    /// The log that a journal holds.
    pub(crate) fn open(journal: Arc<dyn Journal>, recovered: &Recovered) -> io::Result<Self> {
        let vote = recovered.vote.as_ref().map(|bytes| from_bytes(bytes)).transpose()?;
        let committed = recovered.committed.as_ref().map(|bytes| from_bytes(bytes)).transpose()?;
        let purged = recovered.purged.as_ref().map(|bytes| from_bytes(bytes)).transpose()?;
        let mut last = purged;
        if let Some(index) = recovered.last_index {
            let entries = read_from(&*journal, index..index + 1, usize::MAX)?;
            last = entries.last().map(|entry| entry.log_id).max(purged);
        }
        // A mark beyond the entries is of no use: it may be of entries that others have.
        let committed = committed.filter(|committed| Some(*committed) <= last);
        let known = Known { vote, committed, purged, last, tail: Tail::default() };
        Ok(Self { journal, known: Arc::new(Mutex::new(known)) })
    }

    /// Why only little more can be written, if so.
    pub(crate) fn low_space(&self) -> Option<String> {
        self.journal.low_space()
    }

    /// About how many bytes the entries that are held have.
    pub(crate) fn entry_bytes(&self) -> u64 {
        self.journal.entry_bytes()
    }

    /// Makes everything durable and stops.
    pub(crate) async fn close(&self) -> io::Result<()> {
        let journal = self.journal.clone();
        tokio::task::spawn_blocking(move || journal.close()).await.map_err(io::Error::other)?
    }

    async fn read(&self, range: Range<u64>, bytes_max: usize) -> io::Result<Vec<Entry>> {
        let range = {
            let known = self.known.lock();
            let first = known.purged.map_or(0, |purged| purged.index + 1);
            let end = known.last.map_or(0, |last| last.index + 1);
            let range = range.start.max(first)..range.end.min(end);
            if range.is_empty() {
                return Ok(Vec::new());
            }
            if let Some(entries) = known.tail.get(&range, bytes_max) {
                return Ok(entries);
            }
            range
        };
        let journal = self.journal.clone();
        let read = move || read_from(&*journal, range, bytes_max);
        tokio::task::spawn_blocking(read).await.map_err(io::Error::other)?
    }
}

fn read_from(journal: &dyn Journal, range: Range<u64>, bytes_max: usize) -> io::Result<Vec<Entry>> {
    let mut entries = Vec::new();
    let mut next = range.start;
    let mut bytes_left = bytes_max;
    while next < range.end {
        let step = bytes_left.min(TAIL_BYTES_MAX);
        for (index, bytes) in journal.read(next..range.end, step)? {
            if index != next {
                let why = format!("log entry {next} is missing, {index} came instead");
                return Err(io::Error::new(io::ErrorKind::InvalidData, why));
            }
            bytes_left = bytes_left.saturating_sub(bytes.len());
            entries.push(entry::decode(index, bytes)?);
            next += 1;
        }
        if bytes_left == 0 {
            break;
        }
    }
    Ok(entries)
}

impl Tail {
    /// The entries of `range`, if all of them are here.
    fn get(&self, range: &Range<u64>, bytes_max: usize) -> Option<Vec<Entry>> {
        let first = self.entries.front()?.log_id.index;
        let skip = usize::try_from(range.start.checked_sub(first)?).ok()?;
        let count = usize::try_from(range.end - range.start).ok()?;
        if skip + count > self.entries.len() {
            return None;
        }
        let mut bytes = 0;
        let fits = |entry: &&Entry| {
            let fits = bytes == 0 || bytes < bytes_max;
            bytes += size(entry);
            fits
        };
        Some(self.entries.range(skip..skip + count).take_while(fits).cloned().collect())
    }

    fn push(&mut self, entry: Entry) {
        self.bytes += size(&entry);
        self.entries.push_back(entry);
        while self.bytes > TAIL_BYTES_MAX && self.entries.len() > 1 {
            self.pop_front();
        }
    }

    fn pop_front(&mut self) {
        if let Some(gone) = self.entries.pop_front() {
            self.bytes -= size(&gone);
        }
    }

    fn truncate_from(&mut self, index: u64) {
        while self.entries.back().is_some_and(|last| last.log_id.index >= index) {
            if let Some(gone) = self.entries.pop_back() {
                self.bytes -= size(&gone);
            }
        }
    }

    fn purge_upto(&mut self, index: u64) {
        while self.entries.front().is_some_and(|first| first.log_id.index <= index) {
            self.pop_front();
        }
    }
}

fn size(entry: &Entry) -> usize {
    let payload = match &entry.payload {
        Payload::Normal(proposal) => proposal.0.len(),
        Payload::Blank | Payload::Membership(_) => 0,
    };
    payload + ENTRY_OVERHEAD
}

/// A vote as it stands in the log's file.
pub(crate) fn vote_bytes(vote: &Vote) -> io::Result<Bytes> {
    to_bytes(vote)
}

/// The vote that [`vote_bytes`] wrote.
pub(crate) fn vote_of(bytes: &[u8]) -> io::Result<Vote> {
    from_bytes(bytes)
}

/// The last entry that a purge dropped, as it stands in the log's file.
pub(crate) fn purged_of(bytes: &[u8]) -> io::Result<LogId> {
    from_bytes(bytes)
}

fn to_bytes<T: serde::Serialize>(value: &T) -> io::Result<Bytes> {
    Ok(postcard::to_stdvec(value).map_err(io::Error::other)?.into())
}

fn from_bytes<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> io::Result<T> {
    postcard::from_bytes(bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// A callback, and what it will say.
fn notice() -> (Done, oneshot::Receiver<io::Result<()>>) {
    let (done, durable) = oneshot::channel();
    let done = Box::new(move |result| {
        let _ = done.send(result);
    });
    (done, durable)
}

async fn durable(notice: oneshot::Receiver<io::Result<()>>) -> io::Result<()> {
    notice.await.unwrap_or_else(|_| Err(io::Error::other("the log was closed")))
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn try_get_log_entries<B: RangeBounds<u64> + Clone + Debug + Send>(
        &mut self,
        range: B,
    ) -> io::Result<Vec<Entry>> {
        let start = match range.start_bound() {
            Bound::Included(index) => *index,
            Bound::Excluded(index) => index + 1,
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(index) => index + 1,
            Bound::Excluded(index) => *index,
            Bound::Unbounded => u64::MAX,
        };
        self.read(start..end, usize::MAX).await
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<Entry>> {
        self.read(start..end, REQUEST_BYTES_MAX).await
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        Ok(self.known.lock().vote)
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> io::Result<LogState<TypeConfig>> {
        let known = self.known.lock();
        Ok(LogState { last_purged_log_id: known.purged, last_log_id: known.last })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        let (done, saved) = notice();
        self.journal.save_vote(to_bytes(vote)?, done)?;
        durable(saved).await?;
        self.known.lock().vote = Some(*vote);
        Ok(())
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        let Some(committed) = committed else { return Ok(()) };
        self.journal.save_committed(to_bytes(&committed)?)
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogId>> {
        Ok(self.known.lock().committed)
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig>) -> io::Result<()>
    where
        I: IntoIterator<Item = Entry> + Send,
        I::IntoIter: Send,
    {
        let mut encoded = Vec::new();
        let mut known = self.known.lock();
        for item in entries {
            encoded.push((item.log_id.index, entry::encode(&item)?));
            known.last = Some(item.log_id);
            known.tail.push(item);
        }
        // Under the lock: nobody may see an entry that the journal does not have yet.
        self.journal.append(encoded, Box::new(move |result| callback.io_completed(result)))
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> io::Result<()> {
        let (done, truncated) = notice();
        {
            let mut known = self.known.lock();
            let from = last.map_or(0, |last| last.index + 1);
            known.tail.truncate_from(from);
            known.last = last.max(known.purged);
            self.journal.truncate_after(last.map(|last| last.index), done)?;
        }
        durable(truncated).await
    }

    async fn purge(&mut self, upto: LogId) -> io::Result<()> {
        let marker = to_bytes(&upto)?;
        let mut known = self.known.lock();
        known.tail.purge_upto(upto.index);
        known.purged = known.purged.max(Some(upto));
        known.last = known.last.max(Some(upto));
        self.journal.purge_upto(upto.index, marker)
    }
}
