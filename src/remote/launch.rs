//! From a started process to a greeted executor.

use std::time::Duration;

use tokio::time::timeout;

use super::RemoteError;
use super::escalation::{Start, Way, explain, first_line, silent, spoken};
use super::pipe::Pipe;
use super::session::{FrameSession, greeting};
use crate::host::frame;

/// How long a host may take to hash and start the executor. sudo may ask a directory server.
const START_TIME: Duration = Duration::from_secs(60);

/// What a host said when it was asked to start the executor.
pub(super) enum Started {
    /// It runs.
    Session(Box<FrameSession>),
    /// It has none that is right; the rest of its line.
    Answer(String),
    /// It is to be started so, on a terminal.
    Again(Way),
}

/// Greets the executor that `pipe` leads to.
pub(super) async fn greet(
    name: &str,
    pipe: Pipe,
    way: &Way,
    start: &Start,
) -> Result<FrameSession, RemoteError> {
    match begin(name, pipe, way, start).await? {
        Started::Session(session) => Ok(*session),
        Started::Again(_) => Err(RemoteError::Become {
            message: format!("on {name} no user becomes another without a terminal"),
            hint: Some("run this as that user, or see requiretty in sudoers(5)".to_owned()),
        }),
        Started::Answer(answer) => Err(RemoteError::Executor {
            message: format!("the executor on {name} says {answer:?} in place of a greeting"),
            hint: None,
        }),
    }
}

/// Like [`greet`] where the far end may answer otherwise.
pub(super) async fn begin(
    name: &str,
    mut pipe: Pipe,
    way: &Way,
    start: &Start,
) -> Result<Started, RemoteError> {
    // Sent at once, the greeting costs no round trip; but sudo would take it for the password, and
    // a terminal may lose what comes before its modes are set.
    let at_once = !way.may_ask() && !way.on_terminal();
    if at_once && let Ok(body) = frame::encode(&greeting()) {
        // If it cannot be written, the process has ended: its last words are read below.
        let _ = frame::write(&mut pipe.input, &body).await;
    }
    let line = timeout(START_TIME, first_line(&mut pipe, way, start)).await;
    let Ok(line) = line else {
        return Err(silent(name, &pipe, way, start, START_TIME.as_secs()));
    };
    match line? {
        Some(line) if line == start.marker() => {
            let session = FrameSession::open(name, pipe, at_once, START_TIME).await?;
            Ok(Started::Session(Box::new(session)))
        }
        Some(line) => {
            let rest = line.splitn(3, ' ').nth(2).unwrap_or_default();
            Ok(Started::Answer(rest.to_owned()))
        }
        None => {
            let error = explain(&mut pipe, way, start).await;
            match way.with_terminal(&spoken(&pipe, way, start)) {
                Some(way) => Ok(Started::Again(way)),
                None => Err(error),
            }
        }
    }
}
