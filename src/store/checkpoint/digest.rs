//! The checksum of an entry, the sum over all, and the directory. Pure.

use bytes::{Buf as _, BufMut as _, Bytes};
use sha2::{Digest as _, Sha256};

use super::Mark;

/// Bytes of a checksum.
const CHECKSUM_BYTES: usize = 16;

/// The checkpoint's format.
const FORMAT: u32 = 2;

/// Bytes of a directory without what has no fixed size.
const FIXED_BYTES: usize = 76;

/// First half of the SHA-256 over the key's length, key and value, as a number.
pub(super) fn checksum(key: &[u8], value: &[u8]) -> u128 {
    let mut hash = Sha256::new();
    hash.update((key.len() as u64).to_le_bytes());
    hash.update(key);
    hash.update(value);
    let [first, _] = halves(&hash.finalize().into());
    first
}

fn halves(bytes: &[u8; 32]) -> [u128; 2] {
    let mut rest = bytes.as_slice();
    [rest.get_u128_le(), rest.get_u128_le()]
}

/// An entry's value with its checksum before it.
pub(super) fn seal(key: &[u8], value: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(CHECKSUM_BYTES + value.len());
    out.put_u128_le(checksum(key, value));
    out.put_slice(value);
    out
}

/// Takes a sealed value apart without checking it.
pub(super) fn split(mut sealed: &[u8]) -> Option<(u128, &[u8])> {
    (sealed.len() >= CHECKSUM_BYTES).then(|| (sealed.get_u128_le(), sealed))
}

/// Takes a sealed value apart; `None` when it is not what was sealed.
pub(super) fn unseal<'a>(key: &[u8], sealed: &'a [u8]) -> Option<(u128, &'a [u8])> {
    split(sealed).filter(|(sum, value)| *sum == checksum(key, value))
}

/// What the checkpoint says of all that it holds. The sum does not depend on the order of entries, so a
/// change costs as much as what changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Directory {
    /// Entries of the index.
    pub(super) entries: u64,
    /// Sum of their checksums, modulo 2^128.
    pub(super) sum: u128,
    /// Records, in entries of their own and in blocks.
    pub(super) records: u64,
    /// Bytes of their keys and values.
    pub(super) live_bytes: u64,
    /// Where the next block begins.
    pub(super) blocks_end: u64,
    /// The greatest key that a block ever held: one after it is nowhere yet.
    pub(super) last: Vec<u8>,
    /// `None` while the state is incomplete.
    pub(super) mark: Option<Mark>,
}

impl Directory {
    /// This one before anything was counted.
    pub(super) fn uncounted(&self) -> Self {
        Self { entries: 0, sum: 0, records: 0, live_bytes: 0, ..self.clone() }
    }

    pub(super) fn add_entry(&mut self, sum: u128) {
        self.entries += 1;
        self.sum = self.sum.wrapping_add(sum);
    }

    /// `None` when the numbers cannot be right; so below.
    pub(super) fn remove_entry(&mut self, sum: u128) -> Option<()> {
        self.entries = self.entries.checked_sub(1)?;
        self.sum = self.sum.wrapping_sub(sum);
        Some(())
    }

    /// Takes in a record whose key and value have so many bytes.
    pub(super) fn add_record(&mut self, bytes: usize) {
        self.records += 1;
        self.live_bytes += bytes as u64;
    }

    pub(super) fn remove_record(&mut self, bytes: usize) -> Option<()> {
        self.records = self.records.checked_sub(1)?;
        self.live_bytes = self.live_bytes.checked_sub(bytes as u64)?;
        Some(())
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mark = self.mark.clone().unwrap_or_default();
        let mut out = Vec::with_capacity(FIXED_BYTES + self.last.len() + mark.beside.len());
        out.put_u32_le(FORMAT);
        out.put_u32_le(u32::from(self.mark.is_some()));
        out.put_u64_le(self.entries);
        out.put_u128_le(self.sum);
        out.put_u64_le(self.records);
        out.put_u64_le(self.live_bytes);
        out.put_u64_le(self.blocks_end);
        out.put_u64_le(mark.index);
        out.put_u64_le(mark.term);
        out.put_u32_le(u32::try_from(self.last.len()).unwrap_or(u32::MAX));
        out.put_slice(&self.last);
        out.put_slice(&mark.beside);
        out
    }

    pub(super) fn decode(mut bytes: &[u8]) -> Option<Self> {
        if bytes.len() < FIXED_BYTES || bytes.get_u32_le() != FORMAT {
            return None;
        }
        let complete = bytes.get_u32_le() == 1;
        let (entries, sum) = (bytes.get_u64_le(), bytes.get_u128_le());
        let (records, live_bytes) = (bytes.get_u64_le(), bytes.get_u64_le());
        let blocks_end = bytes.get_u64_le();
        let (index, term) = (bytes.get_u64_le(), bytes.get_u64_le());
        let last_len = usize::try_from(bytes.get_u32_le()).ok()?;
        let (last, beside) = bytes.split_at_checked(last_len)?;
        let mark = Mark { index, term, beside: Bytes::copy_from_slice(beside) };
        Some(Self {
            entries,
            sum,
            records,
            live_bytes,
            blocks_end,
            last: last.to_vec(),
            mark: complete.then_some(mark),
        })
    }
}
