//! The member's files, as the Maintenance service asks for them.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures::future::BoxFuture;

use crate::raft::snapfile;
use crate::rpc::disk::Disk;
use crate::store::state::State;
use crate::store::types::ClusterId;

/// The files under the store's directory.
pub struct StoreDisk {
    /// The directory.
    pub dir: PathBuf,
    /// Whose state it is.
    pub cluster: ClusterId,
    /// The state that a snapshot is taken of.
    pub state: Arc<State>,
}

impl Disk for StoreDisk {
    fn size(&self) -> Option<u64> {
        size(&self.dir).ok()
    }

    /// The log is purged and the state lives in memory: there are no holes to close.
    fn defragment(&self) -> BoxFuture<'_, io::Result<()>> {
        Box::pin(async { Ok(()) })
    }

    fn snapshot(&self) -> BoxFuture<'_, io::Result<File>> {
        let (dir, cluster, state) = (self.dir.clone(), self.cluster, Arc::clone(&self.state));
        Box::pin(async move {
            let taken = tokio::task::spawn_blocking(move || {
                // In a directory of its own, so that it goes away however this ends.
                let directory = tempfile::Builder::new().prefix(".snapshot-").tempdir_in(dir)?;
                let path = directory.path().join("snapshot");
                snapfile::write(&path, cluster, state.export())?;
                File::open(&path)
            });
            taken.await.map_err(io::Error::other)?
        })
    }
}

/// Bytes of all files under `dir`. Files that go away meanwhile do not count.
fn size(dir: &Path) -> io::Result<u64> {
    let mut total = 0;
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        total += match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => size(&entry.path()).unwrap_or(0),
            Ok(metadata) => metadata.len(),
            Err(_) => 0,
        };
    }
    Ok(total)
}
