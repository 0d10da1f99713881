//! The host's snapshot files.

use std::io::{self, Seek as _};
use std::path::Path;

use super::files::absolute;
use crate::cluster::snapshots::{SnapshotName, SnapshotView};
use crate::host::error::HostResult;
use crate::host::protocol::HostError;
use crate::node::snapshots::inspect::{content, glance, inspect};

/// Most snapshots of one directory that are listed: the newest ones.
const LISTED_MAX: usize = 1000;

/// To [`crate::host::protocol::Read::Snapshot`]. Blocks while all of it is read.
pub(crate) fn read(path: &str) -> HostResult<Option<SnapshotView>> {
    let path = absolute(path)?;
    match inspect(path) {
        Ok(view) => Ok(Some(view)),
        Err(error) if is_absent(&error) => Ok(None),
        Err(error) => Err(HostError::io("read", path.display(), &error)),
    }
}

/// Makes [`crate::host::protocol::Change::UnpackSnapshot`]. Blocks.
pub(crate) fn unpack(path: &str, to: &str) -> HostResult<()> {
    let (path, to) = (absolute(path)?, absolute(to)?);
    let failed = |error: io::Error| HostError::io("write", to.display(), &error);
    let mut from = content(path).map_err(HostError::other)?;
    from.rewind().map_err(failed)?;
    let beside = to.parent().unwrap_or(Path::new("/"));
    // 0600 from birth, and there in full or not at all.
    let mut file = tempfile::NamedTempFile::new_in(beside).map_err(failed)?;
    io::copy(&mut from, &mut file).map_err(failed)?;
    file.as_file().sync_all().map_err(failed)?;
    file.persist(to).map_err(|error| failed(error.error))?;
    std::fs::File::open(beside).and_then(|dir| dir.sync_all()).map_err(failed)
}

/// To [`crate::host::protocol::Read::Snapshots`]. Blocks.
pub(crate) fn list(dir: &str, metadata: &str) -> HostResult<Vec<SnapshotView>> {
    let (dir, metadata) = (absolute(dir)?, absolute(metadata)?);
    let failed = |error: io::Error| HostError::io("list", dir.display(), &error);
    let entries = match std::fs::read_dir(dir) {
        Err(error) if is_absent(&error) => return Ok(Vec::new()),
        other => other.map_err(failed)?,
    };
    let mut named = Vec::new();
    for entry in entries {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if let Some(parsed) = SnapshotName::parse(&name) {
            named.push((parsed.unix_s, name, entry.path()));
        }
    }
    named.sort();
    let listed = named.iter().rev().take(LISTED_MAX);
    let mut views: Vec<SnapshotView> =
        listed.filter_map(|(_, name, path)| view(path, &metadata.join(name))).collect();
    views.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(views)
}

/// A file, with what was noted of it; `None` when it went away meanwhile.
fn view(path: &Path, noted: &Path) -> Option<SnapshotView> {
    let mut view = match glance(path) {
        Ok(view) => view,
        Err(error) if is_absent(&error) => return None,
        Err(error) => SnapshotView {
            name: path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            location: format!("file://{}", path.display()),
            problem: Some(error.to_string()),
            ..SnapshotView::default()
        },
    };
    if let Some(noted) = crate::node::snapshots::noted(noted).filter(|noted| view.is_still(noted)) {
        view.complete(noted);
    }
    Some(view)
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}
