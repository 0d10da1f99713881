//! Why a snapshot file cannot be written or read.

use std::io;
use std::path::PathBuf;

/// An error of a snapshot file.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The operating system refused.
    #[error("cannot {action} snapshot {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Something has the name already; a snapshot never replaces another file.
    #[error("snapshot {} exists already: choose another name or remove it", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// It does not begin as a snapshot does.
    #[error("{} is not a snapshot of k3sup-rs: {reason}", path.display())]
    NotASnapshot {
        /// The file.
        path: PathBuf,
        /// How it shows.
        reason: &'static str,
    },
    /// Written by a newer version of the program.
    #[error(
        "snapshot {} has format {found}, this version reads up to {known}: use the version that \
         wrote it, or a newer one", path.display()
    )]
    NewerFormat {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// The newest format known here.
        known: u32,
    },
    /// It is not what was written.
    #[error("snapshot {} is damaged: {reason}; use another one", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// How it shows.
        reason: String,
    },
    /// A record or the membership is larger than a snapshot takes.
    #[error("snapshot: {what} has {bytes} bytes, the limit is {limit}")]
    TooLarge {
        /// Which.
        what: &'static str,
        /// Its size.
        bytes: usize,
        /// The largest size.
        limit: usize,
    },
}

impl SnapshotError {
    /// Wraps an operating-system error.
    pub(super) fn io(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { action, path, source }
    }

    /// Something that does not fit together.
    pub(super) fn damaged(path: impl Into<PathBuf>, reason: impl Into<String>) -> Self {
        Self::Damaged { path: path.into(), reason: reason.into() }
    }
}

impl From<SnapshotError> for io::Error {
    fn from(error: SnapshotError) -> Self {
        let kind = match &error {
            SnapshotError::Io { source, .. } => source.kind(),
            SnapshotError::Exists { .. } => io::ErrorKind::AlreadyExists,
            SnapshotError::TooLarge { .. } => io::ErrorKind::InvalidInput,
            _ => io::ErrorKind::InvalidData,
        };
        Self::new(kind, error)
    }
}
