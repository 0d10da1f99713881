//! Private files: born 0600 in directories of 0700, replaced whole, wider modes corrected.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

/// Permission bits of a private file.
pub(crate) const FILE_MODE: u32 = 0o600;

/// Permission bits of a private directory.
pub(crate) const DIRECTORY_MODE: u32 = 0o700;

/// Makes `path` and missing parents, all 0700; an existing `path` that others may enter is
/// corrected. Existing parents stay as they are.
pub fn private_directory(path: &Path) -> io::Result<()> {
    named(path, DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(path))?;
    narrow(path, DIRECTORY_MODE)
}

/// Takes from `path` what group and others may do. Fails when that is not possible, for example
/// because another user owns it: a key that others can read is not used.
pub fn narrow(path: &Path, mode: u32) -> io::Result<()> {
    let found = named(path, fs::metadata(path))?.mode() & 0o777;
    let for_others = found & !mode & 0o077;
    if for_others == 0 {
        return Ok(());
    }
    named(path, fs::set_permissions(path, Permissions::from_mode(found & mode)))
}

/// Writes a file so that a reader sees the old content or the new, never a part: temporary file of
/// mode `mode` in the same directory, fsync, rename, fsync of the directory. A file that is as it
/// should be is left alone, so that a node also starts on a disk that is full.
pub fn write(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    if is_as_wanted(path, content, mode) {
        return Ok(());
    }
    let parent = path.parent().unwrap_or(Path::new("."));
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = parent.join(format!(".{name}.{}.tmp", std::process::id()));
    // Left over from a process of the same number that died here.
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return named(&temporary, Err(error));
        }
        _ => {}
    }
    let written = (|| {
        let mut file =
            OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        File::open(parent)?.sync_all()
    })();
    if written.is_err() {
        // The first error is the one to tell.
        let _ = fs::remove_file(&temporary);
    }
    named(path, written)
}

fn is_as_wanted(path: &Path, content: &[u8], mode: u32) -> bool {
    let same = |found: &fs::Metadata| {
        found.is_file()
            && found.len() == content.len() as u64
            && found.permissions().mode() & 0o7777 == mode
    };
    fs::symlink_metadata(path).is_ok_and(|found| same(&found))
        && fs::read(path).is_ok_and(|found| found == content)
}

/// [`write()`] with mode 0600.
pub fn write_private(path: &Path, content: &[u8]) -> io::Result<()> {
    write(path, content, FILE_MODE)
}

/// Reads a private file, correcting its mode first; `None` when it is not there.
pub fn read_private(path: &Path) -> io::Result<Option<String>> {
    match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => named(path, other.map(drop))?,
    }
    narrow(path, FILE_MODE)?;
    named(path, fs::read_to_string(path)).map(Some)
}

/// The path in front of what failed.
fn named<T>(path: &Path, result: io::Result<T>) -> io::Result<T> {
    result.map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
}
