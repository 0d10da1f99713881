//! Reaching a host: connections, host keys, pushing the executor, and one channel for a whole play.
//!
//! Knows nothing of playbooks and plans: it carries [`crate::host::protocol`] frames.

pub mod hostkey;

use futures::future::BoxFuture;

use crate::host::protocol::{Change, Done, HostError, Observed, Read};

/// Why a host could not be reached or was lost.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RemoteError {
    /// No connection, or it was lost.
    #[error("{message}")]
    Unreachable {
        /// What and why.
        message: String,
        /// What to do about it.
        hint: Option<String>,
    },
    /// The host's key is not the one that is known, or is revoked, or is not known and may not be
    /// learned.
    #[error("{message}")]
    HostKey {
        /// What and why, with file and line and both fingerprints.
        message: String,
        /// What to do about it.
        hint: Option<String>,
    },
    /// None of the ways to log in was accepted.
    #[error("{message}")]
    Authentication {
        /// What was tried.
        message: String,
        /// What to do about it.
        hint: Option<String>,
    },
    /// `sudo` or its like was refused, or wants a password.
    #[error("{message}")]
    Become {
        /// What and why.
        message: String,
        /// What to do about it.
        hint: Option<String>,
    },
    /// The executor could not be pushed or started (architecture, disk, noexec…).
    #[error("{message}")]
    Executor {
        /// What and why.
        message: String,
        /// What to do about it.
        hint: Option<String>,
    },
}

/// An open channel to a host's executor. One at a time is used per host.
pub trait Session: Send {
    /// Takes all `reads` in one round trip; one result per read, in order.
    fn read(
        &mut self,
        reads: Vec<Read>,
    ) -> BoxFuture<'_, Result<Vec<Result<Observed, HostError>>, RemoteError>>;

    /// Makes `changes` in order in one round trip and stops at the first that fails; one result per
    /// change that was tried. After a lost connection the outcome is unknown and must be observed.
    fn change(
        &mut self,
        changes: Vec<Change>,
    ) -> BoxFuture<'_, Result<Vec<Result<Done, HostError>>, RemoteError>>;

    /// Round trips used so far, the connection's own handshakes not counted.
    fn round_trips(&self) -> u64;
}
