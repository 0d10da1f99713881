//! `connection: local`: the executor as a child process of this one.

use std::process::Stdio;

use tokio::io::BufReader;
use tokio::process::{Child, Command};
use tokio::sync::watch;

use super::RemoteError;
use super::escalation::{Start, Way};
use super::executor::Executor;
use super::pipe::{Pipe, Said, listen};

/// Starts the executor on this machine.
pub(super) fn spawn(executor: &Executor, way: &Way, start: &Start) -> Result<Pipe, RemoteError> {
    let mut path = executor.path().to_owned();
    // sudo starts another process, in which /proc/self is that one.
    if !way.is_direct()
        && let Ok(real) = std::fs::read_link(&path)
    {
        path = real;
    }
    run(&way.argv(&path.to_string_lossy(), start))
}

/// Starts a program with pipes; it is killed when the pipe is dropped.
pub(super) fn run(argv: &[String]) -> Result<Pipe, RemoteError> {
    let failed = |error: std::io::Error| RemoteError::Executor {
        message: format!("cannot start {}: {error}", argv.first().map_or("", String::as_str)),
        hint: None,
    };
    let Some((program, arguments)) = argv.split_first() else {
        return Err(failed(std::io::ErrorKind::NotFound.into()));
    };
    let mut child = Command::new(program)
        .args(arguments)
        // What it is told to work on is this machine, wherever it was started from.
        .env_remove(crate::lab::ROOT_VARIABLE)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(failed)?;
    let streams = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let (Some(input), Some(output), Some(errors)) = streams else {
        return Err(failed(std::io::ErrorKind::BrokenPipe.into()));
    };
    let (said, receiver) = watch::channel(Said::default());
    let task = tokio::spawn(async move {
        listen(errors, &said).await;
        wait(child, &said).await;
    });
    Ok(Pipe {
        input: Box::new(input),
        output: Box::new(BufReader::new(output)),
        said: receiver,
        heard: String::new(),
        _keep: Box::new(tokio_util::task::AbortOnDropHandle::new(task)),
    })
}

async fn wait(mut child: Child, said: &watch::Sender<Said>) {
    use std::os::unix::process::ExitStatusExt as _;
    let status = child.wait().await.ok();
    let code = status.and_then(|status| status.code().or(status.signal().map(|n| 128 + n)));
    let code = code.and_then(|code| u32::try_from(code).ok()).unwrap_or(255);
    said.send_modify(|said| said.status = Some(code));
}
