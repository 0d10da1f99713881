//! Snapshot files of one member: made, kept, sent, taken in.
//!
//! There is one current file in `<dir>/snap`, named by term and index of the last entry in it. A
//! file gets its name only when it is whole, verified and durable, so that the log may be purged up
//! to it. Files that are being written or received end in `.part` and are removed at start.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use openraft::storage::RaftSnapshotBuilder;
use parking_lot::Mutex;

use super::config::{Observer, observed};
use super::entry::log_id;
use super::snapfile;
use super::types::{LogId, SnapshotMeta, TypeConfig};
use crate::store::snapshot::{SnapshotReader, verify_file};
use crate::store::state::State;
use crate::store::types::ClusterId;

type Snapshot = openraft::type_config::alias::SnapshotOf<TypeConfig, SnapshotFile>;

/// An open snapshot file. It stays readable when its name is removed.
#[derive(Clone, Debug)]
pub(crate) struct SnapshotFile {
    path: PathBuf,
    file: Arc<File>,
}

impl SnapshotFile {
    fn open(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.to_owned(), file: Arc::new(File::open(path)?) })
    }

    /// Its length in bytes.
    pub(crate) fn length(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    /// Up to `length` bytes from `offset` on.
    pub(crate) async fn read(&self, offset: u64, length: usize) -> io::Result<Bytes> {
        let file = self.file.clone();
        blocking(move || {
            let mut bytes = vec![0; length];
            file.read_exact_at(&mut bytes, offset)?;
            Ok(bytes.into())
        })
        .await
    }
}

/// The snapshot files of a member.
pub(crate) struct SnapshotStore {
    dir: PathBuf,
    cluster: ClusterId,
    current: Mutex<Option<Snapshot>>,
    observer: Option<Observer>,
    /// Somebody waits for a snapshot with the entry of this index.
    wanted: AtomicU64,
}

/// A snapshot that is being received.
pub(crate) struct Receiving {
    path: tempfile::TempPath,
    file: Arc<File>,
    length: u64,
    written: u64,
}

impl SnapshotStore {
    /// Opens the directory and finds the newest whole snapshot; one that is damaged is set aside.
    pub(crate) fn open(dir: &Path, cluster: ClusterId) -> io::Result<Self> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        let store = Self {
            dir: dir.to_owned(),
            cluster,
            current: Mutex::default(),
            observer: None,
            wanted: AtomicU64::new(0),
        };
        let mut names = Vec::new();
        for entry in fs::read_dir(dir)? {
            let path = entry?.path();
            match path.extension().and_then(|extension| extension.to_str()) {
                Some("part") => fs::remove_file(&path)?,
                Some("snap") => names.push(path),
                _ => {}
            }
        }
        names.sort_by_key(|path| std::cmp::Reverse(named(path)));
        let mut newest = None;
        for path in names {
            match store.verify(&SnapshotFile::open(&path)?) {
                Ok(snapshot) if newest.is_none() => newest = Some(snapshot),
                Ok(_) => fs::remove_file(&path)?,
                Err(error) => {
                    tracing::error!(path = %path.display(), %error, "setting a snapshot aside");
                    fs::rename(&path, path.with_extension("damaged"))?;
                }
            }
        }
        store.current.lock().clone_from(&newest);
        Ok(store)
    }

    /// With somebody who is told how long writing a file took.
    pub(crate) fn observed_by(self, observer: Option<Observer>) -> Self {
        Self { observer, ..self }
    }

    /// The newest snapshot.
    pub(crate) fn current(&self) -> Option<Snapshot> {
        self.current.lock().clone()
    }

    /// Where the newest snapshot is.
    pub(crate) fn newest_path(&self) -> Option<PathBuf> {
        self.current.lock().as_ref().map(|current| current.snapshot.path.clone())
    }

    /// Asks that the next snapshot be made, whatever it costs, if none is there with the entry at
    /// `index`.
    pub(crate) fn want(&self, index: u64) {
        self.wanted.fetch_max(index, Ordering::Relaxed);
    }

    /// Whether somebody asked for a newer snapshot than there is.
    pub(crate) fn is_wanted(&self) -> bool {
        let current = self.current.lock().as_ref().and_then(|current| current.meta.last_log_id);
        current.map_or(0, |last| last.index) < self.wanted.load(Ordering::Relaxed)
    }

    /// Reads a file to its end; errs unless it is whole and of this cluster.
    fn verify(&self, file: &SnapshotFile) -> io::Result<Snapshot> {
        let info = verify_file(&file.file, &file.path)?;
        self.check_cluster(info.header.cluster_id)?;
        Ok(Snapshot { meta: snapfile::meta(&info.header)?, snapshot: file.clone() })
    }

    fn check_cluster(&self, cluster: ClusterId) -> io::Result<()> {
        if cluster == self.cluster {
            return Ok(());
        }
        let why = format!("the snapshot is of cluster {cluster:x}, not of {:x}", self.cluster);
        Err(io::Error::new(io::ErrorKind::InvalidData, why))
    }

    /// Writes the state into a new file and makes it the current one.
    fn write(&self, state: &Arc<State>) -> io::Result<Snapshot> {
        let export = state.export();
        let (index, term) = export.applied();
        let last = Some(log_id(term, index));
        if let Some(current) = self.current().filter(|current| current.meta.last_log_id >= last) {
            return Ok(current);
        }
        let path = self.dir.join(name(last));
        let info =
            observed(self.observer.as_ref(), || snapfile::write(&path, self.cluster, export))?;
        let snapshot = SnapshotFile::open(&path)?;
        let snapshot = Snapshot { meta: snapfile::meta(&info.header)?, snapshot };
        self.replace(snapshot.clone());
        Ok(snapshot)
    }

    /// Gives a verified file that was received its name, durably, and removes the older one.
    fn adopt(&self, mut snapshot: Snapshot) -> io::Result<()> {
        snapshot.snapshot.file.sync_all()?;
        let name = self.dir.join(name(snapshot.meta.last_log_id));
        fs::rename(&snapshot.snapshot.path, &name)?;
        File::open(&self.dir)?.sync_all()?;
        snapshot.snapshot.path = name;
        self.replace(snapshot);
        Ok(())
    }

    /// Makes `snapshot` the current one unless a newer one is, and removes the other file.
    fn replace(&self, snapshot: Snapshot) {
        let mut current = self.current.lock();
        let gone = match current.take() {
            Some(kept) if kept.meta.last_log_id > snapshot.meta.last_log_id => {
                *current = Some(kept);
                Some(snapshot)
            }
            before => {
                let path = snapshot.snapshot.path.clone();
                *current = Some(snapshot);
                before.filter(|before| before.snapshot.path != path)
            }
        };
        if let Some(gone) = gone
            && let Err(error) = fs::remove_file(&gone.snapshot.path)
        {
            tracing::warn!(path = %gone.snapshot.path.display(), %error, "cannot remove a snapshot");
        }
    }

    /// Begins to receive a snapshot of `length` bytes.
    pub(crate) async fn receive(self: &Arc<Self>, length: u64) -> io::Result<Receiving> {
        let store = self.clone();
        blocking(move || {
            let part = tempfile::Builder::new().suffix(".part").tempfile_in(&store.dir)?;
            let (file, path) = part.into_parts();
            Ok(Receiving { path, file: Arc::new(file), length, written: 0 })
        })
        .await
    }

    /// Replaces the state by what is in `file`, which was verified and becomes the current
    /// snapshot.
    pub(crate) async fn install(
        self: &Arc<Self>,
        meta: &SnapshotMeta,
        file: SnapshotFile,
        state: Arc<State>,
    ) -> io::Result<()> {
        let (store, meta) = (self.clone(), meta.clone());
        blocking(move || {
            let known = store.current().is_some_and(|current| current.snapshot.path == file.path);
            if !known {
                store.adopt(Snapshot { meta, snapshot: file.clone() })?;
            }
            let reader = SnapshotReader::over(&*file.file, &file.path)?;
            store.check_cluster(reader.info().header.cluster_id)?;
            snapfile::read(reader, &state)
        })
        .await
    }
}

impl Receiving {
    /// Takes the next bytes.
    pub(crate) async fn write(&mut self, bytes: &Bytes) -> io::Result<()> {
        let (file, bytes, offset) = (self.file.clone(), bytes.clone(), self.written);
        self.written += bytes.len() as u64;
        if self.written > self.length {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the snapshot is too long"));
        }
        blocking(move || file.write_all_at(&bytes, offset)).await
    }

    /// Ends it: reads all of it again, and checks that it is what was announced.
    pub(crate) async fn finish(
        self,
        store: &Arc<SnapshotStore>,
        announced: SnapshotMeta,
    ) -> io::Result<SnapshotFile> {
        let invalid = |why: &str| io::Error::new(io::ErrorKind::InvalidData, why);
        if self.written != self.length {
            return Err(invalid("the snapshot is too short"));
        }
        let store = store.clone();
        blocking(move || {
            let snapshot = store.verify(&SnapshotFile::open(&self.path)?)?;
            if snapshot.meta != announced {
                return Err(invalid("the snapshot is not the one that was announced"));
            }
            self.path.keep()?;
            Ok(snapshot.snapshot)
        })
        .await
    }
}

/// Makes a snapshot of the state as it is when it is asked.
pub(crate) struct SnapshotMaker {
    store: Arc<SnapshotStore>,
    state: Arc<State>,
}

impl SnapshotMaker {
    pub(crate) fn new(store: Arc<SnapshotStore>, state: Arc<State>) -> Self {
        Self { store, state }
    }
}

impl RaftSnapshotBuilder<TypeConfig> for SnapshotMaker {
    type SnapshotData = SnapshotFile;

    async fn build_snapshot(&mut self) -> io::Result<Snapshot> {
        let (store, state) = (self.store.clone(), self.state.clone());
        blocking(move || store.write(&state)).await
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}

/// The name of a file that ends with this entry.
pub(crate) fn name(last: Option<LogId>) -> String {
    let (term, index) = last.map_or((0, 0), |last| (last.leader_id.term, last.index));
    format!("{term:016x}-{index:016x}.snap")
}

/// Term and index in a file's name.
fn named(path: &Path) -> Option<(u64, u64)> {
    let (term, index) = path.file_stem()?.to_str()?.split_once('-')?;
    Some((u64::from_str_radix(term, 16).ok()?, u64::from_str_radix(index, 16).ok()?))
}
