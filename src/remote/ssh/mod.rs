//! Over SSH: connect, check the host's key, log in, and start the executor, pushing it first when
//! the host has not this very one.

mod auth;
mod channel;
mod client;
mod dial;
pub mod hops;
pub mod keys;
mod push;

use std::sync::Arc;

use super::escalation::{Start, Way};
use super::launch::{Started, begin};
use super::session::FrameSession;
use super::target::{ConnectOptions, ProgressFn, SshTarget};
use super::{Progress, RemoteError};
use channel::Connection;

/// From a login to a greeted executor.
pub(super) async fn connect(
    name: &str,
    target: &SshTarget,
    mut way: Way,
    options: &ConnectOptions,
    progress: ProgressFn<'_>,
) -> Result<FrameSession, RemoteError> {
    // The binary is hashed while the network is waited for.
    let (connection, loaded) =
        tokio::join!(client::login(target, options, progress), options.executor.load());
    let (connection, loaded) = (connection?, loaded?);
    let answer = match start(name, &connection, &mut way, &loaded.sha256).await? {
        Started::Session(session) => return Ok(*session),
        Started::Answer(answer) => answer,
        Started::Again(_) => return Err(no_terminal(name)),
    };
    let asked = push::Asked::parse(&answer).ok_or_else(|| RemoteError::Executor {
        message: format!("{name} gives an answer that is not understood: {answer:?}"),
        hint: None,
    })?;
    let chosen = options.binaries.choose(name, &options.executor, asked.kind()).await?;
    let loaded = chosen.load().await?;
    // It may have another one than the one that was asked for first.
    if !Arc::ptr_eq(&chosen, &options.executor)
        && let Started::Session(session) =
            start(name, &connection, &mut way, &loaded.sha256).await?
    {
        return Ok(*session);
    }
    push::push(&connection, &chosen, &asked, connection.near, &|sent, total| {
        progress(Progress::Pushing { sent, total });
    })
    .await?;
    match start(name, &connection, &mut way, &loaded.sha256).await? {
        Started::Session(session) => Ok(*session),
        Started::Again(_) => Err(no_terminal(name)),
        Started::Answer(_) => Err(RemoteError::Executor {
            message: format!("{name} does not keep the executor that was pushed"),
            hint: Some("is its disk full, or does something delete ~/.cache?".to_owned()),
        }),
    }
}

/// Starts the executor; on a terminal, and remembers that, where it must be.
async fn start(
    name: &str,
    connection: &Connection,
    way: &mut Way,
    sha256: &str,
) -> Result<Started, RemoteError> {
    let start = Start::new(Some(sha256.to_owned()));
    let pipe = connection.run(&push::probe(way, &start), way.on_terminal()).await?;
    match begin(name, pipe, way, &start).await? {
        Started::Again(on_terminal) => *way = on_terminal,
        started => return Ok(started),
    }
    let start = Start::new(Some(sha256.to_owned()));
    let pipe = connection.run(&push::probe(way, &start), true).await?;
    begin(name, pipe, way, &start).await
}

fn no_terminal(name: &str) -> RemoteError {
    let message = format!("{name} wants a terminal even on a terminal");
    RemoteError::Become { message, hint: None }
}
