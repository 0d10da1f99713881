//! Keeps the checkpoint up with the state, off the path of any request, and starts from it.
//!
//! The checkpoint is a convenience: whatever is wrong with it, the member starts from its newest
//! snapshot and the log instead, and begins a new checkpoint with a full export.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};

use super::config::Observer;
use crate::store::checkpoint::{
    Batch, Batches, Change, CheckpointError, Checkpointer, Loaded, Mark,
};
use crate::store::state::{Changes, Import, Record, Replaced, State};
use crate::store::types::ClusterId;

/// The checkpoint's directory in the member's.
pub const CHECKPOINT: &str = "checkpoint";
/// Between two batches of changes: what a start has to replay from the log.
const INTERVAL: Duration = Duration::from_secs(5);
/// With so many changes the next batch does not wait.
const CHANGES_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// Most records in one transaction, and about their bytes: they are in memory while it is made, and until its end
/// sled keeps all that it replaces, 3 to 10 KB for each entry. More changes than that are several transactions, and
/// a process that is killed between them starts from the snapshot and the log.
const BATCH_RECORDS: usize = 2048;
const BATCH_BYTES: usize = 1024 * 1024;
/// How often it is looked how many there are.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);
/// A start goes on without a checkpoint of which no record came for about so long.
const STALL: Duration = Duration::from_secs(30);
/// Pause after the checkpoint failed and was set aside.
const RETRY_PAUSE: Duration = Duration::from_secs(60);

/// The checkpoint of a member.
pub(crate) struct Keeper {
    checkpointer: Arc<Checkpointer>,
    observer: Option<Observer>,
    cluster: ClusterId,
    state: Arc<State>,
    /// It holds the state up to some entry, and only changes need to be added.
    complete: bool,
}

/// The checkpoint of a running member, for others than its keeper. Of no effect once the member
/// has stopped, or when it goes on without a checkpoint.
#[derive(Clone, Default)]
pub struct CheckpointHandle(Weak<Checkpointer>);

impl CheckpointHandle {
    /// Rewrites it into fresh files, without what is dead. Done at once when there is none, or
    /// none that is whole: that will be written afresh anyway. After another error it was set
    /// aside, and the member writes a new one.
    pub async fn defragment(&self) -> Result<(), CheckpointError> {
        let (done, rewritten) = oneshot::channel();
        match self.0.upgrade() {
            Some(checkpointer) => checkpointer.defragment(Box::new(move |result| {
                let _ = done.send(result);
            })),
            None => return Ok(()),
        }
        match rewritten.await.unwrap_or(Err(CheckpointError::Closed)) {
            Err(CheckpointError::NeedsReset) => Ok(()),
            result => result,
        }
    }
}

/// Why a batch did not become durable.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KeepError {
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    #[error("the checkpoint's thread ended")]
    Ended,
}

/// Why there is no checkpoint to go on with.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    #[error("cannot read it: {0}")]
    Thread(#[from] std::io::Error),
    #[error("reading it ended with a panic")]
    Ended,
    #[error("nothing more came of it within {} s; stop the member and remove the directory", STALL.as_secs())]
    Stalled,
}

/// What was read.
struct Found {
    checkpointer: Checkpointer,
    loaded: Loaded,
    import: Import,
}

impl Found {
    /// Counts the records in `progress`.
    fn read(dir: &Path, progress: &AtomicU64) -> Result<Self, CheckpointError> {
        // Taken in one by one: all of them beside the state would be all of it twice.
        let mut import = Import::new();
        let (checkpointer, loaded) = Checkpointer::open(dir, |key, value| {
            progress.fetch_add(1, Ordering::Relaxed);
            import.add(key, &value);
        })?;
        Ok(Self { checkpointer, loaded, import })
    }
}

/// What `work` gives, or nothing once `progress` stood still for `stall`.
async fn unless_stalled<W: Future>(
    work: W,
    stall: Duration,
    progress: &AtomicU64,
) -> Option<W::Output> {
    let mut work = std::pin::pin!(work);
    let mut last = None;
    loop {
        if let Ok(done) = timeout(stall, work.as_mut()).await {
            return Some(done);
        }
        let now = progress.load(Ordering::Relaxed);
        if last.replace(now) == Some(now) {
            return None;
        }
    }
}

impl Keeper {
    /// Opens the checkpoint in `dir` and fills `state`, which must be new, from it if it is whole
    /// and of this cluster. Blocks on the disk.
    #[cfg(test)]
    pub(crate) fn open(
        dir: &Path,
        cluster: ClusterId,
        state: Arc<State>,
    ) -> Result<Self, CheckpointError> {
        Ok(Self::of(Found::read(dir, &AtomicU64::new(0))?, cluster, state))
    }

    /// The same without blocking, and without waiting for a checkpoint that gives nothing any more: its
    /// backend may wait for ever for itself.
    pub(crate) async fn open_unless_stalled(
        dir: PathBuf,
        cluster: ClusterId,
        state: Arc<State>,
    ) -> Result<Self, OpenError> {
        let progress = Arc::new(AtomicU64::new(0));
        let (sender, found) = oneshot::channel();
        let reading = progress.clone();
        // A thread that nobody waits for at the end.
        std::thread::Builder::new()
            .name("checkpoint-read".to_owned())
            .spawn(move || drop(sender.send(Found::read(&dir, &reading))))?;
        let found = unless_stalled(found, STALL, &progress).await.ok_or(OpenError::Stalled)?;
        let found = found.map_err(|_| OpenError::Ended)??;
        let filled = tokio::task::spawn_blocking(move || Self::of(found, cluster, state));
        filled.await.map_err(|_| OpenError::Ended)
    }

    fn of(found: Found, cluster: ClusterId, state: Arc<State>) -> Self {
        let Found { checkpointer, loaded, import } = found;
        let complete = match loaded {
            Loaded::Nothing { reason } => {
                if let Some(reason) = reason {
                    tracing::warn!(reason, "not starting from the checkpoint");
                }
                false
            }
            Loaded::State(mark) => fill(&state, &mark, cluster, import),
        };
        k3sup_rs_allocator::give_back();
        let checkpointer = Arc::new(checkpointer);
        Self { checkpointer, observer: None, cluster, state, complete }
    }

    /// With somebody who is told how long each batch took.
    pub(crate) fn observed_by(self, observer: Option<Observer>) -> Self {
        Self { observer, ..self }
    }

    /// For who wants to know its size or have it rewritten.
    pub(crate) fn handle(&self) -> CheckpointHandle {
        CheckpointHandle(Arc::downgrade(&self.checkpointer))
    }

    /// Adds what changed, again and again.
    pub(crate) async fn run(mut self) {
        loop {
            match self.keep().await {
                Ok(()) => self.pause().await,
                Err(error) => {
                    tracing::warn!(%error, "the checkpoint begins afresh");
                    self.complete = false;
                    sleep(RETRY_PAUSE).await;
                }
            }
        }
    }

    /// Waits until there is enough to do.
    async fn pause(&self) {
        let end = tokio::time::Instant::now() + INTERVAL;
        while tokio::time::Instant::now() < end && self.state.unsaved_bytes() < CHANGES_BYTES_MAX {
            sleep(LOOK_INTERVAL).await;
        }
    }

    /// Adds what changed since the last time, or begins with everything.
    pub(crate) async fn keep(&mut self) -> Result<(), KeepError> {
        let changes = if self.complete { self.state.take_dirty() } else { None };
        match changes {
            Some(changes) if changes.is_empty() => Ok(()),
            Some(changes) => self.commit(Box::new(self.batches(changes, false))).await,
            None => self.begin().await,
        }
    }

    /// Writes the whole state, and has changes marked from its moment on. Batch by batch, since a member that
    /// is stopped meanwhile does not wait for all of it.
    async fn begin(&mut self) -> Result<(), KeepError> {
        self.complete = false;
        for batch in self.batches(self.state.take_all(), true) {
            self.commit(Box::new(std::iter::once(batch))).await?;
        }
        self.complete = true;
        Ok(())
    }

    fn batches(&self, changes: Changes, reset: bool) -> Portions<Changes> {
        let mark = self.mark(changes.applied_index, changes.applied_term);
        Portions { records: changes, reset, mark: Some(mark) }
    }

    fn mark(&self, index: u64, term: u64) -> Mark {
        Mark { index, term, beside: Bytes::copy_from_slice(&self.cluster.to_le_bytes()) }
    }

    /// Makes batches durable. All are handed over at once: a member that is stopped meanwhile ends with all of
    /// them.
    async fn commit(&self, batches: Batches) -> Result<(), KeepError> {
        let started = Instant::now();
        let (done, durable) = oneshot::channel();
        self.checkpointer.commit(batches, Box::new(move |result| drop(done.send(result))));
        durable.await.map_err(|_| KeepError::Ended)??;
        if let Some(observer) = &self.observer {
            observer(started.elapsed());
        }
        Ok(())
    }
}

/// Fills `state` from a checkpoint's records; gives whether it could.
fn fill(state: &State, mark: &Mark, cluster: ClusterId, import: Import) -> bool {
    if *mark.beside != cluster.to_le_bytes() {
        tracing::warn!("the checkpoint is of another cluster");
        return false;
    }
    if let Err(error) = state.install(import) {
        tracing::warn!(%error, "the checkpoint cannot be used");
        return false;
    }
    state.track();
    tracing::info!(index = mark.index, "started from the checkpoint");
    true
}

/// Records as transactions of a bounded size; the last one has the mark.
struct Portions<R> {
    records: R,
    /// The first one begins with an empty checkpoint.
    reset: bool,
    /// `None` once all were given.
    mark: Option<Mark>,
}

impl<R: Iterator<Item = Result<Record, Replaced>>> Portions<R> {
    /// Some records, and whether they are the last.
    fn take(&mut self) -> Result<(Vec<Change>, bool), Replaced> {
        let (mut changes, mut bytes) = (Vec::new(), 0);
        while changes.len() < BATCH_RECORDS && bytes < BATCH_BYTES {
            let Some(Record { key, value }) = self.records.next().transpose()? else {
                return Ok((changes, true));
            };
            bytes += key.len() + value.as_ref().map_or(0, Bytes::len);
            changes.push((key, value));
        }
        Ok((changes, false))
    }
}

impl<R: Iterator<Item = Result<Record, Replaced>>> Iterator for Portions<R> {
    type Item = Result<Batch, CheckpointError>;

    fn next(&mut self) -> Option<Self::Item> {
        let mark = self.mark.take()?;
        let reset = std::mem::take(&mut self.reset);
        Some(match self.take() {
            Ok((changes, true)) => Ok(Batch { reset, changes, mark: Some(mark) }),
            Ok((changes, false)) => {
                self.mark = Some(mark);
                Ok(Batch { reset, changes, mark: None })
            }
            Err(replaced) => Err(CheckpointError::Interrupted(replaced.to_string())),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records(count: usize, bytes: usize) -> Vec<Record> {
        let value = Bytes::from(vec![0; bytes]);
        (0..count)
            .map(|at| Record { key: at.to_be_bytes().to_vec(), value: Some(value.clone()) })
            .collect()
    }

    fn sizes(records: Vec<Record>) -> Vec<(usize, bool)> {
        let all: Vec<_> =
            records.iter().cloned().map(|record| (record.key, record.value)).collect();
        let mark = Some(Mark { index: 7, ..Mark::default() });
        let portions = Portions { records: records.into_iter().map(Ok), reset: true, mark };
        let batches: Vec<Batch> = portions.map(Result::unwrap).collect();
        assert!(batches.iter().enumerate().all(|(at, batch)| batch.reset == (at == 0)));
        let sizes = batches.iter().map(|batch| (batch.changes.len(), batch.mark.is_some()));
        let sizes = sizes.collect();
        let changes: Vec<_> = batches.into_iter().flat_map(|batch| batch.changes).collect();
        assert_eq!(changes, all);
        sizes
    }

    #[test]
    fn many_changes_are_several_transactions_the_last_with_the_mark() {
        assert_eq!(sizes(records(3, 10)), [(3, true)]);
        assert_eq!(sizes(records(BATCH_RECORDS, 10)), [(BATCH_RECORDS, false), (0, true)]);
        assert_eq!(sizes(records(BATCH_RECORDS + 1, 10)), [(BATCH_RECORDS, false), (1, true)]);
        let large = sizes(records(3, BATCH_BYTES));
        assert_eq!(large, [(1, false), (1, false), (1, false), (0, true)]);
    }

    #[tokio::test]
    async fn what_stands_still_is_not_waited_for() {
        let (progress, stall) = (AtomicU64::new(0), Duration::from_millis(20));
        assert_eq!(unless_stalled(async { 7 }, stall, &progress).await, Some(7));
        let stuck = std::future::pending::<()>();
        assert_eq!(unless_stalled(stuck, stall, &progress).await, None);
        let slow = async {
            for _ in 0..10 {
                sleep(stall / 4).await;
                progress.fetch_add(1, Ordering::Relaxed);
            }
        };
        assert_eq!(unless_stalled(slow, stall, &progress).await, Some(()));
    }

    #[test]
    fn a_state_that_is_replaced_meanwhile_is_given_no_mark() {
        let records = [Ok(records(1, 1).remove(0)), Err(Replaced)].into_iter();
        let mut portions = Portions { records, reset: false, mark: Some(Mark::default()) };
        assert!(matches!(portions.next(), Some(Err(CheckpointError::Interrupted(_)))));
        assert!(portions.next().is_none());
    }
}
