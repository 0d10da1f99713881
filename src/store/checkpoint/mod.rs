//! The checkpoint: the applied state on disk, so that a restart need not read the last snapshot and
//! the whole log after it.
//!
//! It is **never the only copy of anything**. Whatever is wrong with it (an error, a panic of the
//! backend, a checksum, a count) it is set aside under another name, and the state is built again
//! from the snapshot file and the log. So a backend may be used here that would not do for a log.
//!
//! Records are a key and a value, both opaque. Most are in blocks, a file that is written at its end; an index
//! knows these, and holds the other records. Each entry of the index and each block has a checksum; the
//! directory counts entries and records and holds the sum of the checksums, so that one that is missing or old
//! shows when the checkpoint is loaded. A batch of changes and the log index it leads up to are one transaction.
//!
//! [`Checkpointer`] owns a thread; nothing here runs on the path of a request. Only `tree` knows what
//! the index is, sled. Reading order: `digest`, `block`, `blocks`, `edit` (what a batch changes), `tree`,
//! `disk`, `keeper`, `thread`.

mod block;
mod blocks;
mod digest;
mod disk;
mod edit;
mod keeper;
#[cfg(test)]
mod tests;
mod thread;
mod tree;

use bytes::Bytes;

pub use thread::{Batches, Checkpointer, Done};

/// Up to where of the log a checkpoint reaches.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mark {
    /// Index of the last applied entry.
    pub index: u64,
    /// Its term.
    pub term: u64,
    /// What the state machine wants to find beside it, opaque here.
    pub beside: Bytes,
}

/// A record that is written (`Some`) or deleted (`None`), by its key.
pub type Change = (Vec<u8>, Option<Bytes>);

/// Changes of the state.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// Begin with an empty checkpoint: the first batch of a whole state.
    pub reset: bool,
    /// Of several to a key the last counts.
    pub changes: Vec<Change>,
    /// Up to where the state is complete with this batch. `None`: more batches follow, and the
    /// checkpoint is of no use before one that has a mark.
    pub mark: Option<Mark>,
}

/// What was found at start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Loaded {
    /// All records were handed out, and they are the state at this mark.
    State(Mark),
    /// Nothing of use: build the state from the last snapshot and the log, and **discard what was
    /// handed out**. The next batch must be a reset.
    Nothing {
        /// Why, when there was something.
        reason: Option<String>,
    },
}

/// How large it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size {
    /// Bytes of keys and values held.
    pub live_bytes: u64,
    /// Bytes of the files.
    pub disk_bytes: u64,
    /// Number of records.
    pub records: u64,
}

/// Why a checkpoint could not be written or read. It was set aside; the member goes on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointError {
    /// It is not what was written.
    #[error("the checkpoint is damaged: {0}")]
    Damaged(String),
    /// The backend failed.
    #[error("the checkpoint's backend failed: {0}")]
    Backend(String),
    /// The operating system refused.
    #[error("cannot write the checkpoint: {0}")]
    Io(String),
    /// An earlier failure made it useless: the next batch must be a reset.
    #[error("the checkpoint must be written anew, as a whole")]
    NeedsReset,
    /// It was closed.
    #[error("the checkpoint is closed")]
    Closed,
    /// Whoever gives the batches could not go on: what was written of them is not a whole state.
    #[error("the checkpoint is incomplete: {0}")]
    Interrupted(String),
}

fn damaged(reason: &str) -> CheckpointError {
    CheckpointError::Damaged(reason.to_owned())
}

impl From<std::io::Error> for CheckpointError {
    fn from(error: std::io::Error) -> Self {
        Self::Io(error.to_string())
    }
}

/// A backend, open. All of it may fail, and may panic; its user copes.
trait Backend: Send {
    /// Hands out all records. `None` when it holds no complete state.
    fn load(&mut self, each: &mut dyn FnMut(&[u8], Bytes))
    -> Result<Option<Mark>, CheckpointError>;

    /// Makes the changes and the mark one transaction. Not durable before [`Backend::flush`].
    fn commit(&mut self, changes: &[Change], mark: Option<&Mark>) -> Result<(), CheckpointError>;

    /// Hands what was committed to the operating system; the caller syncs the files.
    fn flush(&mut self) -> Result<(), CheckpointError>;

    /// Number of records and bytes of keys and values.
    fn live(&self) -> (u64, u64);
}
