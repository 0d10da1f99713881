//! Small helpers for files that must survive a power cut and that nobody else may read.
//!
//! Directories are 0700 and files 0600 from birth. Knows nothing of what is inside them.

use std::ffi::OsStr;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

/// Creates `dir` and its missing parents, all 0700. A directory that exists keeps its mode.
pub fn create_private_dir(dir: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

/// Creates a file that must not exist yet, 0600, for reading and writing. A symbolic link at
/// `path` counts as existing (`O_EXCL`), so it is never followed.
pub fn create_private_file(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path)
}

/// Makes creations, renames and removals in `dir` durable.
pub fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// The directory that holds `path`; `.` for a bare name.
pub fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    }
}

/// Replaces `path` with `content`, 0600: after a power cut it holds either the old or the new
/// content, whole. Durable when it returns. Of one file one writer at a time: what it writes to first,
/// `.NAME.new`, has the same name each time, so that what a killed process left there is used up by the next.
pub fn write_atomic(path: &Path, content: &[u8]) -> io::Result<()> {
    let name = path.file_name().unwrap_or_default();
    let new = path.with_file_name([OsStr::new("."), name, OsStr::new(".new")].join(OsStr::new("")));
    remove_file(&new)?;
    let mut file = create_private_file(&new)?;
    let written = file.write_all(content).and_then(|()| file.sync_all());
    if let Err(error) = written.and_then(|()| std::fs::rename(&new, path)) {
        // On a full disk its room is needed.
        let _ = std::fs::remove_file(&new);
        return Err(error);
    }
    sync_dir(parent(path))
}

/// Removes a file, if there is one.
pub fn remove_file(path: &Path) -> io::Result<()> {
    unless_gone(std::fs::remove_file(path))
}

/// Removes a directory with all in it, if there is one.
pub fn remove_dir_all(path: &Path) -> io::Result<()> {
    unless_gone(std::fs::remove_dir_all(path))
}

fn unless_gone(done: io::Result<()>) -> io::Result<()> {
    match done {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn what_is_created_is_private() {
        let home = tempfile::tempdir().unwrap();
        let dir = home.path().join("a/b");
        create_private_dir(&dir).unwrap();
        assert_eq!((mode(&home.path().join("a")), mode(&dir)), (0o700, 0o700));
        create_private_file(&dir.join("f")).unwrap();
        write_atomic(&dir.join("g"), b"one").unwrap();
        write_atomic(&dir.join("g"), b"two").unwrap();
        assert_eq!((mode(&dir.join("f")), mode(&dir.join("g"))), (0o600, 0o600));
        assert_eq!(std::fs::read(dir.join("g")).unwrap(), b"two");
        assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 2);
    }

    #[test]
    fn what_a_killed_process_left_is_used_up() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("note");
        std::fs::write(dir.path().join(".note.new"), "half of someth").unwrap();
        write_atomic(&file, b"all").unwrap();
        assert_eq!(std::fs::read(&file).unwrap(), b"all");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_cannot_take_its_place_does_not_stay() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("note")).unwrap();
        write_atomic(&dir.path().join("note"), b"all").unwrap_err();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_link_is_not_followed() {
        let home = tempfile::tempdir().unwrap();
        let link = home.path().join("link");
        std::os::unix::fs::symlink(home.path().join("victim"), &link).unwrap();
        assert_eq!(create_private_file(&link).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert!(!home.path().join("victim").exists());
    }
}
