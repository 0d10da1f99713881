//! The run's journal: one line per event, on disk before the run goes on.
//!
//! It is for people who want to know what a run did; no run reads it, for truth is on the hosts.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::event::{Event, EventSink};

/// An append-only file, `<directory>/<run>.jsonl`, mode 0600.
#[derive(Debug)]
pub struct Journal {
    file: File,
    path: PathBuf,
    failed: bool,
}

impl Journal {
    /// Begins the journal of the run `id` in `directory` (made when missing, mode 0700).
    pub fn create(directory: &Path, id: &str) -> io::Result<Self> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        let path = directory.join(format!("{id}.jsonl"));
        let file = OpenOptions::new().append(true).create_new(true).mode(0o600).open(&path)?;
        File::open(directory)?.sync_all()?;
        Ok(Self { file, path, failed: false })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn append(&mut self, event: &Event) -> io::Result<()> {
        let mut line = serde_json::to_vec(event)?;
        line.push(b'\n');
        self.file.write_all(&line)?;
        self.file.sync_data()
    }
}

impl EventSink for Journal {
    fn event(&mut self, event: &Event) {
        if matches!(event, Event::Connect { .. } | Event::Upload { .. }) || self.failed {
            return;
        }
        // A full disk of the control machine must not stop work on hosts half way.
        if let Err(error) = self.append(event) {
            tracing::warn!("the journal {} ends here: {error}", self.path.display());
            self.failed = true;
        }
    }
}
