//! Reads what is on disk when the log is opened: all segments, oldest first.

use std::collections::BTreeMap;
use std::io::IoSlice;
use std::sync::Arc;

use super::disk::{Disk, DiskFile};
use super::error::WalError;
use super::format::{
    DATA_START, FORMAT, HeaderFault, Kind, Meta, SegmentHeader, segment_name, segment_number,
};
use super::index::{Slot, Slots};
use super::scan::{Scan, Tail, scan};

/// The segments and what they say.
pub(super) struct Recovery {
    pub(super) log_id: u64,
    pub(super) meta: Meta,
    pub(super) slots: Slots,
    pub(super) files: BTreeMap<u64, Arc<dyn DiskFile>>,
    /// The segment to go on with, its size, and the offset to go on at.
    pub(super) current: (u64, u64, usize),
    /// The prepared segment after it, with its size.
    pub(super) spare: Option<(u64, u64)>,
}

struct Segment {
    header: SegmentHeader,
    file: Arc<dyn DiskFile>,
    scan: Scan,
}

/// Reads all segments. `None` when the log was never begun.
pub(super) fn recover(disk: &dyn Disk) -> Result<Option<Recovery>, WalError> {
    let mut segments = read_segments(disk)?;
    // At most one prepared segment waits behind the last one in use.
    let spare = if segments.last().is_some_and(|last| last.scan.is_blank()) {
        segments.pop().map(|spare| (spare.header, spare.file))
    } else {
        None
    };
    let first_torn = |segment: &Segment| {
        segment.scan.records.is_empty() && matches!(segment.scan.tail, Tail::Torn { .. })
    };
    let begun = match segments.as_slice() {
        [] => spare.as_ref().is_some_and(|(header, _)| header.number != 1),
        [only] => !(only.header.number == 1 && first_torn(only)),
        _ => true,
    };
    if !begun {
        return Ok(None);
    }
    let (meta, slots) = replay(disk, &segments)?;
    check_ends(disk, &segments, spare.is_some())?;
    let Some(last) = segments.last() else {
        return Err(damaged(disk, None, 0, "the segments that were in use are missing"));
    };
    repair_tail(disk, last)?;
    let mut current = (last.header.number, last.header.bytes, last.scan.end);
    let log_id = last.header.log_id;
    let mut spare_at = spare.as_ref().map(|(header, _)| (header.number, header.bytes));
    if last.scan.is_ended()
        && let Some((number, bytes)) = spare_at.take()
    {
        current = (number, bytes, DATA_START);
    }
    let mut files: BTreeMap<_, _> =
        segments.into_iter().map(|segment| (segment.header.number, segment.file)).collect();
    files.extend(spare.map(|(header, file)| (header.number, file)));
    Ok(Some(Recovery { log_id, meta, slots, files, current, spare: spare_at }))
}

fn damaged(disk: &dyn Disk, segment: Option<u64>, offset: usize, reason: &str) -> WalError {
    let file = match segment {
        Some(number) => disk.path().join(segment_name(number)),
        None => disk.path().to_owned(),
    };
    WalError::Damaged { file, offset: offset as u64, reason: reason.to_owned() }
}

fn read_segments(disk: &dyn Disk) -> Result<Vec<Segment>, WalError> {
    let names = disk.list().map_err(WalError::io("list", disk.path()))?;
    let mut numbers: Vec<u64> = names.iter().filter_map(|name| segment_number(name)).collect();
    numbers.sort_unstable();
    let mut segments: Vec<Segment> = Vec::with_capacity(numbers.len());
    for number in numbers {
        let segment = read_segment(disk, number)?;
        if let Some(before) = segments.last() {
            if before.header.number + 1 != number {
                let missing = format!("segment {} is missing", segment_name(number - 1));
                return Err(damaged(disk, None, 0, &missing));
            }
            if before.header.log_id != segment.header.log_id {
                return Err(damaged(disk, Some(number), 0, "it belongs to another log"));
            }
        }
        segments.push(segment);
    }
    Ok(segments)
}

fn read_segment(disk: &dyn Disk, number: u64) -> Result<Segment, WalError> {
    let name = segment_name(number);
    let path = disk.path().join(&name);
    let file = disk.open(&name).map_err(WalError::io("open", &path))?;
    let size = file.size().map_err(WalError::io("read the size of", &path))?;
    let mut bytes = vec![0; usize::try_from(size).unwrap_or(usize::MAX)];
    file.read_at(&mut bytes, 0).map_err(WalError::io("read", &path))?;
    let header = SegmentHeader::decode(&bytes).map_err(|fault| match fault {
        HeaderFault::Newer(found) => {
            WalError::NewerFormat { file: path.clone(), found, known: FORMAT }
        }
        HeaderFault::Invalid(reason) => damaged(disk, Some(number), 0, reason),
    })?;
    if header.number != number {
        return Err(damaged(disk, Some(number), 0, "it was renamed"));
    }
    if header.bytes != size {
        let reason = format!("it has {size} bytes and should have {}", header.bytes);
        return Err(damaged(disk, Some(number), 0, &reason));
    }
    let scan = scan(header, &bytes);
    if let Tail::Damaged(reason) = &scan.tail {
        return Err(damaged(disk, Some(number), scan.end, reason));
    }
    Ok(Segment { header, file, scan })
}

/// Takes in all records, oldest first.
fn replay(disk: &dyn Disk, segments: &[Segment]) -> Result<(Meta, Slots), WalError> {
    let mut meta = Meta::default();
    let mut slots = Slots::default();
    let records = segments.iter().flat_map(|segment| {
        segment.scan.records.iter().map(move |record| (segment.header.number, record))
    });
    for (at, (number, record)) in records.enumerate() {
        let fault = |reason: &str| damaged(disk, Some(number), record.offset, reason);
        if (record.kind == Kind::State) != (record.offset == DATA_START) {
            return Err(fault("a segment must begin with its one state record"));
        }
        if at == 0 {
            meta = Meta::decode(&record.payload)
                .ok_or_else(|| fault("the state record cannot be read"))?;
            slots = Slots::starting_at(meta.next);
            continue;
        }
        meta.apply(record.kind, record.index, &record.payload).map_err(|reason| fault(&reason))?;
        match record.kind {
            Kind::Entry => slots.push(Slot {
                segment: number,
                offset: u32::try_from(record.offset).unwrap_or(u32::MAX),
                len: u32::try_from(record.len).unwrap_or(u32::MAX),
            }),
            Kind::Truncate => slots.truncate(meta.next),
            Kind::Purge => slots.purge(record.index),
            _ => {}
        }
    }
    if slots.first() > meta.first {
        let reason =
            format!("entries {}..{} were in a segment that is missing", meta.first, slots.first());
        return Err(damaged(disk, None, 0, &reason));
    }
    Ok((meta, slots))
}

/// Only the last segment in use may be torn or open; the one before it must have been ended.
fn check_ends(disk: &dyn Disk, segments: &[Segment], spare: bool) -> Result<(), WalError> {
    let Some((last, earlier)) = segments.split_last() else { return Ok(()) };
    for segment in earlier {
        if !segment.scan.is_ended() || segment.scan.tail != Tail::Clean {
            let reason = "its last records are missing, and a later segment exists";
            return Err(damaged(disk, Some(segment.header.number), segment.scan.end, reason));
        }
    }
    if last.scan.is_ended() && !spare {
        let missing = format!("segment {} is missing", segment_name(last.header.number + 1));
        return Err(damaged(disk, None, 0, &missing));
    }
    if last.scan.records.is_empty() && earlier.is_empty() {
        return Err(damaged(disk, Some(last.header.number), last.scan.end, "it is empty"));
    }
    Ok(())
}

/// Overwrites what is left of a torn group with zeros, so that what is written there next can be
/// told from what was not, and makes all that was read durable: a process that was killed may have
/// left it in the kernel only.
fn repair_tail(disk: &dyn Disk, last: &Segment) -> Result<(), WalError> {
    let path = disk.path().join(segment_name(last.header.number));
    if let Tail::Torn { written_end } = last.scan.tail {
        let from = last.scan.end;
        tracing::warn!(
            segment = %path.display(), offset = from, bytes = written_end.saturating_sub(from),
            "write-ahead log: cut an unfinished write, which was never acknowledged"
        );
        let zeros = vec![0; written_end.saturating_sub(from)];
        if !zeros.is_empty() {
            let parts = [IoSlice::new(&zeros)];
            last.file.write_at(&parts, from as u64).map_err(WalError::io("repair", &path))?;
        }
    }
    last.file.sync_all().map_err(WalError::io("sync", &path))?;
    disk.sync_dir().map_err(WalError::io("sync", disk.path()))
}
