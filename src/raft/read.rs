//! Linearizable reads: all that wait at the same time share one round with the leader.
//!
//! ReadIndex: the leader proves with a round of heartbeats that it still leads, and gives its commit
//! index; a member that has applied that far may read locally. Calls that come while a round runs
//! share the next one, because their answer must not be older than the call. A leader that is the only
//! voter needs no round.

use std::sync::Arc;
use std::time::Duration;

use openraft::async_runtime::watch::WatchReceiver as _;
use openraft::errors::{LinearizableReadError, RaftError};
use openraft::{LinearizerOption, ReadPolicy};
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};
use tokio::time::{sleep, timeout};

use super::api::ConsensusError;
use super::forward::{Call, Told};
use super::shared::Shared;

/// Pause after a round that failed.
const RETRY_PAUSE: Duration = Duration::from_millis(20);

type Waiter = oneshot::Sender<Result<(), ConsensusError>>;

/// The calls that wait for the next round.
#[derive(Default)]
pub(crate) struct ReadQueue {
    waiting: Mutex<Vec<Waiter>>,
    arrived: Notify,
}

impl ReadQueue {
    fn take(&self) -> Vec<Waiter> {
        std::mem::take(&mut *self.waiting.lock())
    }
}

impl Shared {
    /// Waits until all that was committed before the call is applied here.
    pub(crate) async fn read_barrier(&self) -> Result<(), ConsensusError> {
        if self.is_closing() {
            return Err(ConsensusError::Stopped);
        }
        if self.leads_alone() {
            return Ok(());
        }
        let (waiter, ready) = oneshot::channel();
        self.reads.waiting.lock().push(waiter);
        self.reads.arrived.notify_one();
        match timeout(self.timing.request_timeout(), ready).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(ConsensusError::Stopped),
            Err(_) => Err(ConsensusError::Timeout),
        }
    }

    /// Whether this member leads and nobody else votes: then nobody can have taken its place, and all that it has
    /// acknowledged it has applied, also what it acknowledged before it was started again, once an entry
    /// of its term is applied. This is as openraft's task told last. Between that and a quorum without
    /// this member lie two changes of the voters, and that task tells of the first before it makes the other.
    pub(crate) fn leads_alone(&self) -> bool {
        let metrics = self.raft.metrics();
        let now = metrics.borrow_watched();
        let mut voters = now.membership_config.membership().get_joint_config().iter().flatten();
        let term = now.last_applied.map(|applied| applied.leader_id.term);
        now.running_state.is_ok()
            && now.state.is_leader()
            && term == Some(now.current_term)
            && voters.all(|id| *id == self.id)
    }

    /// Runs round after round while calls wait.
    pub(crate) async fn serve_reads(self: Arc<Self>) {
        let mut batch = Vec::new();
        loop {
            batch.append(&mut self.reads.take());
            batch.retain(|waiter| !waiter.is_closed());
            if batch.is_empty() {
                self.reads.arrived.notified().await;
                continue;
            }
            let result = timeout(self.timing.election(), self.read_round()).await;
            match result.unwrap_or(Err(ConsensusError::Timeout)) {
                Ok(()) => answer(&mut batch, &Ok(())),
                Err(ConsensusError::Stopped) => answer(&mut batch, &Err(ConsensusError::Stopped)),
                // Nothing was done: those who wait share the next round with those who came since.
                Err(_) => sleep(RETRY_PAUSE).await,
            }
        }
    }

    async fn read_round(&self) -> Result<(), ConsensusError> {
        let index = if self.status.borrow().is_leader() {
            self.read_index().await?
        } else {
            match self.ask(Call::ReadIndex).await? {
                Told::Index(index) => index,
                _ => return Err(ConsensusError::ConnectionLost),
            }
        };
        self.applied_upto(index).await
    }

    /// On the leader: the index up to which a reader must have applied.
    pub(crate) async fn read_index(&self) -> Result<u64, ConsensusError> {
        let option =
            LinearizerOption::from(ReadPolicy::ReadIndex).with_wait_timeout(self.timing.election());
        match self.raft.get_read_log_id(option).await {
            Ok((read, _)) => Ok(read.index()),
            Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(_))) => {
                Err(ConsensusError::NotLeader)
            }
            Err(RaftError::APIError(LinearizableReadError::QuorumNotEnough(_))) => {
                Err(ConsensusError::Timeout)
            }
            Err(RaftError::Fatal(_)) => Err(ConsensusError::Stopped),
        }
    }
}

fn answer(batch: &mut Vec<Waiter>, result: &Result<(), ConsensusError>) {
    for waiter in batch.drain(..) {
        let _ = waiter.send(result.clone());
    }
}
