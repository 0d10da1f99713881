//! Reads one segment's bytes: which records are in it, and how it ends. Pure.
//!
//! The hard question is what follows the last valid record. The writer gives the rules: a segment
//! is zeros when it is created; one group of records is written and fsynced before the next is
//! begun; a sector (512 bytes) is written whole or not at all; a record's header lies in one sector
//! and says how much of the segment was durable before it. So a power cut can leave only
//!
//! - nothing but zeros: the end; or
//! - a record of the last group some of whose sectors are still zero: torn.
//!
//! All else is damage: a header that is neither valid nor unwritten, a payload with a wrong
//! checksum and no sector missing, or a later record that says that this one was durable.

use bytes::Bytes;

use super::format::{
    DATA_START, Kind, Place, RECORD_HEADER, RecordHeader, SECTOR, SegmentHeader, is_zero,
    record_bytes,
};

/// A valid record.
#[derive(Clone, Debug)]
pub(super) struct Record {
    pub(super) offset: usize,
    pub(super) kind: Kind,
    pub(super) index: u64,
    /// Bytes of its payload.
    pub(super) len: usize,
    /// The payload in memory of its own, so that it does not keep the segment's. Of entries nothing: they are
    /// most of the segment, and are read when they are wanted.
    pub(super) payload: Bytes,
}

/// How the records of a segment end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Tail {
    /// Nothing but zeros follows.
    Clean,
    /// A group that was being written when the power was cut; what is left of it ends before
    /// `written_end`.
    Torn {
        /// Offset after the last byte that is not zero.
        written_end: usize,
    },
    /// No power cut explains it.
    Damaged(String),
}

/// What a segment holds.
#[derive(Debug)]
pub(super) struct Scan {
    pub(super) records: Vec<Record>,
    /// Offset after the last valid record.
    pub(super) end: usize,
    pub(super) tail: Tail,
}

impl Scan {
    /// Whether nothing was ever written after the header.
    pub(super) fn is_blank(&self) -> bool {
        self.records.is_empty() && self.tail == Tail::Clean
    }

    /// Whether the log goes on in the next segment.
    pub(super) fn is_ended(&self) -> bool {
        self.records.last().is_some_and(|record| record.kind == Kind::End)
    }
}

/// Scans a whole segment, whose header is known to be valid.
pub(super) fn scan(header: SegmentHeader, segment: &[u8]) -> Scan {
    let place = |offset| Place { log_id: header.log_id, segment: header.number, offset };
    let mut records: Vec<Record> = Vec::new();
    let mut end = DATA_START;
    let tail = loop {
        let ended = records.last().is_some_and(|record| record.kind == Kind::End);
        let Some(found) = RecordHeader::decode(segment, place(end)).filter(|_| !ended) else {
            break tail_without_header(segment, end);
        };
        let body_start = end + RECORD_HEADER;
        let next = end + record_bytes(found.payload_len());
        if next > segment.len() || found.durable_before > end {
            break Tail::Damaged("a record does not fit into its segment".to_owned());
        }
        let body = segment.get(body_start..next).unwrap_or_default();
        let payload = body.get(..found.payload_len()).unwrap_or_default();
        if !found.matches(payload) {
            break if found.misses_sectors(body, body_start) {
                Tail::Torn { written_end: written_end(segment, end) }
            } else {
                Tail::Damaged("a record's checksum is wrong".to_owned())
            };
        }
        records.push(Record {
            offset: end,
            kind: found.kind,
            index: found.index,
            len: payload.len(),
            payload: match found.kind {
                Kind::Entry => Bytes::new(),
                _ => Bytes::copy_from_slice(payload),
            },
        });
        end = next;
    };
    let tail = match tail {
        Tail::Torn { .. } if proves_durable(segment, place, end) => {
            Tail::Damaged("a record is missing that was durable before later ones".to_owned())
        }
        other => other,
    };
    Scan { records, end, tail }
}

/// What it means that there is no valid record header at `end`.
fn tail_without_header(segment: &[u8], end: usize) -> Tail {
    let rest = segment.get(end..).unwrap_or_default();
    let (same_sector, later) = rest.split_at((SECTOR - end % SECTOR).min(rest.len()));
    if !is_zero(same_sector) {
        return Tail::Damaged("a record header's checksum is wrong".to_owned());
    }
    if is_zero(later) {
        return Tail::Clean;
    }
    Tail::Torn { written_end: written_end(segment, end) }
}

/// Offset after the last byte from `from` on that is not zero.
fn written_end(segment: &[u8], from: usize) -> usize {
    let rest = segment.get(from..).unwrap_or_default();
    from + rest.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1)
}

/// Whether a record after `end` says that what stood at `end` was durable when it was written.
fn proves_durable(segment: &[u8], place: impl Fn(usize) -> Place, end: usize) -> bool {
    (end + RECORD_HEADER..segment.len())
        .step_by(RECORD_HEADER)
        .filter_map(|offset| RecordHeader::decode(segment, place(offset)))
        .any(|later| later.durable_before > end)
}
