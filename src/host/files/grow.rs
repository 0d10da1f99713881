//! A long file on its way: it grows part by part beside the place that it gets, and is hashed as it
//! comes, so that nobody has to read it again.

use std::fs::{File, Metadata};
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::task::JoinHandle;

use super::{absolute, create_private, failed};
use crate::host::error::HostResult;
use crate::host::protocol::HostError;
use crate::host::serve::blocking;

/// What a file that grows is called, beside the place it gets.
pub(crate) const PART_ENDING: &str = ".k3sup-part";

/// Bytes that are written and hashed while the next come in.
const CHUNK_BYTES: usize = 512 * 1024;

/// A file that grows.
pub(crate) struct Grown {
    path: PathBuf,
    file: File,
    length: u64,
    hasher: Sha256,
    /// What came before is written to disk while more comes, so that the end does not wait for all.
    syncing: Option<JoinHandle<()>>,
}

impl Grown {
    /// The file `path` that is to grow at `offset`: a new one at 0, else `before`.
    pub(crate) async fn at(before: Option<Self>, path: String, offset: u64) -> HostResult<Self> {
        if offset == 0 {
            return blocking(move || Self::begin(&path)).await;
        }
        match before {
            Some(grown) if grown.path == Path::new(&path) && grown.length == offset => Ok(grown),
            _ => Err(HostError::other(format!("{path} has not grown to {offset} bytes"))
                .hint("run again: it is then sent afresh")),
        }
    }

    fn begin(path: &str) -> HostResult<Self> {
        super::remove(path)?;
        let path = absolute(path)?.to_owned();
        let file = create_private(&path).map_err(failed("write", &path))?;
        Ok(Self { path, file, length: 0, hasher: Sha256::new(), syncing: None })
    }

    /// Whether it is to become `place`.
    pub(super) fn is_for(&self, place: &str) -> bool {
        self.path.to_str().and_then(|path| path.strip_suffix(PART_ENDING)) == Some(place)
    }

    fn add(&mut self, bytes: &[u8]) -> HostResult<()> {
        self.file.write_all(bytes).map_err(failed("write", &self.path))?;
        self.hasher.update(bytes);
        self.length += bytes.len() as u64;
        Ok(())
    }

    /// Begins to write to disk what is there, unless that is under way.
    fn sync_on(&mut self) {
        if self.syncing.as_ref().is_some_and(|under_way| !under_way.is_finished()) {
            return;
        }
        let Ok(file) = self.file.try_clone() else { return };
        // What fails here fails again, and is told, when the file takes its place.
        self.syncing = Some(tokio::task::spawn_blocking(move || drop(file.sync_data())));
    }

    /// The hash of all that was written and the file, if `found` is that very file, under one name.
    pub(super) fn finish(self, found: &Metadata) -> Option<(Sha256, File)> {
        let own = self.file.metadata().ok()?;
        let same = own.dev() == found.dev() && own.ino() == found.ino() && own.nlink() == 1;
        (same && own.len() == self.length).then_some((self.hasher, self.file))
    }
}

/// Takes `length` bytes from `input` and adds them. All are taken off, also when there is nothing to
/// add them to or no room: the next message follows them.
pub(crate) async fn receive<R: AsyncRead + Unpin>(
    begun: HostResult<Grown>,
    input: &mut R,
    length: u32,
) -> HostResult<Grown> {
    let mut left = usize::try_from(length).unwrap_or(usize::MAX);
    let mut state = begun;
    let mut spare = Vec::new();
    let mut writing: Option<JoinHandle<(HostResult<Grown>, Vec<u8>)>> = None;
    loop {
        let mut chunk = std::mem::take(&mut spare);
        chunk.resize(left.min(CHUNK_BYTES), 0);
        let read = input.read_exact(&mut chunk).await;
        if let Some(writing) = writing.take() {
            (state, spare) = joined(writing.await);
        }
        read.map_err(|error| HostError::io("receive", "a part of a file", &error))?;
        left -= chunk.len();
        writing = Some(tokio::task::spawn_blocking(move || {
            let added = state.and_then(|mut grown| grown.add(&chunk).map(|()| grown));
            (added, chunk)
        }));
        state = Err(HostError::other("a part is being written"));
        if left == 0 {
            break;
        }
    }
    if let Some(writing) = writing {
        (state, _) = joined(writing.await);
    }
    state.map(|mut grown| {
        grown.sync_on();
        grown
    })
}

fn joined<E: std::fmt::Display>(
    ended: Result<(HostResult<Grown>, Vec<u8>), E>,
) -> (HostResult<Grown>, Vec<u8>) {
    ended.unwrap_or_else(|error| {
        (Err(HostError::other(format!("the executor failed: {error}"))), Vec::new())
    })
}
