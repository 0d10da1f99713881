//! What all parts of a running member share.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::sync::watch;
use tokio::time::timeout;

use super::api::{ConsensusError, RaftStatus};
use super::applied::{Applied, Stopped};
use super::config::Timing;
use super::contact::Contact;
use super::leases::LeaseKeeper;
use super::log::LogStore;
use super::machine::Machine;
use super::net::links::Links;
use super::read::ReadQueue;
use super::snapshot::SnapshotStore;
use super::types::TypeConfig;
use crate::store::state::State;
use crate::store::types::{MemberId, MemberRecord};

/// Most proposals that wait at the same time.
const PROPOSALS_MAX: usize = 32 * 1024;

/// One running member.
pub(crate) struct Shared {
    pub(crate) id: MemberId,
    pub(crate) member: MemberRecord,
    pub(crate) timing: Timing,
    pub(crate) raft: openraft::Raft<TypeConfig, Machine>,
    pub(crate) log: LogStore,
    pub(crate) state: Arc<State>,
    pub(crate) links: Arc<Links>,
    pub(crate) contact: Contact,
    pub(crate) snapshots: Arc<SnapshotStore>,
    pub(crate) status: watch::Sender<RaftStatus>,
    pub(crate) applied: Applied,
    pub(crate) reads: ReadQueue,
    pub(crate) leases: Arc<LeaseKeeper>,
    /// Held while the membership is changed: one change at a time.
    pub(crate) changing: tokio::sync::Mutex<()>,
    pub(crate) proposals: AtomicUsize,
    pub(crate) closing: AtomicBool,
}

/// A place among the proposals that wait.
pub(crate) struct Admitted<'a>(&'a AtomicUsize);

impl Drop for Admitted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Shared {
    /// Takes a place among the proposals that wait.
    pub(crate) fn admit(&self) -> Result<Admitted<'_>, ConsensusError> {
        let admitted = Admitted(&self.proposals);
        if self.proposals.fetch_add(1, Ordering::Relaxed) >= PROPOSALS_MAX {
            drop(admitted);
            return Err(ConsensusError::TooManyRequests);
        }
        Ok(admitted)
    }

    /// Whether the member is stopping.
    pub(crate) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Relaxed)
    }

    /// Waits until this member has applied the entry at `index`.
    pub(crate) async fn applied_upto(&self, index: u64) -> Result<(), ConsensusError> {
        match timeout(self.timing.request_timeout(), self.applied.reaches(index)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(Stopped)) => Err(ConsensusError::Stopped),
            Err(_) => Err(ConsensusError::Timeout),
        }
    }
}
