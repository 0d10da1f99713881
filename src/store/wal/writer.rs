//! Puts records into segments. Used by the flush thread alone.
//!
//! Records are collected with [`Writer::put`], written with one `pwritev` per 1024 slices and made
//! durable with one fdatasync by [`Writer::sync`]. A segment that is full is synced before anything
//! is written into the next.

use std::io::{self, IoSlice};
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use super::disk::{Disk, DiskFile};
use super::format::{
    DATA_START, Kind, Meta, Place, RECORD_HEADER, RecordHeader, SegmentHeader, padding,
    record_bytes, segment_name,
};

/// Payloads up to this size are copied behind their header: cheaper than two more slices.
const COPY_BYTES_MAX: usize = 2048;

/// A file that is being prepared; left-overs are removed when the log is opened.
pub(super) const PART_NAME: &str = "next.part";

/// A segment that may be written.
pub(super) struct Open {
    pub(super) number: u64,
    pub(super) bytes: u64,
    pub(super) file: Arc<dyn DiskFile>,
}

/// A run of bytes to write.
enum Piece {
    /// Of the scratch buffer.
    Scratch(Range<usize>),
    Payload(Bytes),
}

pub(super) struct Writer {
    disk: Arc<dyn Disk>,
    log_id: u64,
    segment_bytes: u64,
    current: Open,
    spare: Option<Open>,
    /// What the records up to here say.
    meta: Meta,
    /// Offset of the next record.
    end: usize,
    /// Offset of the first collected record that is not yet written.
    written: usize,
    /// Offset before which all is durable.
    durable: usize,
    pieces: Vec<Piece>,
    scratch: Vec<u8>,
    /// Segments begun since [`Writer::take_opened`].
    opened: Vec<(u64, Arc<dyn DiskFile>)>,
}

impl Writer {
    /// Goes on at `end` of `current`, all of which is durable up to there.
    pub(super) fn new(
        disk: Arc<dyn Disk>,
        log_id: u64,
        segment_bytes: u64,
        meta: Meta,
        (current, end): (Open, usize),
        spare: Option<Open>,
    ) -> io::Result<Self> {
        let mut writer = Self {
            disk,
            log_id,
            segment_bytes,
            current,
            spare,
            meta,
            end,
            written: end,
            durable: end,
            pieces: Vec::new(),
            scratch: Vec::new(),
            opened: Vec::new(),
        };
        if end == DATA_START {
            writer.put_state();
            writer.sync()?;
        }
        Ok(writer)
    }

    /// Creates segment `number` of `bytes` bytes: durable, with its header, and zeros after it. Replaces a prepared one of the same number.
    pub(super) fn create(
        disk: &dyn Disk,
        log_id: u64,
        number: u64,
        bytes: u64,
    ) -> io::Result<Open> {
        let made = || -> io::Result<Open> {
            let file = disk.create(PART_NAME, bytes)?;
            let header = SegmentHeader { log_id, number, bytes }.encode();
            file.write_at(&[IoSlice::new(&header)], 0)?;
            file.sync_all()?;
            disk.rename(PART_NAME, &segment_name(number))?;
            disk.sync_dir()?;
            Ok(Open { number, bytes, file })
        };
        made().inspect_err(|_| {
            // Gives the space back; on failure the next opening removes it.
            let _ = disk.remove(PART_NAME);
        })
    }

    /// What the records so far say.
    pub(super) fn meta(&self) -> &Meta {
        &self.meta
    }

    /// The segment being written.
    pub(super) fn segment(&self) -> u64 {
        self.current.number
    }

    /// Segments begun since the last call.
    pub(super) fn take_opened(&mut self) -> Vec<(u64, Arc<dyn DiskFile>)> {
        std::mem::take(&mut self.opened)
    }

    /// Whether something was collected or written that is not durable.
    pub(super) fn is_dirty(&self) -> bool {
        self.end > self.durable
    }

    /// Collects a record. Gives its segment and offset.
    pub(super) fn put(
        &mut self,
        kind: Kind,
        index: u64,
        payload: &Bytes,
    ) -> io::Result<(u64, usize)> {
        let need = record_bytes(payload.len());
        // Room for the end record is always kept.
        if self.end + need + RECORD_HEADER > size(&self.current) {
            self.rotate(need)?;
        }
        let offset = self.push(kind, index, payload);
        self.meta.apply(kind, index, payload).map_err(io::Error::other)?;
        Ok((self.current.number, offset))
    }

    fn put_state(&mut self) {
        let state = self.meta.encode();
        self.push(Kind::State, 0, &state);
    }

    fn push(&mut self, kind: Kind, index: u64, payload: &Bytes) -> usize {
        let offset = self.end;
        let place = Place { log_id: self.log_id, segment: self.current.number, offset };
        let header = RecordHeader::new(kind, index, payload, offset, self.durable);
        let from = self.scratch.len();
        header.encode(place, &mut self.scratch);
        if payload.len() <= COPY_BYTES_MAX {
            self.scratch.extend_from_slice(payload);
            self.scratch.extend_from_slice(padding(payload.len()));
            self.push_scratch(from);
        } else {
            self.push_scratch(from);
            self.pieces.push(Piece::Payload(payload.clone()));
            let from = self.scratch.len();
            self.scratch.extend_from_slice(padding(payload.len()));
            self.push_scratch(from);
        }
        self.end += record_bytes(payload.len());
        offset
    }

    /// The scratch buffer from `from` on is to be written after the pieces so far.
    fn push_scratch(&mut self, from: usize) {
        let to = self.scratch.len();
        match self.pieces.last_mut() {
            Some(Piece::Scratch(range)) if range.end == from => range.end = to,
            _ => self.pieces.push(Piece::Scratch(from..to)),
        }
    }

    /// Writes what was collected, without making it durable.
    pub(super) fn write(&mut self) -> io::Result<()> {
        let slices: Vec<IoSlice<'_>> = self
            .pieces
            .iter()
            .map(|piece| match piece {
                Piece::Scratch(range) => self.scratch.get(range.clone()).unwrap_or_default(),
                Piece::Payload(bytes) => bytes,
            })
            .map(IoSlice::new)
            .collect();
        if !slices.is_empty() {
            self.current.file.write_at(&slices, self.written as u64)?;
        }
        self.pieces.clear();
        self.scratch.clear();
        self.written = self.end;
        Ok(())
    }

    /// Writes what was collected and makes all that was written durable.
    pub(super) fn sync(&mut self) -> io::Result<()> {
        self.write()?;
        if self.durable < self.end {
            self.current.file.sync()?;
            self.durable = self.end;
        }
        Ok(())
    }

    /// Ends the segment and begins the next, with room for a record of `need` bytes.
    fn rotate(&mut self, need: usize) -> io::Result<()> {
        let state = record_bytes(self.meta.encode().len());
        let least = (DATA_START + state + need + RECORD_HEADER) as u64;
        let next = match self.spare.take() {
            Some(spare) if spare.bytes >= least => spare,
            _ => {
                let bytes = self.segment_bytes.max(least);
                Self::create(&*self.disk, self.log_id, self.current.number + 1, bytes)?
            }
        };
        // Only now, with the next one there: an end without a successor is a missing file.
        self.push(Kind::End, 0, &Bytes::new());
        self.sync()?;
        self.opened.push((next.number, next.file.clone()));
        self.current = next;
        self.end = DATA_START;
        self.written = DATA_START;
        self.durable = DATA_START;
        self.put_state();
        Ok(())
    }

    /// Whether the next segment is there.
    pub(super) fn is_prepared(&self) -> bool {
        self.spare.is_some()
    }

    /// Prepares the next segment if it is not there, so that a full disk is known of while there
    /// is still a segment's room, and beginning it costs no time.
    pub(super) fn prepare(&mut self) -> io::Result<()> {
        if self.spare.is_none() {
            let number = self.current.number + 1;
            let spare = Self::create(&*self.disk, self.log_id, number, self.segment_bytes)?;
            self.spare = Some(spare);
        }
        Ok(())
    }

    /// Removes the segments in `numbers`, oldest first, so that a power cut leaves no hole.
    pub(super) fn remove(&self, numbers: &[u64]) -> io::Result<()> {
        for number in numbers {
            self.disk.remove(&segment_name(*number))?;
        }
        if numbers.is_empty() { Ok(()) } else { self.disk.sync_dir() }
    }
}

fn size(open: &Open) -> usize {
    usize::try_from(open.bytes).unwrap_or(usize::MAX)
}
