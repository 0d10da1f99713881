//! A state from a snapshot file of any kind: this program's own, etcd's and K3s's, and zip archives of
//! them.

use std::path::Path;

use super::super::database::{self, HashCheck};
use super::inspect::content;
use crate::error::{ExitCode, Failure, chain};
use crate::raft::reset::{self, Loaded, Source};

/// Reads the state that `path` is a snapshot of; all of it is verified. `check` is about files of
/// etcd's: this program's own carry their sums inside. Blocks on the disk.
///
/// # Errors
/// It is none, damaged, or cannot be read.
pub(crate) fn load(path: &Path, check: HashCheck) -> Result<Loaded, Failure> {
    let file = content(path).map_err(|why| Failure::new(ExitCode::BadInput, why))?;
    if database::looks_like_one(&file) {
        return database::load(&file, check).map_err(|error| {
            Failure::new(ExitCode::Error, format!("{}: {}", path.display(), chain(&error)))
        });
    }
    reset::load(Source::Snapshot(&file, path))
        .map_err(|error| Failure::new(ExitCode::Error, chain(&error)))
}
