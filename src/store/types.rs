//! The words that the store, Raft and the etcd API share: what is stored, asked, changed, answered.
//!
//! Plain values. They hold keys and values as [`Bytes`], so that a value travels from the socket to
//! the log, the index and a watcher without a copy. Knows no protobuf types.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::auth::AuthError;
pub use super::auth::{AuthChange, Caller};

/// A revision of the store: grows by one with each transaction that changed something. A fresh
/// store is at revision 1 (etcd `server/storage/mvcc/kvstore.go`).
pub type Revision = i64;

/// A lease's number; 0 means none.
pub type LeaseId = i64;

/// A member's number. Never 0 and never used again once its member was removed.
pub type MemberId = u64;

/// A cluster's number. Never 0.
pub type ClusterId = u64;

/// A key with its value and history, as etcd's `mvccpb.KeyValue`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyValue {
    /// The key.
    pub key: Bytes,
    /// The value; empty on a delete event.
    pub value: Bytes,
    /// Revision of the put that created this generation of the key.
    pub create_revision: Revision,
    /// Revision of the last change.
    pub mod_revision: Revision,
    /// Number of puts in this generation, from 1.
    pub version: i64,
    /// The lease it is attached to, or 0.
    pub lease: LeaseId,
}

/// A set of keys in etcd's encoding: `end` empty is the one key, `"\0"` is all keys from `key` on,
/// anything else is the half-open interval `[key, end)`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyRange {
    /// First key.
    pub key: Bytes,
    /// End as described above.
    pub end: Bytes,
}

/// By which field a range is ordered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum SortTarget {
    /// The key.
    #[default]
    Key,
    /// [`KeyValue::version`].
    Version,
    /// [`KeyValue::create_revision`].
    Create,
    /// [`KeyValue::mod_revision`].
    Mod,
    /// The value's bytes.
    Value,
}

/// In which direction a range is ordered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum SortOrder {
    /// As stored (by key), unless the target is not the key: then ascending, but (as in etcd) among
    /// the first keys up to the limit and one more, unless there are filters.
    #[default]
    None,
    /// Smallest first.
    Ascend,
    /// Largest first.
    Descend,
}

/// A read of keys, as etcd's `RangeRequest`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RangeQuery {
    /// Which keys.
    pub range: KeyRange,
    /// Most keys to return; 0 or less is no limit. Applied after sorting and filters.
    pub limit: i64,
    /// At which revision to read; 0 or less is the latest.
    pub revision: Revision,
    /// Direction.
    pub order: SortOrder,
    /// Field to order by.
    pub target: SortTarget,
    /// Leave the values out.
    pub keys_only: bool,
    /// Only count.
    pub count_only: bool,
    /// Lower bound of `mod_revision`; 0 is none.
    pub min_mod_revision: Revision,
    /// Upper bound of `mod_revision`; 0 is none.
    pub max_mod_revision: Revision,
    /// Lower bound of `create_revision`; 0 is none.
    pub min_create_revision: Revision,
    /// Upper bound of `create_revision`; 0 is none.
    pub max_create_revision: Revision,
}

/// The answer to a [`RangeQuery`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RangeResult {
    /// The keys found.
    pub kvs: Vec<KeyValue>,
    /// Whether the limit cut some off.
    pub more: bool,
    /// Number of keys in the range at that revision, whatever limit and filters say.
    pub count: i64,
    /// The store's revision when it was read (not the revision asked for).
    pub revision: Revision,
}

/// Writes one key.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Put {
    /// The key.
    pub key: Bytes,
    /// The value; ignored when `ignore_value` is set.
    pub value: Bytes,
    /// Lease to attach to, or 0: the key is detached from any lease it had.
    pub lease: LeaseId,
    /// Answer with the previous pair.
    pub prev_kv: bool,
    /// Keep the current value.
    pub ignore_value: bool,
    /// Keep the current lease.
    pub ignore_lease: bool,
}

/// Deletes keys.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeleteRange {
    /// Which keys.
    pub range: KeyRange,
    /// Answer with the deleted pairs.
    pub prev_kv: bool,
}

/// How a comparison compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CompareOp {
    /// `=`
    Equal,
    /// `>`
    Greater,
    /// `<`
    Less,
    /// `!=`
    NotEqual,
}

/// What a comparison looks at, and the value it is compared with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CompareTarget {
    /// [`KeyValue::version`].
    Version(i64),
    /// [`KeyValue::create_revision`].
    Create(Revision),
    /// [`KeyValue::mod_revision`].
    Mod(Revision),
    /// The value. False on a key that does not exist.
    Value(Bytes),
    /// [`KeyValue::lease`].
    Lease(LeaseId),
}

/// One condition of a transaction; all keys of the range must meet it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compare {
    /// Which keys.
    pub range: KeyRange,
    /// How.
    pub op: CompareOp,
    /// With what.
    pub target: CompareTarget,
}

/// One operation of a transaction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TxnOp {
    /// Read.
    Range(RangeQuery),
    /// Write.
    Put(Put),
    /// Delete.
    Delete(DeleteRange),
    /// A transaction inside; its comparisons are evaluated up front with all others.
    Txn(Txn),
}

/// If all of `compare` hold then `success`, else `failure`; atomic, one revision.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Txn {
    /// The conditions.
    pub compare: Vec<Compare>,
    /// Done when all hold.
    pub success: Vec<TxnOp>,
    /// Done otherwise.
    pub failure: Vec<TxnOp>,
}

/// What an alarm warns of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum AlarmKind {
    /// The quota is used up: writes that grow the store are refused.
    NoSpace,
    /// Members disagree: every request is refused.
    Corrupt,
}

/// What the cluster knows of a member beside Raft's own voter and learner sets.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberRecord {
    /// Its number.
    pub id: MemberId,
    /// Its name (`<node>-<8 hex>`); empty until it started.
    pub name: String,
    /// `https://ip:2380`, …
    pub peer_urls: Vec<String>,
    /// `https://ip:2379`, …; empty until it started.
    pub client_urls: Vec<String>,
}

/// A change of the replicated state. The only thing that is ever proposed.
///
/// Whatever depends on a clock or on chance (a lease's number, a node's heartbeat time) is decided
/// by the proposer and stands in the command, so that applying it is the same on all members.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// Write a key.
    Put(Put),
    /// Delete keys.
    DeleteRange(DeleteRange),
    /// A transaction.
    Txn(Txn),
    /// Forget history up to and including this revision.
    Compact {
        /// The revision.
        revision: Revision,
    },
    /// Create a lease.
    LeaseGrant {
        /// Its number, chosen by the proposer, never 0.
        id: LeaseId,
        /// Time to live in seconds.
        ttl: i64,
    },
    /// End a lease and delete its keys, all in one revision.
    LeaseRevoke {
        /// Its number.
        id: LeaseId,
    },
    /// Record how long a lease has left, so that a new leader does not start it afresh.
    LeaseCheckpoint {
        /// Pairs of lease and remaining seconds.
        remaining: Vec<(LeaseId, i64)>,
    },
    /// Raise or clear an alarm of a member.
    Alarm {
        /// Raise (true) or clear.
        active: bool,
        /// Whose.
        member: MemberId,
        /// Which.
        kind: AlarmKind,
    },
    /// Add or update what is known of a member.
    MemberPut(MemberRecord),
    /// Forget a member.
    MemberDelete {
        /// Its number.
        id: MemberId,
    },
    /// Write a record of the system's own (nodes, cluster settings, bootstrap data): outside etcd's
    /// key space, without a revision, carried in snapshots. `None` deletes.
    SystemPut {
        /// For example `nodes/agent1`.
        key: String,
        /// The record, in whatever encoding its owner uses.
        value: Option<Bytes>,
        /// When set, the change is made only if the current record equals this (`Some(None)`: only
        /// if there is none). Answers [`Reply::SystemPut`].
        expect: Option<Option<Bytes>>,
    },
    /// Change users, roles and rights.
    Auth(AuthChange),
    /// What a client asked for who had to say who it is; never one of these inside.
    As {
        /// Who.
        caller: Caller,
        /// What.
        command: Box<Command>,
    },
}

/// What one operation of a transaction answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OpOutcome {
    /// To [`TxnOp::Range`].
    Range(RangeResult),
    /// To [`TxnOp::Put`].
    Put(PutOutcome),
    /// To [`TxnOp::Delete`].
    Delete(DeleteOutcome),
    /// To [`TxnOp::Txn`].
    Txn(TxnOutcome),
}

/// The answer to a [`Put`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PutOutcome {
    /// The store's revision after it.
    pub revision: Revision,
    /// The previous pair, if asked for and there was one.
    pub prev_kv: Option<KeyValue>,
}

/// The answer to a [`DeleteRange`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeleteOutcome {
    /// The store's revision after it; unchanged when nothing was deleted.
    pub revision: Revision,
    /// How many keys were deleted.
    pub deleted: i64,
    /// The deleted pairs, if asked for.
    pub prev_kvs: Vec<KeyValue>,
}

/// The answer to a [`Txn`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TxnOutcome {
    /// The store's revision after it.
    pub revision: Revision,
    /// Whether the comparisons held.
    pub succeeded: bool,
    /// One answer per operation that was run.
    pub responses: Vec<OpOutcome>,
}

/// What applying a [`Command`] answered. A refusal is an answer too: it is the same on all members.
pub type Outcome = Result<Reply, StoreError>;

/// A positive [`Outcome`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// To [`Command::Put`].
    Put(PutOutcome),
    /// To [`Command::DeleteRange`].
    Delete(DeleteOutcome),
    /// To [`Command::Txn`].
    Txn(TxnOutcome),
    /// To [`Command::LeaseGrant`].
    LeaseGranted {
        /// The store's revision.
        revision: Revision,
        /// Its number.
        id: LeaseId,
        /// The granted time to live in seconds.
        ttl: i64,
    },
    /// To [`Command::Alarm`]: the alarms that stand now.
    Alarms(Vec<(MemberId, AlarmKind)>),
    /// To [`Command::SystemPut`]: whether it was made, and the record that stands now.
    SystemPut {
        /// Whether the expectation held.
        made: bool,
        /// The record after it.
        current: Option<Bytes>,
    },
    /// To all others.
    Done {
        /// The store's revision after it.
        revision: Revision,
    },
}

/// Why the store refuses. Each maps to one of etcd's errors (rpc layer).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum StoreError {
    /// No key given.
    #[error("key is not provided")]
    EmptyKey,
    /// `ignore_value` or `ignore_lease` on a key that does not exist.
    #[error("key not found")]
    KeyNotFound,
    /// The revision asked for is gone.
    #[error("required revision has been compacted")]
    Compacted,
    /// The revision asked for is not there yet.
    #[error("required revision is a future revision")]
    FutureRevision,
    /// No such lease.
    #[error("requested lease not found")]
    LeaseNotFound,
    /// The number is taken.
    #[error("lease already exists")]
    LeaseExists,
    /// The TTL is over [`crate::limits::LEASE_TTL_SECONDS_MAX`].
    #[error("too large lease TTL")]
    LeaseTtlTooLarge,
    /// The NOSPACE alarm stands.
    #[error("database space exceeded")]
    NoSpace,
    /// The CORRUPT alarm stands.
    #[error("corrupt cluster")]
    Corrupt,
    /// A transaction puts or deletes the same key twice.
    #[error("duplicate key given in txn request")]
    DuplicateKey,
    /// No such member.
    #[error("member not found")]
    MemberNotFound,
    /// Users, roles or their rights do not allow it.
    #[error(transparent)]
    Auth(AuthError),
}

/// What happened to a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum EventKind {
    /// It was written.
    Put,
    /// It was deleted.
    Delete,
}

/// A change of one key, as a watcher sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Put or delete.
    pub kind: EventKind,
    /// The pair after the change; on a delete only `key` and `mod_revision` are set.
    pub kv: KeyValue,
    /// The pair before it, when the watcher asked for it, it existed and is not compacted.
    pub prev_kv: Option<KeyValue>,
}
