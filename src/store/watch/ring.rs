//! The events of the latest revisions, without a gap.

use std::collections::VecDeque;
use std::sync::Arc;

use super::super::types::Revision;
use super::SharedEvent;

/// Most revisions held.
const REVISIONS_MAX: usize = 8192;

/// Most bytes of keys and values held (most of them shared with the store), by estimate.
const BYTES_MAX: usize = 16 * 1024 * 1024;

/// What one revision changed, in order.
#[derive(Debug)]
pub(super) struct RevisionEvents {
    pub(super) revision: Revision,
    pub(super) events: Vec<Arc<SharedEvent>>,
}

impl RevisionEvents {
    fn size(&self) -> usize {
        self.events.iter().map(|event| event.size(true)).sum()
    }
}

/// Consecutive revisions, oldest first.
#[derive(Debug, Default)]
pub(super) struct Ring {
    revisions: VecDeque<Arc<RevisionEvents>>,
    bytes: usize,
}

impl Ring {
    /// Adds the latest revision; the oldest go.
    pub(super) fn push(&mut self, revision: Arc<RevisionEvents>) {
        if self.revisions.back().is_some_and(|last| last.revision + 1 != revision.revision) {
            self.clear();
        }
        self.bytes += revision.size();
        self.revisions.push_back(revision);
        while self.revisions.len() > REVISIONS_MAX || self.bytes > BYTES_MAX {
            let Some(oldest) = self.revisions.pop_front() else { break };
            self.bytes -= oldest.size();
        }
    }

    /// The latest revision held.
    pub(super) fn last(&self) -> Option<Revision> {
        self.revisions.back().map(|last| last.revision)
    }

    /// Forgets all.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// The revisions from `from` on, up to about `events_max` events; nothing when `from` is older
    /// than what is held.
    pub(super) fn since(
        &self,
        from: Revision,
        events_max: usize,
    ) -> Option<Vec<Arc<RevisionEvents>>> {
        let first = self.revisions.front()?.revision;
        let skip = usize::try_from(from.checked_sub(first)?).ok()?;
        let mut left = events_max;
        let mut found = Vec::new();
        for revision in self.revisions.range(skip.min(self.revisions.len())..) {
            if left == 0 {
                break;
            }
            left = left.saturating_sub(revision.events.len());
            found.push(revision.clone());
        }
        Some(found)
    }
}
