//! Over SSH: connect, check the host's key, log in, and start the executor, pushing it first when
//! the host has not this very one.

mod auth;
mod channel;
mod client;
pub mod keys;
mod push;

use super::escalation::{Start, Way};
use super::launch::{Started, begin};
use super::session::FrameSession;
use super::target::{ConnectOptions, ProgressFn, SshTarget};
use super::{Progress, RemoteError, executor};
use channel::Connection;

/// From a login to a greeted executor.
pub(super) async fn connect(
    name: &str,
    target: &SshTarget,
    way: Way,
    options: &ConnectOptions,
    progress: ProgressFn<'_>,
) -> Result<FrameSession, RemoteError> {
    // The binary is hashed while the network is waited for.
    let (connection, loaded) =
        tokio::join!(client::login(target, options, progress), options.executor.load());
    let (connection, loaded) = (connection?, loaded?);
    let answer = match start(name, &connection, &way, &loaded.sha256).await? {
        Started::Session(session) => return Ok(*session),
        Started::Answer(answer) => answer,
    };
    let asked = push::Asked::parse(&answer).ok_or_else(|| RemoteError::Executor {
        message: format!("{name} gives an answer that is not understood: {answer:?}"),
        hint: None,
    })?;
    check_machine(name, loaded, &asked.machine)?;
    let near = connection.is_loopback();
    push::push(&connection, &options.executor, &asked, near, &|sent, total| {
        progress(Progress::Pushing { sent, total });
    })
    .await?;
    match start(name, &connection, &way, &loaded.sha256).await? {
        Started::Session(session) => Ok(*session),
        Started::Answer(_) => Err(RemoteError::Executor {
            message: format!("{name} does not keep the executor that was pushed"),
            hint: Some("is its disk full, or does something delete ~/.cache?".to_owned()),
        }),
    }
}

async fn start(
    name: &str,
    connection: &Connection,
    way: &Way,
    sha256: &str,
) -> Result<Started, RemoteError> {
    let start = Start::new(Some(sha256.to_owned()));
    let pipe = connection.run(&push::probe(way, &start)).await?;
    begin(name, pipe, way, &start).await
}

/// Refuses before anything is sent.
fn check_machine(name: &str, loaded: &executor::Loaded, machine: &str) -> Result<(), RemoteError> {
    let Some(built_for) = loaded.machine else {
        return Err(RemoteError::Executor {
            message: "what should be pushed is not a Linux binary".to_owned(),
            hint: None,
        });
    };
    if executor::runs(machine, built_for) {
        return Ok(());
    }
    Err(RemoteError::Executor {
        message: format!("{name} is {machine}, this program is built for {built_for}"),
        hint: Some(format!("use a build for {machine}; nothing was pushed")),
    })
}
