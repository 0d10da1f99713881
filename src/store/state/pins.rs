//! Revisions that a reader between two steps still needs: compaction gives no memory back beyond
//! the oldest of them.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::super::types::Revision;

/// The pinned revisions, each with the number of readers.
#[derive(Clone, Debug, Default)]
pub(super) struct Pins(Arc<Mutex<BTreeMap<Revision, usize>>>);

impl Pins {
    /// Keeps `revision` and all after it readable until the pin is dropped.
    pub(super) fn pin(&self, revision: Revision) -> Pin {
        *self.0.lock().entry(revision).or_default() += 1;
        Pin { pins: self.clone(), revision }
    }

    /// The oldest pinned revision.
    pub(super) fn oldest(&self) -> Option<Revision> {
        self.0.lock().first_key_value().map(|(revision, _)| *revision)
    }
}

/// Held by a reader.
#[derive(Debug)]
pub(super) struct Pin {
    pins: Pins,
    revision: Revision,
}

impl Drop for Pin {
    fn drop(&mut self) {
        let mut pins = self.pins.0.lock();
        if let Some(readers) = pins.get_mut(&self.revision) {
            *readers -= 1;
            if *readers == 0 {
                pins.remove(&self.revision);
            }
        }
    }
}
