//! The executor's binary on this machine: its hash, for which machines it is, and its bytes for the
//! way.

use std::fmt;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use sha2::{Digest as _, Sha256};
use tokio::sync::OnceCell;

use super::RemoteError;
use super::elf::{self, Needs};
use super::packed;

/// How far into a file its ELF header tells the machine (elf(5), `e_machine`).
const ELF_HEADER_BYTES: usize = 20;

/// A binary that is pushed to hosts. Read once, when first needed.
pub struct Executor {
    path: PathBuf,
    loaded: OnceCell<Loaded>,
    compressed: OnceCell<Bytes>,
    /// Where the packed bytes are kept for later runs, if anywhere.
    kept: Option<PathBuf>,
}

/// What is known of a binary that was read.
#[derive(Clone, Debug)]
pub(crate) struct Loaded {
    /// Hex.
    pub(crate) sha256: String,
    /// As `uname -m` calls the machine; `None` when it is not an ELF binary we know.
    pub(crate) machine: Option<&'static str>,
    /// The C library that it is linked to; `None` when it is not a binary.
    pub(super) needs: Option<Needs>,
    /// The whole of it.
    pub(crate) bytes: Bytes,
}

impl fmt::Debug for Executor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Executor").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Executor {
    /// This very program, also when its file was replaced since it started.
    pub fn own() -> Arc<Self> {
        static OWN: OnceLock<Arc<Executor>> = OnceLock::new();
        Arc::clone(OWN.get_or_init(|| Self::kept_at("/proc/self/exe", packed::directory())))
    }

    /// The binary at `path`, for example one for another kind of machine.
    pub fn at(path: impl Into<PathBuf>) -> Arc<Self> {
        Self::kept_at(path, None)
    }

    /// The binary at `path`, which is packed once for all runs that keep it in `kept`.
    pub(super) fn kept_at(path: impl Into<PathBuf>, kept: Option<PathBuf>) -> Arc<Self> {
        let (path, loaded, compressed) = (path.into(), OnceCell::new(), OnceCell::new());
        Arc::new(Self { path, loaded, compressed, kept })
    }

    /// Where it is on this machine.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Reads and hashes it, the first time.
    pub(crate) async fn load(&self) -> Result<&Loaded, RemoteError> {
        self.loaded
            .get_or_try_init(|| async {
                let path = self.path.clone();
                let read = tokio::task::spawn_blocking(move || read(&path)).await;
                read.unwrap_or_else(|error| Err(io::Error::other(error))).map_err(|error| {
                    RemoteError::Executor {
                        message: format!("cannot read {}: {error}", self.path.display()),
                        hint: None,
                    }
                })
            })
            .await
    }

    /// Its bytes in gzip's format, compressed the first time or found from an earlier run.
    pub(crate) async fn compressed(&self) -> Result<Bytes, RemoteError> {
        let loaded = self.load().await?;
        let compressed = self.compressed.get_or_try_init(|| async {
            let (loaded, kept) = (loaded.clone(), self.kept.clone());
            let packed = tokio::task::spawn_blocking(move || pack(&loaded, kept.as_deref())).await;
            packed.unwrap_or_else(|error| Err(io::Error::other(error))).map_err(|error| {
                RemoteError::Executor {
                    message: format!("cannot compress the executor: {error}"),
                    hint: None,
                }
            })
        });
        compressed.await.cloned()
    }
}

fn read(path: &Path) -> io::Result<Loaded> {
    let mut bytes = Vec::new();
    File::open(path)?.read_to_end(&mut bytes)?;
    let sha256 = hex::encode(Sha256::digest(&bytes));
    let (machine, needs) = (machine(&bytes), elf::needs(&bytes));
    Ok(Loaded { sha256, machine, needs, bytes: Bytes::from(bytes) })
}

impl Loaded {
    /// Whether it is a build of this very version.
    pub(super) fn is_this_version(&self) -> bool {
        crate::version::of_binary(&self.bytes).as_deref() == Some(crate::version::own())
    }
}

fn pack(loaded: &Loaded, kept: Option<&Path>) -> io::Result<Bytes> {
    if let Some(found) = kept.and_then(|kept| packed::find(kept, &loaded.sha256)) {
        return Ok(found);
    }
    let packed = compress(&loaded.bytes)?;
    if let Some(kept) = kept {
        packed::keep(kept, &loaded.sha256, &packed);
    }
    Ok(packed)
}

fn compress(bytes: &[u8]) -> io::Result<Bytes> {
    // Level 4 has most of the gain for a third of level 6's time on this kind of data.
    let mut encoder = GzEncoder::new(Vec::with_capacity(bytes.len() / 2), Compression::new(4));
    encoder.write_all(bytes)?;
    encoder.finish().map(Bytes::from)
}

/// The machine that an ELF binary is for, as `uname -m` calls it (the numbers are `EM_…` of
/// elf.h).
fn machine(bytes: &[u8]) -> Option<&'static str> {
    let header: &[u8; ELF_HEADER_BYTES] = bytes.first_chunk()?;
    let [0x7f, b'E', b'L', b'F', class, order, .., low, high] = *header else { return None };
    let pair = [low, high];
    let number = if order == 1 { u16::from_le_bytes(pair) } else { u16::from_be_bytes(pair) };
    match (number, class) {
        (62, _) => Some("x86_64"),
        (183, _) => Some("aarch64"),
        (40, _) => Some("arm"),
        (3, _) => Some("i686"),
        (243, 2) => Some("riscv64"),
        (22, 2) => Some("s390x"),
        (21, 2) if order == 1 => Some("ppc64le"),
        _ => None,
    }
}

/// Whether a host that calls itself `uname` runs binaries for `machine`.
pub(crate) fn runs(uname: &str, machine: &str) -> bool {
    match machine {
        "arm" => uname.starts_with("armv") || uname == "aarch64",
        "i686" => matches!(uname, "i386" | "i486" | "i586" | "i686" | "x86_64"),
        _ => uname == machine,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn this_binary_is_for_this_machine() {
        let own = Executor::own();
        let loaded = own.load().await.unwrap();
        assert_eq!(loaded.machine, Some(std::env::consts::ARCH));
        assert!(loaded.is_this_version() && loaded.needs.is_some());
        assert_eq!(loaded.sha256, hex::encode(Sha256::digest(&loaded.bytes)));
    }

    #[test]
    fn other_machines_and_other_files_are_told_apart() {
        let mut header = [0_u8; ELF_HEADER_BYTES];
        header[..6].copy_from_slice(&[0x7f, b'E', b'L', b'F', 2, 1]);
        header[18] = 183;
        assert_eq!(machine(&header), Some("aarch64"));
        assert_eq!(machine(b"#!/bin/sh\nexit 0\n\n\n\n\n\n"), None);
        assert_eq!(machine(b"\x7fELF"), None);
        assert!(runs("aarch64", "aarch64") && !runs("x86_64", "aarch64"));
        assert!(runs("armv7l", "arm") && runs("x86_64", "i686") && !runs("i686", "x86_64"));
    }

    #[tokio::test]
    async fn what_is_compressed_comes_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("binary");
        std::fs::write(&path, b"some bytes ".repeat(10_000)).unwrap();
        let executor = Executor::at(&path);
        let packed = executor.compressed().await.unwrap();
        let mut back = Vec::new();
        flate2::read::GzDecoder::new(&packed[..]).read_to_end(&mut back).unwrap();
        assert_eq!(back, b"some bytes ".repeat(10_000));
        assert!(Executor::at("/no/such/file").load().await.is_err());
    }
}
