//! The data directory of a member of a new cluster from a snapshot, before the member runs: what
//! `etcdutl snapshot restore` does.

use std::path::{Path, PathBuf};

use super::config::Config;
use super::data::{DataDir, PART};
use super::server::begin;
use crate::error::{ExitCode, Failure, chain};
use crate::node::database::HashCheck;
use crate::node::snapshots::load::load;
use crate::pki::files;
use crate::raft::reset;
use crate::store::fs::{remove_dir_all, sync_dir};
use crate::store::state::State;
use crate::store::types::{Command, Revision};

/// How to restore.
#[derive(Clone, Debug)]
pub(crate) struct Restore {
    /// The snapshot: etcd's, K3s's or this program's own.
    pub(crate) snapshot: PathBuf,
    /// Whether the hash behind it counts.
    pub(crate) check: HashCheck,
    /// By how much revisions go on further, so that clients who saw later ones than the snapshot has see none twice.
    pub(crate) bump: Revision,
    /// Whether everything before the last revision is compacted: watchers from before start anew.
    pub(crate) compact: bool,
}

impl Restore {
    /// Makes the data directory of the member that `config` tells of. All members that it names have
    /// to be restored from the same snapshot; they form a new cluster when they are started. Gives the
    /// revision. Blocks on the disk.
    ///
    /// # Errors
    /// There is data already, or the snapshot cannot be used.
    pub(crate) fn run(&self, config: &Config) -> Result<Revision, Failure> {
        check_empty(&config.data_dir)?;
        let loaded = load(&self.snapshot, self.check)?;
        loaded.state.bump_revision(self.bump);
        let identity = begin(config);
        let mut changes = foreign(&loaded.state);
        if self.compact {
            changes.push(Command::Compact { revision: loaded.state.revision() });
        }
        let data = DataDir::new(&config.data_dir);
        let part = config.data_dir.join(PART);
        let write = || {
            files::private_directory(&config.data_dir)?;
            let members = &identity.initial;
            let (cluster, own) = (identity.cluster, identity.member);
            let revision = reset::write(&loaded, &part, cluster, members, own, changes)?;
            DataDir::write_into(&part, &identity.clone().restored())?;
            std::fs::rename(&part, data.member())?;
            sync_dir(&config.data_dir)?;
            Ok::<_, std::io::Error>(revision)
        };
        write().map_err(|error| Failure::new(ExitCode::Error, chain(&error)))
    }
}

/// A directory with anything in it is somebody's, except what a restore left that was cut off: that goes.
fn check_empty(dir: &Path) -> Result<(), Failure> {
    let is_part = |entry: std::io::Result<std::fs::DirEntry>| {
        entry.is_ok_and(|entry| entry.file_name() == PART)
    };
    let is_empty = match std::fs::read_dir(dir) {
        Ok(mut entries) => entries.all(is_part),
        Err(error) => error.kind() == std::io::ErrorKind::NotFound,
    };
    if is_empty {
        return remove_dir_all(&dir.join(PART))
            .map_err(|error| Failure::new(ExitCode::Error, format!("{}: {error}", dir.display())));
    }
    let message = format!("data-dir \"{}\" not empty or could not be read", dir.display());
    Err(Failure::new(ExitCode::Refused, message).hint("give another --data-dir"))
}

/// What a cluster of servers agreed on is none of a stand-alone member's.
fn foreign(state: &State) -> Vec<Command> {
    let records = state.system_prefix("").into_iter();
    records.map(|(key, _)| Command::SystemPut { key, value: None, expect: None }).collect()
}
