//! openraft's state machine over [`State`]: applies what is committed, in order.
//!
//! Beside the state stand the membership and everybody who was ever removed, as opaque bytes that
//! the state carries in its snapshots.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use futures::{Stream, StreamExt};
use openraft::EntryPayload;
use openraft::storage::{ApplyResponder, EntryResponder, RaftStateMachine};
use serde::{Deserialize, Serialize};

use super::applied::Applying;
use super::entry::log_id;
use super::leases::{LeaseChange, LeaseKeeper};
use super::log::LogStore;
use super::net::identity::Context;
use super::snapshot::{SnapshotFile, SnapshotMaker, SnapshotStore};
use super::status::note_removed;
use super::types::{LogId, Membership, SnapshotMeta, StoredMembership, TypeConfig};
use crate::store::codec;
use crate::store::state::State;
use crate::store::types::{Command, MemberId};

/// Most commands applied before their proposers are answered.
const BATCH_MAX: usize = 256;

/// A state of up to so many bytes is written into a snapshot whenever openraft asks for one.
const SMALL_STATE_BYTES: u64 = 16 * 1024 * 1024;

/// What Raft keeps beside the state.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Beside {
    /// The last applied membership.
    pub(crate) membership: StoredMembership,
    /// All members that ever were removed.
    pub(crate) removed: BTreeSet<MemberId>,
}

impl Beside {
    /// What the state carries; nothing before the first entry.
    pub(crate) fn of(state: &State) -> io::Result<Option<Self>> {
        let invalid = |error| io::Error::new(io::ErrorKind::InvalidData, error);
        let read = |bytes: Bytes| postcard::from_bytes(&bytes).map_err(invalid);
        state.membership().map(read).transpose()
    }

    /// As the state carries it.
    pub(crate) fn encode(&self) -> io::Result<Bytes> {
        Ok(postcard::to_stdvec(self).map_err(io::Error::other)?.into())
    }

    /// Takes in a new membership.
    pub(crate) fn change(&mut self, log_id: LogId, membership: Membership) {
        let stays = |id: &MemberId| membership.get_node(id).is_some();
        let before = self.membership.membership().nodes();
        let gone: Vec<MemberId> = before.map(|(id, _)| *id).filter(|id| !stays(id)).collect();
        self.removed.extend(gone);
        self.membership = StoredMembership::new(Some(log_id), membership);
    }
}

/// What a state machine works with.
pub(crate) struct Parts {
    pub(crate) context: Arc<Context>,
    pub(crate) state: Arc<State>,
    pub(crate) snapshots: Arc<SnapshotStore>,
    pub(crate) log: LogStore,
    /// Told what is applied.
    pub(crate) applied: Applying,
    /// Told what happens to leases.
    pub(crate) leases: Arc<LeaseKeeper>,
}

/// The state machine of one member.
pub(crate) struct Machine {
    parts: Parts,
    beside: Option<Beside>,
}

/// Commands that are applied together.
#[derive(Default)]
struct Batch {
    commands: Vec<(u64, u64, Command)>,
    responders: Vec<Option<ApplyResponder<TypeConfig>>>,
    /// What they do to leases, by position.
    leases: Vec<(usize, LeaseChange)>,
}

impl Machine {
    /// A state machine over what the state holds.
    pub(crate) fn new(parts: Parts) -> io::Result<Self> {
        let mut machine = Self { parts, beside: None };
        machine.reload()?;
        Ok(machine)
    }

    /// Reads from the state what stands beside it.
    fn reload(&mut self) -> io::Result<()> {
        self.beside = Beside::of(&self.parts.state)?;
        self.announce();
        self.parts.applied.upto(self.parts.state.applied_index());
        Ok(())
    }

    /// Tells the network who was removed.
    fn announce(&self) {
        let Some(beside) = &self.beside else { return };
        note_removed(&self.parts.context.roster, &beside.removed);
        if beside.removed.contains(&self.parts.context.id) {
            self.parts.context.removed.send_replace(true);
        }
    }

    /// Whether it is worth to write a snapshot now. openraft asks after each so many entries; but a
    /// snapshot is the whole state, so that one of a large state has to wait until half as much has
    /// come in as it will write. Without this, filling a store would cost the square of its size.
    fn wants_snapshot(&self) -> bool {
        let state = self.parts.state.size_bytes().total;
        state <= SMALL_STATE_BYTES
            || self.parts.log.entry_bytes() >= state / 2
            || self.parts.snapshots.is_wanted()
            || self.parts.log.low_space().is_some()
    }

    fn flush(&self, batch: &mut Batch) {
        if batch.commands.is_empty() {
            return;
        }
        let outcomes = self.parts.state.apply_batch(batch.commands.drain(..));
        // Before anybody is answered: who was granted a lease may renew it at once.
        let done = |at: &usize| outcomes.get(*at).is_some_and(Result::is_ok);
        self.parts.leases.note(batch.leases.drain(..).filter(|(at, _)| done(at)));
        for (outcome, responder) in outcomes.into_iter().zip(batch.responders.drain(..)) {
            if let Some(responder) = responder {
                responder.send(Some(outcome));
            }
        }
    }

    fn take(
        &mut self,
        batch: &mut Batch,
        (entry, responder): EntryResponder<TypeConfig>,
    ) -> io::Result<()> {
        let LogId { leader_id, index } = entry.log_id;
        let note = match entry.payload {
            EntryPayload::Normal(proposal) => {
                let command =
                    codec::decode(proposal.0).map_err(|error| unreadable(index, error))?;
                if let Some(change) = LeaseChange::of(&command) {
                    batch.leases.push((batch.commands.len(), change));
                }
                batch.commands.push((index, leader_id.term, command));
                batch.responders.push(responder);
                if batch.commands.len() >= BATCH_MAX {
                    self.flush(batch);
                }
                return Ok(());
            }
            EntryPayload::Blank => None,
            EntryPayload::Membership(membership) => {
                let beside = self.beside.get_or_insert_default();
                beside.change(entry.log_id, membership);
                Some(beside.encode()?)
            }
        };
        self.flush(batch);
        self.parts.state.advance(index, leader_id.term, note);
        self.announce();
        if let Some(responder) = responder {
            responder.send(None);
        }
        Ok(())
    }
}

fn unreadable(index: u64, error: codec::CodecError) -> io::Error {
    let why = format!("log entry {index} cannot be applied: {error}");
    io::Error::new(io::ErrorKind::InvalidData, why)
}

/// The last applied entry of a state. The first entry of a log, at index 0, is a membership.
pub(crate) fn applied_of(state: &State, beside: Option<&Beside>) -> Option<LogId> {
    let (index, term) = state.applied();
    beside.map(|_| log_id(term, index))
}

impl RaftStateMachine<TypeConfig> for Machine {
    type SnapshotData = SnapshotFile;
    type SnapshotBuilder = SnapshotMaker;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        let applied = applied_of(&self.parts.state, self.beside.as_ref());
        let membership = self.beside.as_ref().map(|beside| beside.membership.clone());
        Ok((applied, membership.unwrap_or_default()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> io::Result<()>
    where
        S: Stream<Item = io::Result<EntryResponder<TypeConfig>>> + Unpin + Send,
    {
        let mut batch = Batch::default();
        let mut result = Ok(());
        while let Some(entry) = entries.next().await {
            result = entry.and_then(|entry| self.take(&mut batch, entry));
            if result.is_err() {
                break;
            }
        }
        self.flush(&mut batch);
        self.parts.applied.upto(self.parts.state.applied_index());
        result
    }

    async fn try_create_snapshot_builder(&mut self, force: bool) -> Option<SnapshotMaker> {
        if force || self.wants_snapshot() { Some(self.get_snapshot_builder().await) } else { None }
    }

    async fn get_snapshot_builder(&mut self) -> SnapshotMaker {
        SnapshotMaker::new(self.parts.snapshots.clone(), self.parts.state.clone())
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        snapshot: SnapshotFile,
    ) -> io::Result<()> {
        self.parts.snapshots.install(meta, snapshot, self.parts.state.clone()).await?;
        self.reload()
    }

    async fn get_current_snapshot(
        &mut self,
    ) -> io::Result<Option<openraft::type_config::alias::SnapshotOf<TypeConfig, SnapshotFile>>>
    {
        Ok(self.parts.snapshots.current())
    }
}
