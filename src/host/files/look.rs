//! Looking at files without changing anything.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use bytes::Bytes;
use rustix::fs::OFlags;
use sha2::{Digest as _, Sha256};

use super::{MODE_BITS, absolute, failed, lstat};
use crate::host::error::HostResult;
use crate::host::protocol::{HostError, HostErrorKind, Observed, PathFacts, PathKind};
use crate::host::users;

/// What is at `path`; `None` when nothing is.
pub(crate) fn stat(path: &str, follow: bool, hash: bool) -> HostResult<Option<PathFacts>> {
    let path = absolute(path)?;
    let found = if follow { followed(path)? } else { lstat(path)? };
    let Some(found) = found else { return Ok(None) };
    let kind = match found.file_type() {
        kind if kind.is_file() => PathKind::File,
        kind if kind.is_dir() => PathKind::Directory,
        kind if kind.is_symlink() => PathKind::Link,
        _ => PathKind::Other,
    };
    let sha256 = match kind {
        PathKind::File if hash => Some(hash_file(path)?),
        _ => None,
    };
    let target = match kind {
        PathKind::Link => {
            let target = fs::read_link(path).map_err(failed("read link", path))?;
            Some(target.to_string_lossy().into_owned())
        }
        _ => None,
    };
    Ok(Some(PathFacts {
        kind,
        mode: found.mode() & MODE_BITS,
        owner: users::user_name(found.uid()),
        group: users::group_name(found.gid()),
        size: found.len(),
        sha256,
        target,
    }))
}

fn followed(path: &Path) -> HostResult<Option<fs::Metadata>> {
    match fs::metadata(path) {
        Ok(found) => Ok(Some(found)),
        Err(error)
            if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) =>
        {
            Ok(None)
        }
        Err(error) => Err(HostError::io("look at", path.display(), &error)),
    }
}

/// Opens a regular file for reading. A pipe in its place must not hold the executor up.
fn open(path: &Path) -> io::Result<File> {
    let flags = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or(0);
    OpenOptions::new().read(true).custom_flags(flags).open(path)
}

/// SHA-256 of a file's content, hex.
pub(crate) fn hash_file(path: &Path) -> HostResult<String> {
    let mut file = open(path).map_err(failed("read", path))?;
    let mut hasher = Sha256::new();
    let mut chunk = vec![0; 256 * 1024];
    loop {
        let length = file.read(&mut chunk).map_err(failed("read", path))?;
        let Some(bytes @ [_, ..]) = chunk.get(..length) else { break };
        hasher.update(bytes);
    }
    Ok(hex::encode(hasher.finalize()))
}

/// A regular file's content; `None` when nothing is there.
pub(crate) fn content(path: &str, bytes_max: u64) -> HostResult<Option<Bytes>> {
    let path = absolute(path)?;
    let file = match open(path) {
        Ok(file) => file,
        Err(error)
            if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) =>
        {
            return Ok(None);
        }
        Err(error) => return Err(HostError::io("read", path.display(), &error)),
    };
    if !file.metadata().map_err(failed("look at", path))?.is_file() {
        return Err(HostError::other(format!("{} is not a regular file", path.display())));
    }
    // One byte more than wanted tells a longer file, also one that says it has no length (/proc).
    let mut bytes = Vec::new();
    file.take(bytes_max.saturating_add(1)).read_to_end(&mut bytes).map_err(failed("read", path))?;
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > bytes_max {
        let message = format!("{} is longer than {bytes_max} bytes", path.display());
        return Err(HostError::new(HostErrorKind::TooLarge, message));
    }
    Ok(Some(Bytes::from(bytes)))
}

/// Up to `bytes_max` bytes of a regular file from `offset` on; `None` when nothing is there.
pub(crate) fn part(path: &str, offset: u64, bytes_max: u32) -> HostResult<Option<Bytes>> {
    let path = absolute(path)?;
    let file = match open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(HostError::io("read", path.display(), &error)),
    };
    if !file.metadata().map_err(failed("look at", path))?.is_file() {
        return Err(HostError::other(format!("{} is not a regular file", path.display())));
    }
    let mut file = file;
    file.seek(io::SeekFrom::Start(offset)).map_err(failed("read", path))?;
    let mut bytes = Vec::new();
    file.take(u64::from(bytes_max)).read_to_end(&mut bytes).map_err(failed("read", path))?;
    Ok(Some(Bytes::from(bytes)))
}

/// Names in a directory, sorted; `None` when it is not there.
pub(crate) fn names(path: &str) -> HostResult<Option<Vec<String>>> {
    let path = absolute(path)?;
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(HostError::io("list", path.display(), &error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(failed("list", path))?;
        names.push(entry.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(Some(names))
}

/// Free space of the file system that holds `path`, or would.
pub(crate) fn space(path: &str) -> HostResult<Observed> {
    let path = absolute(path)?;
    let existing = path.ancestors().find(|part| part.exists()).unwrap_or(Path::new("/"));
    let found = rustix::fs::statvfs(existing)
        .map_err(|error| HostError::io("look at", existing.display(), &error.into()))?;
    let access = rustix::fs::access(existing, rustix::fs::Access::WRITE_OK);
    let writable = access.map_err(|error| match error {
        rustix::io::Errno::ROFS => format!("{} is on a read-only file system", existing.display()),
        other => {
            let why = std::io::Error::from(other);
            format!("{} is not writable for this user: {why}", existing.display())
        }
    });
    Ok(Observed::Space {
        writable,
        free_bytes: found.f_bavail.saturating_mul(found.f_frsize),
        total_bytes: found.f_blocks.saturating_mul(found.f_frsize),
    })
}
