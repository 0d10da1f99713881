//! The run's journal: one line per event, on disk before the run goes on.
//!
//! It is for people who want to know what a run did ([`super::history`] reads it); no run reads it,
//! for truth is on the hosts. A run holds a lock on its journal as long as it lives, so that one
//! that died is told from one that goes on.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};

use super::RunSummary;
use super::event::{Event, EventSink};
use crate::error::ExitCode;

/// The first line: which run this is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Beginning {
    /// The run's own name, unique.
    pub id: String,
    /// What it does: `up`.
    pub what: String,
    /// Absolute path of the inventory.
    pub inventory: String,
    /// The cluster's name.
    pub cluster: String,
    /// Person, machine and process: `ada@laptop pid 4711`.
    pub by: String,
    /// Version of the program.
    pub version: String,
}

/// The last line: how it came out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ending {
    /// The exit code.
    pub exit: u8,
    /// What failed and why; `None` when nothing did.
    pub message: Option<String>,
}

impl Ending {
    /// Of a run that went to its end.
    pub(super) fn of(summary: &RunSummary) -> Self {
        let (code, what, hosts) = if !summary.failed.is_empty() {
            (ExitCode::HostFailed, "failed on", &summary.failed)
        } else if summary.unreachable.is_empty() {
            return Self::default();
        } else {
            (ExitCode::Unreachable, "cannot reach", &summary.unreachable)
        };
        Self { exit: code as u8, message: Some(format!("{what} {}", hosts.join(", "))) }
    }
}

/// What a line says.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
enum Mark<'a> {
    Begin(&'a Beginning),
    End(&'a Ending),
}

/// A line with its time.
#[derive(Serialize)]
struct Line<T: Serialize> {
    at_unix_ms: u64,
    #[serde(flatten)]
    said: T,
}

/// An append-only file, `<directory>/<run>.jsonl`, mode 0600.
#[derive(Debug)]
pub struct Journal {
    file: File,
    path: PathBuf,
    failed: bool,
}

impl Journal {
    /// Begins the journal of a run in `directory` (made when missing, mode 0700).
    ///
    /// # Errors
    /// The directory or the file cannot be made or written.
    pub fn begin(directory: &Path, beginning: &Beginning) -> io::Result<Self> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        let path = directory.join(format!("{}.jsonl", beginning.id));
        let file = OpenOptions::new().append(true).create_new(true).mode(0o600).open(&path)?;
        rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive)?;
        let mut journal = Self { file, path, failed: false };
        journal.append(&Mark::Begin(beginning))?;
        File::open(directory)?.sync_all()?;
        Ok(journal)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes how the run came out. A run without it died, or goes on.
    pub fn end(&mut self, ending: &Ending) {
        self.note(&Mark::End(ending));
    }

    // A full disk of the control machine must not stop work on hosts half way.
    fn note(&mut self, said: &impl Serialize) {
        if self.failed {
            return;
        }
        if let Err(error) = self.append(said) {
            tracing::warn!("the journal {} ends here: {error}", self.path.display());
            self.failed = true;
        }
    }

    fn append(&mut self, said: &impl Serialize) -> io::Result<()> {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let at_unix_ms = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
        let mut line = serde_json::to_vec(&Line { at_unix_ms, said })?;
        line.push(b'\n');
        self.file.write_all(&line)?;
        self.file.sync_data()
    }
}

impl EventSink for Journal {
    fn event(&mut self, event: &Event) {
        if !matches!(event, Event::Connect { .. } | Event::Upload { .. }) {
            self.note(event);
        }
    }
}
