//! The member's files, as the Maintenance service asks for them.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;

use super::database;
use crate::raft::{CHECKPOINT, CheckpointHandle, Observer, Observers};
use crate::rpc::disk::Disk;
use crate::rpc::metrics::Metrics;
use crate::store::fs::create_private_file;
use crate::store::state::State;
use crate::store::types::{ClusterId, MemberId};

/// A member's files: those under the store's directory.
pub struct StoreDisk {
    /// The directory.
    pub dir: PathBuf,
    /// Whose state it is.
    pub cluster: ClusterId,
    /// The state that a snapshot is taken of.
    pub state: Arc<State>,
    /// The state's checkpoint.
    pub checkpoint: CheckpointHandle,
}

impl Disk for StoreDisk {
    /// As etcd: of the database, without the log.
    fn size(&self) -> Option<u64> {
        size(&self.dir.join(CHECKPOINT)).ok()
    }

    fn defragment(&self) -> BoxFuture<'_, io::Result<()>> {
        Box::pin(async { self.checkpoint.defragment().await.map_err(io::Error::other) })
    }

    /// As etcd: its database, which etcd's own tools read.
    fn snapshot(&self) -> BoxFuture<'_, io::Result<File>> {
        let (dir, cluster, state) = (self.dir.clone(), self.cluster, Arc::clone(&self.state));
        Box::pin(async move {
            let taken = tokio::task::spawn_blocking(move || {
                // In a directory of its own, so that it goes away however this ends.
                let directory = tempfile::Builder::new().prefix(".snapshot-").tempdir_in(dir)?;
                let path = directory.path().join("snapshot");
                database::write(create_private_file(&path)?, cluster, &state.dump())?;
                File::open(&path)
            });
            taken.await.map_err(io::Error::other)?
        })
    }
}

/// Feeds the histograms of the disk, and counts what passes between the member and its peers.
pub(crate) fn observers(metrics: &Metrics, member: MemberId) -> prometheus::Result<Observers> {
    let into = |histogram: &prometheus::Histogram| -> Option<Observer> {
        let histogram = histogram.clone();
        Some(Arc::new(move |took: Duration| histogram.observe(took.as_secs_f64())))
    };
    Ok(Observers {
        wal_sync: into(&metrics.wal_fsync_seconds),
        checkpoint: into(&metrics.backend_commit_seconds),
        snapshot: into(&metrics.snapshot_save_seconds),
        traffic: Some(Arc::new(metrics.of_member(member)?)),
    })
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
