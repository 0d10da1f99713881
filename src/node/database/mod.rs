//! The state as etcd's own database: what `etcdctl snapshot save` gets of a member, and what a cluster
//! begins with that moves in from etcd or K3s.
//!
//! `schema` is which bucket holds what (etcd `server/storage/schema`, of etcd 3.5), [`write()`] and
//! [`load`] go from the state to a file and back, [`tell()`] says what is in one. A bucket of our own holds
//! what etcd does not know; etcd leaves it alone. Knows nothing of pages: those are `store::bolt`'s.

mod read;
mod schema;
mod status;
mod tell;
#[cfg(test)]
mod tests;
mod write;

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use sha2::{Digest as _, Sha256};

pub(crate) use crate::store::bolt::looks_like_one;
pub(crate) use read::load;
pub(crate) use status::{Status, status};
pub(crate) use tell::tell;
pub(crate) use write::write;

use crate::store::bolt::BoltError;
use crate::store::state::ImportError;

/// etcd appends a SHA-256 to its snapshots, whose databases are multiples of this
/// (etcd `etcdutl/snapshot/v3_snapshot.go`).
const ALIGN: u64 = 512;
const HASH_BYTES: u64 = 32;
const CHUNK_BYTES: usize = 256 * 1024;

/// What of the SHA-256 that etcd puts behind a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HashCheck {
    /// It must be there and be right.
    Needed,
    /// It must be right if it is there: a copy of a data directory's database has none.
    IfThere,
    /// It may be wrong.
    Skipped,
}

/// Why a database cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DatabaseError {
    /// The operating system refused.
    #[error("it cannot be read")]
    Io(#[from] io::Error),
    /// Its pages are not right.
    #[error(transparent)]
    Bolt(#[from] BoltError),
    /// It is not what was saved.
    #[error("it is damaged: its SHA-256 is not the one at its end; use another one")]
    Hash,
    /// It has none, and one was asked for.
    #[error("it has no hash at its end: it is cut off, or a copy of a data directory's database")]
    NoHash,
    /// Its size is none of a database.
    #[error("it is cut off: its size is no multiple of 512, with or without a SHA-256 behind")]
    Size,
    /// It has no keys of etcd's.
    #[error("it is no database of etcd's: it has no bucket `key`")]
    NoKeys,
    /// A bucket holds what etcd would not put there.
    #[error("its bucket `{bucket}` is damaged: {why}")]
    Content {
        /// The bucket.
        bucket: &'static str,
        /// What is wrong.
        why: String,
    },
    /// What it holds makes no state.
    #[error(transparent)]
    State(#[from] ImportError),
}

/// A database without what may stand behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Body {
    /// Its size.
    pub(crate) bytes: u64,
    /// Whether a SHA-256 stands behind it, which was right.
    pub(crate) is_hashed: bool,
}

/// Finds the database in a file and checks its hash.
pub(crate) fn body(file: &File, check: HashCheck) -> Result<Body, DatabaseError> {
    let bytes = file.metadata()?.len();
    match bytes % ALIGN {
        0 if check == HashCheck::Needed => Err(DatabaseError::NoHash),
        0 => Ok(Body { bytes, is_hashed: false }),
        HASH_BYTES => {
            let covered = bytes - HASH_BYTES;
            if check == HashCheck::Skipped {
                return Ok(Body { bytes: covered, is_hashed: false });
            }
            let mut expected = [0; 32];
            file.read_exact_at(&mut expected, covered)?;
            if hash(file, covered)? != expected {
                return Err(DatabaseError::Hash);
            }
            Ok(Body { bytes: covered, is_hashed: true })
        }
        _ => Err(DatabaseError::Size),
    }
}

/// SHA-256 of a file's first `bytes`.
pub(crate) fn hash(file: &File, bytes: u64) -> io::Result<[u8; 32]> {
    let mut hasher = Sha256::new();
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut at = 0;
    while at < bytes {
        let want = usize::try_from(bytes - at).unwrap_or(usize::MAX).min(chunk.len());
        let read = file.read_at(chunk.get_mut(..want).unwrap_or_default(), at)?;
        if read == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it became shorter"));
        }
        hasher.update(chunk.get(..read).unwrap_or_default());
        at += read as u64;
    }
    Ok(hasher.finalize().into())
}
