//! Putting a file: a temporary one beside it, complete, owned and on disk, takes its place at once.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};
use time::OffsetDateTime;
use time::macros::format_description;

use super::grow::{Grown, PART_ENDING};
use super::{
    MODE_BITS, Owner, absolute, create_private, failed, lstat, parent, sync_directory,
    temporary_beside,
};
use crate::host::commands;
use crate::host::error::HostResult;
use crate::host::protocol::{Change, CommandSpec, FileContent, HostError};
use crate::host::serve::blocking;

/// How long a command may take to say whether a file is good, in milliseconds.
const VALIDATE_TIMEOUT_MS: u64 = 60_000;

/// Makes [`Change::PutFile`]; of what has grown beside its place, if that is what it shall be.
pub(crate) async fn put(change: Change, grown: &mut Option<Grown>) -> HostResult<()> {
    let Change::PutFile { path, content, mode, owner, group, backup, validate } = change else {
        return Err(HostError::other("not the putting of a file"));
    };
    let owner = Owner::find(owner.as_deref(), group.as_deref()).await?;
    let shown = path.clone();
    let temporary = blocking({
        let path = path.clone();
        let grown = grown.take_if(|grown| grown.is_for(&path));
        move || write(&path, &content, grown, mode, owner)
    })
    .await?;
    check(&validate, &temporary.path, &shown).await?;
    blocking(move || place(temporary, absolute(&path)?, backup)).await
}

/// Asks the command `validate` whether the file that is to become `path` is good.
async fn check(validate: &[String], temporary: &Path, path: &str) -> HostResult<()> {
    if validate.is_empty() {
        return Ok(());
    }
    let name = temporary.to_string_lossy();
    let argv = validate.iter().map(|word| word.replace("%s", &name)).collect();
    let spec = CommandSpec { argv, timeout_ms: VALIDATE_TIMEOUT_MS, ..CommandSpec::default() };
    let output = commands::run(&spec).await?;
    if output.status == 0 && !output.timed_out {
        return Ok(());
    }
    let said = [&output.stderr, &output.stdout].map(|text| String::from_utf8_lossy(text));
    let said = said.map(|text| text.trim().replace(&*name, path)).join("\n");
    let why = if output.timed_out { "it took too long" } else { said.trim() };
    let command = validate.join(" ").replace("%s", path);
    Err(HostError::other(format!("`{command}` refuses what {path} would become: {why}"))
        .hint("the old file is still in place"))
}

/// A file that is removed unless it found its place.
struct Temporary {
    path: PathBuf,
    placed: bool,
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.placed {
            // What cannot be removed was reported as a failure to write already.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Writes what `path` shall become beside it, complete and on disk.
fn write(
    path: &str,
    content: &FileContent,
    grown: Option<Grown>,
    mode: u32,
    owner: Owner,
) -> HostResult<Temporary> {
    let path = absolute(path)?;
    let before = lstat(path)?;
    if before.as_ref().is_some_and(fs::Metadata::is_dir) {
        return Err(HostError::other(format!("{} is a directory, not a file", path.display())));
    }
    let directory = parent(path)?;
    if lstat(directory)?.is_none() {
        let missing = io::Error::from(io::ErrorKind::NotFound);
        return Err(HostError::io("write into", directory.display(), &missing)
            .hint("make the directory first"));
    }
    let name = temporary_beside(path)?;
    let (file, temporary) = match content {
        FileContent::CopyOf { path: from, sha256 } if is_part_of(from, path) => {
            take(absolute(from)?, sha256, grown, name)?
        }
        _ => {
            let mut file = create_private(&name).map_err(failed("write", path))?;
            let temporary = Temporary { path: name, placed: false };
            fill(&mut file, content, path)?;
            (file, temporary)
        }
    };
    own(&file, before.as_ref(), owner, path)?;
    file.set_permissions(fs::Permissions::from_mode(mode & MODE_BITS))
        .map_err(failed("set the mode of", path))?;
    file.sync_all().map_err(failed("write", path))?;
    Ok(temporary)
}

/// Whether `from` is the file that grew beside `path`, to become it.
fn is_part_of(from: &str, path: &Path) -> bool {
    path.to_str().and_then(|path| from.strip_prefix(path)) == Some(PART_ENDING)
}

/// The grown file `from` itself under the temporary `name`, not copied. It must be what we made: who
/// may write to the directory may have put something else there.
fn take(
    from: &Path,
    sha256: &str,
    grown: Option<Grown>,
    name: PathBuf,
) -> HostResult<(File, Temporary)> {
    fs::rename(from, &name).map_err(failed("take", from))?;
    let temporary = Temporary { path: name, placed: false };
    let found = fs::symlink_metadata(&temporary.path).map_err(failed("take", from))?;
    let Some((hasher, file)) = grown.and_then(|grown| grown.finish(&found)) else {
        let message = format!("{} is not what was pushed", from.display());
        return Err(HostError::other(message).hint("run again: it is then pushed afresh"));
    };
    verified(hasher, sha256, from)?;
    Ok((file, temporary))
}

/// Gives a complete file its name.
fn place(mut temporary: Temporary, path: &Path, backup: bool) -> HostResult<()> {
    if backup && lstat(path)?.is_some_and(|before| before.is_file()) {
        keep(path)?;
    }
    fs::rename(&temporary.path, path).map_err(failed("write", path))?;
    temporary.placed = true;
    sync_directory(parent(path)?)
}

fn fill(file: &mut File, content: &FileContent, path: &Path) -> HostResult<()> {
    match content {
        FileContent::Bytes(bytes) => file.write_all(bytes).map_err(failed("write", path)),
        FileContent::Secret(text) => {
            file.write_all(text.0.expose().as_bytes()).map_err(failed("write", path))
        }
        FileContent::Local { path: from, .. } => {
            Err(HostError::other(format!("{from} is on the control machine and was not sent")))
        }
        FileContent::CopyOf { path: from, sha256 } => copy(file, absolute(from)?, sha256, path),
    }
}

fn copy(to: &mut File, from: &Path, sha256: &str, path: &Path) -> HostResult<()> {
    let mut source = File::open(from).map_err(failed("copy from", from))?;
    let mut hasher = Sha256::new();
    each_chunk(&mut source, from, |bytes| {
        hasher.update(bytes);
        to.write_all(bytes).map_err(failed("write", path))
    })?;
    verified(hasher, sha256, from)
}

fn each_chunk(
    source: &mut File,
    from: &Path,
    mut with: impl FnMut(&[u8]) -> HostResult<()>,
) -> HostResult<()> {
    let mut chunk = vec![0; 256 * 1024];
    loop {
        let length = source.read(&mut chunk).map_err(failed("copy from", from))?;
        let Some(bytes @ [_, ..]) = chunk.get(..length) else { return Ok(()) };
        with(bytes)?;
    }
}

fn verified(hasher: Sha256, sha256: &str, from: &Path) -> HostResult<()> {
    let found = hex::encode(hasher.finalize());
    if found.eq_ignore_ascii_case(sha256) {
        return Ok(());
    }
    let from = from.display();
    Err(HostError::other(format!(
        "{from} is not what it should be: its SHA-256 is {found}, expected {sha256}"
    ))
    .hint("run again: it is then pushed afresh"))
}

/// The owner that was asked for, else that of the file that is replaced.
fn own(file: &File, before: Option<&fs::Metadata>, asked: Owner, path: &Path) -> HostResult<()> {
    let wanted = Owner {
        user: asked.user.or(before.map(fs::Metadata::uid)),
        group: asked.group.or(before.map(fs::Metadata::gid)),
    };
    let current = file.metadata().map_err(failed("look at", path))?;
    let wanted = wanted.beyond(&current);
    if wanted.is_empty() {
        return Ok(());
    }
    let (user, group) = wanted.ids();
    rustix::fs::fchown(file, user, group)
        .map_err(|error| HostError::io("set the owner of", path.display(), &error.into()))
}

/// Keeps the old file beside it under a name with the date: a second name for it, so that at no
/// time there is none.
fn keep(path: &Path) -> HostResult<()> {
    let format = format_description!("[year]-[month]-[day]T[hour][minute][second]Z");
    let date = OffsetDateTime::now_utc().format(&format).unwrap_or_default();
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    for attempt in 0..100 {
        let suffix = if attempt == 0 { String::new() } else { format!(".{attempt}") };
        match fs::hard_link(path, path.with_file_name(format!("{name}.{date}{suffix}~"))) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            other => return other.map_err(failed("keep a copy of", path)),
        }
    }
    Err(HostError::other(format!("too many copies of {} are kept", path.display())))
}
