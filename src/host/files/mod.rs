//! Files: what is there, and putting, linking, moving and removing things.
//!
//! Every function here blocks. Paths are absolute and without `..`, so that what a plan shows is
//! what is touched.

mod grow;
mod look;
mod put;

#[cfg(test)]
mod tests;

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{
    DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _,
};
use std::path::{Component, Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::fs::{AtFlags, CWD, Gid, RenameFlags, Uid};

pub(crate) use grow::{Grown, PART_ENDING, receive};
pub(crate) use look::{content, hash_file, names, part, space, stat};
pub(crate) use put::put;

use crate::host::error::HostResult;
use crate::host::protocol::{HostError, HostErrorKind};
use crate::host::users;

/// Permission bits: `rwx` three times and the three special ones.
const MODE_BITS: u32 = 0o7777;

/// Who shall own something; `None` leaves it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Owner {
    user: Option<u32>,
    group: Option<u32>,
}

impl Owner {
    /// Numbers for these names.
    pub(crate) async fn find(user: Option<&str>, group: Option<&str>) -> HostResult<Self> {
        let user = match user {
            Some(name) => Some(users::user_id(name).await?),
            None => None,
        };
        let group = match group {
            Some(name) => Some(users::group_id(name).await?),
            None => None,
        };
        Ok(Self { user, group })
    }

    /// What is left of it once `current` is taken as given: nothing is asked of the kernel for what
    /// is right already, as an ordinary user may not ask.
    fn beyond(self, current: &fs::Metadata) -> Self {
        Self {
            user: self.user.filter(|user| *user != current.uid()),
            group: self.group.filter(|group| *group != current.gid()),
        }
    }

    fn is_empty(self) -> bool {
        self.user.is_none() && self.group.is_none()
    }

    fn ids(self) -> (Option<Uid>, Option<Gid>) {
        (self.user.map(Uid::from_raw), self.group.map(Gid::from_raw))
    }
}

/// `path` if it is absolute, has no `..` and no NUL.
pub(crate) fn absolute(path: &str) -> HostResult<&Path> {
    let parts = Path::new(path);
    let fine = parts.is_absolute()
        && !path.contains('\0')
        && !parts.components().any(|part| part == Component::ParentDir);
    if fine {
        return Ok(parts);
    }
    Err(HostError::other(format!("{path:?} is not an absolute path without `..`")))
}

/// Milliseconds since 1970 by this host's clock.
pub(crate) fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn failed<'a>(what: &'a str, path: &'a Path) -> impl FnOnce(io::Error) -> HostError + 'a {
    move |error| HostError::io(what, path.display(), &error)
}

/// What is at `path` itself, not where a link leads; `None` when nothing is.
fn lstat(path: &Path) -> HostResult<Option<fs::Metadata>> {
    match fs::symlink_metadata(path) {
        Ok(found) => Ok(Some(found)),
        // `ENOTDIR` too: below a file there is nothing.
        Err(error)
            if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) =>
        {
            Ok(None)
        }
        Err(error) => Err(HostError::io("look at", path.display(), &error)),
    }
}

/// The directory that a thing is in.
fn parent(path: &Path) -> HostResult<&Path> {
    path.parent().ok_or_else(|| HostError::other(format!("{} has no parent", path.display())))
}

/// Makes names in `directory` outlive a power cut.
fn sync_directory(directory: &Path) -> HostResult<()> {
    let file = File::open(directory).map_err(failed("open", directory))?;
    match file.sync_all() {
        // Some file systems have no such operation for directories.
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(()),
        other => other.map_err(failed("write out", directory)),
    }
}

/// A name beside `path` that nothing has.
pub(crate) fn temporary_beside(path: &Path) -> HostResult<PathBuf> {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or("file");
    // The longest name is 255 bytes; what is added has 24.
    let kept: String = name.chars().take(50).collect();
    Ok(parent(path)?.join(format!(".{kept}.k3sup-{:016x}", rand::random::<u64>())))
}

/// A new file that only we may read, from birth.
fn create_private(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

/// Makes the file `path` with `content`, 0600, complete at once; an error when there is one.
pub(crate) fn create_new(path: &Path, content: &[u8]) -> io::Result<()> {
    let temporary = temporary_beside(path).map_err(io::Error::other)?;
    let made = write_private(&temporary, content).and_then(|()| fs::hard_link(&temporary, path));
    // A link of its own now, or never wanted.
    let _ = fs::remove_file(&temporary);
    made
}

/// Replaces the file `path` by one with `content`, 0600.
pub(crate) fn replace_private(path: &Path, content: &[u8]) -> HostResult<()> {
    let temporary = temporary_beside(path)?;
    let made = write_private(&temporary, content).and_then(|()| fs::rename(&temporary, path));
    made.map_err(|error| {
        // Nothing of ours stays; it may never have been made.
        let _ = fs::remove_file(&temporary);
        HostError::io("write", path.display(), &error)
    })
}

fn write_private(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = create_private(path)?;
    file.write_all(content)?;
    file.sync_all()
}

/// Makes a directory and its missing parents, those that are made 0700.
pub(crate) fn make_private_directory(path: &Path) -> HostResult<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(failed("make directory", path))
}

/// Makes a directory, or corrects its mode and owner. Parents that are missing are made with the same
/// mode and owner, as Ansible's `file` makes them; those that are there stay as they are.
pub(crate) fn make_directory(path: &str, mode: u32, owner: Owner) -> HostResult<()> {
    let path = absolute(path)?;
    match fs::metadata(path) {
        Ok(found) if found.is_dir() => {}
        Ok(_) => {
            return Err(HostError::other(format!("{} is there and no directory", path.display())));
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return make_with_parents(path, mode, owner);
        }
        Err(error) => return Err(HostError::io("make directory", path.display(), &error)),
    }
    correct(path, Some(mode), owner)?;
    sync_directory(parent(path).unwrap_or(path))
}

/// Each is 0700 until its owner and mode are set, whatever the umask.
fn make_with_parents(path: &Path, mode: u32, owner: Owner) -> HostResult<()> {
    let missing: Vec<&Path> = path.ancestors().take_while(|part| !part.exists()).collect();
    for directory in missing.into_iter().rev() {
        match DirBuilder::new().mode(0o700).create(directory) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && directory.is_dir() => {}
            Err(error) => return Err(HostError::io("make directory", directory.display(), &error)),
        }
        correct(directory, Some(mode), owner)?;
        sync_directory(parent(directory).unwrap_or(directory))?;
    }
    Ok(())
}

/// Corrects mode and owner of what is there; of a symbolic link only the owner can be.
pub(crate) fn set_attributes(path: &str, mode: Option<u32>, owner: Owner) -> HostResult<()> {
    let path = absolute(path)?;
    let Some(found) = lstat(path)? else {
        let missing = io::Error::from(io::ErrorKind::NotFound);
        return Err(HostError::io("set the attributes of", path.display(), &missing));
    };
    if found.is_symlink() && mode.is_some() {
        let message =
            format!("{} is a symbolic link, which has no mode of its own", path.display());
        return Err(HostError::other(message).hint("name what it points to"));
    }
    correct(path, mode, owner)
}

/// Owner first: the kernel takes special bits away when the owner changes.
fn correct(path: &Path, mode: Option<u32>, owner: Owner) -> HostResult<()> {
    let found = fs::symlink_metadata(path).map_err(failed("look at", path))?;
    let owner = owner.beyond(&found);
    if !owner.is_empty() {
        let (user, group) = owner.ids();
        rustix::fs::chownat(CWD, path, user, group, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|error| HostError::io("set the owner of", path.display(), &error.into()))?;
    }
    if let Some(mode) = mode
        && (found.mode() & MODE_BITS != mode & MODE_BITS || !owner.is_empty())
    {
        fs::set_permissions(path, fs::Permissions::from_mode(mode & MODE_BITS))
            .map_err(failed("set the mode of", path))?;
    }
    Ok(())
}

/// Makes a symbolic link. Another link there is replaced at once; anything else is left alone.
pub(crate) fn link(path: &str, target: &str) -> HostResult<()> {
    let path = absolute(path)?;
    if lstat(path)?.is_some_and(|found| !found.is_symlink()) {
        let message = format!("{} is there and no symbolic link", path.display());
        return Err(HostError::other(message).hint("move or remove it first"));
    }
    let temporary = temporary_beside(path)?;
    std::os::unix::fs::symlink(target, &temporary).map_err(failed("make link", path))?;
    fs::rename(&temporary, path).map_err(|error| {
        // Nothing of ours stays.
        let _ = fs::remove_file(&temporary);
        HostError::io("make link", path.display(), &error)
    })?;
    sync_directory(parent(path)?)
}

/// Removes a file, a link, or a directory with all in it; nothing there is fine.
pub(crate) fn remove(path: &str) -> HostResult<()> {
    let path = absolute(path)?;
    // `/` and what is directly in it is the system's: a wrong variable must not take it away.
    if path.components().count() < 3 {
        let message = format!("{} is not removed: it belongs to the system", path.display());
        return Err(HostError::other(message));
    }
    let Some(found) = lstat(path)? else { return Ok(()) };
    let removed = if found.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(HostError::io("remove", path.display(), &error))
        }
        _ => sync_directory(parent(path)?),
    }
}

/// Renames within a file system; what is at `to` already is never replaced.
pub(crate) fn rename(from: &str, to: &str) -> HostResult<()> {
    let (from, to) = (absolute(from)?, absolute(to)?);
    let taken =
        || HostError::other(format!("cannot move {}: {} is there", from.display(), to.display()));
    match rustix::fs::renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        Ok(()) => {}
        Err(rustix::io::Errno::EXIST) => return Err(taken()),
        // The file system does not know the flag.
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => {
            if lstat(to)?.is_some() {
                return Err(taken());
            }
            fs::rename(from, to).map_err(failed("move", from))?;
        }
        Err(error) => {
            let moved = HostError::io("move", from.display(), &error.into());
            let to_parent = parent(to)?;
            if moved.kind == HostErrorKind::NotFound && !to_parent.exists() {
                return Err(HostError::io("move into", to_parent.display(), &error.into()));
            }
            return Err(moved);
        }
    }
    sync_directory(parent(from)?)?;
    sync_directory(parent(to)?)
}
