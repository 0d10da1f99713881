//! What a log must hold after a sequence of calls.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;

use super::mem::MemDisk;
use crate::store::wal::{Recovered, Wal, WalError, WalOptions};

/// A call.
#[derive(Clone, Debug)]
pub(super) enum Call {
    /// Entries of these sizes and this fill.
    Append(Vec<(usize, Option<u8>)>),
    /// Keep all but so many.
    Truncate(u64),
    /// Purge all but so many; negative: beyond the end.
    Purge(i64),
    Vote(u8),
    Committed(u8),
    /// Wait until all is durable.
    Wait,
    /// Close and open again.
    Reopen,
}

pub(super) fn calls(count: usize) -> impl Strategy<Value = Vec<Call>> {
    let size = prop_oneof![
        8 => 0usize..400,
        2 => 400usize..3000,
        1 => 3000usize..9000,
    ];
    // Entries full of one byte, zero above all, are what the torn-write rules must stand.
    let fill = prop_oneof![3 => Just(None), 1 => Just(Some(0)), 1 => Just(Some(0xA5))];
    let call = prop_oneof![
        10 => proptest::collection::vec((size, fill), 1..6).prop_map(Call::Append),
        2 => (0u64..8).prop_map(Call::Truncate),
        2 => (-3i64..12).prop_map(Call::Purge),
        2 => any::<u8>().prop_map(Call::Vote),
        1 => any::<u8>().prop_map(Call::Committed),
        4 => Just(Call::Wait),
        1 => Just(Call::Reopen),
    ];
    proptest::collection::vec(call, 1..count)
}

/// What the log holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Model {
    pub(super) first: u64,
    pub(super) next: u64,
    pub(super) entries: BTreeMap<u64, Bytes>,
    pub(super) vote: Option<Bytes>,
    pub(super) marker: Option<Bytes>,
}

impl Model {
    pub(super) fn read(wal: &Wal, recovered: &Recovered) -> Result<Self, WalError> {
        let bounds = wal.bounds();
        assert_eq!(bounds.start, recovered.first_index);
        assert_eq!(
            recovered.last_index,
            bounds.end.checked_sub(1).filter(|last| *last >= bounds.start)
        );
        let entries = read_all(wal)?;
        assert_eq!(entries.len() as u64, bounds.end - bounds.start);
        Ok(Self {
            first: bounds.start,
            next: bounds.end,
            entries,
            vote: recovered.vote.clone(),
            marker: recovered.purged.clone(),
        })
    }
}

pub(super) fn read_all(wal: &Wal) -> Result<BTreeMap<u64, Bytes>, WalError> {
    let bounds = wal.bounds();
    let mut entries = BTreeMap::new();
    let mut from = bounds.start;
    while from < bounds.end {
        let batch = wal.read(from..bounds.end, 2000)?;
        assert!(!batch.is_empty());
        for (index, payload) in batch {
            assert_eq!(index, from);
            entries.insert(index, payload);
            from += 1;
        }
    }
    Ok(entries)
}

pub(super) fn options() -> WalOptions {
    WalOptions {
        segment_bytes: 4096,
        cache_bytes: 1500,
        seal_after: Duration::from_secs(3600),
        observer: None,
    }
}

/// An operation was acknowledged after so many operations of the disk, and the log held the state
/// with this number.
pub(super) type Ack = (usize, usize);

/// Drives a log and its model together.
pub(super) struct Driver {
    pub(super) disk: MemDisk,
    wal: Option<Wal>,
    /// Operations of the disk until the log was open.
    pub(super) opened: usize,
    /// All states the log went through, one per entry and call.
    pub(super) states: Vec<Model>,
    pub(super) acks: Arc<parking_lot::Mutex<Vec<Ack>>>,
    /// Makes payloads differ.
    serial: u64,
}

impl Driver {
    pub(super) fn new(disk: MemDisk) -> Self {
        let (wal, recovered) = Wal::open_on(Arc::new(disk.clone()), options()).unwrap();
        let state = Model::read(&wal, &recovered).unwrap();
        let opened = disk.len();
        Self { disk, wal: Some(wal), opened, states: vec![state], acks: Arc::default(), serial: 0 }
    }

    pub(super) fn wal(&self) -> &Wal {
        self.wal.as_ref().unwrap()
    }

    pub(super) fn state(&self) -> &Model {
        self.states.last().unwrap()
    }

    fn done(&self) -> crate::store::wal::Done {
        let (state, acks, disk) = (self.states.len() - 1, self.acks.clone(), self.disk.clone());
        Box::new(move |result| {
            result.unwrap();
            acks.lock().push((disk.len(), state));
        })
    }

    pub(super) fn run(&mut self, call: &Call) {
        let mut state = self.state().clone();
        match call {
            Call::Append(sizes) => {
                let mut entries = Vec::new();
                for (size, fill) in sizes {
                    self.serial += 1;
                    let payload = payload(self.serial, *size, *fill);
                    entries.push((state.next, payload.clone()));
                    state.entries.insert(state.next, payload);
                    state.next += 1;
                    self.states.push(state.clone());
                }
                self.wal().append(entries, self.done()).unwrap();
            }
            Call::Truncate(gone) => {
                let next = state.next.saturating_sub(*gone).max(state.first);
                state.entries.split_off(&next);
                state.next = next;
                self.states.push(state);
                self.wal().truncate_after(next.checked_sub(1), self.done()).unwrap();
            }
            Call::Purge(keep) => {
                let Some(index) = state.next.checked_add_signed(-keep - 1) else { return };
                if index < state.first {
                    return;
                }
                let marker = Bytes::from(format!("purged {index}"));
                state.first = index + 1;
                state.next = state.next.max(state.first);
                state.entries = state.entries.split_off(&state.first);
                state.marker = Some(marker.clone());
                self.states.push(state);
                self.wal().purge_upto(index, marker).unwrap();
            }
            Call::Vote(vote) => {
                let vote = Bytes::from(vec![*vote; 17]);
                state.vote = Some(vote.clone());
                self.states.push(state);
                self.wal().save_vote(vote, self.done()).unwrap();
            }
            Call::Committed(mark) => {
                self.wal().save_committed(Bytes::from(vec![*mark; 8])).unwrap();
            }
            Call::Wait => wait(self.wal()),
            Call::Reopen => self.reopen(),
        }
        assert_eq!(read_all(self.wal()).unwrap(), self.state().entries);
    }

    fn reopen(&mut self) {
        self.wal().close().unwrap();
        let (wal, recovered) = Wal::open_on(Arc::new(self.disk.clone()), options()).unwrap();
        assert_eq!(&Model::read(&wal, &recovered).unwrap(), self.state());
        assert!(!recovered.fresh);
        self.wal = Some(wal);
    }
}

/// Waits until all is durable.
pub(super) fn wait(wal: &Wal) {
    let (sender, receiver) = mpsc::channel();
    wal.sync(Box::new(move |result| sender.send(result).unwrap())).unwrap();
    receiver.recv().unwrap().unwrap();
}

pub(super) fn payload(serial: u64, size: usize, fill: Option<u8>) -> Bytes {
    let mut state = serial.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    (0..size)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            fill.unwrap_or(state.to_le_bytes()[3])
        })
        .collect()
}

/// Opens what is on `disk` and reads it all.
pub(super) fn reread(disk: &MemDisk) -> Result<Model, WalError> {
    let (wal, recovered) = Wal::open_on(Arc::new(disk.clone()), options())?;
    Model::read(&wal, &recovered)
}
