//! Packed executors, kept on this machine from run to run: packing one takes longer than most runs.
//!
//! A file is named by the SHA-256 of the binary and begins with the SHA-256 of the rest, by which a
//! damaged one is told. It is a cache: whatever is wrong with it, the binary is packed again.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use bytes::Bytes;
use etcetera::BaseStrategy as _;
use sha2::{Digest as _, Sha256};

use crate::host::files::{make_private_directory, replace_private};

/// How many are kept: this program's, those of other machines, and of the last versions.
const KEPT_MAX: usize = 6;

/// Bytes of a SHA-256.
const HASH_BYTES: usize = 32;

/// `~/.cache/k3sup-rs/packed`; `None` without a home.
pub(super) fn directory() -> Option<PathBuf> {
    let base = etcetera::choose_base_strategy().ok()?;
    Some(base.cache_dir().join("k3sup-rs/packed"))
}

fn place(directory: &Path, sha256: &str) -> PathBuf {
    directory.join(format!("{sha256}.gz"))
}

/// What is kept for the binary whose hash in hex is `sha256`; `None` when it is not there, or damaged.
pub(super) fn find(directory: &Path, sha256: &str) -> Option<Bytes> {
    let mut bytes = Bytes::from(fs::read(place(directory, sha256)).ok()?);
    if bytes.len() < HASH_BYTES {
        return None;
    }
    let hash = bytes.split_to(HASH_BYTES);
    (Sha256::digest(&bytes)[..] == hash[..]).then_some(bytes)
}

/// Keeps it, 0600 and complete at once, and the newest of the others. Without room there is none.
pub(super) fn keep(directory: &Path, sha256: &str, packed: &[u8]) {
    let content = [&Sha256::digest(packed)[..], packed].concat();
    let kept = make_private_directory(directory)
        .and_then(|()| replace_private(&place(directory, sha256), &content));
    if let Err(error) = kept {
        tracing::debug!(%error, "the packed executor is not kept");
        return;
    }
    forget_old(directory);
}

fn forget_old(directory: &Path) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    let dated = |entry: fs::DirEntry| {
        let date = entry.metadata().and_then(|found| found.modified());
        (date.unwrap_or(SystemTime::UNIX_EPOCH), entry.path())
    };
    let mut all: Vec<_> = entries.flatten().map(dated).collect();
    all.sort();
    let surplus = all.len().saturating_sub(KEPT_MAX);
    for (_, path) in all.into_iter().take(surplus) {
        // Another run may have been faster.
        let _ = fs::remove_file(path);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn what_is_kept_is_private_and_found_again_unless_it_is_damaged() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("packed");
        assert_eq!(find(&dir, "ab"), None);
        keep(&dir, "ab", b"content");
        assert_eq!(find(&dir, "ab").unwrap(), "content");
        assert_eq!(find(&dir, "cd"), None);
        let path = place(&dir, "ab");
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
        assert_eq!((mode(&dir), mode(&path)), (0o700, 0o600));
        let good = fs::read(&path).unwrap();
        for damaged in [&b""[..], &good[..HASH_BYTES], &good[..good.len() - 1]] {
            fs::write(&path, damaged).unwrap();
            assert_eq!(find(&dir, "ab"), None);
        }
        keep(&dir, "ab", b"content");
        assert_eq!(find(&dir, "ab").unwrap(), "content");
    }

    #[test]
    fn only_the_newest_stay() {
        let dir = tempfile::tempdir().unwrap();
        for number in 0..KEPT_MAX + 3 {
            keep(dir.path(), &number.to_string(), b"x");
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), KEPT_MAX);
    }
}
