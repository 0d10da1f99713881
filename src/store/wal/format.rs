//! The bytes of a segment: its header, a record's header, the state record. Pure.
//!
//! docs/storage.md describes the format for readers of other versions; keep it in step.

use bytes::{BufMut as _, Bytes};

/// First bytes of every segment.
const MAGIC: [u8; 8] = *b"k3supWAL";
/// The format written here, and the newest that can be read.
pub(super) const FORMAT: u32 = 1;
/// What a disk writes whole or not at all, in bytes.
pub(super) const SECTOR: usize = 512;
/// Where the records of a segment begin: its header has a sector of its own.
pub(super) const DATA_START: usize = SECTOR;
/// Size of a record's header. It divides [`SECTOR`] and records are aligned to it, so that a header
/// never lies across two sectors and is thus written whole or not at all.
pub(super) const RECORD_HEADER: usize = 32;
/// Fills the gap after a payload. Not zero, and at least two of them, so that the last sector of a
/// whole record is never taken for one that was not written.
const PAD: [u8; RECORD_HEADER + 2] = [0xA5; RECORD_HEADER + 2];

/// The segment's file name.
pub(super) fn segment_name(number: u64) -> String {
    format!("{number:016x}.wal")
}

/// The number in a segment's file name.
pub(super) fn segment_number(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".wal").filter(|digits| digits.len() == 16)?;
    u64::from_str_radix(digits, 16).ok()
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// The first sector of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SegmentHeader {
    /// Chosen by chance when the log was created; all its segments carry it.
    pub(super) log_id: u64,
    /// Counts up from 1 and is never used again.
    pub(super) number: u64,
    /// The file's size in bytes.
    pub(super) bytes: u64,
}

/// Why a segment header is not one.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum HeaderFault {
    /// Not written by this program, or damaged.
    Invalid(&'static str),
    /// Written by a newer version.
    Newer(u32),
}

impl SegmentHeader {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(SECTOR);
        out.put_slice(&MAGIC);
        out.put_u32_le(FORMAT);
        out.put_u32_le(0);
        out.put_u64_le(self.log_id);
        out.put_u64_le(self.number);
        out.put_u64_le(self.bytes);
        out.resize(SECTOR - 4, 0);
        out.put_u32_le(crc32c::crc32c(&out));
        out
    }

    pub(super) fn decode(file: &[u8]) -> Result<Self, HeaderFault> {
        let short = HeaderFault::Invalid("the file is shorter than its header");
        let Some(sector) = file.get(..SECTOR) else { return Err(short) };
        let (Some(magic), Some(covered)) = (sector.get(..8), sector.get(..SECTOR - 4)) else {
            return Err(short);
        };
        if magic != MAGIC {
            return Err(HeaderFault::Invalid("it does not begin as a segment does"));
        }
        if u32_at(sector, SECTOR - 4) != Some(crc32c::crc32c(covered)) {
            return Err(HeaderFault::Invalid("the segment header's checksum is wrong"));
        }
        match (u32_at(sector, 8), u64_at(sector, 16), u64_at(sector, 24), u64_at(sector, 32)) {
            (Some(FORMAT), Some(log_id), Some(number), Some(bytes)) => {
                Ok(Self { log_id, number, bytes })
            }
            (Some(newer), ..) => Err(HeaderFault::Newer(newer)),
            _ => Err(short),
        }
    }
}

/// What a record says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    /// First in every segment: all that earlier segments said, but for the entries themselves.
    State = 1,
    /// A log entry.
    Entry = 2,
    /// The log now ends before `index`.
    Truncate = 3,
    /// The vote.
    Vote = 4,
    /// Entries up to `index` are in a snapshot.
    Purge = 5,
    /// How far the log is known to be committed.
    Committed = 6,
    /// All before it is durable.
    Seal = 7,
    /// The log goes on in the next segment, which exists.
    End = 8,
}

impl Kind {
    fn from_byte(byte: u8) -> Option<Self> {
        [
            Self::State,
            Self::Entry,
            Self::Truncate,
            Self::Vote,
            Self::Purge,
            Self::Committed,
            Self::Seal,
            Self::End,
        ]
        .into_iter()
        .find(|kind| *kind as u8 == byte)
    }
}

/// Where a record stands. It goes into the record's checksum, so that bytes that were meant for
/// another place, segment or log are never valid here.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) log_id: u64,
    pub(super) segment: u64,
    pub(super) offset: usize,
}

/// A record's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RecordHeader {
    pub(super) kind: Kind,
    /// The entry's index, or as [`Kind`] says.
    pub(super) index: u64,
    /// Payload size in bytes.
    pub(super) len: u32,
    payload_crc: u32,
    /// Whole sectors of the payload that are zero, see [`zero_sectors`].
    zero_sectors: u32,
    /// When this record was written, all of the segment before this offset was durable.
    pub(super) durable_before: usize,
}

impl RecordHeader {
    pub(super) fn new(
        kind: Kind,
        index: u64,
        payload: &[u8],
        offset: usize,
        durable_before: usize,
    ) -> Self {
        Self {
            kind,
            index,
            len: u32::try_from(payload.len()).unwrap_or(u32::MAX),
            payload_crc: crc32c::crc32c(payload),
            zero_sectors: zero_sectors(payload, offset + RECORD_HEADER),
            durable_before,
        }
    }

    pub(super) fn encode(&self, place: Place, out: &mut Vec<u8>) {
        let at = out.len();
        out.put_u32_le(0);
        out.put_u32_le(self.payload_crc);
        out.put_u32_le(self.len);
        // Segments are below 4 GiB, see `WalOptions`.
        out.put_u32_le(u32::try_from(self.durable_before).unwrap_or(u32::MAX));
        out.put_u64_le(self.index);
        out.put_u32_le(self.zero_sectors);
        out.put_u32_le(u32::from(self.kind as u8));
        let crc = header_crc(place, out.get(at + 4..).unwrap_or_default());
        if let Some(field) = out.get_mut(at..at + 4) {
            field.copy_from_slice(&crc.to_le_bytes());
        }
    }

    /// The header at `place.offset` of the whole `segment`, if there is a valid one.
    pub(super) fn decode(segment: &[u8], place: Place) -> Option<Self> {
        Self::decode_at(segment.get(place.offset..)?, place)
    }

    /// The header that `bytes`, which stand at `place`, begin with, if there is a valid one.
    pub(super) fn decode_at(bytes: &[u8], place: Place) -> Option<Self> {
        let bytes = bytes.get(..RECORD_HEADER)?;
        if u32_at(bytes, 0)? != header_crc(place, bytes.get(4..)?) {
            return None;
        }
        Some(Self {
            payload_crc: u32_at(bytes, 4)?,
            len: u32_at(bytes, 8)?,
            durable_before: usize::try_from(u32_at(bytes, 12)?).ok()?,
            index: u64_at(bytes, 16)?,
            zero_sectors: u32_at(bytes, 24)?,
            kind: Kind::from_byte(u8::try_from(u32_at(bytes, 28)?).ok()?)?,
        })
    }

    pub(super) fn payload_len(&self) -> usize {
        usize::try_from(self.len).unwrap_or(usize::MAX)
    }

    /// Whether `payload` is what was written.
    pub(super) fn matches(&self, payload: &[u8]) -> bool {
        crc32c::crc32c(payload) == self.payload_crc
    }

    /// Whether at least one sector of the record's body was never written. `body` is the payload
    /// with its padding, which begins at `start` in the file.
    pub(super) fn misses_sectors(&self, body: &[u8], start: usize) -> bool {
        let (_, sectors) = body.split_at(to_sector_end(start).min(body.len()));
        let zero = sectors.chunks(SECTOR).filter(|sector| is_zero(sector)).count();
        u32::try_from(zero).unwrap_or(u32::MAX) > self.zero_sectors
    }
}

fn header_crc(place: Place, fields: &[u8]) -> u32 {
    let crc = crc32c::crc32c(&place.log_id.to_le_bytes());
    let crc = crc32c::crc32c_append(crc, &place.segment.to_le_bytes());
    let crc = crc32c::crc32c_append(crc, &(place.offset as u64).to_le_bytes());
    crc32c::crc32c_append(crc, fields)
}

/// Bytes from `offset` to the end of its sector; 0 when a sector begins there.
pub(super) fn to_sector_end(offset: usize) -> usize {
    offset.next_multiple_of(SECTOR) - offset
}

/// Whether all bytes are zero.
pub(super) fn is_zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == 0)
}

/// Number of whole sectors of a payload that are zero as written. A sector that a power cut kept
/// from the disk is zero too; knowing how many must be tells the two apart.
fn zero_sectors(payload: &[u8], start: usize) -> u32 {
    let (_, sectors) = payload.split_at(to_sector_end(start).min(payload.len()));
    let zero = sectors.chunks_exact(SECTOR).filter(|sector| is_zero(sector)).count();
    u32::try_from(zero).unwrap_or(u32::MAX)
}

/// The padding after a payload of `len` bytes.
pub(super) fn padding(len: usize) -> &'static [u8] {
    let pad = if len == 0 { 0 } else { (len + 2).next_multiple_of(RECORD_HEADER) - len };
    PAD.get(..pad).unwrap_or(&PAD)
}

/// Bytes that a record with `len` bytes of payload takes in its segment.
pub(super) fn record_bytes(len: usize) -> usize {
    RECORD_HEADER + len + padding(len).len()
}

/// All that a segment must know of those before it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Meta {
    /// First index that is not purged.
    pub(super) first: u64,
    /// The index that the next entry gets.
    pub(super) next: u64,
    /// What was handed in with the last purge.
    pub(super) marker: Option<Bytes>,
    /// The vote.
    pub(super) vote: Option<Bytes>,
    /// How far the log is known to be committed.
    pub(super) committed: Option<Bytes>,
}

impl Meta {
    pub(super) fn encode(&self) -> Bytes {
        let mut out = Vec::with_capacity(64);
        out.put_u64_le(self.first);
        out.put_u64_le(self.next);
        for field in [&self.marker, &self.vote, &self.committed] {
            let len = field
                .as_ref()
                .map_or(u32::MAX, |bytes| u32::try_from(bytes.len()).unwrap_or(u32::MAX));
            out.put_u32_le(len);
            out.put_slice(field.as_deref().unwrap_or_default());
        }
        out.into()
    }

    pub(super) fn decode(payload: &[u8]) -> Option<Self> {
        let (first, next) = (u64_at(payload, 0)?, u64_at(payload, 8)?);
        let mut rest = payload.get(16..)?;
        let mut fields = [None, None, None];
        for field in &mut fields {
            let len = u32_at(rest, 0)?;
            rest = rest.get(4..)?;
            if len != u32::MAX {
                let (bytes, after) = rest.split_at_checked(usize::try_from(len).ok()?)?;
                *field = Some(Bytes::copy_from_slice(bytes));
                rest = after;
            }
        }
        let [marker, vote, committed] = fields;
        rest.is_empty().then_some(Self { first, next, marker, vote, committed })
    }

    /// Takes in what a record says.
    pub(super) fn apply(&mut self, kind: Kind, index: u64, payload: &Bytes) -> Result<(), String> {
        match kind {
            Kind::State => {
                let state = Self::decode(payload).ok_or("the state record cannot be read")?;
                if state != *self {
                    return Err("it does not continue the segment before it".to_owned());
                }
            }
            Kind::Entry if index == self.next => self.next += 1,
            Kind::Entry => return Err(format!("entry {index} follows entry {}", self.next)),
            Kind::Truncate => self.next = self.next.min(index).max(self.first),
            Kind::Vote => self.vote = Some(payload.clone()),
            Kind::Committed => self.committed = Some(payload.clone()),
            Kind::Purge => {
                self.first = self.first.max(index.saturating_add(1));
                self.next = self.next.max(self.first);
                self.marker = Some(payload.clone());
            }
            Kind::Seal | Kind::End => {}
        }
        Ok(())
    }
}
