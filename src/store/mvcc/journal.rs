//! All changes in order of revisions: what catch-up and compaction walk, so that
//! neither has to visit keys that did not change.

use std::collections::VecDeque;

use super::super::types::Revision;
use super::Version;

/// Changes in one chunk: a journal grows and shrinks by whole chunks and is never moved.
const CHUNK: usize = 1024;

/// All changes since the last compaction, that revision included.
#[derive(Debug, Default)]
pub(crate) struct Journal {
    chunks: VecDeque<VecDeque<Version>>,
}

impl Journal {
    /// Adds a change; revisions never go back.
    pub(crate) fn push(&mut self, change: Version) {
        match self.chunks.back_mut() {
            Some(chunk) if chunk.len() < CHUNK => chunk.push_back(change),
            _ => {
                // A full chunk that was partly popped would grow again: it starts a new one.
                let mut chunk = VecDeque::with_capacity(CHUNK);
                chunk.push_back(change);
                self.chunks.push_back(chunk);
            }
        }
    }

    /// The oldest change.
    pub(crate) fn front(&self) -> Option<&Version> {
        self.chunks.front().and_then(VecDeque::front)
    }

    /// Takes the oldest change off.
    pub(crate) fn pop_front(&mut self) -> Option<Version> {
        let chunk = self.chunks.front_mut()?;
        let change = chunk.pop_front();
        if chunk.is_empty() {
            self.chunks.pop_front();
        }
        change
    }

    /// The changes at and after `revision` without the first `skip` of them, oldest first.
    pub(crate) fn since(&self, revision: Revision, skip: usize) -> impl Iterator<Item = &Version> {
        let mut first = self
            .chunks
            .partition_point(|chunk| chunk.back().is_some_and(|change| change.modified < revision));
        let mut inside = skip
            + self
                .chunks
                .get(first)
                .map_or(0, |chunk| chunk.partition_point(|change| change.modified < revision));
        while let Some(chunk) = self.chunks.get(first).filter(|chunk| inside >= chunk.len()) {
            inside -= chunk.len();
            first += 1;
        }
        self.chunks
            .iter()
            .skip(first)
            .enumerate()
            .flat_map(move |(index, chunk)| chunk.range(if index == 0 { inside.. } else { 0.. }))
    }
}
