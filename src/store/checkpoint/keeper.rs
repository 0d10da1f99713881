//! Keeps a backend and its directory: opens, commits, rewrites, and sets aside what fails.

use std::mem::ManuallyDrop;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use time::OffsetDateTime;

use super::disk::{self, Syncer};
use super::{Backend, Batch, CheckpointError, Loaded, Mark, Size};
use crate::store::fs::{create_private_dir, remove_dir_all};

/// Opens a backend in a directory that exists.
pub(super) type Opener = fn(&Path) -> Result<Box<dyn Backend>, CheckpointError>;

/// Below this size on disk a rewrite is not worth it.
const REWRITE_BYTES_MIN: u64 = 64 * 1024 * 1024;
/// Bytes of records copied in one transaction of a rewrite. sled keeps what a transaction replaced until its end.
const COPY_BYTES: usize = 1024 * 1024;

/// How a rewrite ended that left a checkpoint of use.
enum Rewrite {
    Done,
    /// It was not possible, and what was there is as good as before.
    Kept(CheckpointError),
}

pub(super) struct Keeper {
    dir: PathBuf,
    open: Opener,
    /// `None` when nothing of use was found and after a failure, until a reset.
    ///
    /// A backend that failed is never dropped: what it would do then is unknown.
    backend: Option<ManuallyDrop<Box<dyn Backend>>>,
    syncer: Syncer,
    /// Size on disk after the last rewrite or reset.
    rewrite_at_bytes: u64,
}

/// Runs what may panic.
fn guarded<T>(what: impl FnOnce() -> Result<T, CheckpointError>) -> Result<T, CheckpointError> {
    catch_unwind(AssertUnwindSafe(what)).unwrap_or_else(|panic| {
        let text = panic
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| panic.downcast_ref::<&str>().copied())
            .unwrap_or("no message");
        Err(CheckpointError::Backend(format!("it panicked: {text}")))
    })
}

impl Keeper {
    /// Opens what is in `dir` and hands out its records. Fails only when the directory cannot be
    /// prepared; what is of no use is set aside.
    pub(super) fn open(
        dir: &Path,
        open: Opener,
        each: &mut dyn FnMut(&[u8], Bytes),
    ) -> Result<(Self, Loaded), CheckpointError> {
        remove_dir_all(&disk::beside(dir, ".new"))?;
        let existed = dir.try_exists()?;
        create_private_dir(dir)?;
        let mut keeper = Self {
            dir: dir.to_owned(),
            open,
            backend: None,
            syncer: Syncer::default(),
            rewrite_at_bytes: REWRITE_BYTES_MIN,
        };
        let loaded = guarded(|| {
            let backend = open(dir)?;
            let mark = keeper.backend.insert(ManuallyDrop::new(backend)).load(each)?;
            Ok(mark)
        });
        match loaded {
            Ok(Some(mark)) => Ok((keeper, Loaded::State(mark))),
            Ok(None) => {
                // Changes to a state that is not here would pass for all of it: only a reset may
                // follow.
                keeper.close()?;
                let reason = existed.then(|| "it was not complete".to_owned());
                Ok((keeper, Loaded::Nothing { reason }))
            }
            Err(error) => {
                keeper.give_up(&error);
                Ok((keeper, Loaded::Nothing { reason: Some(error.to_string()) }))
            }
        }
    }

    /// Makes a batch durable. After an error the checkpoint is set aside, and only a reset helps.
    pub(super) fn commit(&mut self, batch: &Batch) -> Result<(), CheckpointError> {
        let result = self.try_commit(batch);
        if let Err(error) = &result
            && *error != CheckpointError::NeedsReset
        {
            self.give_up(error);
        }
        result
    }

    fn try_commit(&mut self, batch: &Batch) -> Result<(), CheckpointError> {
        if batch.reset {
            self.reset()?;
        }
        let backend = self.backend.as_mut().ok_or(CheckpointError::NeedsReset)?;
        guarded(|| backend.commit(&batch.changes, batch.mark.as_ref()))?;
        if batch.mark.is_none() {
            // It counts for nothing before one that has a mark.
            return Ok(());
        }
        guarded(|| backend.flush())?;
        self.syncer.sync(&self.dir)?;
        if self.is_half_dead()?
            && let Rewrite::Kept(error) = self.rewrite()?
        {
            tracing::warn!(%error, "the checkpoint cannot be rewritten; it is kept as it is");
        }
        Ok(())
    }

    /// Begins with an empty directory.
    fn reset(&mut self) -> Result<(), CheckpointError> {
        self.close()?;
        remove_dir_all(&self.dir)?;
        create_private_dir(&self.dir)?;
        self.reopen()?;
        self.syncer = Syncer::default();
        self.rewrite_at_bytes = REWRITE_BYTES_MIN;
        Ok(())
    }

    /// Closes the backend, if it is open.
    fn close(&mut self) -> Result<(), CheckpointError> {
        match self.backend.take() {
            Some(backend) => guarded(|| {
                drop(ManuallyDrop::into_inner(backend));
                Ok(())
            }),
            None => Ok(()),
        }
    }

    /// Forgets what was read when the records were handed out: sled bounds its cache only loosely, and keeps up
    /// to 16,384 pages of which each was read once (sled 0.34 `lru.rs`: 256 shards, each of which looks at its
    /// size after 64 reads).
    pub(super) fn forget_reads(&mut self) {
        if self.backend.is_none() {
            return;
        }
        if let Err(error) = self.reopen() {
            self.give_up(&error);
        }
    }

    /// Opens the backend afresh, without anything in memory of what it was used for before.
    fn reopen(&mut self) -> Result<(), CheckpointError> {
        self.close()?;
        let (dir, open) = (&self.dir, self.open);
        self.backend = Some(ManuallyDrop::new(guarded(|| open(dir))?));
        Ok(())
    }

    fn give_up(&mut self, error: &CheckpointError) {
        // Not dropped, see there.
        self.backend = None;
        match disk::set_aside(&self.dir, OffsetDateTime::now_utc()) {
            Ok(aside) => tracing::warn!(
                %error, aside = %aside.unwrap_or_default().display(),
                "checkpoint set aside; the state is built again from the snapshot and the log"
            ),
            Err(failed) => {
                tracing::warn!(%error, %failed, "the checkpoint cannot even be set aside");
            }
        }
    }

    /// How large it is.
    pub(super) fn size(&self) -> Result<Size, CheckpointError> {
        let (records, live_bytes) = self.backend.as_ref().map_or((0, 0), |one| one.live());
        let disk_bytes = if self.dir.try_exists()? { disk::size(&self.dir)? } else { 0 };
        Ok(Size { live_bytes, disk_bytes, records })
    }

    fn is_half_dead(&self) -> Result<bool, CheckpointError> {
        let Size { live_bytes, disk_bytes, .. } = self.size()?;
        Ok(disk_bytes >= self.rewrite_at_bytes && live_bytes.saturating_mul(2) < disk_bytes)
    }

    /// Copies what is live into a fresh directory, which then takes the place of this one. On an
    /// error it may have been kept as it was, or set aside.
    pub(super) fn defragment(&mut self) -> Result<(), CheckpointError> {
        match self.rewrite() {
            Ok(Rewrite::Done) => Ok(()),
            Ok(Rewrite::Kept(error)) => Err(error),
            Err(error) => {
                if error != CheckpointError::NeedsReset {
                    self.give_up(&error);
                }
                Err(error)
            }
        }
    }

    fn rewrite(&mut self) -> Result<Rewrite, CheckpointError> {
        let new = disk::beside(&self.dir, ".new");
        match self.copy_to(&new) {
            Ok(()) => {}
            Err(error @ (CheckpointError::NeedsReset | CheckpointError::Damaged(_))) => {
                return Err(error);
            }
            // A full disk, most likely: what is there is as good as before.
            Err(error) => {
                remove_dir_all(&new)?;
                self.postpone_rewrite()?;
                return Ok(Rewrite::Kept(error));
            }
        }
        self.close()?;
        disk::exchange(&new, &self.dir)?;
        self.reopen()?;
        self.syncer = Syncer::default();
        self.postpone_rewrite()?;
        Ok(Rewrite::Done)
    }

    fn copy_to(&mut self, new: &Path) -> Result<(), CheckpointError> {
        remove_dir_all(new)?;
        create_private_dir(new)?;
        let backend = self.backend.as_mut().ok_or(CheckpointError::NeedsReset)?;
        let open = self.open;
        guarded(|| {
            let mut copy = open(new)?;
            let mark = copy_records(&mut ***backend, &mut *copy)?;
            copy.commit(&[], Some(&mark))?;
            copy.flush()
        })?;
        Ok(Syncer::default().sync(new)?)
    }

    /// A backend that needs much room for little is not rewritten over and over.
    fn postpone_rewrite(&mut self) -> Result<(), CheckpointError> {
        let Size { disk_bytes, .. } = self.size()?;
        self.rewrite_at_bytes = REWRITE_BYTES_MIN.max(disk_bytes.saturating_mul(2));
        Ok(())
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        if let Err(error) = self.close() {
            tracing::warn!(%error, "checkpoint: closed after an error");
        }
    }
}

fn copy_records(from: &mut dyn Backend, to: &mut dyn Backend) -> Result<Mark, CheckpointError> {
    let mut changes = Vec::new();
    let mut bytes = 0;
    let mut result = Ok(());
    let mark = from.load(&mut |key, value| {
        bytes += key.len() + value.len();
        changes.push((key.to_owned(), Some(value)));
        if bytes >= COPY_BYTES && result.is_ok() {
            result = to.commit(&changes, None);
            changes.clear();
            bytes = 0;
        }
    })?;
    result?;
    to.commit(&changes, None)?;
    mark.ok_or(CheckpointError::NeedsReset)
}
