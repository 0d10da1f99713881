//! Reading and verifying a snapshot.

use std::borrow::Borrow;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use super::format::{
    ALIGN, FOOTER_BYTES, FORMAT, Footer, HASH_BYTES, HEADER_BYTES_MAX, MAGIC, PREFIX_BYTES,
    RATIO_MAX, decode_header,
};
use super::{RECORD_BYTES_MAX, SnapshotError, SnapshotHeader, SnapshotInfo};

/// Largest window that the decompressor may be made to keep: 2^23 bytes. The writer's is smaller.
const WINDOW_LOG_MAX: u32 = 23;

const CHUNK_BYTES: usize = 256 * 1024;

/// Footer and hash.
const TRAILER_BYTES: u64 = (FOOTER_BYTES + HASH_BYTES) as u64;

/// A part of a file, read by position: the file's own cursor is left alone.
struct Section<F> {
    file: F,
    at: u64,
    end: u64,
}

impl<F: Borrow<File>> Read for Section<F> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end - self.at).unwrap_or(usize::MAX);
        let len = into.len().min(left);
        let read = self.file.borrow().read_at(into.get_mut(..len).unwrap_or_default(), self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}

/// Reads a whole snapshot file and checks all of it: the hash, and that it holds just the records
/// that it says.
pub fn verify(path: &Path) -> Result<SnapshotInfo, SnapshotError> {
    let file = File::open(path).map_err(SnapshotError::io("open", path))?;
    verify_file(&file, path)
}

/// As [`verify`], of an open file; `path` is for messages.
pub fn verify_file(file: &File, path: &Path) -> Result<SnapshotInfo, SnapshotError> {
    let mut reader = SnapshotReader::over(file, path)?;
    while reader.next_record()?.is_some() {}
    Ok(reader.info)
}

/// Hands out the records of a snapshot file, whose hash is checked before the first. An iterator
/// over [`Bytes`]; after an error it ends.
pub struct SnapshotReader<F: Borrow<File> = File> {
    stream: zstd::Decoder<'static, BufReader<Section<F>>>,
    info: SnapshotInfo,
    path: PathBuf,
    /// What is still to come, as the file says.
    records_left: u64,
    bytes_left: u64,
    done: bool,
}

impl SnapshotReader {
    /// Opens a file and hashes all of it.
    pub fn open(path: &Path) -> Result<Self, SnapshotError> {
        let file = File::open(path).map_err(SnapshotError::io("open", path))?;
        Self::over(file, path)
    }
}

impl<F: Borrow<File>> SnapshotReader<F> {
    /// Reads an open file after hashing all of it; `path` is for messages.
    pub fn over(file: F, path: &Path) -> Result<Self, SnapshotError> {
        let (info, stream_start, footer) = read_frame(file.borrow(), path)?;
        let section = Section { file, at: stream_start, end: stream_start + footer.stream_bytes };
        let io = |error| SnapshotError::io("decompress", path)(error);
        let buffered = BufReader::with_capacity(CHUNK_BYTES, section);
        let mut stream = zstd::Decoder::with_buffer(buffered).map_err(io)?.single_frame();
        stream.window_log_max(WINDOW_LOG_MAX).map_err(io)?;
        Ok(Self {
            stream,
            path: path.to_owned(),
            records_left: info.records,
            bytes_left: info.record_bytes,
            info,
            done: false,
        })
    }

    /// What the file says of itself. Its hash is right; that it holds so many records is known
    /// once all were read.
    pub fn info(&self) -> &SnapshotInfo {
        &self.info
    }

    /// The next record; `None` when all that the file says it holds, and no more, were handed out.
    pub fn next_record(&mut self) -> Result<Option<Bytes>, SnapshotError> {
        if self.done {
            return Ok(None);
        }
        let result = self.read_record();
        self.done = !matches!(result, Ok(Some(_)));
        result
    }

    fn read_record(&mut self) -> Result<Option<Bytes>, SnapshotError> {
        if self.records_left == 0 {
            return self.check_end().map(|()| None);
        }
        let mut prefix = [0; 4];
        self.take(prefix.len() as u64)?;
        self.stream.read_exact(&mut prefix).map_err(|error| self.cut(&error))?;
        let len = u32::from_le_bytes(prefix);
        let size = usize::try_from(len).unwrap_or(usize::MAX);
        if size > RECORD_BYTES_MAX {
            return Err(self.damaged("a record is larger than any can be"));
        }
        self.take(u64::from(len))?;
        let mut record = vec![0; size];
        self.stream.read_exact(&mut record).map_err(|error| self.cut(&error))?;
        self.records_left -= 1;
        Ok(Some(record.into()))
    }

    /// Accounts for `bytes` more, before memory is taken for them.
    fn take(&mut self, bytes: u64) -> Result<(), SnapshotError> {
        match self.bytes_left.checked_sub(bytes) {
            Some(left) => self.bytes_left = left,
            None => return Err(self.damaged("it holds more than it says")),
        }
        Ok(())
    }

    fn check_end(&mut self) -> Result<(), SnapshotError> {
        let mut more = [0];
        let read = self.stream.read(&mut more).map_err(|error| self.cut(&error))?;
        if read != 0 {
            return Err(self.damaged("it holds more than it says"));
        }
        if self.bytes_left != 0 {
            return Err(self.damaged("it holds less than it says"));
        }
        Ok(())
    }

    fn cut(&self, error: &io::Error) -> SnapshotError {
        self.damaged(format!("its records cannot be decompressed: {error}"))
    }

    fn damaged(&self, reason: impl Into<String>) -> SnapshotError {
        SnapshotError::damaged(&self.path, reason)
    }
}

impl<F: Borrow<File>> Iterator for SnapshotReader<F> {
    type Item = Result<Bytes, SnapshotError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_record().transpose()
    }
}

/// What a snapshot file says of itself, without its hash being checked: to be shown, not to be
/// believed. `path` is for messages.
pub fn peek(file: &File, path: &Path) -> Result<SnapshotHeader, SnapshotError> {
    let (file_bytes, format, header_bytes) = read_prefix(file, path)?;
    read_header(file, path, file_bytes, format, header_bytes)
}

/// Length of the file, its format, and the length of its header.
fn read_prefix(file: &File, path: &Path) -> Result<(u64, u32, u32), SnapshotError> {
    let io = |error| SnapshotError::io("read", path)(error);
    let file_bytes = file.metadata().map_err(io)?.len();
    let short = || SnapshotError::damaged(path, "it is cut off");
    let mut prefix = [0; PREFIX_BYTES];
    if file_bytes < prefix.len() as u64 {
        let reason = "it is too short";
        return Err(SnapshotError::NotASnapshot { path: path.to_owned(), reason });
    }
    file.read_exact_at(&mut prefix, 0).map_err(io)?;
    let (magic, numbers) = prefix.split_at(MAGIC.len());
    if magic != MAGIC {
        let reason = "it does not begin as one";
        return Err(SnapshotError::NotASnapshot { path: path.to_owned(), reason });
    }
    let (format, header_bytes) = split_numbers(numbers).ok_or_else(short)?;
    if file_bytes % ALIGN != HASH_BYTES as u64 || file_bytes < TRAILER_BYTES {
        return Err(short());
    }
    let file_bytes = unwrapped(file, file_bytes).map_err(io)?;
    Ok((file_bytes, format, header_bytes))
}

/// The length of the snapshot in a file that `etcdctl snapshot save` wrote: it filled it with zeros up
/// to a multiple of [`ALIGN`], and a SHA-256 of both follows. No snapshot itself ends so: its footer
/// stands where these zeros do.
fn unwrapped(file: &File, file_bytes: u64) -> io::Result<u64> {
    let Some(inner) = file_bytes.checked_sub(ALIGN).filter(|inner| *inner >= TRAILER_BYTES) else {
        return Ok(file_bytes);
    };
    let mut zeros = [0; 512 - HASH_BYTES];
    file.read_exact_at(&mut zeros, inner)?;
    Ok(if zeros.iter().all(|byte| *byte == 0) { inner } else { file_bytes })
}

fn read_header(
    file: &File,
    path: &Path,
    file_bytes: u64,
    format: u32,
    header_bytes: u32,
) -> Result<SnapshotHeader, SnapshotError> {
    if format != FORMAT {
        return Err(SnapshotError::NewerFormat {
            path: path.to_owned(),
            found: format,
            known: FORMAT,
        });
    }
    let stream_start = PREFIX_BYTES as u64 + u64::from(header_bytes);
    let header_len = usize::try_from(header_bytes).unwrap_or(usize::MAX);
    if header_len > HEADER_BYTES_MAX || stream_start + TRAILER_BYTES > file_bytes {
        return Err(SnapshotError::damaged(path, "its header is longer than any can be"));
    }
    let mut header = vec![0; header_len];
    file.read_exact_at(&mut header, PREFIX_BYTES as u64)
        .map_err(SnapshotError::io("read", path))?;
    decode_header(&header).ok_or_else(|| SnapshotError::damaged(path, "its header cannot be read"))
}

/// Reads and checks all but the records. Gives also where the compressed stream begins.
fn read_frame(file: &File, path: &Path) -> Result<(SnapshotInfo, u64, Footer), SnapshotError> {
    let io = |error| SnapshotError::io("read", path)(error);
    let (file_bytes, format, header_bytes) = read_prefix(file, path)?;
    let whole = file.metadata().map_err(io)?.len();
    if whole != file_bytes {
        check_hash(file, path, whole)?;
    }
    let sha256 = check_hash(file, path, file_bytes)?;
    // Only a file that is whole is believed what it says of itself.
    let header = read_header(file, path, file_bytes, format, header_bytes)?;
    let stream_start = PREFIX_BYTES as u64 + u64::from(header_bytes);
    let mut footer = [0; FOOTER_BYTES];
    file.read_exact_at(&mut footer, file_bytes - TRAILER_BYTES).map_err(io)?;
    let footer =
        Footer::decode(&footer).ok_or_else(|| SnapshotError::damaged(path, "it is cut off"))?;
    if footer.stream_bytes > file_bytes - TRAILER_BYTES - stream_start {
        return Err(SnapshotError::damaged(path, "it says that it is longer than it is"));
    }
    if footer.record_bytes.div_ceil(RATIO_MAX) > file_bytes {
        return Err(SnapshotError::damaged(path, "it says that it holds more than it can"));
    }
    let Footer { records, record_bytes, .. } = footer;
    let info = SnapshotInfo { header, records, record_bytes, file_bytes, sha256 };
    Ok((info, stream_start, footer))
}

fn split_numbers(bytes: &[u8]) -> Option<(u32, u32)> {
    let (format, rest) = bytes.split_first_chunk()?;
    Some((u32::from_le_bytes(*format), u32::from_le_bytes(*rest.first_chunk()?)))
}

fn check_hash(file: &File, path: &Path, file_bytes: u64) -> Result<[u8; 32], SnapshotError> {
    let covered = file_bytes - HASH_BYTES as u64;
    let mut section = Section { file, at: 0, end: covered };
    let mut hash = Sha256::new();
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        match section.read(&mut chunk).map_err(SnapshotError::io("read", path))? {
            0 => break,
            read => hash.update(chunk.get(..read).unwrap_or_default()),
        }
    }
    let mut expected = [0; HASH_BYTES];
    file.read_exact_at(&mut expected, covered).map_err(SnapshotError::io("read", path))?;
    let found: [u8; HASH_BYTES] = hash.finalize().into();
    if section.at != covered || found != expected {
        return Err(SnapshotError::damaged(path, "its SHA-256 is not the one at its end"));
    }
    Ok(expected)
}
