//! A block: records that were written together, in the order of their keys, and the entry by which the
//! index knows it. Pure.
//!
//! A block is never changed. A record that is replaced or deleted is marked in the entry, so that what a
//! compaction forgets costs some bytes and not the block.

use bytes::Bytes;

use super::digest::checksum;
use super::{CheckpointError, damaged};
use crate::store::codec::CodecError;
use crate::store::codec::wire::{Reader, Writer};

/// A block is closed when it has so many bytes: what a deletion has to read again.
pub(super) const BLOCK_BYTES: usize = 32 * 1024;

/// A block that is being made.
pub(super) struct Builder {
    content: Writer,
    first: Vec<u8>,
    last: Vec<u8>,
    records: u32,
    live_bytes: u64,
}

impl Builder {
    /// With its first record.
    pub(super) fn new(key: &[u8], value: &[u8]) -> Self {
        let content = Writer::with_capacity(BLOCK_BYTES);
        let mut new =
            Self { content, first: key.to_vec(), last: Vec::new(), records: 0, live_bytes: 0 };
        new.push(key, value);
        new
    }

    /// Adds a record whose key is after all others.
    pub(super) fn push(&mut self, key: &[u8], value: &[u8]) {
        self.content.bytes(key);
        self.content.bytes(value);
        self.records += 1;
        self.live_bytes += (key.len() + value.len()) as u64;
        self.last.clear();
        self.last.extend_from_slice(key);
    }

    pub(super) fn is_full(&self) -> bool {
        self.content.written() >= BLOCK_BYTES
    }

    /// The block that begins at `offset`: its first key, its entry, and its content.
    pub(super) fn finish(self, offset: u64) -> (Vec<u8>, Entry, Bytes) {
        let content = self.content.finish();
        let entry = Entry {
            offset,
            len: content.len() as u64,
            checksum: checksum(&self.first, &content),
            records: self.records,
            live_bytes: self.live_bytes,
            last: self.last,
            dead: Vec::new(),
        };
        (self.first, entry, content)
    }
}

/// What the index says of a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// Where it begins, and how long it is.
    pub(super) offset: u64,
    pub(super) len: u64,
    /// Of its first key and its content.
    checksum: u128,
    /// How many records it has, with those that count no more.
    pub(super) records: u32,
    /// Bytes of the keys and values of those that count.
    pub(super) live_bytes: u64,
    /// Its greatest key.
    pub(super) last: Vec<u8>,
    /// Numbers of the records that count no more, ascending.
    dead: Vec<u32>,
}

impl Entry {
    /// Whether no record of the block counts.
    pub(super) fn is_dead(&self) -> bool {
        self.dead.len() as u64 >= u64::from(self.records)
    }

    pub(super) fn is_live(&self, number: u32) -> bool {
        self.dead.binary_search(&number).is_err()
    }

    /// The record of this number and so many bytes counts no more. Gives whether it did.
    pub(super) fn kill(&mut self, number: u32, bytes: usize) -> bool {
        let Err(at) = self.dead.binary_search(&number) else { return false };
        self.dead.insert(at, number);
        self.live_bytes = self.live_bytes.saturating_sub(bytes as u64);
        true
    }

    /// Whether `content` is what was written.
    pub(super) fn is_whole(&self, first: &[u8], content: &[u8]) -> bool {
        self.checksum == checksum(first, content)
    }

    /// All records of the block, key and value; neither is copied. An error when `content` is not what was
    /// written.
    pub(super) fn read(
        &self,
        first: &[u8],
        content: Bytes,
    ) -> Result<Vec<(Bytes, Bytes)>, CheckpointError> {
        if !self.is_whole(first, &content) {
            return Err(damaged("a block's checksum is wrong"));
        }
        let all: Result<_, CodecError> = records(content).collect();
        all.map_err(|error| damaged(&error.to_string()))
    }

    pub(super) fn encode(&self) -> Bytes {
        let mut out = Writer::with_capacity(64 + self.last.len() + self.dead.len());
        out.unsigned(self.offset);
        out.unsigned(self.len);
        out.fixed(&self.checksum.to_le_bytes());
        out.unsigned(self.records.into());
        out.unsigned(self.live_bytes);
        out.bytes(&self.last);
        // As distances, which are small.
        let mut before = 0;
        for &number in &self.dead {
            out.unsigned((number - before).into());
            before = number;
        }
        out.finish()
    }

    pub(super) fn decode(value: &[u8]) -> Result<Self, CodecError> {
        let mut value = Reader::new(Bytes::copy_from_slice(value));
        let number = |raw: u64| u32::try_from(raw).map_err(|_| CodecError::Number);
        let (offset, len) = (value.unsigned()?, value.unsigned()?);
        let checksum = u128::from_le_bytes(value.fixed()?);
        let (records, live_bytes) = (number(value.unsigned()?)?, value.unsigned()?);
        let last = value.bytes()?.to_vec();
        let mut dead: Vec<u32> = Vec::new();
        while value.remaining() > 0 {
            let before = dead.last().copied().unwrap_or(0);
            let next = before.checked_add(number(value.unsigned()?)?).ok_or(CodecError::Number)?;
            dead.push(next);
        }
        Ok(Self { offset, len, checksum, records, live_bytes, last, dead })
    }
}

/// The records of a block, key and value; neither is copied.
pub(super) fn records(content: Bytes) -> impl Iterator<Item = Result<(Bytes, Bytes), CodecError>> {
    let mut content = Reader::new(content);
    std::iter::from_fn(move || {
        let is_more = content.remaining() > 0;
        is_more.then(|| Ok((content.bytes()?, content.bytes()?)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_read_as_it_was_written() {
        let mut block = Builder::new(b"a", b"1");
        block.push(b"bb", b"");
        block.push(b"c", &[7; 300]);
        assert!(!block.is_full());
        let (first, mut entry, content) = block.finish(9);
        assert_eq!((&*first, &*entry.last, entry.records), (&b"a"[..], &b"c"[..], 3));
        assert_eq!((entry.offset, entry.live_bytes), (9, 2 + 2 + 301));
        assert!(entry.is_whole(&first, &content) && !entry.is_whole(b"b", &content));
        let found: Result<Vec<_>, _> = records(content.clone()).collect();
        let value = Bytes::from(vec![7; 300]);
        let expected = [("a", Bytes::from("1")), ("bb", Bytes::new()), ("c", value)];
        assert_eq!(found.unwrap(), expected.map(|(key, value)| (Bytes::from(key), value)));
        assert!(records(content.slice(..content.len() - 1)).any(|record| record.is_err()));

        assert!(entry.kill(2, 301) && entry.kill(0, 2) && !entry.kill(2, 301));
        assert!(!entry.is_dead() && !entry.is_live(0) && entry.is_live(1) && !entry.is_live(2));
        assert_eq!((entry.live_bytes, Entry::decode(&entry.encode()).unwrap()), (2, entry.clone()));
        assert!(entry.kill(1, 2) && entry.is_dead());
        assert_eq!(Entry::decode(&entry.encode()).unwrap(), entry);
    }
}
