//! The replicated state machine: what a member knows after it applied the log up to an index.
//!
//! Pure memory behind one lock: one thread applies, many read. It does no I/O and asks no clock.
//! `contents` is the state itself and what a command does to it; this file is its lock and its
//! readers.

mod check;
mod contents;
mod dirty;
mod dump;
mod pins;
mod quota;
mod records;
#[cfg(test)]
mod tests;
mod transfer;
mod versions;
mod work;

use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};

use bytes::Bytes;
use parking_lot::{RwLock, RwLockWriteGuard};

pub use self::check::{Checked, Checker};
use self::contents::Contents;
pub use self::dirty::Changes;
pub(crate) use self::dump::Dump;
pub use self::quota::cost;
pub use self::records::Record;
pub(crate) use self::records::{Applied, Header, Piece};
pub(crate) use self::transfer::Assembly;
pub use self::transfer::{Export, Import, ImportError, Replaced};
use self::work::Asides;
pub use self::work::Work;
use super::auth::{Auth, TokenHash};
use super::lease::{Lease, Leases};
use super::mvcc::{self, Scan};
use super::types::{
    AlarmKind, Command, Event, KeyRange, LeaseId, MemberId, MemberRecord, Outcome, RangeQuery,
    RangeResult, Revision, StoreError, Txn, TxnOutcome,
};
use super::watch::{WatchHub, WatchStream};

/// Keys a reader visits before it lets the applier in.
const READ_STEP: usize = 1000;

/// Commands applied before readers are let in.
const APPLY_STEP: usize = 64;

/// Changes whose memory is given back with each applied batch while a compaction is under way.
const TRIM_STEP: usize = 256;

/// The state of one member. Shared by reference; see the module's documentation.
#[derive(Debug)]
pub struct State {
    contents: RwLock<Contents>,
    hub: WatchHub,
    asides: Asides,
    // Copies for those who only want a number, and must not wait for the lock.
    applied_index: AtomicU64,
    revision: AtomicI64,
    compact_revision: AtomicI64,
    size_total: AtomicU64,
    size_in_use: AtomicU64,
    auth_enabled: AtomicBool,
}

impl Default for State {
    fn default() -> Self {
        Self::new()
    }
}

impl State {
    /// The state before the first log entry: empty, revision 1.
    pub fn new() -> Self {
        Self::with(Contents::new())
    }

    fn with(contents: Contents) -> Self {
        let state = Self {
            contents: RwLock::new(contents),
            hub: WatchHub::default(),
            asides: Asides::default(),
            applied_index: AtomicU64::new(0),
            revision: AtomicI64::new(0),
            compact_revision: AtomicI64::new(0),
            size_total: AtomicU64::new(0),
            size_in_use: AtomicU64::new(0),
            auth_enabled: AtomicBool::new(false),
        };
        state.hub.reset(state.contents.read().mvcc.revision());
        state.show(&state.contents.read());
        state
    }

    /// Copies the numbers that are read without the lock.
    fn show(&self, contents: &Contents) {
        let (total, in_use) = contents.mvcc.size();
        self.size_total.store(total, Ordering::Relaxed);
        self.size_in_use.store(in_use, Ordering::Relaxed);
        self.auth_enabled.store(contents.auth.enabled, Ordering::Release);
        self.compact_revision.store(contents.mvcc.compact_revision(), Ordering::Release);
        self.revision.store(contents.mvcc.revision(), Ordering::Release);
        self.applied_index.store(contents.applied.index, Ordering::Release);
    }

    /// Applies one committed command. Calls come from one thread, in log order.
    pub fn apply(&self, index: u64, term: u64, command: Command) -> Outcome {
        let mut contents = self.begin();
        let outcome = contents.apply(index, term, command);
        self.end(&mut contents);
        outcome
    }

    /// Applies committed commands (index, term, command) in log order; one outcome each. Readers
    /// are let in between every few.
    pub fn apply_batch(
        &self,
        commands: impl IntoIterator<Item = (u64, u64, Command)>,
    ) -> Vec<Outcome> {
        let mut commands = commands.into_iter().peekable();
        let mut outcomes = Vec::with_capacity(commands.size_hint().0);
        while commands.peek().is_some() {
            let mut contents = self.begin();
            for (index, term, command) in commands.by_ref().take(APPLY_STEP) {
                outcomes.push(contents.apply(index, term, command));
            }
            self.end(&mut contents);
        }
        outcomes
    }

    /// Takes the state to apply to it.
    fn begin(&self) -> RwLockWriteGuard<'_, Contents> {
        let mut contents = self.contents.write();
        contents.recording = self.hub.has_watchers();
        contents
    }

    /// Shows what was applied to readers and watchers.
    fn end(&self, contents: &mut Contents) {
        contents.trim(TRIM_STEP);
        self.hub.publish(contents.mvcc.revision(), contents.events.drain(..));
        self.show(contents);
    }

    /// Notes a log entry that holds no command: a blank one, or a change of membership with what
    /// Raft wants to find beside the applied index after a restart (opaque here).
    pub fn advance(&self, index: u64, term: u64, membership: Option<Bytes>) {
        let mut contents = self.contents.write();
        contents.advance(index, term, membership);
        self.show(&contents);
    }

    /// Lets revisions go on `by` further before anybody uses a state that was read from a snapshot.
    pub(crate) fn bump_revision(&self, by: Revision) {
        let mut contents = self.contents.write();
        contents.mvcc.bump_revision(by);
        self.show(&contents);
    }

    /// Index and term of the last applied log entry; zeros before the first.
    pub fn applied(&self) -> (u64, u64) {
        let applied = self.contents.read().applied;
        (applied.index, applied.term)
    }

    /// Index of the last applied log entry.
    pub fn applied_index(&self) -> u64 {
        self.applied_index.load(Ordering::Acquire)
    }

    /// What [`State::advance`] last noted.
    pub fn membership(&self) -> Option<Bytes> {
        self.contents.read().membership.clone()
    }

    /// The latest revision.
    pub fn revision(&self) -> Revision {
        self.revision.load(Ordering::Acquire)
    }

    /// The revision of the last compaction, -1 when there was none.
    pub fn compact_revision(&self) -> Revision {
        self.compact_revision.load(Ordering::Acquire)
    }

    /// Reads keys. A long answer is gathered in steps, with the applier let in between; it is that
    /// of one revision all the same.
    pub fn range(&self, query: &RangeQuery) -> Result<RangeResult, StoreError> {
        self.note_ranges(1);
        let contents = self.contents.read();
        let mut scan = Scan::new(query, &contents.mvcc, contents.mvcc.revision())?;
        if scan.step(&contents.mvcc, READ_STEP) {
            return Ok(scan.finish());
        }
        let mut generation = contents.generation;
        let mut _pin = contents.pins.pin(scan.revision());
        drop(contents);
        loop {
            let contents = self.contents.read();
            if contents.generation != generation {
                // A snapshot was installed: what was gathered may be of another history.
                generation = contents.generation;
                scan = Scan::new(query, &contents.mvcc, contents.mvcc.revision())?;
                _pin = contents.pins.pin(scan.revision());
            }
            if scan.step(&contents.mvcc, READ_STEP) {
                return Ok(scan.finish());
            }
        }
    }

    /// Opens a stream of watchers.
    pub fn watch_stream(self: &Arc<Self>) -> WatchStream {
        WatchStream::new(self.clone())
    }

    /// The watchers' meeting point.
    pub(super) fn hub(&self) -> &WatchHub {
        &self.hub
    }

    /// Runs `then` with the latest and the compacted revision while nothing is being applied.
    pub(super) fn settled<R>(&self, then: impl FnOnce(Revision, Revision) -> R) -> R {
        let contents = self.contents.read();
        then(contents.mvcc.revision(), contents.mvcc.compact_revision())
    }

    /// The events from `from` on; see [`mvcc::Mvcc::events_since`].
    pub(super) fn history(
        &self,
        range: &KeyRange,
        from: Revision,
        budget: usize,
        give: impl FnMut(Revision, Vec<Event>) -> bool,
    ) -> Result<Revision, StoreError> {
        self.contents.read().mvcc.events_since(range, from, budget, give)
    }

    /// Runs a transaction that only reads ([`txn_is_readonly`]), without the log.
    pub fn txn_read(&self, txn: &Txn) -> Result<TxnOutcome, StoreError> {
        let (outcome, ranges) = mvcc::read(&self.contents.read().mvcc, txn)?;
        self.note_ranges(ranges);
        Ok(outcome)
    }

    /// One lease with its keys.
    pub fn lease(&self, id: LeaseId) -> Option<Lease> {
        self.contents.read().leases.get(id).cloned()
    }

    /// All leases in order of numbers, each with the seconds that a new leader gives it.
    pub fn leases(&self) -> Vec<(LeaseId, i64)> {
        let contents = self.contents.read();
        contents.leases.iter().map(|(id, lease)| (id, lease.seconds_left())).collect()
    }

    /// All leases as [`super::lease::LeaseClock::promote`] takes them: number, granted seconds, and
    /// the seconds left when last recorded (0: not recorded).
    pub fn lease_times(&self) -> Vec<(LeaseId, i64, i64)> {
        let contents = self.contents.read();
        contents.leases.iter().map(|(id, lease)| (id, lease.ttl, lease.remaining)).collect()
    }

    /// What the cluster knows of its members, in order of numbers.
    pub fn members(&self) -> Vec<MemberRecord> {
        self.contents.read().members.values().cloned().collect()
    }

    /// One member.
    pub fn member(&self, id: MemberId) -> Option<MemberRecord> {
        self.contents.read().members.get(&id).cloned()
    }

    /// The alarms that stand.
    pub fn alarms(&self) -> Vec<(MemberId, AlarmKind)> {
        self.contents.read().alarms.iter().copied().collect()
    }

    /// Whether callers have to show who they are. Waits for nobody.
    pub fn auth_enabled(&self) -> bool {
        self.auth_enabled.load(Ordering::Acquire)
    }

    /// Looks at users, roles and leases, as they are together.
    pub(crate) fn rights<R>(&self, look: impl FnOnce(&Auth, &Leases) -> R) -> R {
        let contents = self.contents.read();
        look(&contents.auth, &contents.leases)
    }

    /// Ends a token on this member alone: how long one lasts, each member's own clock says.
    pub(crate) fn forget_token(&self, token: &TokenHash) {
        self.contents.write().auth.forget_token(token);
    }

    /// One of the system's own records.
    pub fn system(&self, key: &str) -> Option<Bytes> {
        self.contents.read().system.get(key).cloned()
    }

    /// The system's own records whose key begins with `prefix`, in order of keys.
    pub fn system_prefix(&self, prefix: &str) -> Vec<(String, Bytes)> {
        self.contents
            .read()
            .system
            .range::<str, _>((Bound::Included(prefix), Bound::Unbounded))
            .take_while(|(key, _)| key.starts_with(prefix))
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect()
    }

    /// Estimates of the memory that keys and values take, in bytes. Waits for nobody: it is asked
    /// with every put.
    pub fn size_bytes(&self) -> Size {
        Size {
            total: self.size_total.load(Ordering::Relaxed),
            in_use: self.size_in_use.load(Ordering::Relaxed),
        }
    }

    /// Whether `command` would grow the store beyond `quota_bytes`: then the member it was sent to
    /// raises the alarm for lack of space and refuses. Never asked while applying, because members
    /// may have different quotas.
    pub fn exceeds_quota(&self, command: &Command, quota_bytes: u64) -> bool {
        let cost = cost(command);
        cost > 0 && self.size_bytes().total.saturating_add(cost) >= quota_bytes
    }

    /// Gives back the memory of up to `budget` changes that a compaction forgot. Gives whether
    /// more is to be done. Each applied batch does a little of it; where few commands come, a
    /// background task calls this until it is done.
    pub fn trim(&self, budget: usize) -> bool {
        let mut contents = self.contents.write();
        let more = contents.trim(budget);
        self.show(&contents);
        more
    }

    /// The hash of the key space at `revision` (0 or less: the latest), equal to that of an etcd
    /// with the same history.
    pub fn hash_kv(&self, revision: Revision) -> Result<mvcc::KeyHash, StoreError> {
        let contents = self.contents.read();
        let head = contents.mvcc.revision();
        let compact_revision = contents.mvcc.compact_revision();
        if revision > head {
            return Err(StoreError::FutureRevision);
        }
        let revision = if revision <= 0 { head } else { revision };
        if revision < compact_revision {
            return Err(StoreError::Compacted);
        }
        let generation = contents.generation;
        let _pin = contents.pins.pin(compact_revision);
        drop(contents);
        let mut gathered = mvcc::Gathered::new(revision, compact_revision);
        let mut next = None;
        loop {
            let contents = self.contents.read();
            if contents.generation != generation {
                return Err(StoreError::Compacted);
            }
            next = gathered.step(&contents.mvcc, next.as_deref(), READ_STEP);
            if next.is_none() {
                break;
            }
        }
        Ok(mvcc::KeyHash { hash: gathered.finish(), revision, compact_revision })
    }
}

/// Estimates of memory in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size {
    /// Of all versions.
    pub total: u64,
    /// Of those that the latest revision sees.
    pub in_use: u64,
}

/// Whether a transaction only reads, whichever branch it takes. One with a nested transaction
/// counts as writing, as in etcd.
pub fn txn_is_readonly(txn: &Txn) -> bool {
    mvcc::is_read_only(txn)
}
