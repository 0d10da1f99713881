//! Reading entries back: the newest from memory, older ones from the segments.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use super::disk::DiskFile;
use super::flush::{Failure, State};
use super::format::{Kind, Place, RECORD_HEADER, RecordHeader, record_bytes, segment_name};
use super::index::Slot;
use super::{Wal, WalError};

/// Entries that are read together.
enum Source {
    Memory(u64, Bytes),
    Disk(Run),
}

/// Records that follow each other in one segment.
struct Run {
    segment: u64,
    file: Arc<dyn DiskFile>,
    offset: u32,
    /// Index and payload size of each.
    entries: Vec<(u64, usize)>,
    bytes: usize,
}

impl Wal {
    /// Reads the entries of `range`, as many as fit into `bytes_max` bytes of payload but at least
    /// one. A damaged record ends the log ([`WalError::Damaged`]).
    pub fn read(&self, range: Range<u64>, bytes_max: usize) -> Result<Vec<(u64, Bytes)>, WalError> {
        let sources = {
            let state = self.shared.state.lock();
            if let Some(failure) = &state.failure {
                return Err(failure.to_wal());
            }
            let (first, next) = (state.first, state.next);
            let Range { start: from, end: to } = range;
            if from < first || to > next || from > to {
                return Err(WalError::OutOfRange { from, to, first, next });
            }
            collect(&state, from..to, bytes_max)
        };
        let mut entries = Vec::new();
        for source in sources {
            match source {
                Source::Memory(index, payload) => entries.push((index, payload)),
                Source::Disk(run) => self.read_run(&run, &mut entries)?,
            }
        }
        Ok(entries)
    }

    fn read_run(&self, run: &Run, into: &mut Vec<(u64, Bytes)>) -> Result<(), WalError> {
        let path = self.directory.join(segment_name(run.segment));
        let mut bytes = vec![0; run.bytes];
        run.file.read_at(&mut bytes, u64::from(run.offset)).map_err(WalError::io("read", &path))?;
        let bytes = Bytes::from(bytes);
        let base = usize::try_from(run.offset).unwrap_or(usize::MAX);
        let mut at = 0;
        for (index, len) in &run.entries {
            let place = Place { log_id: self.log_id, segment: run.segment, offset: base + at };
            let record = bytes.slice(at..at + record_bytes(*len));
            let payload = record.slice(RECORD_HEADER..RECORD_HEADER + len);
            let valid = RecordHeader::decode_at(&record, place).is_some_and(|header| {
                header.kind == Kind::Entry && header.index == *index && header.matches(&payload)
            });
            if !valid {
                let reason = format!("entry {index} is not what was written");
                let error = WalError::Damaged { file: path, offset: place.offset as u64, reason };
                let failure = Failure::new(&std::io::Error::new(
                    std::io::ErrorKind::InvalidData,
                    error.to_string(),
                ));
                self.shared.state.lock().failure.get_or_insert(failure);
                return Err(error);
            }
            into.push((*index, payload));
            at += record_bytes(*len);
        }
        Ok(())
    }
}

fn collect(state: &State, range: Range<u64>, bytes_max: usize) -> Vec<Source> {
    let mut sources: Vec<Source> = Vec::new();
    let mut bytes = 0;
    for index in range {
        let cached = state.cache.get(index);
        let slot = if cached.is_some() { None } else { state.slots.get(index) };
        let len = match (cached, slot) {
            (Some(payload), _) => payload.len(),
            (None, Some(slot)) => usize::try_from(slot.len).unwrap_or(usize::MAX),
            (None, None) => break,
        };
        bytes += len;
        if bytes > bytes_max && !sources.is_empty() {
            break;
        }
        if let Some(payload) = cached {
            sources.push(Source::Memory(index, payload.clone()));
        } else if let Some(slot) = slot {
            let follows = match sources.last_mut() {
                Some(Source::Disk(run)) => run.take(index, slot, len),
                _ => false,
            };
            if !follows {
                let Some(file) = state.files.get(&slot.segment) else { break };
                sources.push(Source::Disk(Run {
                    segment: slot.segment,
                    file: file.clone(),
                    offset: slot.offset,
                    entries: vec![(index, len)],
                    bytes: record_bytes(len),
                }));
            }
        }
    }
    sources
}

impl Run {
    /// Takes the entry in when its record follows.
    fn take(&mut self, index: u64, slot: Slot, len: usize) -> bool {
        let end = u64::from(self.offset) + self.bytes as u64;
        let follows = slot.segment == self.segment && u64::from(slot.offset) == end;
        if follows {
            self.entries.push((index, len));
            self.bytes += record_bytes(len);
        }
        follows
    }
}
