//! Snapshots of the store as values: what is known of a file, what its name says, which ones a
//! retention lets go, and when one is overdue.
//!
//! Pure: no files, no clock, no network.

mod name;
mod retention;
mod standing;

use serde::{Deserialize, Serialize};

pub use name::{SAFETY_BASE, SnapshotName, check_base, check_file_name, is_safety};
pub use retention::expired;
pub use standing::SnapshotStanding;

/// What a snapshot is a snapshot of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SnapshotFormat {
    /// This program's own store.
    #[default]
    Embedded,
    /// etcd's database, as etcd and K3s save it, and `etcdctl snapshot save` of any member.
    Etcd,
}

/// A snapshot file, as far as it was looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SnapshotView {
    /// Its name: that of the file.
    pub name: String,
    /// Where it is: `file:///…` on its host, or `s3://bucket/key`.
    pub location: String,
    /// The node that took it, when that is known.
    pub node: String,
    /// Size of the file in bytes.
    pub bytes: u64,
    /// SHA-256 of the whole file in hex, as `sha256sum` prints it; `None` when it was not read.
    pub sha256: Option<String>,
    /// What it is a snapshot of.
    pub format: SnapshotFormat,
    /// etcd's database without a hash behind it: a copy of a data directory's. Damage may go unseen.
    pub unhashed: bool,
    /// The cluster's number in hex; empty when the file does not say (etcd's do not).
    pub cluster_id: String,
    /// The store's revision; 0 when the file does not say.
    pub revision: i64,
    /// When it was taken, seconds since 1970.
    pub created_unix_s: u64,
    /// Salted hash of the secret that admits servers to its cluster, which
    /// [`crate::node::secrets::matches`] compares with a token's; `None` when the file does not say.
    pub token_hash: Option<String>,
    /// For etcd's of K3s: the hashes of the tokens that its bootstrap data is encrypted with, the first
    /// twelve digits of each.
    pub bootstrap_keys: Vec<String>,
    /// Number of live keys; `None` when it was not read to its end.
    pub keys: Option<u64>,
    /// It is in a zip archive.
    pub compressed: bool,
    /// When it was last read to its end and found right, seconds since 1970.
    pub verified_unix_s: Option<u64>,
    /// Why it must not be used; `None` when nothing is known against it.
    pub problem: Option<String>,
}

impl SnapshotView {
    /// Whether what was noted when it was taken or last verified is still about this file, as far as
    /// its size tells.
    pub fn is_still(&self, noted: &Self) -> bool {
        self.name == noted.name && self.bytes == noted.bytes && self.bytes > 0
    }

    /// Takes over from what was noted what this look did not tell.
    pub fn complete(&mut self, noted: Self) {
        if self.cluster_id.is_empty() {
            self.cluster_id = noted.cluster_id;
            self.format = noted.format;
        }
        if self.revision == 0 {
            self.revision = noted.revision;
        }
        if self.node.is_empty() {
            self.node = noted.node;
        }
        if noted.created_unix_s > 0 {
            self.created_unix_s = noted.created_unix_s;
        }
        self.sha256 = self.sha256.take().or(noted.sha256);
        self.token_hash = self.token_hash.take().or(noted.token_hash);
        if self.bootstrap_keys.is_empty() {
            self.bootstrap_keys = noted.bootstrap_keys;
        }
        self.keys = self.keys.or(noted.keys);
        self.verified_unix_s = self.verified_unix_s.or(noted.verified_unix_s);
        self.problem = self.problem.take().or(noted.problem);
    }
}
