//! Snapshots of a server: taken, looked at, kept and let go.
//!
//! [`inspect`] looks at files, also at those of another distribution, and needs no running node.
//! [`keeper`] takes them and lets them go, [`mod@s3`] holds copies, `schedule` says when, [`api`] is how the
//! supervisor offers it.

pub mod api;
pub mod bundle;
pub mod inspect;
pub mod keeper;
pub(crate) mod load;
pub(crate) mod metrics;
pub mod s3;
pub(crate) mod schedule;
#[cfg(test)]
mod tests;

use std::io::Read as _;
use std::path::Path;

use crate::cluster::snapshots::SnapshotView;

/// Longest note about a snapshot, in bytes.
const NOTE_BYTES_MAX: u64 = 64 * 1024;

/// What was noted of a snapshot in the file `note`; `None` when there is no note that can be read.
pub fn noted(note: &Path) -> Option<SnapshotView> {
    let mut text = Vec::new();
    std::fs::File::open(note).ok()?.take(NOTE_BYTES_MAX).read_to_end(&mut text).ok()?;
    serde_json::from_slice(&text).ok()
}
