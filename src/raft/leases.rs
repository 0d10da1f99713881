//! Leases on the leader: time runs only here. What is granted and revoked comes from the state
//! machine; what expires is proposed to be revoked.
//!
//! A revocation is proposed in the term in which the clock was started: a leader that lost its
//! place and got it back meanwhile must not end a lease by its old clock.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt;
use openraft::LinearizerOption;
use parking_lot::Mutex;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::api::{ConsensusError, LeaseView};
use super::shared::Shared;
use crate::store::codec;
use crate::store::lease::{LeaseClock, Renewal};
use crate::store::types::{Command, LeaseId};

/// Between two looks at the clock (etcd `server/lease/lessor.go`, `revokeExpiredLeases`).
const TICK: Duration = Duration::from_millis(500);
/// Most leases revoked in one tick (`leaseRevokeRate` of 1000 a second).
const REVOKES_MAX: usize = 500;
/// Revocations on their way at the same time (`maxPendingRevokes`).
const REVOKES_AT_ONCE: usize = 16;

/// The clock, and the term in which it was started.
#[derive(Default)]
pub(crate) struct LeaseKeeper(Mutex<(LeaseClock, u64)>);

/// What a command does to a lease, once it is applied.
pub(crate) enum LeaseChange {
    Granted(LeaseId, i64),
    Revoked(LeaseId),
    Checkpointed(Vec<(LeaseId, i64)>),
}

impl LeaseChange {
    pub(crate) fn of(command: &Command) -> Option<Self> {
        match command {
            Command::LeaseGrant { id, ttl } => Some(Self::Granted(*id, *ttl)),
            Command::LeaseRevoke { id } => Some(Self::Revoked(*id)),
            Command::LeaseCheckpoint { remaining } => Some(Self::Checkpointed(remaining.clone())),
            Command::As { command, .. } => Self::of(command),
            _ => None,
        }
    }
}

impl LeaseKeeper {
    /// Takes in what was applied.
    pub(crate) fn note(&self, changes: impl Iterator<Item = (usize, LeaseChange)>) {
        let mut changes = changes.peekable();
        if changes.peek().is_none() {
            return;
        }
        let clock = &mut self.0.lock().0;
        for (_, change) in changes {
            match change {
                LeaseChange::Granted(id, ttl) => clock.granted(id, ttl, Instant::now()),
                LeaseChange::Revoked(id) => clock.revoked(id),
                LeaseChange::Checkpointed(remaining) => {
                    for (id, seconds) in remaining {
                        clock.checkpointed(id, seconds);
                    }
                }
            }
        }
    }

    fn is_started(&self, term: u64) -> bool {
        let started = self.0.lock();
        started.0.is_leader() && started.1 == term
    }
}

impl Shared {
    /// Runs the clock while this member leads.
    pub(crate) async fn keep_leases(self: Arc<Self>) {
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut status = self.status.subscribe();
        loop {
            tokio::select! {
                _ = tick.tick() => {}
                changed = status.wait_for(|now| now.is_leader() != self.leases.is_running()) => {
                    if changed.is_err() {
                        return;
                    }
                }
            }
            let (leads, term) = {
                let now = self.status.borrow();
                (now.is_leader() && !self.is_closing(), now.term)
            };
            if !leads {
                self.leases.0.lock().0.demote();
            } else if self.leases.is_started(term) {
                self.end_leases(term).await;
            } else if self.start_clock(term).await.is_err() {
                tokio::time::sleep(TICK / 10).await;
            }
        }
    }

    /// Starts the clock once all that earlier leaders committed is applied.
    async fn start_clock(&self, term: u64) -> Result<(), ConsensusError> {
        let index = self.read_index().await?;
        self.applied_upto(index).await?;
        // The lock is held while the leases are read, so that none that is applied now is missed.
        let mut clock = self.leases.0.lock();
        let leases = self.state.lease_times();
        clock.0.promote(leases, Instant::now(), self.timing.election());
        clock.1 = term;
        Ok(())
    }

    async fn end_leases(&self, term: u64) {
        let (expired, checkpoints) = {
            let mut clock = self.leases.0.lock();
            let now = Instant::now();
            (clock.0.expired(now, REVOKES_MAX), clock.0.checkpoints_due(now))
        };
        let mut commands: Vec<_> =
            expired.into_iter().map(|id| Command::LeaseRevoke { id }).collect();
        if !checkpoints.is_empty() {
            commands.push(Command::LeaseCheckpoint { remaining: checkpoints });
        }
        let proposed =
            futures::stream::iter(commands).for_each_concurrent(REVOKES_AT_ONCE, async |command| {
                let proposal = self.propose_in_term(codec::encode(&command), term);
                let is_end = matches!(command, Command::LeaseRevoke { .. });
                match timeout(self.timing.request_timeout(), proposal).await {
                    Ok(Ok(())) if is_end => self.state.note_expiry(),
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => tracing::debug!(%error, "a lease is ended later"),
                    Err(_) => tracing::debug!("a lease is ended later: no quorum"),
                }
            });
        proposed.await;
    }

    /// Errs unless this member led a moment ago, as a quorum saw it: answers about leases must not
    /// come from a leader that was replaced while it slept.
    async fn ensure_leader(&self) -> Result<(), ConsensusError> {
        if self.leads_alone() {
            return Ok(());
        }
        let option = LinearizerOption::new(None, true).with_wait_timeout(self.timing.election());
        match self.raft.get_read_log_id(option).await {
            Ok(_) => Ok(()),
            Err(_) => Err(ConsensusError::NotLeader),
        }
    }

    /// Renews a lease on the leader.
    pub(crate) async fn lease_renew_here(&self, id: LeaseId) -> Result<i64, ConsensusError> {
        self.ensure_leader().await?;
        let mut applied = self.applied.subscribe();
        loop {
            applied.borrow_and_update();
            let renewed = self.leases.0.lock().0.renew(id, Instant::now());
            match renewed {
                Renewal::Renewed { ttl, clear_checkpoint } => {
                    if clear_checkpoint {
                        let remaining = vec![(id, 0)];
                        self.propose(&Command::LeaseCheckpoint { remaining }).await?;
                    }
                    self.state.note_renewal();
                    return Ok(ttl);
                }
                Renewal::NotFound => return Ok(0),
                Renewal::NotLeader => return Err(ConsensusError::NotLeader),
                // It is about to be revoked: the answer has to wait for that.
                Renewal::Expired => {
                    if applied.changed().await.is_err() {
                        return Err(ConsensusError::Stopped);
                    }
                }
            }
        }
    }

    /// How long a lease has left, on the leader.
    pub(crate) async fn lease_view_here(
        &self,
        id: LeaseId,
        keys: bool,
    ) -> Result<LeaseView, ConsensusError> {
        self.ensure_leader().await?;
        let left = {
            let clock = self.leases.0.lock();
            if !clock.0.is_leader() {
                return Err(ConsensusError::NotLeader);
            }
            clock.0.remaining(id, Instant::now())
        };
        let (Some(ttl), Some(lease)) = (left, self.state.lease(id)) else {
            return Ok(LeaseView { granted_ttl: 0, ttl: -1, keys: Vec::new() });
        };
        let keys = if keys { lease.keys() } else { Vec::new() };
        Ok(LeaseView { granted_ttl: lease.ttl, ttl, keys })
    }
}

impl LeaseKeeper {
    /// Puts leases into the order in which they end, if this member leads.
    pub(crate) fn sort(&self, leases: &mut [LeaseId]) {
        self.0.lock().0.sort_by_end(leases);
    }

    fn is_running(&self) -> bool {
        self.0.lock().0.is_leader()
    }
}
