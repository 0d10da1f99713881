//! What the services read of the store, so that they can be tried without one.

use std::fs::File;
use std::io;

use futures::future::BoxFuture;

use crate::store::types::{
    AlarmKind, LeaseId, MemberId, MemberRecord, RangeQuery, RangeResult, Revision, StoreError, Txn,
    TxnOutcome,
};

/// How many bytes the store takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size {
    /// On disk.
    pub total: u64,
    /// Of that, what is alive.
    pub in_use: u64,
}

/// A hash over the history that is kept, the same on all members at the same revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HashKv {
    /// The hash.
    pub hash: u32,
    /// What was compacted when it was taken.
    pub compact_revision: Revision,
    /// Up to which revision it was taken.
    pub hash_revision: Revision,
    /// The store's revision.
    pub revision: Revision,
}

/// The applied state of this member, read without waiting for anybody.
pub trait Backend: Send + Sync + 'static {
    /// The current revision.
    fn revision(&self) -> Revision;

    /// Reads keys.
    fn range(&self, query: &RangeQuery) -> Result<RangeResult, StoreError>;

    /// Runs a transaction that only reads.
    fn read_txn(&self, txn: &Txn) -> Result<TxnOutcome, StoreError>;

    /// The leases that exist, in no order.
    fn leases(&self) -> Vec<LeaseId>;

    /// What is known of the members.
    fn members(&self) -> Vec<MemberRecord>;

    /// The alarms that stand.
    fn alarms(&self) -> Vec<(MemberId, AlarmKind)>;

    /// The size of the store.
    fn size(&self) -> Size;

    /// A hash of the history up to `revision`; 0 is the current one.
    fn hash_kv(&self, revision: Revision) -> Result<HashKv, StoreError>;

    /// Waits until history up to `revision` is really gone.
    fn compacted(&self, revision: Revision) -> BoxFuture<'_, ()>;

    /// Gives space of deleted records back to the file system.
    fn defragment(&self) -> BoxFuture<'_, io::Result<()>>;

    /// A snapshot file of the state as it is now, open at its start; it may have no name.
    fn snapshot(&self) -> BoxFuture<'_, io::Result<File>>;
}
