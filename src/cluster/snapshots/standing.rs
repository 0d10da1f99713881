//! How the snapshots of a server stand: what `status` shows and warns of.

use serde::{Deserialize, Serialize};

/// How the snapshots of one server stand.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SnapshotStanding {
    /// The server.
    pub node: String,
    /// When they are taken, as cron has it; empty when they are not.
    pub schedule: String,
    /// The newest good one on the server's own disk.
    pub last: Option<String>,
    /// When that was taken, seconds since 1970.
    pub last_unix_s: Option<u64>,
    /// When the newest one reached S3, seconds since 1970; `None` without S3 too.
    pub uploaded_unix_s: Option<u64>,
    /// When the next one is due, seconds since 1970.
    pub next_unix_s: Option<u64>,
    /// One should have been taken by now and was not.
    pub overdue: bool,
    /// Why the last try failed; `None` when it did not.
    pub problem: Option<String>,
}

impl SnapshotStanding {
    /// What a person should know, one line each.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if self.overdue {
            let last = self.last.as_deref().unwrap_or("none");
            warnings.push(format!("{}: a snapshot is overdue (last good one: {last})", self.node));
        }
        if let Some(problem) = &self.problem {
            warnings.push(format!("{}: the last snapshot failed: {problem}", self.node));
        }
        warnings
    }
}
