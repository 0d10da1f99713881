//! Keeps the checkpoint up with the state, off the path of any request, and starts from it.
//!
//! The checkpoint is a convenience: whatever is wrong with it, the member starts from its newest
//! snapshot and the log instead, and begins a new checkpoint with a full export.

use std::path::Path;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::oneshot;
use tokio::time::sleep;

use super::config::Observer;
use crate::store::checkpoint::{Batch, CheckpointError, Checkpointer, Loaded, Mark};
use crate::store::state::{Import, Record, State};
use crate::store::types::ClusterId;

/// The checkpoint's directory in the member's.
pub const CHECKPOINT: &str = "checkpoint";
/// Between two batches of changes: what a start has to replay from the log.
const INTERVAL: Duration = Duration::from_secs(5);
/// With so many changes the next batch does not wait: a batch is in memory several times while it is written.
const CHANGES_BYTES_MAX: u64 = 1024 * 1024;
/// Most records in one transaction, and about their bytes: until its end sled keeps all that it replaces,
/// 3 to 10 KB for each record. More changes than that are several transactions, and a process that is
/// killed between them starts from the snapshot and the log.
const BATCH_RECORDS: usize = 2048;
const BATCH_BYTES: usize = 1024 * 1024;
/// How often it is looked how many there are.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);
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
    #[error(transparent)]
    Replaced(#[from] crate::store::state::Replaced),
}

impl Keeper {
    /// Opens the checkpoint in `dir` and fills `state`, which must be new, from it if it is whole
    /// and of this cluster. Blocks on the disk.
    pub(crate) fn open(
        dir: &Path,
        cluster: ClusterId,
        state: Arc<State>,
    ) -> Result<Self, CheckpointError> {
        // Taken in one by one: all of them beside the state would be all of it twice.
        let mut import = Import::new();
        let (checkpointer, loaded) = Checkpointer::open(dir, |key, value| import.add(key, &value))?;
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
        Ok(Self { checkpointer, observer: None, cluster, state, complete })
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
        let Some(changes) = changes else { return self.export().await };
        if changes.records.is_empty() {
            return Ok(());
        }
        let mark = self.mark(changes.applied_index, changes.applied_term);
        self.commit(batches(changes.records, mark)).await
    }

    /// Writes the whole state, and has changes marked from its moment on.
    async fn export(&mut self) -> Result<(), KeepError> {
        self.complete = false;
        let mut export = self.state.export_and_track();
        let (index, term) = export.applied();
        let mut reset = true;
        loop {
            let mut portion = Portion::default();
            while !portion.is_full()
                && let Some(record) = export.next().transpose()?
            {
                portion.push(record);
            }
            let last = !portion.is_full();
            let mark = last.then(|| self.mark(index, term));
            self.commit(vec![Batch { reset, changes: portion.changes, mark }]).await?;
            reset = false;
            if last {
                self.complete = true;
                return Ok(());
            }
        }
    }

    fn mark(&self, index: u64, term: u64) -> Mark {
        Mark { index, term, beside: Bytes::copy_from_slice(&self.cluster.to_le_bytes()) }
    }

    /// Makes batches durable, one after the other. All are handed over at once: a member that is stopped
    /// meanwhile ends with all of them.
    async fn commit(&self, batches: Vec<Batch>) -> Result<(), KeepError> {
        let started = Instant::now();
        let waiting = batches.into_iter().map(|batch| {
            let (done, durable) = oneshot::channel();
            let done = move |result| drop(done.send(result));
            self.checkpointer.commit(batch, Box::new(done));
            durable
        });
        for durable in waiting.collect::<Vec<_>>() {
            durable.await.map_err(|_| KeepError::Ended)??;
        }
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

/// What goes into one transaction.
#[derive(Default)]
struct Portion {
    changes: Vec<(Vec<u8>, Option<Bytes>)>,
    bytes: usize,
}

impl Portion {
    fn is_full(&self) -> bool {
        self.changes.len() >= BATCH_RECORDS || self.bytes >= BATCH_BYTES
    }

    fn push(&mut self, Record { key, value }: Record) {
        self.bytes += key.len() + value.as_ref().map_or(0, Bytes::len);
        self.changes.push((key, value));
    }
}

/// Changes as transactions of a bounded size; the last one has the mark.
fn batches(records: Vec<Record>, mark: Mark) -> Vec<Batch> {
    let mut batches = Vec::new();
    let mut portion = Portion::default();
    for record in records {
        if portion.is_full() {
            let changes = std::mem::take(&mut portion).changes;
            batches.push(Batch { changes, ..Batch::default() });
        }
        portion.push(record);
    }
    batches.push(Batch { reset: false, changes: portion.changes, mark: Some(mark) });
    batches
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
        let batches = batches(records, Mark { index: 7, ..Mark::default() });
        assert!(batches.iter().all(|batch| !batch.reset));
        let sizes = batches.iter().map(|batch| (batch.changes.len(), batch.mark.is_some()));
        let sizes = sizes.collect();
        let changes: Vec<_> = batches.into_iter().flat_map(|batch| batch.changes).collect();
        assert_eq!(changes, all);
        sizes
    }

    #[test]
    fn many_changes_are_several_transactions_the_last_with_the_mark() {
        assert_eq!(sizes(records(3, 10)), [(3, true)]);
        assert_eq!(sizes(records(BATCH_RECORDS, 10)), [(BATCH_RECORDS, true)]);
        assert_eq!(sizes(records(BATCH_RECORDS + 1, 10)), [(BATCH_RECORDS, false), (1, true)]);
        assert_eq!(sizes(records(3, BATCH_BYTES)), [(1, false), (1, false), (1, true)]);
    }
}
