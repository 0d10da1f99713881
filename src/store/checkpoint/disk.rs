//! The checkpoint's directory: made durable, private, set aside, exchanged. Knows no backend.

use std::collections::HashSet;
use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags};
use time::OffsetDateTime;
use time::macros::format_description;

use crate::store::fs::{parent, remove_dir_all, sync_dir};

/// Makes all files of a directory durable.
#[derive(Default)]
pub(super) struct Syncer {
    seen: HashSet<PathBuf>,
}

impl Syncer {
    /// Syncs the files in `dir`, those in directories below it that are new (the backend writes
    /// such a file once), and the directories in which a file is new. New ones are made private.
    pub(super) fn sync(&mut self, dir: &Path) -> io::Result<()> {
        self.sync_dir(dir, true)
    }

    fn sync_dir(&mut self, dir: &Path, top: bool) -> io::Result<()> {
        let mut new_names = false;
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            let path = entry.path();
            let new = !self.seen.contains(&path);
            // The backend removes files of its own in the meantime.
            let Some(kind) = gone_is_none(entry.file_type())? else { continue };
            if kind.is_dir() {
                fs::set_permissions(&path, Permissions::from_mode(0o700))?;
                self.sync_dir(&path, false)?;
            } else if top || new {
                let Some(file) = gone_is_none(File::open(&path))? else { continue };
                if new {
                    file.set_permissions(Permissions::from_mode(0o600))?;
                }
                file.sync_data()?;
            }
            if new {
                new_names = true;
                self.seen.insert(path);
            }
        }
        if new_names { sync_dir(dir) } else { Ok(()) }
    }
}

fn gone_is_none<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Bytes of all files below `dir`.
pub(super) fn size(dir: &Path) -> io::Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let Some(metadata) = gone_is_none(entry.metadata())? else { continue };
        bytes += if metadata.is_dir() { size(&entry.path())? } else { metadata.len() };
    }
    Ok(bytes)
}

/// The directory's name with something after it.
pub(super) fn beside(dir: &Path, suffix: &str) -> PathBuf {
    let mut name = dir.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Gives the directory another name, with the date, for a person to look at. Only the newest one
/// set aside is kept.
pub(super) fn set_aside(dir: &Path, now: OffsetDateTime) -> io::Result<Option<PathBuf>> {
    if !dir.try_exists()? {
        return Ok(None);
    }
    let holder = parent(dir);
    let name = dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let earlier = format!("{name}.damaged-");
    for entry in fs::read_dir(holder)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(&earlier) {
            remove_dir_all(&entry.path())?;
        }
    }
    let date = now
        .format(format_description!("[year][month][day]T[hour][minute][second]Z"))
        .map_err(io::Error::other)?;
    let aside = beside(dir, &format!(".damaged-{date}"));
    fs::rename(dir, &aside)?;
    sync_dir(holder)?;
    Ok(Some(aside))
}

/// Puts the directory `new` in the place of `dir`, which is removed.
pub(super) fn exchange(new: &Path, dir: &Path) -> io::Result<()> {
    match rustix::fs::renameat_with(CWD, new, CWD, dir, RenameFlags::EXCHANGE) {
        Ok(()) => {}
        // Not all file systems can. A power cut in between costs the checkpoint, which can be
        // built again.
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => {
            remove_dir_all(dir)?;
            fs::rename(new, dir)?;
        }
        Err(error) => return Err(error.into()),
    }
    sync_dir(parent(dir))?;
    remove_dir_all(new)
}
