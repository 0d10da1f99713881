//! What a data directory knows of the member it belongs to, and where its parts are.
//!
//! Read without a running node, by the executor and at boot. The identity is written before the
//! member first speaks to anybody, so that a start that died is taken up and not begun again.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::cluster::view::{Datastore, DiskView};
use crate::pki::{Tree, files, token};
use crate::store::types::{ClusterId, MemberId};

/// How far a member has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// It begins a new cluster; the store may be empty still.
    Bootstrapping,
    /// It was given a number by a cluster; the store may be empty still.
    Joining,
    /// It was a ready member once.
    Member,
}

/// Who a member is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Cluster number.
    #[serde(with = "hex_number")]
    pub cluster_id: ClusterId,
    /// Member number.
    #[serde(with = "hex_number")]
    pub member_id: MemberId,
    /// Member name (`<node>-<8 hex>`).
    pub member_name: String,
    /// How far it has come.
    pub phase: Phase,
    /// Clusters that this one took the place of, by a restore or a reset.
    #[serde(default, with = "hex_numbers", skip_serializing_if = "Vec::is_empty")]
    pub supersedes: Vec<ClusterId>,
    /// The restore or reset that made this member.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restore_id: Option<String>,
}

/// The newest format of the identity that is read here. What says nothing of it has the first.
const FORMAT: u32 = 1;

/// The part of an identity that every format has.
#[derive(Deserialize)]
struct Format {
    #[serde(default)]
    format: u32,
}

/// Paths under a data directory.
#[derive(Clone, Debug)]
pub struct DataDir(PathBuf);

impl DataDir {
    /// The data directory at `path`.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// Itself.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Certificates.
    pub fn tree(&self) -> Tree {
        Tree::new(&self.0)
    }

    /// Everything the store writes, and the identity: `server/db/etcd`, as in K3s.
    pub fn store(&self) -> PathBuf {
        self.0.join("server/db/etcd")
    }

    /// Snapshots, when they have no place of their own: `server/db/snapshots`, as in K3s.
    pub fn snapshots(&self) -> PathBuf {
        self.0.join("server/db/snapshots")
    }

    /// What was noted of each snapshot: `server/db/.metadata`, as in K3s.
    pub fn snapshot_notes(&self) -> PathBuf {
        self.0.join("server/db/.metadata")
    }

    /// Admin credentials for people: `server/cred`.
    pub fn credentials(&self) -> PathBuf {
        self.0.join("server/cred")
    }

    /// The token for joining: `server/token`.
    pub fn token(&self) -> PathBuf {
        self.0.join("server/token")
    }

    /// The token for agents: `server/agent-token`.
    pub fn agent_token(&self) -> PathBuf {
        self.0.join("server/agent-token")
    }

    /// Everything an agent writes: `agent`.
    pub fn agent(&self) -> PathBuf {
        self.0.join("agent")
    }

    /// The secret that proves a node's name to the cluster, kept when the store is moved aside.
    pub fn node_password(&self) -> PathBuf {
        self.0.join("node-password")
    }

    /// Where the store's directory, snapshots and marks of a reset are: `server/db`.
    pub fn db(&self) -> PathBuf {
        self.0.join("server/db")
    }

    fn identity(&self) -> PathBuf {
        self.store().join("identity.json")
    }

    fn tombstone(&self) -> PathBuf {
        self.store().join("tombstone")
    }

    /// The identity on disk, if there is one.
    pub fn read_identity(&self) -> io::Result<Option<Identity>> {
        let path = self.identity();
        let text = match std::fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.map_err(|error| at(&path, &error))?,
        };
        let bad = |why: String| {
            io::Error::new(io::ErrorKind::InvalidData, format!("{}: {why}", path.display()))
        };
        let Format { format } =
            serde_json::from_slice(&text).map_err(|error| bad(error.to_string()))?;
        if format > FORMAT {
            return Err(bad(format!(
                "has format {format}, this version reads up to {FORMAT}: run the version that wrote it, or a \
                 newer one"
            )));
        }
        serde_json::from_slice(&text).map(Some).map_err(|error| bad(error.to_string()))
    }

    /// Writes the identity, and K3s's `name` file beside it.
    pub fn write_identity(&self, identity: &Identity) -> io::Result<()> {
        files::private_directory(&self.store())?;
        files::write_private(&self.store().join("name"), identity.member_name.as_bytes())?;
        let text = serde_json::to_vec_pretty(identity).map_err(io::Error::other)?;
        files::write_private(&self.identity(), &text)
    }

    /// Whether the member was removed from its cluster.
    pub fn is_removed(&self) -> bool {
        self.tombstone().exists()
    }

    /// Records that the member was removed from its cluster.
    pub fn write_tombstone(&self) -> io::Result<()> {
        files::write_private(&self.tombstone(), b"")
    }

    /// Moves the store aside as `server/db/etcd-backup-<unix seconds>` and says where it is now.
    pub fn set_store_aside(&self, unix_s: u64) -> io::Result<PathBuf> {
        let aside = self.0.join(format!("server/db/etcd-backup-{unix_s}"));
        std::fs::rename(self.store(), &aside).map_err(|error| at(&aside, &error))?;
        Ok(aside)
    }

    /// Removes what was set aside long ago: of the stores that [`Self::set_store_aside`] moved, and
    /// of those that `up` moved (`server/db-removed-<unix seconds>`), the newest
    /// `ASIDE_KEPT` stay. Gives what was removed.
    pub fn prune_aside(&self) -> io::Result<Vec<PathBuf>> {
        let mut removed = Vec::new();
        for (directory, prefix) in [("server/db", "etcd-backup-"), ("server", "db-removed-")] {
            let directory = self.0.join(directory);
            let mut aside = Vec::new();
            for entry in std::fs::read_dir(&directory).map_err(|error| at(&directory, &error))? {
                let entry = entry?;
                let name = entry.file_name();
                let stamp = name.to_str().and_then(|name| name.strip_prefix(prefix));
                if let Some(stamp) = stamp.and_then(|stamp| stamp.parse::<u64>().ok()) {
                    aside.push((stamp, entry.path()));
                }
            }
            aside.sort();
            aside.truncate(aside.len().saturating_sub(ASIDE_KEPT));
            for (_, path) in aside {
                std::fs::remove_dir_all(&path).map_err(|error| at(&path, &error))?;
                removed.push(path);
            }
        }
        Ok(removed)
    }

    /// What the executor is told of this directory.
    pub fn view(&self) -> io::Result<Option<DiskView>> {
        let ca = self.tree().server_ca_path();
        Ok(self.read_identity()?.map(|identity| DiskView {
            cluster_id: format!("{:x}", identity.cluster_id),
            member_id: format!("{:x}", identity.member_id),
            member_name: identity.member_name,
            removed: self.is_removed(),
            ca_hash: std::fs::read_to_string(ca).ok().map(|pem| token::ca_hash(&pem)),
            datastore: Datastore::Etcd,
            restore_id: identity.restore_id,
            supersedes: identity.supersedes.iter().map(|id| format!("{id:x}")).collect(),
        }))
    }
}

/// How many stores that were set aside are kept.
const ASIDE_KEPT: usize = 3;

fn at(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

/// Numbers of clusters and members are written in hex, as etcdctl shows them.
pub(crate) mod hex_number {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
    pub(crate) fn serialize<S: Serializer>(number: &u64, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&format!("{number:x}"))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
        let text = String::deserialize(from)?;
        u64::from_str_radix(&text, 16).map_err(D::Error::custom)
    }
}

/// Several of them.
pub(crate) mod hex_numbers {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(crate) fn serialize<S: Serializer>(numbers: &[u64], to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(numbers.iter().map(|number| format!("{number:x}")))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u64>, D::Error> {
        let texts = Vec::<String>::deserialize(from)?;
        let numbers = texts.iter().map(|text| u64::from_str_radix(text, 16));
        numbers.collect::<Result<_, _>>().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_is_found_again_and_a_tombstone_shows() {
        let directory = tempfile::tempdir().unwrap();
        let data = DataDir::new(directory.path());
        assert_eq!(data.view().unwrap(), None);
        let identity = Identity {
            cluster_id: 0xab,
            member_id: 0xcd,
            member_name: "s1-00000001".into(),
            phase: Phase::Joining,
            supersedes: Vec::new(),
            restore_id: None,
        };
        data.write_identity(&identity).unwrap();
        assert_eq!(data.read_identity().unwrap(), Some(identity));
        data.write_tombstone().unwrap();
        let view = data.view().unwrap().unwrap();
        assert_eq!((view.cluster_id.as_str(), view.member_id.as_str()), ("ab", "cd"));
        assert!(view.removed && view.ca_hash.is_none());
        data.set_store_aside(7).unwrap();
        assert_eq!(data.view().unwrap(), None);
        assert!(directory.path().join("server/db/etcd-backup-7/identity.json").exists());
    }

    #[test]
    fn of_what_was_set_aside_the_newest_three_stay() {
        let directory = tempfile::tempdir().unwrap();
        let data = DataDir::new(directory.path());
        let server = directory.path().join("server");
        for name in ["db/etcd", "db/etcd-backup-x", "db-removed-5", "db-removed-10"] {
            std::fs::create_dir_all(server.join(name).join("wal")).unwrap();
        }
        for stamp in [9, 100, 10, 11, 99] {
            std::fs::create_dir_all(server.join(format!("db/etcd-backup-{stamp}"))).unwrap();
        }
        let removed = data.prune_aside().unwrap();
        let expected = ["db/etcd-backup-9", "db/etcd-backup-10"].map(|name| server.join(name));
        assert_eq!(removed, expected);
        assert!(removed.iter().all(|path| !path.exists()));
        assert!(server.join("db/etcd-backup-11").exists() && server.join("db/etcd").exists());
        assert!(server.join("db/etcd-backup-x").exists() && server.join("db-removed-5").exists());
        assert!(data.prune_aside().unwrap().is_empty());
    }

    #[test]
    fn an_identity_of_a_newer_format_is_refused_and_more_in_it_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let data = DataDir::new(directory.path());
        std::fs::create_dir_all(data.store()).unwrap();
        let text = |format: u32| {
            format!(
                r#"{{"format":{format},"cluster_id":"ab","member_id":"cd","member_name":"s1-00000001","phase":"member","new":1}}"#
            )
        };
        std::fs::write(data.identity(), text(1)).unwrap();
        assert_eq!(data.read_identity().unwrap().unwrap().cluster_id, 0xab);
        std::fs::write(data.identity(), text(2)).unwrap();
        let error = data.read_identity().unwrap_err().to_string();
        assert!(error.contains("has format 2, this version reads up to 1"), "{error}");
    }

    #[test]
    fn a_damaged_identity_is_an_error_that_names_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let data = DataDir::new(directory.path());
        std::fs::create_dir_all(data.store()).unwrap();
        std::fs::write(data.identity(), "{").unwrap();
        assert!(data.view().unwrap_err().to_string().contains("identity.json"));
    }
}
