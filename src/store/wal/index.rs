//! Where each entry is: in memory, in a segment, or both. Pure.

use std::collections::VecDeque;

use bytes::Bytes;

/// Where an entry's record is on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slot {
    /// The segment.
    pub(super) segment: u64,
    /// Offset of the record; segments are below 4 GiB.
    pub(super) offset: u32,
    /// Payload size in bytes.
    pub(super) len: u32,
}

/// Where the entries that were written are, in the order of the log's records.
#[derive(Debug, Default)]
pub(super) struct Slots {
    first: u64,
    places: VecDeque<Slot>,
    /// Payload bytes of all.
    bytes: u64,
}

impl Slots {
    /// No entries; the next to come is `next`.
    pub(super) fn starting_at(next: u64) -> Self {
        Self { first: next, ..Self::default() }
    }

    /// First index whose place is known.
    pub(super) fn first(&self) -> u64 {
        self.first
    }

    fn end(&self) -> u64 {
        self.first + self.places.len() as u64
    }

    /// Payload bytes of the entries.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn push(&mut self, slot: Slot) {
        self.bytes += u64::from(slot.len);
        self.places.push_back(slot);
    }

    /// Forgets the entries from `next` on.
    pub(super) fn truncate(&mut self, next: u64) {
        let keep = next.saturating_sub(self.first);
        let keep = usize::try_from(keep).unwrap_or(usize::MAX).min(self.places.len());
        self.bytes -= self.places.drain(keep..).map(|slot| u64::from(slot.len)).sum::<u64>();
        self.first = self.first.min(next);
    }

    /// Forgets the entries up to and including `index`.
    pub(super) fn purge(&mut self, index: u64) {
        let first = index.saturating_add(1);
        if first >= self.end() {
            self.places.clear();
            self.bytes = 0;
        } else {
            let gone = usize::try_from(first.saturating_sub(self.first)).unwrap_or(0);
            let gone = self.places.drain(..gone.min(self.places.len()));
            self.bytes -= gone.map(|slot| u64::from(slot.len)).sum::<u64>();
        }
        self.first = self.first.max(first);
    }

    pub(super) fn get(&self, index: u64) -> Option<Slot> {
        let at = index.checked_sub(self.first)?;
        self.places.get(usize::try_from(at).ok()?).copied()
    }

    /// The oldest segment that still holds a live entry.
    pub(super) fn oldest_segment(&self) -> Option<u64> {
        self.places.front().map(|slot| slot.segment)
    }
}

/// The newest entries, up to the log's end. Those not yet on disk are never evicted.
#[derive(Debug)]
pub(super) struct Cache {
    first: u64,
    entries: VecDeque<Cached>,
    bytes: usize,
    bytes_max: usize,
}

#[derive(Debug)]
struct Cached {
    payload: Bytes,
    /// Number of the operation that appended it.
    operation: u64,
}

impl Cache {
    pub(super) fn new(next: u64, bytes_max: usize) -> Self {
        Self { first: next, entries: VecDeque::new(), bytes: 0, bytes_max }
    }

    pub(super) fn push(&mut self, payload: Bytes, operation: u64) {
        self.bytes += payload.len();
        self.entries.push_back(Cached { payload, operation });
    }

    pub(super) fn get(&self, index: u64) -> Option<&Bytes> {
        let at = index.checked_sub(self.first)?;
        self.entries.get(usize::try_from(at).ok()?).map(|cached| &cached.payload)
    }

    /// Forgets the entries from `next` on.
    pub(super) fn truncate(&mut self, next: u64) {
        while self.first + self.entries.len() as u64 > next {
            match self.entries.pop_back() {
                Some(gone) => self.bytes -= gone.payload.len(),
                None => self.first = next,
            }
        }
    }

    /// Forgets the entries up to and including `index`; the log now ends before `next`.
    pub(super) fn purge(&mut self, index: u64, next: u64) {
        while self.first <= index && self.pop_front() {}
        if self.entries.is_empty() {
            self.first = next;
        }
    }

    /// Lets go of the oldest entries until the rest fits, as far as they were written by operation
    /// `written` or earlier.
    pub(super) fn evict(&mut self, written: u64) {
        while self.bytes > self.bytes_max
            && self.entries.front().is_some_and(|oldest| oldest.operation <= written)
        {
            self.pop_front();
        }
    }

    fn pop_front(&mut self) -> bool {
        let Some(gone) = self.entries.pop_front() else { return false };
        self.bytes -= gone.payload.len();
        self.first += 1;
        true
    }
}
