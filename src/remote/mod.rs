//! Reaching a host: connections, host keys, pushing the executor, and one channel for a whole play.
//!
//! Knows nothing of playbooks and plans: it carries [`crate::host::protocol`] frames.
//! [`connect`] leads from a [`Target`] to a [`Session`].

mod binaries;
pub(crate) mod config;
mod elf;
mod escalation;
mod executor;
pub mod hostkey;
mod launch;
mod local;
mod packed;
mod pipe;
mod prompt;
mod session;
pub mod ssh;
mod target;
#[cfg(test)]
mod tests;
mod upload;
mod wildcard;

use futures::future::BoxFuture;

pub use binaries::Binaries;
use escalation::{Start, Way};
pub use executor::Executor;
use hostkey::{HostKeyMode, HostKeys};
#[cfg(test)]
use pipe::Pipe;
pub use target::{
    Agent, Become, ConnectOptions, Connection, Family, Method, Progress, ProgressFn, SSH_PORT,
    SshTarget, Target,
};

use crate::host::protocol::{Change, Done, HostError, Observed, Read};
use crate::lab::LabHost;

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

impl RemoteError {
    /// The same with who is to blame in front.
    fn because_of(mut self, who: &str) -> Self {
        let (Self::Unreachable { message, .. }
        | Self::HostKey { message, .. }
        | Self::Authentication { message, .. }
        | Self::Become { message, .. }
        | Self::Executor { message, .. }) = &mut self;
        message.insert_str(0, &format!("{who}: "));
        self
    }
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

/// Connects to a host, pushes the executor if the host has not this very one, starts it and greets
/// it.
///
/// # Errors
/// Each kind of [`RemoteError`]; nothing is retried.
pub async fn connect(
    target: &Target,
    options: &ConnectOptions,
    progress: ProgressFn<'_>,
) -> Result<Box<dyn Session>, RemoteError> {
    progress(Progress::Connecting);
    let session = match &target.connection {
        Connection::Ssh(ssh) => {
            let way = Way::of(target.escalation.as_ref())?;
            ssh::connect(&target.name, ssh, way, options, progress).await?
        }
        Connection::Lab(host) => {
            let access = lab_access(host.clone()).await?;
            ssh::connect(&target.name, &access, Way::Direct, options, progress).await?
        }
        Connection::Local => {
            let way = Way::of(target.escalation.as_ref())?.here();
            let start = Start::new(None);
            let pipe = local::spawn(&options.executor, &way, &start)?;
            launch::greet(&target.name, pipe, &way, &start).await?
        }
    };
    progress(Progress::Ready);
    Ok(Box::new(session))
}

/// Starts a lab host if it is not up. Its keys were made by the lab itself: nothing is learned.
async fn lab_access(host: LabHost) -> Result<SshTarget, RemoteError> {
    let started = tokio::task::spawn_blocking(move || crate::lab::ensure(&host)).await;
    let access = started
        .map_err(|error| unreachable(error.to_string()))?
        .map_err(|error| unreachable(crate::error::chain(&error)))?;
    let known = access.known_hosts;
    let host_keys = HostKeys {
        files: vec![known.clone()],
        learn_into: Some(known),
        hashed: false,
        mode: HostKeyMode::Yes,
    };
    Ok(SshTarget {
        port: access.address.port(),
        keys: vec![access.key],
        identities_only: true,
        host_keys: Some(host_keys),
        ..SshTarget::new(access.address.ip().to_string(), access.user)
    })
}

fn unreachable(message: String) -> RemoteError {
    RemoteError::Unreachable { message, hint: None }
}
