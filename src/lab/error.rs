//! Why a lab could not do it.

use std::path::{Path, PathBuf};

/// Why a lab could not do it.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// A file or directory of the lab.
    #[error("{}: {source}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A key could not be made or read.
    #[error("{}: {reason}", path.display())]
    Key {
        /// Which file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The host did not come up or go down.
    #[error("lab host {name}: {reason}")]
    Host {
        /// Its name.
        name: String,
        /// What went wrong.
        reason: String,
    },
    /// A unit file cannot be used.
    #[error("{}:{line}: {reason}", path.display())]
    Unit {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// Why.
        reason: String,
    },
}

impl LabError {
    /// Wraps an I/O error with the path it is about.
    pub(super) fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { path, source }
    }

    /// A failure of one host.
    pub(super) fn host(name: &str, reason: impl Into<String>) -> Self {
        Self::Host { name: name.to_owned(), reason: reason.into() }
    }
}
