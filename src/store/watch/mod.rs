//! Watching: every change of a range of keys, in order, none left out, from any revision that is
//! not compacted.
//!
//! There is no queue per watcher, hence nothing that can overflow, and the applier never waits. A
//! watcher is a place in history (the next revision it wants) and a mark whether something it
//! wants has happened since. The applier sets the mark and wakes the stream; the stream's own task
//! then reads on from that place: from the ring of recent revisions, whose events are built once
//! and shared, or from the store's history when it fell behind the ring. Knows no gRPC.
//!
//! `event` and `ring` (what is shared), `fanout` (who wants a key), `hub` (the places and marks),
//! `stream` (what a client's connection holds).

mod event;
mod fanout;
mod hub;
mod ring;
mod stream;

pub use self::event::SharedEvent;
pub(crate) use self::hub::WatchHub;
pub use self::stream::{Delivery, Subscribed, WatchStream};
use super::types::{KeyRange, Revision};

/// A watcher's number on its stream.
pub type WatchId = i64;

/// What a watcher wants.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WatchRequest {
    /// The number the client chose; 0 lets the stream choose, from 0 upward.
    pub watch_id: WatchId,
    /// Which keys. An empty key stands for the first of all.
    pub range: KeyRange,
    /// First revision wanted; 0 is the next one.
    pub start_revision: Revision,
    /// Whether the client wants the previous pairs. Events carry them in any case; the deliveries
    /// say whether to send them.
    pub prev_kv: bool,
    /// Leave puts out.
    pub no_put: bool,
    /// Leave deletions out.
    pub no_delete: bool,
}

/// Why a watcher is refused. The texts are etcd's cancel reasons.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WatchError {
    /// The start revision is negative.
    #[error("mvcc: required revision has been compacted")]
    NegativeRevision,
    /// The number is taken on this stream.
    #[error("mvcc: duplicate watch ID provided on the WatchStream")]
    DuplicateId,
    /// The range holds no key.
    #[error("mvcc: watcher range is empty")]
    EmptyRange,
}
