//! The watchers of one client connection, pulled by one task.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::Notify;

use super::super::mvcc::contains;
use super::super::state::State;
use super::super::types::{Event, EventKind, KeyRange, Revision, StoreError};
use super::fanout::Slot;
use super::hub::{StreamId, Watcher};
use super::{SharedEvent, WatchError, WatchId, WatchRequest};

/// Events that are looked through in one go.
const EVENTS_STEP: usize = 4096;

/// Times a pull may look through [`EVENTS_STEP`] events in vain before it lets other tasks run.
const ROUNDS_MAX: usize = 4;

/// What a stream has for its client.
#[derive(Clone, Debug)]
pub enum Delivery {
    /// Whole revisions, in order.
    Events {
        /// Whose.
        watch_id: WatchId,
        /// What happened; never empty.
        events: Vec<Arc<SharedEvent>>,
        /// All that the watcher wants up to this revision has been delivered with this.
        revision: Revision,
        /// Whether it asked for the previous pairs.
        prev_kv: bool,
    },
    /// The watcher is gone: the revision it wants next is compacted.
    Compacted {
        /// Whose.
        watch_id: WatchId,
        /// The revision of the compaction.
        compact_revision: Revision,
    },
}

/// A watcher that was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subscribed {
    /// Its number on the stream.
    pub watch_id: WatchId,
    /// The store's revision at that moment: without a start revision, it sees all after it.
    pub revision: Revision,
}

/// The watchers of one connection. One task subscribes, waits for [`WatchStream::ready`] and pulls
/// with [`WatchStream::next_batch`] until that gives nothing. Dropping it ends its watchers.
#[derive(Debug)]
pub struct WatchStream {
    state: Arc<State>,
    id: StreamId,
    wake: Arc<Notify>,
    watchers: BTreeMap<WatchId, Slot>,
    next_id: WatchId,
    /// The last pull ended early, to let other tasks run.
    is_tired: bool,
}

impl WatchStream {
    pub(crate) fn new(state: Arc<State>) -> Self {
        let (id, wake) = state.hub().lock().open();
        Self { state, id, wake, watchers: BTreeMap::new(), next_id: 0, is_tired: false }
    }

    /// Adds a watcher. Its first delivery comes from a later [`WatchStream::next_batch`], so that
    /// the answer to this call can be sent before. One whose start revision is compacted is made,
    /// and then delivered as compacted.
    pub fn subscribe(&mut self, request: WatchRequest) -> Result<Subscribed, WatchError> {
        let mut request = request;
        if request.start_revision < 0 {
            return Err(WatchError::NegativeRevision);
        }
        if request.range.key.is_empty() {
            request.range.key = Bytes::from_static(&[0]);
        }
        if is_empty(&request.range) {
            return Err(WatchError::EmptyRange);
        }
        request.watch_id = self.choose_id(request.watch_id)?;
        let watch_id = request.watch_id;
        let state = self.state.clone();
        let (slot, revision) = state.settled(|revision, compact_revision| {
            let hub = state.hub();
            let mut inner = hub.lock();
            let start =
                if request.start_revision == 0 { revision + 1 } else { request.start_revision };
            let slot = inner.insert(Watcher {
                stream: self.id,
                next: start,
                is_behind: start <= revision,
                compacted: (start < compact_revision).then_some(compact_revision),
                request,
            });
            hub.note_watchers(&mut inner);
            (slot, revision)
        });
        self.watchers.insert(watch_id, slot);
        Ok(Subscribed { watch_id, revision })
    }

    fn choose_id(&mut self, wanted: WatchId) -> Result<WatchId, WatchError> {
        if wanted != 0 {
            let is_taken = self.watchers.contains_key(&wanted);
            return if is_taken { Err(WatchError::DuplicateId) } else { Ok(wanted) };
        }
        while self.watchers.contains_key(&self.next_id) {
            self.next_id += 1;
        }
        self.next_id += 1;
        Ok(self.next_id - 1)
    }

    /// Ends a watcher; gives whether there was one of this number.
    pub fn cancel(&mut self, watch_id: WatchId) -> bool {
        let Some(slot) = self.watchers.remove(&watch_id) else { return false };
        let hub = self.state.hub();
        let mut inner = hub.lock();
        inner.remove(slot);
        hub.note_watchers(&mut inner);
        true
    }

    /// The numbers of its watchers.
    pub fn watch_ids(&self) -> impl Iterator<Item = WatchId> {
        self.watchers.keys().copied()
    }

    /// Waits until [`WatchStream::next_batch`] may have something. May be dropped and called again
    /// without losing anything.
    pub async fn ready(&self) {
        if self.is_tired {
            tokio::task::yield_now().await;
        }
        while !self.has_work() {
            self.wake.notified().await;
        }
    }

    fn has_work(&self) -> bool {
        self.state.hub().lock().lines.get(&self.id).is_some_and(|line| !line.behind.is_empty())
    }

    /// The next delivery: of the watcher that waits longest, whole revisions of about `bytes_max`
    /// bytes, at least one. `None` when all watchers are up to date, or when much was looked through
    /// in vain: [`WatchStream::ready`] then lets other tasks run and returns.
    pub fn next_batch(&mut self, bytes_max: usize) -> Option<Delivery> {
        for _ in 0..ROUNDS_MAX {
            self.is_tired = false;
            let work = self.take_work()?;
            let found = match &work.recent {
                _ if work.compacted.is_some() => Err(StoreError::Compacted),
                Some(recent) => {
                    let mut batch = Batch::new(&work, bytes_max);
                    for revision in recent {
                        if !batch.add(revision.revision, &revision.events) {
                            break;
                        }
                    }
                    Ok(batch)
                }
                None => self.read_history(&work, bytes_max),
            };
            let watch_id = work.request.watch_id;
            let Ok(batch) = found else {
                self.cancel(watch_id);
                let compact_revision =
                    work.compacted.unwrap_or_else(|| self.state.compact_revision());
                return Some(Delivery::Compacted { watch_id, compact_revision });
            };
            self.give_back(&work, batch.seen);
            if !batch.events.is_empty() {
                let (events, revision, prev_kv) = (batch.events, batch.seen, work.request.prev_kv);
                return Some(Delivery::Events { watch_id, events, revision, prev_kv });
            }
        }
        self.is_tired = true;
        None
    }

    /// Takes the watcher that waits longest out of the line.
    fn take_work(&self) -> Option<Work> {
        let mut inner = self.state.hub().lock();
        loop {
            let slot = inner.lines.get_mut(&self.id)?.behind.pop_front()?;
            let Some(watcher) = inner.watcher(slot) else { continue };
            let (request, next, compacted) =
                (watcher.request.clone(), watcher.next, watcher.compacted);
            let recent = inner.ring.since(next, EVENTS_STEP);
            return Some(Work { slot, request, next, compacted, recent });
        }
    }

    /// Notes how far a watcher has seen; it goes to the end of the line if there is more.
    fn give_back(&self, work: &Work, seen: Revision) {
        let mut inner = self.state.hub().lock();
        let published = inner.published;
        let Some(watcher) = inner.watcher(work.slot) else { return };
        watcher.next = seen + 1;
        watcher.is_behind = watcher.next <= published;
        if watcher.is_behind {
            inner.queue(work.slot);
        }
    }

    fn read_history<'w>(&self, work: &'w Work, bytes_max: usize) -> Result<Batch<'w>, StoreError> {
        let mut batch = Batch::new(work, bytes_max);
        let give = |revision, events: Vec<Event>| {
            let events: Vec<_> = events.into_iter().map(SharedEvent::new).map(Arc::new).collect();
            batch.add(revision, &events)
        };
        let seen = self.state.history(&work.request.range, work.next, EVENTS_STEP, give)?;
        batch.seen = seen;
        Ok(batch)
    }

    /// The revision up to which **all** watchers of the stream were given everything, if they all
    /// were: then a progress answer may carry it, sent after what was pulled. `None` when one is
    /// behind, or waits for a revision yet to come.
    pub fn synced_revision(&self) -> Option<Revision> {
        self.synced(self.watchers.values())
    }

    /// The same for one watcher.
    pub fn synced_revision_of(&self, watch_id: WatchId) -> Option<Revision> {
        self.synced([self.watchers.get(&watch_id)?])
    }

    fn synced<'a>(&self, slots: impl IntoIterator<Item = &'a Slot>) -> Option<Revision> {
        let mut inner = self.state.hub().lock();
        let published = inner.published;
        let all = slots.into_iter().all(|slot| {
            inner.watcher(*slot).is_none_or(|watcher| {
                !watcher.is_behind && watcher.request.start_revision <= published
            })
        });
        all.then_some(published)
    }
}

impl Drop for WatchStream {
    fn drop(&mut self) {
        let hub = self.state.hub();
        let mut inner = hub.lock();
        inner.lines.remove(&self.id);
        for slot in self.watchers.values() {
            inner.remove(*slot);
        }
        hub.note_watchers(&mut inner);
    }
}

/// A watcher to be served.
struct Work {
    slot: Slot,
    request: WatchRequest,
    next: Revision,
    compacted: Option<Revision>,
    recent: Option<Vec<Arc<super::ring::RevisionEvents>>>,
}

/// What a watcher is about to be given.
struct Batch<'w> {
    request: &'w WatchRequest,
    events: Vec<Arc<SharedEvent>>,
    seen: Revision,
    bytes_left: usize,
}

impl<'w> Batch<'w> {
    fn new(work: &'w Work, bytes_max: usize) -> Self {
        let seen = work.next - 1;
        Self { request: &work.request, events: Vec::new(), seen, bytes_left: bytes_max.max(1) }
    }

    /// Adds what the watcher wants of a revision. Gives whether there is room for more.
    fn add(&mut self, revision: Revision, events: &[Arc<SharedEvent>]) -> bool {
        for event in events {
            if self.wants(event) {
                self.bytes_left = self.bytes_left.saturating_sub(event.size(self.request.prev_kv));
                self.events.push(event.clone());
            }
        }
        self.seen = revision;
        self.bytes_left > 0
    }

    fn wants(&self, event: &SharedEvent) -> bool {
        let is_filtered = match event.event().kind {
            EventKind::Put => self.request.no_put,
            EventKind::Delete => self.request.no_delete,
        };
        !is_filtered && contains(&self.request.range, &event.event().kv.key)
    }
}

fn is_empty(range: &KeyRange) -> bool {
    !matches!(range.end.as_ref(), [] | [0]) && range.end <= range.key
}
