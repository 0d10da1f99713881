//! Reading `~/.ssh/config` and `/etc/ssh/ssh_config` with all that they include.

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::words;

/// Files within files: OpenSSH's own limit.
const DEPTH_MAX: usize = 16;

/// Files larger than this are no configuration.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// A line that says something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line {
    /// `file:line`.
    pub(super) place: String,
    pub(super) says: Says,
}

/// What a line says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Says {
    /// What follows is about hosts with these patterns.
    Host(Vec<String>),
    /// What follows is for these conditions.
    Match(Vec<String>),
    /// Other files are read in its place.
    Include(Vec<Vec<Line>>),
    /// Keyword, lower case, and arguments.
    Option(String, Vec<String>),
}

/// Where a file is from.
#[derive(Clone, Copy)]
pub(super) struct Origin<'a> {
    /// What `Include` is relative to.
    pub(super) directory: &'a Path,
    /// `~`.
    pub(super) home: &'a Path,
    /// It belongs to a person: nobody else may write it.
    pub(super) private: bool,
}

/// The lines of a file; none when it is not there and `optional`.
pub(super) fn file(path: &Path, origin: Origin<'_>, optional: bool) -> Result<Vec<Line>, String> {
    included(path, origin, optional, 0)
}

fn included(
    path: &Path,
    origin: Origin<'_>,
    optional: bool,
    depth: usize,
) -> Result<Vec<Line>, String> {
    let text = match text(path, origin.private) {
        Ok(text) => text,
        Err(error) if optional && error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(format!("{}: {error}", path.display())),
    };
    if depth > DEPTH_MAX {
        return Err(format!("{}: included {DEPTH_MAX} files deep", path.display()));
    }
    let mut lines = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let place = format!("{}:{number}", path.display());
        let Some((keyword, arguments)) =
            words::split(line).map_err(|why| format!("{place}: {why}"))?
        else {
            continue;
        };
        let says = match keyword.as_str() {
            "host" => Says::Host(arguments),
            "match" => Says::Match(arguments),
            "include" => {
                let mut files = Vec::new();
                for pattern in &arguments {
                    for path in found(pattern, origin).map_err(|why| format!("{place}: {why}"))? {
                        files.push(included(&path, origin, true, depth + 1)?);
                    }
                }
                Says::Include(files)
            }
            _ => Says::Option(keyword, arguments),
        };
        lines.push(Line { place, says });
    }
    Ok(lines)
}

fn text(path: &Path, private: bool) -> io::Result<String> {
    let facts = std::fs::metadata(path)?;
    let own = rustix::process::geteuid().as_raw();
    let by_others = facts.mode() & 0o022 != 0 || ![0, own].contains(&facts.uid());
    // As in OpenSSH: who can write it decides where connections go.
    if private && facts.is_file() && by_others {
        return Err(io::Error::other("others can write it, so it is not used; chmod 600 it"));
    }
    if facts.len() > FILE_BYTES_MAX {
        return Err(io::Error::other("it is too long to be a configuration"));
    }
    std::fs::read_to_string(path)
}

/// The files that `pattern` of an `Include` means, sorted.
fn found(pattern: &str, origin: Origin<'_>) -> Result<Vec<PathBuf>, String> {
    let path = super::tokens::at_home(pattern, origin.home);
    let path = origin.directory.join(path);
    let text = path.to_str().ok_or("the path is not UTF-8")?;
    let paths = glob::glob(text).map_err(|error| error.to_string())?;
    Ok(paths.filter_map(Result::ok).collect())
}
