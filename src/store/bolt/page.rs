//! The layout of a page (bbolt `internal/common/page.go`, `meta.go`, `bucket.go`). Pure. All numbers
//! are little-endian.
//!
//! A page begins with its number (8), its kind (2), the number of its elements (2) and the number of
//! pages that follow and belong to it (4). A leaf's elements are their flags (4), where the key is,
//! counted from the element (4), the sizes of key and value (4 each); a branch's where the key is (4),
//! its size (4) and the page below (8).

use bytes::BufMut as _;

use super::BoltError;

/// The size of a page that is written; others are read too.
pub(super) const PAGE_BYTES: usize = 4096;
/// The number in each meta page.
pub(super) const MAGIC: u32 = 0xED0C_DAED;
/// The only version of the format.
const VERSION: u32 = 2;

/// Kinds of pages.
pub(super) const BRANCH: u16 = 0x01;
pub(super) const LEAF: u16 = 0x02;
pub(super) const META: u16 = 0x04;
pub(super) const FREE_LIST: u16 = 0x10;

/// A leaf's element that is a bucket.
pub(super) const BUCKET: u32 = 0x01;

/// Before the elements.
pub(super) const HEADER_BYTES: usize = 16;
/// Of an element without its key and value.
pub(super) const ELEMENT_BYTES: usize = 16;
/// Of a bucket: its root and a number nobody here uses.
pub(super) const BUCKET_BYTES: usize = 16;
/// Of the meta page's content, and what of it the sum covers.
pub(super) const META_BYTES: usize = 64;
const SUMMED_BYTES: usize = 56;

/// What a meta page says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Meta {
    pub(super) page_size: u64,
    /// The page that holds the buckets.
    pub(super) root: u64,
    pub(super) free_list: u64,
    /// The first page that is not there.
    pub(super) end: u64,
    /// The newer of the two meta pages has the larger one.
    pub(super) transaction: u64,
}

impl Meta {
    /// As it stands behind the page's header.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(META_BYTES);
        out.put_u32_le(MAGIC);
        out.put_u32_le(VERSION);
        out.put_u32_le(u32::try_from(self.page_size).unwrap_or(u32::MAX));
        out.put_u32_le(0);
        out.put_u64_le(self.root);
        out.put_u64_le(0);
        out.put_u64_le(self.free_list);
        out.put_u64_le(self.end);
        out.put_u64_le(self.transaction);
        let sum = fnv(&out);
        out.put_u64_le(sum);
        out
    }

    /// What a page with its header holds; nothing when it is none, or damaged.
    pub(super) fn decode(page: &[u8]) -> Option<Self> {
        let meta = page.get(HEADER_BYTES..HEADER_BYTES + META_BYTES)?;
        let page_size = u64::from(u32_at(meta, 8).ok()?);
        let is_meta = u16_at(page, 8).ok()? & META != 0
            && u32_at(meta, 0).ok()? == MAGIC
            && u32_at(meta, 4).ok()? == VERSION;
        let is_size = page_size.is_power_of_two() && (512..=1 << 20).contains(&page_size);
        let is_right = u64_at(meta, SUMMED_BYTES).ok()? == fnv(meta.get(..SUMMED_BYTES)?);
        if !(is_meta && is_size && is_right) {
            return None;
        }
        Some(Self {
            page_size,
            root: u64_at(meta, 16).ok()?,
            free_list: u64_at(meta, 32).ok()?,
            end: u64_at(meta, 40).ok()?,
            transaction: u64_at(meta, 48).ok()?,
        })
    }
}

/// FNV-1a, the sum of a meta page.
fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |sum, byte| {
        (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// A page's first bytes.
pub(super) fn header(id: u64, kind: u16, count: u16, overflow: u32) -> Vec<u8> {
    let mut out = Vec::with_capacity(PAGE_BYTES);
    out.put_u64_le(id);
    out.put_u16_le(kind);
    out.put_u16_le(count);
    out.put_u32_le(overflow);
    out
}

/// A bucket whose pages begin at `root`, as a value in the root's leaf.
pub(super) fn bucket(root: u64) -> Vec<u8> {
    let mut out = Vec::with_capacity(BUCKET_BYTES);
    out.put_u64_le(root);
    out.put_u64_le(0);
    out
}

fn bytes_at<const N: usize>(bytes: &[u8], at: usize) -> Result<[u8; N], BoltError> {
    let found = bytes.get(at..).and_then(|rest| rest.first_chunk::<N>());
    found.copied().ok_or_else(|| BoltError::damaged("a number goes beyond its page"))
}

pub(super) fn u16_at(bytes: &[u8], at: usize) -> Result<u16, BoltError> {
    bytes_at(bytes, at).map(u16::from_le_bytes)
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> Result<u32, BoltError> {
    bytes_at(bytes, at).map(u32::from_le_bytes)
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> Result<u64, BoltError> {
    bytes_at(bytes, at).map(u64::from_le_bytes)
}

pub(super) fn usize_at(bytes: &[u8], at: usize) -> Result<usize, BoltError> {
    u32_at(bytes, at).map(|number| usize::try_from(number).unwrap_or(usize::MAX))
}
