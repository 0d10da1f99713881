//! The data directory of a stand-alone member: `<data-dir>/member`, with what the member is.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{ExitCode, Failure};
use crate::node::identity::hex_number;
use crate::pki::files;
use crate::store::types::{ClusterId, MemberId, MemberRecord};

/// The newest format that is read here.
const FORMAT: u32 = 1;

/// Where a member's data is made before it is put in place, in the data directory.
pub(crate) const PART: &str = "member.part";

/// The file that says who the member is.
const IDENTITY: &str = "identity.json";

/// Who the member is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Identity {
    /// Format of this file.
    pub(crate) format: u32,
    /// Its cluster.
    #[serde(with = "hex_number")]
    pub(crate) cluster: ClusterId,
    /// Its number.
    #[serde(with = "hex_number")]
    pub(crate) member: MemberId,
    /// The voters that its cluster began with; none when it joined one.
    #[serde(default)]
    pub(crate) initial: Vec<MemberRecord>,
    /// Whether it was removed from the cluster.
    #[serde(default)]
    pub(crate) removed: bool,
}

impl Identity {
    /// A member of a cluster that begins with `initial`, or of one that is there when it is empty.
    pub(crate) fn new(cluster: ClusterId, member: MemberId, initial: Vec<MemberRecord>) -> Self {
        Self { format: FORMAT, cluster, member, initial, removed: false }
    }

    /// The same with its membership on disk already: nothing begins when it starts.
    pub(crate) fn restored(self) -> Self {
        Self { initial: Vec::new(), ..self }
    }
}

/// The data directory.
#[derive(Clone, Debug)]
pub(crate) struct DataDir(PathBuf);

impl DataDir {
    /// At `path`.
    pub(crate) fn new(path: &Path) -> Self {
        Self(path.to_owned())
    }

    /// Where log, snapshots and checkpoint are.
    pub(crate) fn member(&self) -> PathBuf {
        self.0.join("member")
    }

    /// Where certificates are that were made.
    pub(crate) fn made(&self, side: &str) -> PathBuf {
        self.0.join("fixtures").join(side)
    }

    fn identity(&self) -> PathBuf {
        self.member().join(IDENTITY)
    }

    /// Who the member is; `None` without data.
    ///
    /// # Errors
    /// The data is another program's, or cannot be read.
    pub(crate) fn read(&self) -> Result<Option<Identity>, Failure> {
        let path = self.identity();
        let bad = |why: String| Failure::new(ExitCode::Error, format!("{}: {why}", path.display()));
        let text = match std::fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return if self.is_etcds() { Err(self.foreign()) } else { Ok(None) };
            }
            other => other.map_err(|error| bad(error.to_string()))?,
        };
        let identity: Identity =
            serde_json::from_slice(&text).map_err(|error| bad(error.to_string()))?;
        if identity.format > FORMAT {
            return Err(bad(format!(
                "has format {}, this version reads up to {FORMAT}",
                identity.format
            )));
        }
        Ok(Some(identity))
    }

    /// Writes who the member is.
    pub(crate) fn write(&self, identity: &Identity) -> io::Result<()> {
        files::private_directory(&self.member())?;
        Self::write_into(&self.member(), identity)
    }

    /// Writes who a member is into a directory that will be its [`Self::member`].
    pub(crate) fn write_into(member: &Path, identity: &Identity) -> io::Result<()> {
        let text = serde_json::to_vec_pretty(identity).map_err(io::Error::other)?;
        files::write_private(&member.join(IDENTITY), &text)
    }

    /// Whether etcd itself wrote here.
    fn is_etcds(&self) -> bool {
        self.member().join("snap/db").exists()
    }

    fn foreign(&self) -> Failure {
        let message =
            format!("{} holds data of etcd itself, which has another format", self.0.display());
        Failure::new(ExitCode::Refused, message).hint(
            "`etcdctl snapshot restore` makes data of this program's from member/snap/db (with --skip-hash-check) or a \
             snapshot, in another --data-dir",
        )
    }
}
