//! A cluster of one whose log is the order of calls.

use std::fs::File;
use std::io::{self, Seek, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures::FutureExt;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::raft::api::{Applied, Consensus, ConsensusError, LeaseView, RaftStatus};
use crate::rpc::disk::Disk;
use crate::store::state::State;
use crate::store::types::{AlarmKind, Command, LeaseId, MemberId, MemberRecord};

/// Consensus that applies at once, and fails when it is told to.
pub(super) struct Solo {
    state: Arc<State>,
    status: watch::Sender<RaftStatus>,
    index: Mutex<u64>,
    failure: Mutex<Option<ConsensusError>>,
    /// Linearizable reads are never answered.
    pub(super) stalled: AtomicBool,
    /// What [`Disk::snapshot`] gives.
    pub(super) snapshot: Mutex<Vec<u8>>,
}

impl Solo {
    pub(super) fn new(state: Arc<State>, id: MemberId) -> Self {
        let status =
            RaftStatus { id, term: 3, leader: Some(id), voters: vec![id], ..RaftStatus::default() };
        let solo = Self {
            state,
            status: watch::Sender::new(status),
            index: Mutex::new(0),
            failure: Mutex::new(None),
            stalled: AtomicBool::new(false),
            snapshot: Mutex::new(b"a snapshot".to_vec()),
        };
        solo.apply(Command::MemberPut(MemberRecord {
            id,
            name: "solo".into(),
            peer_urls: vec!["http://127.0.0.1:1".into()],
            client_urls: vec!["http://127.0.0.1:2".into()],
        }));
        solo
    }

    /// Fails every call from now on, or none.
    pub(super) fn fail(&self, failure: Option<ConsensusError>) {
        *self.failure.lock() = failure;
    }

    pub(super) fn change_status(&self, change: impl FnOnce(&mut RaftStatus)) {
        self.status.send_modify(change);
    }

    pub(super) fn alarms(&self) -> Vec<(MemberId, AlarmKind)> {
        self.state.alarms()
    }

    pub(super) fn raise(&self, kind: AlarmKind) {
        self.apply(Command::Alarm { active: true, member: 1, kind });
    }

    fn up(&self) -> Result<(), ConsensusError> {
        self.failure.lock().clone().map_or(Ok(()), Err)
    }

    fn apply(&self, command: Command) -> Applied {
        let mut index = self.index.lock();
        *index += 1;
        let outcome = self.state.apply(*index, 3, command);
        self.status.send_modify(|status| {
            status.last_log_index = *index;
            status.committed_index = *index;
            status.applied_index = *index;
        });
        Applied { index: *index, term: 3, outcome }
    }
}

impl Consensus for Solo {
    fn propose(&self, command: Command) -> BoxFuture<'_, Result<Applied, ConsensusError>> {
        async { self.up().map(|()| self.apply(command)) }.boxed()
    }

    fn read_barrier(&self) -> BoxFuture<'_, Result<(), ConsensusError>> {
        let barrier = async {
            if self.stalled.load(Ordering::Relaxed) {
                std::future::pending::<()>().await;
            }
            self.up()
        };
        barrier.boxed()
    }

    fn lease_renew(&self, id: LeaseId) -> BoxFuture<'_, Result<i64, ConsensusError>> {
        async move {
            self.up()?;
            Ok(self.state.lease(id).map_or(0, |lease| lease.seconds_left()))
        }
        .boxed()
    }

    fn lease_view(
        &self,
        id: LeaseId,
        keys: bool,
    ) -> BoxFuture<'_, Result<LeaseView, ConsensusError>> {
        async move {
            self.up()?;
            Ok(match self.state.lease(id) {
                None => LeaseView { granted_ttl: 0, ttl: -1, keys: Vec::new() },
                Some(lease) => LeaseView {
                    granted_ttl: lease.seconds_left(),
                    ttl: lease.seconds_left(),
                    keys: if keys { lease.keys() } else { Vec::new() },
                },
            })
        }
        .boxed()
    }

    fn lease_sort(&self, leases: &mut [LeaseId]) {
        let left = |id: &LeaseId| self.state.lease(*id).map(|lease| lease.seconds_left());
        leases.sort_by_key(left);
    }

    fn member_add(
        &self,
        member: MemberRecord,
        _voter: bool,
    ) -> BoxFuture<'_, Result<(), ConsensusError>> {
        async move {
            self.up()?;
            let known = self.state.members();
            if known.iter().any(|other| other.peer_urls == member.peer_urls) {
                return Err(ConsensusError::PeerUrlExists);
            }
            self.change_status(|status| status.learners.push(member.id));
            self.apply(Command::MemberPut(member));
            Ok(())
        }
        .boxed()
    }

    fn member_promote(&self, id: MemberId) -> BoxFuture<'_, Result<(), ConsensusError>> {
        async move {
            self.up()?;
            if !self.status.borrow().learners.contains(&id) {
                return Err(ConsensusError::NotLearner);
            }
            self.change_status(|status| {
                status.learners.retain(|learner| *learner != id);
                status.voters.push(id);
            });
            Ok(())
        }
        .boxed()
    }

    fn member_remove(&self, id: MemberId) -> BoxFuture<'_, Result<(), ConsensusError>> {
        async move {
            self.up()?;
            if self.state.member(id).is_none() {
                return Err(ConsensusError::MemberNotFound);
            }
            self.change_status(|status| {
                status.learners.retain(|other| *other != id);
                status.voters.retain(|other| *other != id);
            });
            self.apply(Command::MemberDelete { id });
            Ok(())
        }
        .boxed()
    }

    fn member_update(
        &self,
        id: MemberId,
        peer_urls: Vec<String>,
    ) -> BoxFuture<'_, Result<(), ConsensusError>> {
        async move {
            self.up()?;
            let member = self.state.member(id).ok_or(ConsensusError::MemberNotFound)?;
            self.apply(Command::MemberPut(MemberRecord { peer_urls, ..member }));
            Ok(())
        }
        .boxed()
    }

    fn transfer_leader(&self, to: Option<MemberId>) -> BoxFuture<'_, Result<(), ConsensusError>> {
        async move {
            self.up()?;
            self.change_status(|status| status.leader = to);
            Ok(())
        }
        .boxed()
    }

    fn status(&self) -> watch::Receiver<RaftStatus> {
        self.status.subscribe()
    }

    fn snapshot_now(&self) -> BoxFuture<'_, Result<(), ConsensusError>> {
        async { self.up() }.boxed()
    }

    fn shutdown(&self) -> BoxFuture<'_, ()> {
        async {}.boxed()
    }
}

impl Disk for Solo {
    fn size(&self) -> Option<u64> {
        Some(4096)
    }

    fn defragment(&self) -> BoxFuture<'_, io::Result<()>> {
        async { Ok(()) }.boxed()
    }

    fn snapshot(&self) -> BoxFuture<'_, io::Result<File>> {
        async {
            let mut file = tempfile::tempfile()?;
            file.write_all(&self.snapshot.lock())?;
            file.rewind()?;
            Ok(file)
        }
        .boxed()
    }
}
