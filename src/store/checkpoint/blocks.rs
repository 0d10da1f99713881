//! The file of blocks: written at its end only. Knows nothing of what is inside them.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;

/// Its name in the checkpoint's directory.
pub(super) const BLOCKS: &str = "blocks";

/// The file, open.
pub(super) struct Blocks(File);

impl Blocks {
    /// Opens or creates the file in `dir`, and cuts off what stands after `end`: it was written by a
    /// transaction that was not done.
    pub(super) fn open(dir: &Path, end: u64) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let file = file.open(dir.join(BLOCKS))?;
        if file.metadata()?.len() > end {
            file.set_len(end)?;
        }
        Ok(Self(file))
    }

    /// Writes blocks at `end`. Not durable before [`Self::sync`].
    pub(super) fn append(&self, end: u64, content: &[u8]) -> io::Result<()> {
        self.0.write_all_at(content, end)
    }

    /// What was written so far survives a power cut.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    /// `len` bytes at `offset`. An error when the file ends before.
    pub(super) fn read(&self, offset: u64, len: u64) -> io::Result<Vec<u8>> {
        let size = self.0.metadata()?.len();
        if offset.checked_add(len).is_none_or(|end| end > size) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut content = vec![0; usize::try_from(len).map_err(io::Error::other)?];
        self.0.read_exact_at(&mut content, offset)?;
        Ok(content)
    }
}
