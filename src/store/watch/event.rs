//! An event as all its watchers share it.

use std::sync::OnceLock;

use bytes::Bytes;

use super::super::types::{Event, Revision};

/// An event, and its encodings once somebody made them.
#[derive(Debug)]
pub struct SharedEvent {
    event: Event,
    plain: OnceLock<Bytes>,
    with_prev: OnceLock<Bytes>,
}

impl SharedEvent {
    pub(super) fn new(event: Event) -> Self {
        Self { event, plain: OnceLock::new(), with_prev: OnceLock::new() }
    }

    /// The event, with the previous pair if there is one.
    pub fn event(&self) -> &Event {
        &self.event
    }

    /// The revision it belongs to.
    pub fn revision(&self) -> Revision {
        self.event.kv.mod_revision
    }

    /// The event in the encoding of whoever asks first: `encode` runs once for all watchers with
    /// the same wish for the previous pair, and is told that wish.
    pub fn encoded(&self, prev_kv: bool, encode: impl FnOnce(&Event, bool) -> Bytes) -> Bytes {
        let slot = if prev_kv { &self.with_prev } else { &self.plain };
        slot.get_or_init(|| encode(&self.event, prev_kv)).clone()
    }

    /// About how many bytes it takes to send.
    pub(super) fn size(&self, prev_kv: bool) -> usize {
        const FIXED: usize = 48;
        let pair = self.event.kv.key.len() + self.event.kv.value.len();
        let prev = match &self.event.prev_kv {
            Some(prev) if prev_kv => prev.key.len() + prev.value.len() + FIXED,
            _ => 0,
        };
        FIXED + pair + prev
    }
}
