//! Writing a snapshot.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags};
use sha2::{Digest as _, Sha256};

use super::format::{Footer, MEMBERSHIP_BYTES_MAX, encode_header, padding};
use super::read::verify_file;
use super::{RECORD_BYTES_MAX, SnapshotError, SnapshotHeader, SnapshotInfo};
use crate::store::fs::{create_private_file, parent, sync_dir};

/// Fast rather than small: the log is purged only when this is done.
const COMPRESSION_LEVEL: i32 = 1;

/// Hashes and counts what passes through.
struct Hashing<W> {
    inner: W,
    hash: Sha256,
    bytes: u64,
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.hash.update(bytes.get(..written).unwrap_or_default());
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// Writes the bytes of a snapshot into anything. [`SnapshotWriter`] makes a file of it.
pub struct SnapshotEncoder<W: Write> {
    stream: zstd::Encoder<'static, Hashing<W>>,
    header: SnapshotHeader,
    header_bytes: u64,
    records: u64,
    record_bytes: u64,
}

impl<W: Write> SnapshotEncoder<W> {
    /// Begins a snapshot.
    pub fn new(writer: W, header: SnapshotHeader) -> io::Result<Self> {
        let bytes = header.membership.len();
        if bytes > MEMBERSHIP_BYTES_MAX {
            let limit = MEMBERSHIP_BYTES_MAX;
            return Err(SnapshotError::TooLarge { what: "the membership", bytes, limit }.into());
        }
        let mut out = Hashing { inner: writer, hash: Sha256::new(), bytes: 0 };
        out.write_all(&encode_header(&header))?;
        let header_bytes = out.bytes;
        let stream = zstd::Encoder::new(out, COMPRESSION_LEVEL)?;
        Ok(Self { stream, header, header_bytes, records: 0, record_bytes: 0 })
    }

    /// Adds a record.
    pub fn record(&mut self, record: &[u8]) -> io::Result<()> {
        let len = u32::try_from(record.len()).unwrap_or(u32::MAX);
        if record.len() > RECORD_BYTES_MAX {
            let (bytes, limit) = (record.len(), RECORD_BYTES_MAX);
            return Err(SnapshotError::TooLarge { what: "a record", bytes, limit }.into());
        }
        self.stream.write_all(&len.to_le_bytes())?;
        self.stream.write_all(record)?;
        self.records += 1;
        self.record_bytes += 4 + u64::from(len);
        Ok(())
    }

    /// Ends it. Nothing is synced.
    pub fn finish(self) -> io::Result<(W, SnapshotInfo)> {
        let mut out = self.stream.finish()?;
        let footer = Footer {
            records: self.records,
            record_bytes: self.record_bytes,
            stream_bytes: out.bytes - self.header_bytes,
        };
        let zeros = padding(out.bytes, footer.record_bytes);
        io::copy(&mut io::Read::take(io::repeat(0), zeros), &mut out)?;
        out.write_all(&footer.encode())?;
        let Hashing { mut inner, hash, bytes } = out;
        let sha256: [u8; 32] = hash.finalize().into();
        inner.write_all(&sha256)?;
        inner.flush()?;
        let info = SnapshotInfo {
            header: self.header,
            records: footer.records,
            record_bytes: footer.record_bytes,
            file_bytes: bytes + sha256.len() as u64,
            sha256,
        };
        Ok((inner, info))
    }
}

/// Writes a snapshot file. Dropped before [`SnapshotWriter::finish`], it leaves nothing behind.
pub struct SnapshotWriter {
    encoder: Option<SnapshotEncoder<BufWriter<File>>>,
    path: PathBuf,
    part: PathBuf,
}

impl SnapshotWriter {
    /// Begins the snapshot that shall be named `path`, which must not exist, in a directory that
    /// does. It is written beside it, as `<path>.part`; a left-over of that name is replaced.
    pub fn create(path: &Path, header: SnapshotHeader) -> Result<Self, SnapshotError> {
        if path.symlink_metadata().is_ok() {
            return Err(SnapshotError::Exists { path: path.to_owned() });
        }
        let mut part = path.as_os_str().to_owned();
        part.push(".part");
        let part = PathBuf::from(part);
        match std::fs::remove_file(&part) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(SnapshotError::io("replace", part)(error));
            }
            _ => {}
        }
        let file = create_private_file(&part).map_err(SnapshotError::io("create", &part))?;
        let mut writer = Self { encoder: None, path: path.to_owned(), part };
        let encoder = SnapshotEncoder::new(BufWriter::with_capacity(256 * 1024, file), header);
        writer.encoder = Some(encoder.map_err(SnapshotError::io("write", &writer.part))?);
        Ok(writer)
    }

    /// Adds a record.
    pub fn record(&mut self, record: &[u8]) -> Result<(), SnapshotError> {
        let Some(encoder) = &mut self.encoder else { return Ok(()) };
        encoder.record(record).map_err(SnapshotError::io("write", &self.part))
    }

    /// Syncs the file, reads it back and verifies it, and gives it its name. Durable afterwards.
    pub fn finish(mut self) -> Result<SnapshotInfo, SnapshotError> {
        let Some(encoder) = self.encoder.take() else {
            return Err(SnapshotError::damaged(&self.part, "it was never begun"));
        };
        let (writer, info) = encoder.finish().map_err(SnapshotError::io("write", &self.part))?;
        let file = writer
            .into_inner()
            .map_err(|error| SnapshotError::io("write", &self.part)(error.into_error()))?;
        file.sync_all().map_err(SnapshotError::io("sync", &self.part))?;
        if verify_file(&file, &self.part)? != info {
            return Err(SnapshotError::damaged(&self.part, "it reads back other than written"));
        }
        rename_new(&self.part, &self.path)?;
        sync_dir(parent(&self.path))
            .map_err(SnapshotError::io("sync the directory of", &self.path))?;
        Ok(info)
    }
}

impl Drop for SnapshotWriter {
    fn drop(&mut self) {
        // After a success it has another name by now.
        let _ = std::fs::remove_file(&self.part);
    }
}

/// Renames without replacing anything, a symbolic link included.
fn rename_new(from: &Path, to: &Path) -> Result<(), SnapshotError> {
    match rustix::fs::renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        Ok(()) => Ok(()),
        Err(rustix::io::Errno::EXIST) => Err(SnapshotError::Exists { path: to.to_owned() }),
        // Not all file systems can: a second name fails when there is one, and never replaces.
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => std::fs::hard_link(from, to)
            .map_err(|error| match error.kind() {
                io::ErrorKind::AlreadyExists => SnapshotError::Exists { path: to.to_owned() },
                _ => SnapshotError::io("name", to)(error),
            }),
        Err(error) => Err(SnapshotError::io("name", to)(error.into())),
    }
}
