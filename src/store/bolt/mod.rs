//! bbolt's database files: the format in which etcd keeps its data and saves its snapshots.
//!
//! `page` is the layout, [`Writer`] makes a file in one pass, [`Database`] reads one. Knows nothing of
//! what is in a bucket. A file that somebody else may have written is not believed: each page is looked
//! at once, none beyond the file, and keys have to be in order.

mod page;
mod read;
#[cfg(test)]
mod tests;
mod write;

use std::io;

pub use read::{Bucket, Database, looks_like_one};
pub use write::Writer;

/// Why a database cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum BoltError {
    /// The operating system refused.
    #[error("it cannot be read")]
    Io(#[from] io::Error),
    /// It is not what was written.
    #[error("its database is damaged: {0}")]
    Damaged(String),
}

impl BoltError {
    fn damaged(reason: impl Into<String>) -> Self {
        Self::Damaged(reason.into())
    }
}
