//! Why the log refuses.

use std::io;
use std::path::PathBuf;

/// An error of the write-ahead log. After any of [`WalError::Failed`]'s kind the member must stop.
#[derive(Debug, thiserror::Error)]
pub enum WalError {
    /// The operating system refused while the log was opened.
    #[error("write-ahead log: cannot {action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file or directory.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// What is on disk is not what was written, and no power cut explains it.
    #[error(
        "write-ahead log: {} is damaged at byte {offset}: {reason}; what this member acknowledged \
         can no longer be trusted: remove it from the cluster and let it join again with an empty \
         data directory", file.display()
    )]
    Damaged {
        /// The segment, or the directory when a segment is missing.
        file: PathBuf,
        /// Where in the file.
        offset: u64,
        /// What is wrong there.
        reason: String,
    },
    /// Written by a newer version of the program.
    #[error(
        "write-ahead log: {} has format {found}, this version reads up to {known}: run the version \
         that wrote it, or a newer one", file.display()
    )]
    NewerFormat {
        /// The segment.
        file: PathBuf,
        /// Its format.
        found: u32,
        /// The newest format known here.
        known: u32,
    },
    /// Another process has the log open.
    #[error("write-ahead log: {} is in use by another process", path.display())]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// Entries must follow each other without a hole. Nothing was appended.
    #[error("write-ahead log: the next entry must have index {expected}, not {got}")]
    Gap {
        /// The index that must come.
        expected: u64,
        /// The index that came.
        got: u64,
    },
    /// The range asked for is not in the log.
    #[error("write-ahead log: entries {from}..{to} were asked for, it holds {first}..{next}")]
    OutOfRange {
        /// Asked from.
        from: u64,
        /// Asked up to, exclusive.
        to: u64,
        /// First entry held.
        first: u64,
        /// Index after the last entry held.
        next: u64,
    },
    /// The entry is larger than the log takes. Nothing was appended.
    #[error("write-ahead log: entry {index} has {bytes} bytes, the limit is {limit}")]
    TooLarge {
        /// The entry.
        index: u64,
        /// Its size.
        bytes: usize,
        /// The largest size.
        limit: usize,
    },
    /// An earlier write or fsync failed. It is never tried again, because the kernel may have
    /// dropped what it could not write; only a restart shows what is on disk.
    #[error("write-ahead log: stopped after an earlier error: {reason}")]
    Failed {
        /// The earlier error.
        reason: String,
        /// Its kind, for example [`io::ErrorKind::StorageFull`].
        kind: io::ErrorKind,
    },
    /// It was closed.
    #[error("write-ahead log: closed")]
    Closed,
}

impl WalError {
    /// Wraps an operating-system error.
    pub(crate) fn io(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { action, path, source }
    }
}

impl From<WalError> for io::Error {
    fn from(error: WalError) -> Self {
        let kind = match &error {
            WalError::Io { source, .. } => source.kind(),
            WalError::Failed { kind, .. } => *kind,
            WalError::Damaged { .. } | WalError::NewerFormat { .. } => io::ErrorKind::InvalidData,
            WalError::Gap { .. } | WalError::OutOfRange { .. } | WalError::TooLarge { .. } => {
                io::ErrorKind::InvalidInput
            }
            WalError::InUse { .. } => io::ErrorKind::ResourceBusy,
            WalError::Closed => io::ErrorKind::BrokenPipe,
        };
        Self::new(kind, error)
    }
}
