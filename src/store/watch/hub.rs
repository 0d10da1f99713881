//! All watchers of a member: the place of each in history, and the mark that something it wants
//! has happened. The applier holds the state's lock when it calls; the hub's own lock is inside of
//! it, never around it.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;

use super::super::types::{Event, Revision};
use super::fanout::{Fanout, Slot};
use super::ring::{RevisionEvents, Ring};
use super::{SharedEvent, WatchRequest};

/// A stream's number in the hub.
pub(super) type StreamId = u64;

/// One watcher.
#[derive(Debug)]
pub(super) struct Watcher {
    pub(super) request: WatchRequest,
    pub(super) stream: StreamId,
    /// The next revision it wants: everything before was delivered or is of no interest.
    pub(super) next: Revision,
    /// Whether it waits in its stream's line, because there may be something from `next` on.
    pub(super) is_behind: bool,
    /// The compaction that it came too late for.
    pub(super) compacted: Option<Revision>,
}

/// One stream.
#[derive(Debug, Default)]
pub(super) struct Line {
    /// Watchers that are behind, the one that waits longest first.
    pub(super) behind: VecDeque<Slot>,
    pub(super) wake: Arc<Notify>,
}

/// What is behind the hub's lock.
#[derive(Debug, Default)]
pub(super) struct Inner {
    /// The revision that all marks are set for.
    pub(super) published: Revision,
    pub(super) ring: Ring,
    fanout: Fanout,
    watchers: Vec<Option<Watcher>>,
    free: Vec<Slot>,
    pub(super) lines: HashMap<StreamId, Line>,
    next_stream: StreamId,
}

impl Inner {
    pub(super) fn watcher(&mut self, slot: Slot) -> Option<&mut Watcher> {
        self.watchers.get_mut(slot).and_then(Option::as_mut)
    }

    /// Opens a stream.
    pub(super) fn open(&mut self) -> (StreamId, Arc<Notify>) {
        let id = self.next_stream;
        self.next_stream += 1;
        let line = Line::default();
        let wake = line.wake.clone();
        self.lines.insert(id, line);
        (id, wake)
    }

    /// Adds a watcher.
    pub(super) fn insert(&mut self, watcher: Watcher) -> Slot {
        let slot = self.free.pop().unwrap_or(self.watchers.len());
        self.fanout.insert(&watcher.request.range, slot);
        let is_behind = watcher.is_behind;
        match self.watchers.get_mut(slot) {
            Some(place) => *place = Some(watcher),
            None => self.watchers.push(Some(watcher)),
        }
        if is_behind {
            self.queue(slot);
        }
        slot
    }

    /// Removes a watcher.
    pub(super) fn remove(&mut self, slot: Slot) {
        let Some(watcher) = self.watchers.get_mut(slot).and_then(Option::take) else { return };
        self.fanout.remove(&watcher.request.range, slot);
        if let Some(line) = self.lines.get_mut(&watcher.stream) {
            line.behind.retain(|other| *other != slot);
        }
        self.free.push(slot);
    }

    /// Puts a watcher at the end of its stream's line and wakes the stream.
    pub(super) fn queue(&mut self, slot: Slot) {
        let Some(watcher) = self.watchers.get(slot).and_then(Option::as_ref) else { return };
        if let Some(line) = self.lines.get_mut(&watcher.stream) {
            line.behind.push_back(slot);
            line.wake.notify_one();
        }
    }

    /// Marks the watchers that want one of the events.
    fn mark(&mut self, revision: &RevisionEvents) {
        let mut fresh = Vec::new();
        for event in &revision.events {
            let watchers = &mut self.watchers;
            self.fanout.each(&event.event().kv.key, |slot| {
                if let Some(Some(watcher)) = watchers.get_mut(slot)
                    && !watcher.is_behind
                    && watcher.next <= revision.revision
                {
                    watcher.is_behind = true;
                    watcher.next = revision.revision;
                    fresh.push(slot);
                }
            });
        }
        for slot in fresh {
            self.queue(slot);
        }
    }
}

/// All watchers of a member.
#[derive(Debug, Default)]
pub(crate) struct WatchHub {
    inner: Mutex<Inner>,
    has_watchers: AtomicBool,
}

impl WatchHub {
    /// Whether anybody wants events. Only turns true while the state's lock is held for reading,
    /// so that no revision falls between its answer and a new watcher.
    pub(crate) fn has_watchers(&self) -> bool {
        self.has_watchers.load(Ordering::Acquire)
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock()
    }

    /// How many watchers have something to be told yet.
    pub(crate) fn behind(&self) -> usize {
        self.inner.lock().lines.values().map(|line| line.behind.len()).sum()
    }

    /// Sets what [`WatchHub::has_watchers`] says from what there is.
    pub(super) fn note_watchers(&self, inner: &mut Inner) {
        let any = inner.watchers.len() > inner.free.len();
        self.has_watchers.store(any, Ordering::Release);
        if !any {
            inner.ring.clear();
        }
    }

    /// Takes in the events of all revisions up to `revision`, in order.
    pub(crate) fn publish(&self, revision: Revision, events: impl Iterator<Item = Event>) {
        let mut inner = self.inner.lock();
        let mut events = events.peekable();
        while let Some(first) = events.next() {
            let revision = first.kv.mod_revision;
            let mut all = vec![Arc::new(SharedEvent::new(first))];
            while let Some(more) = events.next_if(|event| event.kv.mod_revision == revision) {
                all.push(Arc::new(SharedEvent::new(more)));
            }
            let all = Arc::new(RevisionEvents { revision, events: all });
            inner.mark(&all);
            inner.ring.push(all);
        }
        // Without watchers nothing is recorded: a ring that lacks the latest would hide it.
        if inner.ring.last() != Some(revision) {
            inner.ring.clear();
        }
        inner.published = revision;
    }

    /// The state was replaced by one at `revision`: what lies between is read from its history.
    pub(crate) fn reset(&self, revision: Revision) {
        let mut inner = self.inner.lock();
        inner.ring.clear();
        let seen = inner.published + 1;
        inner.published = revision;
        let mut behind = Vec::new();
        for (slot, watcher) in inner.watchers.iter_mut().enumerate() {
            if let Some(watcher) = watcher
                && !watcher.is_behind
            {
                watcher.next = watcher.next.max(seen);
                watcher.is_behind = watcher.next <= revision;
                if watcher.is_behind {
                    behind.push(slot);
                }
            }
        }
        for slot in behind {
            inner.queue(slot);
        }
    }
}
