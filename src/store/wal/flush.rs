//! The flush thread: takes all that waits, writes it, syncs once, and answers in order.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};

use super::disk::DiskFile;
use super::error::WalError;
use super::format::Kind;
use super::index::{Cache, Slot, Slots};
use super::writer::Writer;

/// Called once, on the flush thread, when the operation is durable or has failed. Must be quick.
pub type Done = Box<dyn FnOnce(io::Result<()>) + Send>;

/// Called with how long each fdatasync took.
pub type SyncObserver = Arc<dyn Fn(Duration) + Send + Sync>;

/// One thing to write.
pub(super) enum Operation {
    Entries { entries: Vec<(u64, Bytes)>, done: Done },
    Truncate { next: u64, done: Done },
    Vote { vote: Bytes, done: Done },
    Purge { index: u64, marker: Bytes },
    Sync { done: Done },
}

/// The error that ended the log.
#[derive(Clone, Debug)]
pub(super) struct Failure {
    kind: io::ErrorKind,
    reason: String,
}

impl Failure {
    pub(super) fn new(error: &io::Error) -> Self {
        Self { kind: error.kind(), reason: error.to_string() }
    }

    fn to_io(&self) -> io::Error {
        io::Error::new(self.kind, self.reason.clone())
    }

    pub(super) fn to_wal(&self) -> WalError {
        WalError::Failed { reason: self.reason.clone(), kind: self.kind }
    }
}

/// What the callers' threads and the flush thread share.
pub(super) struct State {
    /// First entry and the index after the last, as the caller sees them: at once after the call.
    pub(super) first: u64,
    pub(super) next: u64,
    pub(super) cache: Cache,
    /// What was written, in the order of the log's records: behind `first` and `next`.
    pub(super) slots: Slots,
    pub(super) files: BTreeMap<u64, Arc<dyn DiskFile>>,
    pub(super) queue: Vec<Operation>,
    /// Number of operations ever queued.
    pub(super) queued: u64,
    /// Written with the next group, or when the log is idle.
    pub(super) committed: Option<Bytes>,
    pub(super) failure: Option<Failure>,
    pub(super) closing: bool,
    /// Why no next segment could be prepared.
    pub(super) low_space: Option<String>,
}

pub(super) struct Shared {
    pub(super) state: Mutex<State>,
    pub(super) wake: Condvar,
}

/// Changes to [`Slots`] that a group made.
enum Change {
    Push(Slot),
    Truncate(u64),
    Purge(u64),
}

/// What the flush thread takes from the queue.
struct Group {
    operations: Vec<Operation>,
    committed: Option<Bytes>,
    /// Number of the last operation in it.
    last: u64,
    closing: bool,
    idle: bool,
}

/// Runs until the log is closed or fails.
pub(super) fn run(
    shared: &Shared,
    mut writer: Writer,
    seal_after: Duration,
    observer: Option<&SyncObserver>,
) {
    let _guard = PanicGuard(shared);
    let mut sealed = false;
    let mut preparation = Preparation::default();
    loop {
        preparation.run(shared, &mut writer);
        let seal_after = (!sealed).then_some(seal_after);
        let Some(group) = take(shared, seal_after, preparation.retry_after()) else { continue };
        let Group { operations, committed, last, closing, idle } = group;
        let purged = operations.iter().any(|one| matches!(one, Operation::Purge { .. }));
        let mut dones = Vec::with_capacity(operations.len());
        let written = put_all(&mut writer, operations, committed, &mut dones)
            .and_then(|changes| {
                if closing || idle {
                    writer.put(Kind::Seal, 0, &Bytes::new())?;
                }
                Ok(changes)
            })
            .and_then(|changes| {
                if idle && !closing { writer.write() } else { sync(&mut writer, observer) }?;
                Ok(changes)
            });
        match written {
            Ok(changes) => {
                sealed = idle;
                apply(shared, &mut writer, changes, last);
                for done in dones {
                    done(Ok(()));
                }
                if purged {
                    remove_purged(shared, &writer);
                }
                if idle {
                    k3sup_rs_allocator::give_back();
                }
            }
            Err(error) => return fail(shared, dones, &error),
        }
        if closing {
            return;
        }
    }
}

/// A panic on the flush thread must not leave callers waiting for ever.
struct PanicGuard<'a>(&'a Shared);

impl Drop for PanicGuard<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            fail(self.0, Vec::new(), &io::Error::other("the flush thread panicked"));
        }
    }
}

/// Keeps the next segment prepared, without asking a full disk again for each group.
#[derive(Default)]
struct Preparation {
    failed_at: Option<Instant>,
}

impl Preparation {
    const RETRY_AFTER: Duration = Duration::from_secs(1);

    /// After how long to try again, also when nothing is written meanwhile.
    fn retry_after(&self) -> Option<Duration> {
        self.failed_at.map(|failed| Self::RETRY_AFTER.saturating_sub(failed.elapsed()))
    }

    fn run(&mut self, shared: &Shared, writer: &mut Writer) {
        if writer.is_prepared()
            || self.failed_at.is_some_and(|failed| failed.elapsed() < Self::RETRY_AFTER)
        {
            return;
        }
        let problem = writer.prepare().err().map(|error| error.to_string());
        if let Some(problem) = &problem {
            tracing::warn!(error = %problem, "write-ahead log: cannot prepare the next segment");
        }
        self.failed_at = problem.is_some().then(Instant::now);
        shared.state.lock().low_space = problem;
    }
}

/// Waits for something to write; `None` when it is time to prepare a segment again.
fn take(
    shared: &Shared,
    seal_after: Option<Duration>,
    retry_after: Option<Duration>,
) -> Option<Group> {
    let at = |after: Option<Duration>| after.and_then(|after| Instant::now().checked_add(after));
    let (seal_at, retry_at) = (at(seal_after), at(retry_after));
    let mut state = shared.state.lock();
    let mut idle = false;
    while state.queue.is_empty() && !state.closing && !idle {
        let Some(next) = [seal_at, retry_at].into_iter().flatten().min() else {
            shared.wake.wait(&mut state);
            continue;
        };
        let timed_out = shared.wake.wait_until(&mut state, next).timed_out();
        if timed_out && state.queue.is_empty() && !state.closing {
            if seal_at != Some(next) {
                return None;
            }
            idle = true;
        }
    }
    let operations = std::mem::take(&mut state.queue);
    let idle = idle && operations.is_empty();
    let committed = state.committed.take();
    Some(Group { operations, committed, last: state.queued, closing: state.closing, idle })
}

/// Hands all operations to the writer. Their callbacks go to `dones`, also when one fails.
fn put_all(
    writer: &mut Writer,
    operations: Vec<Operation>,
    committed: Option<Bytes>,
    dones: &mut Vec<Done>,
) -> io::Result<Vec<Change>> {
    let mut changes = Vec::new();
    let mut result = Ok(());
    for operation in operations {
        // After a failure the rest is only collected, to be told.
        let failed = result.is_err();
        let mut put = |kind, index, payload: &Bytes| {
            if failed { Ok((0, 0)) } else { writer.put(kind, index, payload) }
        };
        let one = match operation {
            Operation::Entries { entries, done } => {
                dones.push(done);
                entries.iter().try_for_each(|(index, payload)| {
                    let (segment, offset) = put(Kind::Entry, *index, payload)?;
                    changes.push(Change::Push(slot(segment, offset, payload.len())));
                    Ok(())
                })
            }
            Operation::Truncate { next, done } => {
                dones.push(done);
                changes.push(Change::Truncate(next));
                put(Kind::Truncate, next, &Bytes::new()).map(drop)
            }
            Operation::Vote { vote, done } => {
                dones.push(done);
                put(Kind::Vote, 0, &vote).map(drop)
            }
            Operation::Purge { index, marker } => {
                changes.push(Change::Purge(index));
                put(Kind::Purge, index, &marker).map(drop)
            }
            Operation::Sync { done } => {
                dones.push(done);
                Ok(())
            }
        };
        result = result.and(one);
    }
    result?;
    if let Some(committed) = committed
        && writer.meta().committed.as_ref() != Some(&committed)
    {
        writer.put(Kind::Committed, 0, &committed)?;
    }
    Ok(changes)
}

fn slot(segment: u64, offset: usize, len: usize) -> Slot {
    // Segments and payloads are below 4 GiB, see `WalOptions`.
    let offset = u32::try_from(offset).unwrap_or(u32::MAX);
    Slot { segment, offset, len: u32::try_from(len).unwrap_or(u32::MAX) }
}

fn sync(writer: &mut Writer, observer: Option<&SyncObserver>) -> io::Result<()> {
    writer.write()?;
    if writer.is_dirty() {
        let begun = Instant::now();
        writer.sync()?;
        if let Some(observer) = observer {
            observer(begun.elapsed());
        }
    }
    Ok(())
}

/// The group is written: its entries can be read from the files and need not stay in memory.
fn apply(shared: &Shared, writer: &mut Writer, changes: Vec<Change>, last: u64) {
    let mut state = shared.state.lock();
    state.files.extend(writer.take_opened());
    for change in changes {
        match change {
            Change::Push(slot) => state.slots.push(slot),
            Change::Truncate(next) => state.slots.truncate(next),
            Change::Purge(index) => state.slots.purge(index),
        }
    }
    state.cache.evict(last);
}

/// Removes the segments that hold no live entry. The purge that made them dead is durable, and
/// the vote and all else stands at the head of every later segment.
fn remove_purged(shared: &Shared, writer: &Writer) {
    let dead: Vec<u64> = {
        let mut state = shared.state.lock();
        let keep = state.slots.oldest_segment().unwrap_or(writer.segment()).min(writer.segment());
        let live = state.files.split_off(&keep);
        std::mem::replace(&mut state.files, live).into_keys().collect()
    };
    if let Err(error) = writer.remove(&dead) {
        // They cost only space, until the first purge after the next start.
        tracing::warn!(%error, "write-ahead log: cannot remove purged segments");
    }
}

/// Ends the log: what waits and what comes later is refused.
fn fail(shared: &Shared, dones: Vec<Done>, error: &io::Error) {
    tracing::error!(%error, "write-ahead log: a write or fsync failed, the member must stop");
    let failure = Failure::new(error);
    let waiting = {
        let mut state = shared.state.lock();
        state.failure = Some(failure.clone());
        std::mem::take(&mut state.queue)
    };
    let waiting = waiting.into_iter().filter_map(|operation| match operation {
        Operation::Entries { done, .. }
        | Operation::Truncate { done, .. }
        | Operation::Vote { done, .. }
        | Operation::Sync { done } => Some(done),
        Operation::Purge { .. } => None,
    });
    dones.into_iter().chain(waiting).for_each(|done| done(Err(failure.to_io())));
}
