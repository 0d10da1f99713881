//! The snapshots of a running server: taken, listed, removed, let go by the retention.
//!
//! One is taken at a time, and while it is, the store goes on being written: it is the state of one
//! moment, read a little at a time. A file gets its name when it is durable and was read back; what
//! fails later, in S3, never harms it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex as Lock;
use tokio::sync::Mutex;
use zip::write::SimpleFileOptions;

use super::inspect::{glance, inspect};
use super::noted;
use super::s3::{Bucket, S3Error};
use crate::cluster::snapshots::{
    SnapshotName, SnapshotStanding, SnapshotView, check_base, check_file_name, expired,
};
use crate::error::chain;
use crate::node::config::{S3Config, SnapshotConfig};
use crate::node::identity::DataDir;
use crate::node::records::unix_now;
use crate::raft::api::RaftStatus;
use crate::raft::snapfile;
use crate::store::fs::{create_private_dir, parent, remove_file, sync_dir, write_atomic};
use crate::store::state::State;
use crate::store::types::ClusterId;

/// So much of the disk stays free beside a snapshot: the log of this very server is often on it.
const FREE_BYTES_KEPT: u64 = 256 * 1024 * 1024;

/// Why a snapshot was not taken, or not removed.
#[derive(Debug, thiserror::Error)]
pub enum KeepError {
    /// The request cannot be meant.
    #[error("{0}")]
    Request(String),
    /// Another one is under way.
    #[error("snapshot save already in progress")]
    Busy,
    /// The member does not vote yet.
    #[error("unable to take snapshot: not supported for learner")]
    Learner,
    /// The disk has no room.
    #[error(
        "no room for a snapshot in {dir}: {free} bytes are free, up to {wanted} are needed, so that the \
         store itself keeps room; free space there or set etcd-snapshot-dir"
    )]
    NoRoom {
        /// Where.
        dir: String,
        /// Free bytes.
        free: u64,
        /// Wanted bytes.
        wanted: u64,
    },
    /// Reading or writing failed.
    #[error("{0}")]
    Disk(#[from] io::Error),
    /// It was written and reads back wrong.
    #[error("the snapshot that was just written is not right: {0}")]
    Wrong(String),
}

/// What to take, list or remove; what is not said is as the server is configured.
#[derive(Clone, Debug, Default)]
pub struct Wish {
    /// What the name begins with.
    pub base: Option<String>,
    /// Where.
    pub dir: Option<PathBuf>,
    /// In a zip archive.
    pub compress: Option<bool>,
    /// With these settings of S3; `Some(None)` leaves S3 out.
    pub s3: Option<Option<S3Config>>,
}

/// What was done.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Snapshots that are new.
    pub created: Vec<SnapshotView>,
    /// Names of those that are gone.
    pub deleted: Vec<String>,
    /// What did not work beside it.
    pub problems: Vec<String>,
}

/// Keeps the snapshots of a server.
pub struct Keeper {
    node: String,
    cluster: ClusterId,
    state: Arc<State>,
    config: SnapshotConfig,
    dir: PathBuf,
    metadata: PathBuf,
    started_unix_s: u64,
    busy: Mutex<()>,
    standing: Lock<SnapshotStanding>,
    failures: std::sync::atomic::AtomicU64,
}

impl Keeper {
    /// A keeper for the server `node`; looks for the newest snapshot there is.
    pub fn new(
        node: &str,
        cluster: ClusterId,
        state: Arc<State>,
        data: &DataDir,
        config: SnapshotConfig,
    ) -> Self {
        let dir = config.dir.clone().unwrap_or_else(|| data.snapshots());
        let standing = SnapshotStanding {
            node: node.to_owned(),
            schedule: config.schedule.as_ref().map(ToString::to_string).unwrap_or_default(),
            ..SnapshotStanding::default()
        };
        let keeper = Self {
            node: node.to_owned(),
            cluster,
            state,
            dir,
            metadata: data.snapshot_notes(),
            config,
            started_unix_s: unix_now(),
            busy: Mutex::new(()),
            standing: Lock::new(standing),
            failures: std::sync::atomic::AtomicU64::new(0),
        };
        let newest = keeper.local(&keeper.dir).unwrap_or_default().into_iter();
        let newest = newest.filter(|view| view.problem.is_none() && view.verified_unix_s.is_some());
        if let Some(newest) = newest.max_by_key(|view| view.created_unix_s) {
            keeper.note_good(&newest);
        }
        keeper
    }

    /// Its settings.
    pub fn config(&self) -> &SnapshotConfig {
        &self.config
    }

    /// How the snapshots stand now.
    pub fn standing(&self) -> SnapshotStanding {
        let mut standing = self.standing.lock().clone();
        if let Some(schedule) = &self.config.schedule {
            let now = unix_now();
            standing.next_unix_s = super::schedule::next(schedule, now);
            let since = standing.last_unix_s.unwrap_or(0).max(self.started_unix_s);
            standing.overdue = super::schedule::is_overdue(schedule, since, now);
        }
        standing
    }

    /// How many tries failed since the start.
    pub fn failures(&self) -> u64 {
        self.failures.load(std::sync::atomic::Ordering::Relaxed)
    }

    /// Takes one, and copies it to S3.
    ///
    /// # Errors
    /// There is no new snapshot. That S3 failed is among the outcome's problems.
    pub async fn save(&self, wish: &Wish, status: &RaftStatus) -> Result<Outcome, KeepError> {
        let base = wish.base.as_deref().unwrap_or("on-demand");
        let saved = self.take(base, wish, status).await;
        if let Err(error) = &saved
            && !matches!(error, KeepError::Busy | KeepError::Request(_))
        {
            self.note_failure(error.to_string());
        }
        let view = saved?;
        let mut outcome = Outcome { created: vec![view.clone()], ..Outcome::default() };
        if let Some(bucket) = self.bucket(wish) {
            match self.upload(bucket, &view).await {
                Ok(copy) => outcome.created.push(copy),
                Err(error) => {
                    let text = chain(&error);
                    tracing::error!("snapshot {} stays here only: {text}", view.name);
                    self.note_failure(text.clone());
                    outcome.problems.push(text);
                }
            }
        }
        Ok(outcome)
    }

    async fn take(
        &self,
        base: &str,
        wish: &Wish,
        status: &RaftStatus,
    ) -> Result<SnapshotView, KeepError> {
        check_base(base).map_err(|why| KeepError::Request(format!("the name `{base}` {why}")))?;
        if status.is_learner() {
            return Err(KeepError::Learner);
        }
        let _busy = self.busy.try_lock().map_err(|_| KeepError::Busy)?;
        let job = Job {
            dir: self.directory(wish)?,
            metadata: self.metadata.clone(),
            node: self.node.clone(),
            base: base.to_owned(),
            compress: wish.compress.unwrap_or(self.config.compress),
            cluster: self.cluster,
            state: Arc::clone(&self.state),
        };
        let view = tokio::task::spawn_blocking(move || job.run()).await;
        let view = view.map_err(io::Error::other)??;
        tracing::info!("Snapshot {} saved: revision {}.", view.name, view.revision);
        self.note_good(&view);
        Ok(view)
    }

    /// The directory that a wish means. One of the caller's own must be there already, as in K3s.
    fn directory(&self, wish: &Wish) -> Result<PathBuf, KeepError> {
        match wish.dir.as_ref().filter(|dir| **dir != self.dir) {
            Some(dir) if !dir.is_absolute() || !dir.is_dir() => {
                let why = format!("{} is not a directory (write its whole path)", dir.display());
                Err(KeepError::Request(why))
            }
            Some(dir) => Ok(dir.clone()),
            None => {
                create_private_dir(&self.dir)?;
                Ok(self.dir.clone())
            }
        }
    }

    fn bucket(&self, wish: &Wish) -> Option<Result<Bucket, S3Error>> {
        let config = wish.s3.clone().unwrap_or_else(|| self.config.s3.clone());
        config.map(|config| Bucket::open(&config))
    }

    async fn upload(
        &self,
        bucket: Result<Bucket, S3Error>,
        view: &SnapshotView,
    ) -> Result<SnapshotView, S3Error> {
        let bucket = bucket?;
        let path = view.location.trim_start_matches("file://");
        bucket.upload(Path::new(path), view).await?;
        self.standing.lock().uploaded_unix_s = Some(view.created_unix_s);
        Ok(SnapshotView { location: bucket.location(&view.name), ..view.clone() })
    }

    /// What is on this server's disk, and in S3; with what could not be listed.
    pub async fn list(&self, wish: &Wish) -> Result<(Vec<SnapshotView>, Vec<String>), KeepError> {
        let dir = wish.dir.clone().unwrap_or_else(|| self.dir.clone());
        let mut views = self.local(&dir)?;
        let mut problems = Vec::new();
        if let Some(bucket) = self.bucket(wish) {
            let listed = async { bucket?.list().await };
            match listed.await {
                Ok(listed) => views.extend(listed),
                Err(error) => problems.push(chain(&error)),
            }
        }
        views.sort_by_key(|view| (view.created_unix_s, view.name.clone()));
        Ok((views, problems))
    }

    /// The files of a directory; one that is not there holds none.
    fn local(&self, dir: &Path) -> io::Result<Vec<SnapshotView>> {
        let entries = match std::fs::read_dir(dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other?,
        };
        let mut views = Vec::new();
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if SnapshotName::parse(&name).is_none() {
                continue;
            }
            let Ok(mut view) = glance(&entry.path()) else { continue };
            if let Some(note) = noted(&self.metadata.join(&name)).filter(|note| view.is_still(note))
            {
                view.complete(note);
            }
            views.push(view);
        }
        Ok(views)
    }

    /// Removes snapshots here and in S3. Names that are nowhere are in the problems.
    pub async fn delete(&self, names: &[String], wish: &Wish) -> Result<Outcome, KeepError> {
        if names.is_empty() {
            return Err(KeepError::Request("no snapshots given for removal".to_owned()));
        }
        for name in names {
            let right = check_file_name(name).is_ok() && SnapshotName::parse(name).is_some();
            if !right {
                return Err(KeepError::Request(format!("`{name}` is not the name of a snapshot")));
            }
        }
        let (known, mut problems) = self.list(wish).await?;
        let mut outcome = Outcome::default();
        for name in names {
            let places: Vec<&SnapshotView> =
                known.iter().filter(|view| view.name == *name).collect();
            if places.is_empty() {
                problems.push(format!("Snapshot {name} not found."));
                continue;
            }
            match self.remove(name, &places, wish).await {
                Ok(()) => outcome.deleted.push(name.clone()),
                Err(error) => problems.push(error),
            }
        }
        Ok(Outcome { problems, ..outcome })
    }

    async fn remove(
        &self,
        name: &str,
        places: &[&SnapshotView],
        wish: &Wish,
    ) -> Result<(), String> {
        for place in places {
            if let Some(path) = place.location.strip_prefix("file://") {
                self.remove_local(Path::new(path)).map_err(|error| error.to_string())?;
            } else if let Some(bucket) = self.bucket(wish) {
                let removed = async { bucket?.remove(name).await };
                removed.await.map_err(|error| chain(&error))?;
            }
        }
        tracing::info!("Snapshot {name} deleted.");
        Ok(())
    }

    fn remove_local(&self, path: &Path) -> io::Result<()> {
        for path in [path.to_owned(), self.metadata.join(path.file_name().unwrap_or_default())] {
            remove_file(&path)?;
        }
        sync_dir(parent(path))
    }

    /// Removes those of this server under a base that the retention lets go, here and in S3, each
    /// place by its own. `keep` is for both when it is said.
    pub async fn prune(&self, keep: Option<usize>, wish: &Wish) -> Result<Outcome, KeepError> {
        let base = wish.base.as_deref().unwrap_or(&self.config.name);
        let (known, mut problems) = self.list(wish).await?;
        let mut outcome = Outcome::default();
        let s3 = wish.s3.clone().unwrap_or_else(|| self.config.s3.clone());
        let places = [
            ("file://", keep.unwrap_or(self.config.retention)),
            ("s3://", keep.or(s3.map(|s3| s3.retention)).unwrap_or(0)),
        ];
        for (scheme, keep) in places {
            let here: Vec<&SnapshotView> =
                known.iter().filter(|view| view.location.starts_with(scheme)).collect();
            let names = here.iter().map(|view| view.name.as_str());
            for name in expired(names, base, &self.node, keep) {
                let place: Vec<&SnapshotView> =
                    here.iter().copied().filter(|view| view.name == name).collect();
                match self.remove(&name, &place, wish).await {
                    Ok(()) => outcome.deleted.push(name),
                    Err(error) => problems.push(error),
                }
            }
        }
        Ok(Outcome { problems, ..outcome })
    }

    /// What the schedule does: takes one, copies to S3 what did not get there before, lets go.
    pub async fn tick(&self, status: &RaftStatus) -> Result<(), KeepError> {
        let wish = Wish { base: Some(self.config.name.clone()), ..Wish::default() };
        let saved = self.save(&wish, status).await?;
        if saved.problems.is_empty() && self.config.s3.is_some() {
            self.catch_up(&wish).await;
        }
        // What is not safe in S3 is not let go here for its sake: each place has its own retention.
        let pruned = self.prune(None, &wish).await?;
        for problem in &pruned.problems {
            tracing::warn!("snapshot retention: {problem}");
        }
        Ok(())
    }

    /// Copies scheduled snapshots of this server that are not in S3 yet, newest first.
    async fn catch_up(&self, wish: &Wish) {
        let Ok((known, _)) = self.list(wish).await else { return };
        let keep = self.config.s3.as_ref().map_or(0, |s3| s3.retention);
        let own = |view: &&SnapshotView| {
            let parsed = SnapshotName::parse(&view.name);
            parsed.is_some_and(|name| name.is_of(&self.config.name, &self.node))
        };
        let there: Vec<&str> = known
            .iter()
            .filter(|view| view.location.starts_with("s3://"))
            .map(|view| view.name.as_str())
            .collect();
        let here = known.iter().rev().filter(own).filter(|view| view.location.starts_with("file:"));
        let missing = here.take(if keep == 0 { usize::MAX } else { keep });
        for view in missing.filter(|view| !there.contains(&view.name.as_str())) {
            let Some(bucket) = self.bucket(wish) else { return };
            match self.upload(bucket, view).await {
                Ok(_) => tracing::info!("snapshot {} is in S3 now", view.name),
                Err(error) => tracing::warn!("snapshot {}: {}", view.name, chain(&error)),
            }
        }
    }

    fn note_good(&self, view: &SnapshotView) {
        let mut standing = self.standing.lock();
        standing.last = Some(view.name.clone());
        standing.last_unix_s = Some(view.created_unix_s);
        standing.problem = None;
    }

    fn note_failure(&self, problem: String) {
        self.failures.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        self.standing.lock().problem = Some(problem);
    }
}

/// One snapshot to take, on a thread that may block.
struct Job {
    dir: PathBuf,
    metadata: PathBuf,
    node: String,
    base: String,
    compress: bool,
    cluster: ClusterId,
    state: Arc<State>,
}

impl Job {
    fn run(self) -> Result<SnapshotView, KeepError> {
        self.check_room()?;
        let path = self.free_name();
        if self.compress {
            self.write_zip(&path)?;
        } else {
            snapfile::write(&path, self.cluster, self.state.export())?;
        }
        let mut view = inspect(&path)?;
        if let Some(problem) = view.problem {
            std::fs::remove_file(&path)?;
            return Err(KeepError::Wrong(problem));
        }
        view.node.clone_from(&self.node);
        create_private_dir(&self.metadata)?;
        let note = serde_json::to_vec(&view).map_err(io::Error::other)?;
        write_atomic(&self.metadata.join(&view.name), &note)?;
        Ok(view)
    }

    /// The first name from this second on that nothing has.
    fn free_name(&self) -> PathBuf {
        let mut unix_s = unix_now();
        loop {
            let name = SnapshotName::new(&self.base, &self.node, unix_s, self.compress);
            let path = self.dir.join(name.to_string());
            if path.symlink_metadata().is_err() {
                return path;
            }
            unix_s += 1;
        }
    }

    fn check_room(&self) -> Result<(), KeepError> {
        let found = rustix::fs::statvfs(&self.dir).map_err(io::Error::from)?;
        let free = found.f_bavail.saturating_mul(found.f_frsize);
        let wanted = self.state.size_bytes().total.saturating_add(FREE_BYTES_KEPT);
        if free >= wanted {
            return Ok(());
        }
        Err(KeepError::NoRoom { dir: self.dir.display().to_string(), free, wanted })
    }

    /// The snapshot alone in an archive, which gets its name when it was read back.
    fn write_zip(&self, path: &Path) -> Result<(), KeepError> {
        // Goes away however this ends.
        let work = tempfile::Builder::new().prefix(".snapshot-").tempdir_in(&self.dir)?;
        let name = path.file_stem().unwrap_or_default();
        let plain = work.path().join(name);
        snapfile::write(&plain, self.cluster, self.state.export())?;
        let part = work.path().join("archive");
        let file = crate::store::fs::create_private_file(&part)?;
        let mut archive = zip::ZipWriter::new(io::BufWriter::new(file));
        let options = SimpleFileOptions::default().large_file(true).unix_permissions(0o600);
        archive.start_file(name.to_string_lossy(), options).map_err(io::Error::from)?;
        io::copy(&mut std::fs::File::open(&plain)?, &mut archive)?;
        let buffered = archive.finish().map_err(io::Error::from)?;
        let file = buffered.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.sync_all()?;
        if let Some(problem) = inspect(&part)?.problem {
            return Err(KeepError::Wrong(problem));
        }
        std::fs::rename(&part, path)?;
        sync_dir(&self.dir)?;
        Ok(())
    }
}
