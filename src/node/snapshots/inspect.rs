//! Looking at a snapshot file: what it is, and whether all of it is right.
//!
//! A file that somebody else may have written is not believed: memory and disk are bounded, whatever
//! it says of itself.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;

use bytes::Bytes;
use rustix::fs::OFlags;
use zip::ZipArchive;

use super::super::database::{self, HashCheck};
use super::super::records::{SETTINGS, Settings, unix_now};
use crate::cluster::snapshots::{SnapshotFormat, SnapshotName, SnapshotView};
use crate::error::chain;
use crate::raft::snapfile;
use crate::store::fs::parent;
use crate::store::snapshot::{SnapshotHeader, SnapshotReader, peek};

/// What a zip archive begins with.
const ZIP_MAGIC: [u8; 4] = *b"PK\x03\x04";

/// So much of a disk is left free when an archive is unpacked to look at it.
const FREE_BYTES_KEPT: u64 = 64 * 1024 * 1024;

/// What `path` says of itself, and what its name says; its content is not read. A file that cannot be
/// read, or is none of a snapshot, says so in [`SnapshotView::problem`].
///
/// # Errors
/// Nothing is there, or it may not be opened.
pub fn glance(path: &Path) -> io::Result<SnapshotView> {
    let (file, mut view) = open(path)?;
    if !view.compressed
        && let Err(problem) = describe(&file, path, &mut view)
    {
        view.problem = Some(problem);
    }
    Ok(view)
}

/// As [`glance`], with all of it read and checked, as a restore would.
///
/// # Errors
/// Nothing is there, or it cannot be read.
pub fn inspect(path: &Path) -> io::Result<SnapshotView> {
    let (file, mut view) = open(path)?;
    view.sha256 = Some(hex::encode(database::hash(&file, view.bytes)?));
    let checked = if view.compressed {
        unpack(&file, path).and_then(|content| check(&content, path, &mut view))
    } else {
        check(&file, path, &mut view)
    };
    match checked {
        Ok(()) => view.verified_unix_s = Some(unix_now()),
        Err(problem) => view.problem = Some(problem),
    }
    Ok(view)
}

/// The content of a snapshot: the file itself, or what is in it when it is a zip archive, in a file
/// without a name beside it.
///
/// # Errors
/// Why not, in words for a person.
pub fn content(path: &Path) -> Result<File, String> {
    let (file, view) = open(path).map_err(|error| format!("{}: {error}", path.display()))?;
    if view.compressed { unpack(&file, path) } else { Ok(file) }
}

/// Opens a regular file. A pipe in its place holds nobody up, a link leads nowhere.
fn open(path: &Path) -> io::Result<(File, SnapshotView)> {
    let flags = OFlags::NONBLOCK | OFlags::NOFOLLOW;
    let flags = i32::try_from(flags.bits()).unwrap_or(0);
    let file = std::fs::OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"));
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let parsed = SnapshotName::parse(&name);
    let modified = metadata.modified().ok().and_then(|time| {
        time.duration_since(std::time::UNIX_EPOCH).map(|since| since.as_secs()).ok()
    });
    let mut magic = [0; ZIP_MAGIC.len()];
    let is_zip = metadata.len() >= 4 && file.read_exact_at(&mut magic, 0).is_ok();
    let view = SnapshotView {
        location: format!("file://{}", path.display()),
        bytes: metadata.len(),
        created_unix_s: parsed.map(|name| name.unix_s).or(modified).unwrap_or(0),
        compressed: is_zip && magic == ZIP_MAGIC,
        name,
        ..SnapshotView::default()
    };
    Ok((file, view))
}

/// What a file that is no archive says of itself.
fn describe(file: &File, path: &Path, view: &mut SnapshotView) -> Result<(), String> {
    if database::looks_like_one(file) {
        view.format = SnapshotFormat::Etcd;
        return Ok(());
    }
    let header = peek(file, path).map_err(|error| chain(&error))?;
    note(view, &header);
    Ok(())
}

fn note(view: &mut SnapshotView, header: &SnapshotHeader) {
    view.format = SnapshotFormat::Embedded;
    view.cluster_id = format!("{:x}", header.cluster_id);
    view.revision = header.revision;
    let taken = u64::try_from(header.created_unix_ms / 1000).unwrap_or(0);
    if taken > 0 {
        view.created_unix_s = taken;
    }
}

/// Reads all of a file that is no archive.
fn check(file: &File, path: &Path, view: &mut SnapshotView) -> Result<(), String> {
    if database::looks_like_one(file) {
        return check_etcd(file, view);
    }
    let reader = SnapshotReader::over(file, path).map_err(|error| chain(&error))?;
    note(view, &reader.info().header);
    let checked = snapfile::check(reader, &[SETTINGS]);
    let (_, checked) = checked.map_err(|error| error.to_string())?;
    view.keys = Some(checked.keys);
    view.token_hash = token_hash(checked.system.get(SETTINGS));
    Ok(())
}

/// Reads all of a database of etcd's.
fn check_etcd(file: &File, view: &mut SnapshotView) -> Result<(), String> {
    view.format = SnapshotFormat::Etcd;
    let body = database::body(file, HashCheck::IfThere).map_err(|error| chain(&error))?;
    view.unhashed = !body.is_hashed;
    let told = database::tell(file, body, &[SETTINGS]).map_err(|error| chain(&error))?;
    view.revision = told.revision;
    view.keys = Some(told.keys);
    view.bootstrap_keys = told.bootstrap;
    view.cluster_id = told.cluster.map(|id| format!("{id:x}")).unwrap_or_default();
    if let Some(created) = told.created_unix_ms {
        view.created_unix_s = created / 1000;
    }
    view.token_hash = token_hash(told.system.get(SETTINGS));
    Ok(())
}

fn token_hash(settings: Option<&Bytes>) -> Option<String> {
    let settings: Settings = serde_json::from_slice(settings?).ok()?;
    Some(settings.server_secret)
}

/// Unpacks the one file of an archive, as far as the disk has room for it.
fn unpack(file: &File, path: &Path) -> Result<File, String> {
    let damaged = |error: &dyn std::fmt::Display| format!("it is a damaged zip archive: {error}");
    let mut file = file;
    file.rewind().map_err(|error| error.to_string())?;
    let mut archive = ZipArchive::new(file).map_err(|error| damaged(&error))?;
    if archive.len() != 1 {
        return Err(format!("the zip archive holds {} files instead of one", archive.len()));
    }
    let mut entry = archive.by_index(0).map_err(|error| damaged(&error))?;
    let (directory, room) = room_beside(path);
    let size = entry.size();
    if size > room {
        return Err(format!(
            "what is in the zip archive says that it has {size} bytes, and {} has room for {room}",
            directory.display()
        ));
    }
    let mut content = tempfile::tempfile_in(directory).map_err(|error| error.to_string())?;
    // What it really holds is counted, not what it says.
    let copied = io::copy(&mut entry.by_ref().take(size.saturating_add(1)), &mut content);
    let copied = copied.map_err(|error| damaged(&error))?;
    if copied != size {
        return Err(damaged(&"it holds more or less than it says"));
    }
    content.flush().map_err(|error| error.to_string())?;
    Ok(content)
}

/// A directory for what is unpacked of `path`, and how many bytes it may take.
fn room_beside(path: &Path) -> (std::path::PathBuf, u64) {
    let beside = parent(path);
    let writable = rustix::fs::access(beside, rustix::fs::Access::WRITE_OK).is_ok();
    let directory = if writable { beside.to_owned() } else { std::env::temp_dir() };
    let free = rustix::fs::statvfs(&directory)
        .map_or(0, |found| found.f_bavail.saturating_mul(found.f_frsize));
    (directory, free.saturating_sub(FREE_BYTES_KEPT))
}
