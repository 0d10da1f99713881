//! Commands: argv without a shell, output capped, and an end for the whole process group when the
//! time is over.

use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::host::error::HostResult;
use crate::host::protocol::{CommandSpec, HostError, HostErrorKind, Output};
use crate::limits::OUTPUT_BYTES_MAX;

/// For a command that names no time of its own.
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(600);

/// How often a program that is still being written is tried again, …
const BUSY_TRIES: usize = 100;

/// … and after which pause.
const BUSY_PAUSE: Duration = Duration::from_millis(50);

/// How long output is still read after the command ended, in case a child of it keeps the pipe.
const DRAIN_TIME: Duration = Duration::from_millis(500);

/// Where administrators' tools are; a non-login shell's `PATH` often lacks the last two.
const SEARCH_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Runs `spec` and says how it ended; a status other than 0 is no error here.
pub(crate) async fn run(spec: &CommandSpec) -> HostResult<Output> {
    let mut child = spawn(spec).await?;
    let limit = match spec.timeout_ms {
        0 => TIMEOUT_DEFAULT,
        millis => Duration::from_millis(millis),
    };
    let group = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    let stdin = child.stdin.take();
    let input = spec.stdin.clone();
    let feed = tokio::spawn(async move {
        // A command that does not read its input is no failure: its status tells.
        if let (Some(mut stdin), Some(input)) = (stdin, input) {
            let _ = stdin.write_all(&input).await;
        }
    });
    let (out, err) = (Shared::default(), Shared::default());
    let mut out_task = tokio::spawn(collect(child.stdout.take(), Arc::clone(&out)));
    let mut err_task = tokio::spawn(collect(child.stderr.take(), Arc::clone(&err)));
    let ended = timeout(limit, child.wait()).await;
    let timed_out = ended.is_err();
    if timed_out && let Some(group) = group {
        let _ = kill_process_group(group, Signal::KILL);
    }
    let status = match ended {
        Ok(status) => status,
        Err(_) => child.wait().await,
    };
    feed.abort();
    let status = status.map_err(|error| HostError::io("run", program(spec), &error))?;
    let (stdout, cut_out) = drain(&mut out_task, &out).await;
    let (stderr, cut_err) = drain(&mut err_task, &err).await;
    Ok(Output {
        status: exit_code(status),
        stdout,
        stderr,
        truncated: cut_out || cut_err,
        timed_out,
    })
}

/// Runs `spec`; any end but status 0 is an error that begins with `cannot <what>`.
pub(crate) async fn succeed(spec: &CommandSpec, what: &str) -> HostResult<Output> {
    let output = run(spec).await?;
    if output.timed_out {
        let message =
            format!("cannot {what}: {} took longer than {} ms", program(spec), spec.timeout_ms);
        return Err(HostError::new(HostErrorKind::Timeout, message));
    }
    if output.status != 0 {
        let said = String::from_utf8_lossy(&output.stderr);
        let said = said.trim();
        let reason = if said.is_empty() {
            format!("{} ended with status {}", program(spec), output.status)
        } else {
            said.to_owned()
        };
        return Err(HostError::other(format!("cannot {what}: {reason}")));
    }
    Ok(output)
}

fn program(spec: &CommandSpec) -> &str {
    spec.argv.first().map_or("", String::as_str)
}

/// Where programs are looked for.
fn search_path() -> String {
    match std::env::var("PATH") {
        Ok(path) if !path.is_empty() => format!("{path}:{SEARCH_PATH}"),
        _ => SEARCH_PATH.to_owned(),
    }
}

/// Whether a program called `name` would be found.
pub(crate) fn finds(name: &str) -> bool {
    std::env::split_paths(&search_path()).any(|dir| dir.join(name).is_file())
}

async fn spawn(spec: &CommandSpec) -> HostResult<Child> {
    let Some((program, arguments)) = spec.argv.split_first() else {
        return Err(HostError::other("the command is empty"));
    };
    let path = search_path();
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env("PATH", path)
        .envs(spec.env.iter().map(|(name, value)| (name, value)))
        .stdin(if spec.stdin.is_some() { Stdio::piped() } else { Stdio::null() })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true);
    if let Some(directory) = &spec.cwd {
        command.current_dir(directory);
    }
    when_written(&mut command).await.map_err(|error| {
        let failed = HostError::io("run", program, &error);
        match (&spec.cwd, failed.kind) {
            (Some(directory), HostErrorKind::NotFound)
                if !std::path::Path::new(directory).is_dir() =>
            {
                HostError::io("run a command in directory", directory, &error)
            }
            (_, HostErrorKind::NotFound) => {
                failed.hint(format!("install {program}, or give its full path"))
            }
            _ => failed,
        }
    })
}

/// Starts it. A program that was written a moment ago may still be open for writing: in a child of this
/// process that is forked and did not become its own program yet. That passes.
async fn when_written(command: &mut Command) -> io::Result<Child> {
    for _ in 0..BUSY_TRIES {
        match command.spawn() {
            Err(error) if error.kind() == io::ErrorKind::ExecutableFileBusy => {
                tokio::time::sleep(BUSY_PAUSE).await;
            }
            started => return started,
        }
    }
    command.spawn()
}

/// What a pipe gave so far. Shared, so that it can be taken while the pipe is still open.
#[derive(Default)]
struct Collected {
    bytes: Vec<u8>,
    truncated: bool,
}

type Shared = Arc<Mutex<Collected>>;

/// Keeps the first [`OUTPUT_BYTES_MAX`] bytes of a pipe. The rest is read and dropped, so that the
/// command is not stopped by a full pipe.
async fn collect(pipe: Option<impl AsyncRead + Unpin>, into: Shared) {
    let Some(mut pipe) = pipe else { return };
    let mut chunk = vec![0; 16 * 1024];
    while let Ok(length @ 1..) = pipe.read(&mut chunk).await {
        let mut collected = into.lock();
        let room = OUTPUT_BYTES_MAX - collected.bytes.len();
        collected.bytes.extend_from_slice(chunk.get(..length.min(room)).unwrap_or_default());
        collected.truncated |= length > room;
    }
}

/// What was collected, after a short wait for the pipe's end. A background child of the command may
/// hold the pipe open for ever; what it says later is not the command's.
async fn drain(task: &mut JoinHandle<()>, from: &Shared) -> (Bytes, bool) {
    if timeout(DRAIN_TIME, &mut *task).await.is_err() {
        task.abort();
    }
    let mut collected = from.lock();
    (Bytes::from(std::mem::take(&mut collected.bytes)), collected.truncated)
}

/// As a shell counts: the status, or 128 + the signal's number.
fn exit_code(status: ExitStatus) -> i32 {
    status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(-1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(argv: &[&str]) -> CommandSpec {
        let argv = argv.iter().map(ToString::to_string).collect();
        CommandSpec { argv, timeout_ms: 20_000, ..CommandSpec::default() }
    }

    #[tokio::test]
    async fn no_shell_touches_the_arguments() {
        let hostile = "$(id) `id` '; \"\n *";
        let output = run(&spec(&["printf", "%s", hostile])).await.unwrap();
        assert_eq!((output.status, &output.stdout[..]), (0, hostile.as_bytes()));
    }

    #[tokio::test]
    async fn a_program_that_is_still_being_written_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tool");
        std::fs::write(&path, "#!/bin/sh\nexit 7\n").unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o700);
        std::fs::set_permissions(&path, mode).unwrap();
        let writer = std::fs::OpenOptions::new().append(true).open(&path).unwrap();
        let writes = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(300));
            drop(writer);
        });
        let output = run(&spec(&[path.to_str().unwrap()])).await.unwrap();
        assert_eq!(output.status, 7);
        writes.join().unwrap();
    }

    #[tokio::test]
    async fn input_environment_directory_and_status_are_as_asked() {
        let mut spec = spec(&["sh", "-c", "cat; pwd; printf %s \"$WHO\" >&2; exit 3"]);
        spec.stdin = Some(Bytes::from_static(b"in\n"));
        spec.env = vec![("WHO".to_owned(), "me".to_owned())];
        spec.cwd = Some("/".to_owned());
        let output = run(&spec).await.unwrap();
        assert_eq!(&output.stdout[..], b"in\n/\n");
        assert_eq!(&output.stderr[..], b"me");
        assert_eq!(output.status, 3);
    }

    #[tokio::test]
    async fn when_the_time_is_over_the_whole_group_ends() {
        let mut spec = spec(&["sh", "-c", "sleep 1000 & echo $!; wait"]);
        spec.timeout_ms = 5000;
        let output = run(&spec).await.unwrap();
        assert!(output.timed_out);
        assert_eq!(output.status, 128 + 9);
        let grandchild = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        assert!(!grandchild.is_empty(), "it had no time to begin");
        // Killed means: soon it is gone, or a zombie that nobody has collected yet.
        let stat = format!("/proc/{grandchild}/stat");
        let lives = || std::fs::read_to_string(&stat).is_ok_and(|state| !state.contains(") Z "));
        while lives() {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    }

    #[tokio::test]
    async fn output_is_cut_and_said_so() {
        let output = run(&spec(&["head", "-c", "3000000", "/dev/zero"])).await.unwrap();
        assert_eq!((output.stdout.len(), output.truncated), (OUTPUT_BYTES_MAX, true));
    }

    #[tokio::test]
    async fn a_background_child_does_not_hold_the_answer_back() {
        let output = run(&spec(&["sh", "-c", "sleep 600 & echo $!"])).await.unwrap();
        assert_eq!(output.status, 0);
        let pid: i32 = String::from_utf8_lossy(&output.stdout).trim().parse().unwrap();
        rustix::process::kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
    }

    #[tokio::test]
    async fn a_missing_program_or_directory_is_named() {
        let error = run(&spec(&["no-such-program"])).await.unwrap_err();
        assert_eq!(error.kind, HostErrorKind::NotFound);
        assert!(error.message.contains("no-such-program"), "{error}");
        let mut elsewhere = spec(&["true"]);
        elsewhere.cwd = Some("/no/such/place".to_owned());
        let error = run(&elsewhere).await.unwrap_err();
        assert!(error.message.contains("/no/such/place"), "{error}");
        assert!(run(&CommandSpec::default()).await.is_err());
    }
}
