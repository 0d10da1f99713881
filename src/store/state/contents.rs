//! The state itself, and what each command does to it. Deterministic: the same commands give the
//! same state and the same answers on every member.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

use super::super::auth::Auth;
use super::super::lease::Leases;
use super::super::mvcc::{self, Mvcc, Writer};
use super::super::types::{
    AlarmKind, AuthChange, Command, Event, LeaseId, MemberId, MemberRecord, Outcome, Reply,
    Revision, StoreError,
};
use super::dirty::Tracker;
use super::pins::Pins;
use super::work::LeaseCounts;

/// The last applied log entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Applied {
    /// Its index.
    pub(crate) index: u64,
    /// Its term.
    pub(crate) term: u64,
}

/// All that a snapshot carries.
#[derive(Debug)]
pub(super) struct Contents {
    /// Differs between contents that replaced each other, so that a reader in steps notices.
    pub(super) generation: u64,
    pub(super) applied: Applied,
    pub(super) membership: Option<Bytes>,
    pub(super) mvcc: Mvcc,
    pub(super) leases: Leases,
    pub(super) members: BTreeMap<MemberId, MemberRecord>,
    pub(super) alarms: BTreeSet<(MemberId, AlarmKind)>,
    pub(super) system: BTreeMap<String, Bytes>,
    pub(super) auth: Auth,
    pub(super) pins: Pins,
    /// What a checkpoint has yet to be told, if there is one.
    pub(super) tracker: Option<Tracker>,
    /// Whether anybody wants the events.
    pub(super) recording: bool,
    /// The events made since they were last taken, in order.
    pub(super) events: Vec<Event>,
    pub(super) lease_counts: LeaseCounts,
}

impl Contents {
    /// Nothing applied.
    pub(super) fn new() -> Self {
        static GENERATION: AtomicU64 = AtomicU64::new(0);
        Self {
            generation: GENERATION.fetch_add(1, Ordering::Relaxed),
            applied: Applied::default(),
            membership: None,
            mvcc: Mvcc::new(),
            leases: Leases::default(),
            members: BTreeMap::new(),
            alarms: BTreeSet::new(),
            system: BTreeMap::new(),
            auth: Auth::default(),
            pins: Pins::default(),
            tracker: None,
            recording: false,
            events: Vec::new(),
            lease_counts: LeaseCounts::default(),
        }
    }

    /// Notes an applied entry, and what Raft keeps beside it when that changed.
    pub(super) fn advance(&mut self, index: u64, term: u64, membership: Option<Bytes>) {
        self.applied = Applied { index, term };
        if membership.is_some() {
            self.membership = membership;
        }
    }

    /// Applies a command.
    pub(super) fn apply(&mut self, index: u64, term: u64, command: Command) -> Outcome {
        self.applied = Applied { index, term };
        let (caller, command) = match command {
            Command::As { caller, command } => (Some(caller), *command),
            command => (None, command),
        };
        self.refuse_by_alarm(&command)?;
        self.auth.permit(caller.as_ref(), &command, &self.leases)?;
        match command {
            Command::Put(put) => {
                mvcc::check_put(&self.mvcc, &self.leases, &put)?;
                Ok(self.write(|writer| Reply::Put(writer.put(&put))))
            }
            Command::DeleteRange(delete) => {
                Ok(self.write(|writer| Reply::Delete(writer.delete_range(&delete))))
            }
            Command::Txn(txn) => {
                let (outcome, events) =
                    mvcc::run(&mut self.mvcc, &mut self.leases, &txn, self.recording)?;
                self.events.extend(events);
                Ok(Reply::Txn(outcome))
            }
            Command::Compact { revision } => self.compact(revision),
            Command::LeaseGrant { id, ttl } => self.lease_grant(id, ttl),
            Command::LeaseRevoke { id } => self.lease_revoke(id),
            Command::LeaseCheckpoint { remaining } => {
                for (id, seconds) in remaining {
                    if self.leases.checkpoint(id, seconds) {
                        self.mark(|tracker| _ = tracker.leases.insert(id));
                    }
                }
                Ok(self.done())
            }
            Command::Alarm { active, member, kind } => {
                self.mark(|tracker| _ = tracker.alarms.insert((member, kind)));
                if active {
                    self.alarms.insert((member, kind));
                } else {
                    self.alarms.remove(&(member, kind));
                }
                Ok(Reply::Alarms(self.alarms.iter().copied().collect()))
            }
            Command::MemberPut(member) => {
                self.mark(|tracker| _ = tracker.members.insert(member.id));
                self.members.insert(member.id, member);
                Ok(self.done())
            }
            Command::MemberDelete { id } => {
                self.members.remove(&id).ok_or(StoreError::MemberNotFound)?;
                self.mark(|tracker| _ = tracker.members.insert(id));
                for kind in [AlarmKind::NoSpace, AlarmKind::Corrupt] {
                    if self.alarms.remove(&(id, kind)) {
                        self.mark(|tracker| _ = tracker.alarms.insert((id, kind)));
                    }
                }
                Ok(self.done())
            }
            Command::SystemPut { key, value, expect } => {
                Ok(self.system_put(key, value, expect.as_ref().map(Option::as_ref)))
            }
            Command::Auth(change) => self.auth_change(change),
            // Taken apart above; one inside another cannot be decoded.
            Command::As { .. } => Err(StoreError::KeyNotFound),
        }
    }

    /// Gives back memory of forgotten versions that no reader needs.
    pub(super) fn trim(&mut self, budget: usize) -> bool {
        let mut floor = self.pins.oldest().unwrap_or(Revision::MAX);
        let Some(tracker) = &mut self.tracker else {
            return self.mvcc.trim(floor, budget, |_| {});
        };
        floor = floor.min(tracker.revision);
        self.mvcc.trim(floor, budget, |forgotten| tracker.forgotten.push(forgotten))
    }

    /// What an alarm that stands refuses (etcd `server/etcdserver/apply`, capped and corrupt
    /// appliers): without space all that grows the store, with corruption all changes of it.
    fn refuse_by_alarm(&self, command: &Command) -> Result<(), StoreError> {
        if self.alarms.is_empty() {
            return Ok(());
        }
        let stands = |wanted| self.alarms.iter().any(|(_, kind)| *kind == wanted);
        let touches_keys_or_leases = !matches!(
            command,
            Command::Alarm { .. }
                | Command::MemberPut(_)
                | Command::MemberDelete { .. }
                | Command::SystemPut { .. }
                | Command::Auth(_)
                | Command::LeaseCheckpoint { .. }
        );
        if touches_keys_or_leases && stands(AlarmKind::Corrupt) {
            return Err(StoreError::Corrupt);
        }
        let grows = match command {
            Command::Put(_) | Command::LeaseGrant { .. } => true,
            Command::Txn(txn) => mvcc::puts_anything(txn),
            _ => false,
        };
        if grows && stands(AlarmKind::NoSpace) {
            return Err(StoreError::NoSpace);
        }
        Ok(())
    }

    fn auth_change(&mut self, change: AuthChange) -> Outcome {
        if self.auth.apply(change)? {
            self.mark(|tracker| tracker.auth = true);
        }
        Ok(self.done())
    }

    fn done(&self) -> Reply {
        Reply::Done { revision: self.mvcc.revision() }
    }

    /// Writes one revision.
    fn write(&mut self, change: impl FnOnce(&mut Writer<'_>) -> Reply) -> Reply {
        let mut writer = Writer::new(&mut self.mvcc, &mut self.leases, self.recording);
        let reply = change(&mut writer);
        self.events.extend(writer.finish());
        reply
    }

    fn compact(&mut self, revision: Revision) -> Outcome {
        self.mvcc.compact(revision)?;
        Ok(self.done())
    }

    fn lease_grant(&mut self, id: LeaseId, ttl: i64) -> Outcome {
        self.leases.grant(id, ttl)?;
        self.lease_counts.granted += 1;
        self.mark(|tracker| _ = tracker.leases.insert(id));
        Ok(Reply::LeaseGranted { revision: self.mvcc.revision(), id, ttl })
    }

    /// Deletes the lease's keys in order, all in one revision.
    fn lease_revoke(&mut self, id: LeaseId) -> Outcome {
        let lease = self.leases.remove(id).ok_or(StoreError::LeaseNotFound)?;
        self.lease_counts.revoked += 1;
        self.mark(|tracker| _ = tracker.leases.insert(id));
        Ok(self.write(|writer| {
            for key in lease.keys() {
                writer.delete_key(&key);
            }
            Reply::Done { revision: writer.revision() }
        }))
    }

    #[expect(clippy::option_option, reason = "no expectation is not the expectation of nothing")]
    fn system_put(
        &mut self,
        key: String,
        value: Option<Bytes>,
        expect: Option<Option<&Bytes>>,
    ) -> Reply {
        let current = self.system.get(&key);
        let made = expect.is_none_or(|expected| expected == current);
        if !made {
            return Reply::SystemPut { made, current: current.cloned() };
        }
        self.mark(|tracker| _ = tracker.system.insert(key.clone()));
        // The request's buffer holds more than this record, and would live as long.
        let value = value.map(|value| Bytes::copy_from_slice(&value));
        match &value {
            Some(value) => self.system.insert(key, value.clone()),
            None => self.system.remove(&key),
        };
        Reply::SystemPut { made, current: value }
    }
}
