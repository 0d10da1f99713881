//! The checksum of a record, the sum over all, and the directory record. Pure.

use bytes::{Buf as _, BufMut as _, Bytes};
use sha2::{Digest as _, Sha256};

use super::Mark;

/// Bytes of a checksum.
pub(super) const CHECKSUM_BYTES: usize = 16;

/// The checkpoint's format.
const FORMAT: u32 = 1;

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

/// A record as the backend keeps it: checksum and value.
pub(super) fn encode_record(key: &[u8], value: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(CHECKSUM_BYTES + value.len());
    out.put_u128_le(checksum(key, value));
    out.put_slice(value);
    out
}

/// Splits a kept record without checking it.
pub(super) fn split_record(mut kept: &[u8]) -> Option<(u128, &[u8])> {
    (kept.len() >= CHECKSUM_BYTES).then(|| (kept.get_u128_le(), kept))
}

/// What the checkpoint says of all its records. The sum does not depend on their order, so a
/// change costs as much as what changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Directory {
    pub(super) records: u64,
    /// Sum of all checksums, modulo 2^128.
    pub(super) sum: u128,
    /// Bytes of all keys and values.
    pub(super) live_bytes: u64,
    /// `None` while the state is incomplete.
    pub(super) mark: Option<Mark>,
}

impl Directory {
    /// Takes a record in.
    pub(super) fn add(&mut self, key: &[u8], checksum: u128, value_bytes: usize) {
        self.records += 1;
        self.sum = self.sum.wrapping_add(checksum);
        self.live_bytes += (key.len() + value_bytes) as u64;
    }

    /// Takes a record out. `None` when the numbers cannot be right.
    pub(super) fn remove(&mut self, key: &[u8], checksum: u128, value_bytes: usize) -> Option<()> {
        self.records = self.records.checked_sub(1)?;
        self.sum = self.sum.wrapping_sub(checksum);
        self.live_bytes = self.live_bytes.checked_sub((key.len() + value_bytes) as u64)?;
        Some(())
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(96);
        out.put_u32_le(FORMAT);
        out.put_u32_le(u32::from(self.mark.is_some()));
        out.put_u64_le(self.records);
        out.put_u128_le(self.sum);
        out.put_u64_le(self.live_bytes);
        let mark = self.mark.clone().unwrap_or_default();
        out.put_u64_le(mark.index);
        out.put_u64_le(mark.term);
        out.put_slice(&mark.beside);
        out
    }

    pub(super) fn decode(mut bytes: &[u8]) -> Option<Self> {
        if bytes.len() < 56 || bytes.get_u32_le() != FORMAT {
            return None;
        }
        let complete = bytes.get_u32_le() == 1;
        let (records, sum, live_bytes) =
            (bytes.get_u64_le(), bytes.get_u128_le(), bytes.get_u64_le());
        let (index, term) = (bytes.get_u64_le(), bytes.get_u64_le());
        let mark = Mark { index, term, beside: Bytes::copy_from_slice(bytes) };
        Some(Self { records, sum, live_bytes, mark: complete.then_some(mark) })
    }
}
