//! One service: a task that owns its process, and a handle that says what is wanted.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::process::Signal;
use tokio::net::UnixDatagram;
use tokio::process::{Child, Command};
use tokio::sync::watch;

use crate::host::protocol::ServiceFacts;
use crate::lab::LabError;
use crate::lab::ROOT_VARIABLE;
use crate::lab::paths::HostPaths;
use crate::lab::process::{Process, end_group};
use crate::lab::unit::{self, Restart, Unit};

/// Where a service stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum Phase {
    #[default]
    Inactive,
    Starting,
    Active,
    /// It ended and waits to be started again.
    Waiting,
    Failed,
}

/// What the task tells about the service.
#[derive(Clone, Debug, Default)]
struct State {
    phase: Phase,
    pid: Option<u32>,
    active_since_unix_ms: Option<u64>,
    /// How often a start ended in failure, and the last reason.
    failures: u64,
    reason: String,
}

/// The handle of a service. Its task runs until the handle is dropped.
pub(super) struct Service {
    wanted: watch::Sender<bool>,
    state: watch::Receiver<State>,
}

impl Service {
    pub(super) fn new(name: &str, paths: HostPaths) -> Self {
        let (wanted, wanted_seen) = watch::channel(false);
        let (state_told, state) = watch::channel(State::default());
        let task = Task { name: name.to_owned(), paths, wanted: wanted_seen, state: state_told };
        tokio::spawn(task.run());
        Self { wanted, state }
    }

    /// Asks for it to run and does not wait.
    pub(super) fn begin(&self) {
        self.wanted.send_replace(true);
    }

    /// Asks for it to run and waits until it is ready, or until one start has failed.
    pub(super) async fn start(&self) -> Result<(), String> {
        let mut state = self.state.clone();
        let failures = state.borrow_and_update().failures;
        self.wanted.send_replace(true);
        let settled = state
            .wait_for(|state| state.phase == Phase::Active || state.failures > failures)
            .await
            .map_err(|_| "the supervisor is stopping".to_owned())?;
        if settled.phase == Phase::Active { Ok(()) } else { Err(settled.reason.clone()) }
    }

    /// Asks for it to stop and waits until it has ended.
    pub(super) async fn stop(&self) {
        self.wanted.send_replace(false);
        let mut state = self.state.clone();
        // An error means that the task is gone, and its process with it.
        let _ =
            state.wait_for(|state| matches!(state.phase, Phase::Inactive | Phase::Failed)).await;
    }

    /// Runs what the unit file `path` says makes it read its configuration again.
    pub(super) async fn reload(&self, path: &Path) -> Result<(), String> {
        let Some(pid) = self.state.borrow().pid else { return Err("it does not run".to_owned()) };
        let unit = unit::read(path).map_err(|error| error.to_string())?;
        let mut words = unit.reload.iter().map(|word| word.replace("$MAINPID", &pid.to_string()));
        let Some(program) = words.next() else {
            return Err(format!("{} has no ExecReload=", path.display()));
        };
        let mut command = Command::new(&program);
        command.args(words).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        match command.status().await {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(format!("{program} ended: {status}")),
            Err(error) => Err(format!("{program}: {error}")),
        }
    }

    pub(super) fn facts(&self) -> ServiceFacts {
        let state = self.state.borrow();
        ServiceFacts {
            exists: true,
            active: state.phase == Phase::Active,
            starting: matches!(state.phase, Phase::Starting | Phase::Waiting),
            failed: state.phase == Phase::Failed,
            enabled: false,
            pid: state.pid,
            active_since_unix_ms: state.active_since_unix_ms,
        }
    }
}

struct Task {
    name: String,
    paths: HostPaths,
    wanted: watch::Receiver<bool>,
    state: watch::Sender<State>,
}

/// How one life of the process ended.
enum End {
    /// It was asked to.
    Stopped,
    /// By itself, or it could not even be started.
    Died { reason: String, again: Option<Duration> },
}

impl Task {
    async fn run(mut self) {
        while self.wanted.wait_for(|wanted| *wanted).await.is_ok() {
            match self.live().await {
                End::Stopped => self.tell(|state| state.phase = Phase::Inactive),
                End::Died { reason, again: Some(delay) } => {
                    self.failed(Phase::Waiting, reason);
                    // Woken early when it is not wanted any more.
                    if tokio::time::timeout(delay, unwanted(&mut self.wanted)).await.is_ok() {
                        self.tell(|state| state.phase = Phase::Inactive);
                    }
                }
                End::Died { reason, again: None } => {
                    self.failed(Phase::Failed, reason);
                    if self.wanted.changed().await.is_err() {
                        return;
                    }
                }
            }
        }
    }

    fn tell(&self, change: impl FnOnce(&mut State)) {
        self.state.send_modify(|state| {
            change(state);
            if state.phase == Phase::Inactive || state.phase == Phase::Failed {
                state.pid = None;
                state.active_since_unix_ms = None;
            }
        });
    }

    fn failed(&self, phase: Phase, reason: String) {
        self.tell(|state| {
            state.phase = phase;
            state.pid = None;
            state.active_since_unix_ms = None;
            state.failures += 1;
            state.reason = reason;
        });
    }

    /// One life of the process, from its start to its end.
    async fn live(&mut self) -> End {
        let cannot = |error: LabError| End::Died { reason: error.to_string(), again: None };
        let unit = match unit::read(&self.paths.unit(&self.name)) {
            Ok(unit) => unit,
            Err(error) => return cannot(error),
        };
        let (mut child, notify) = match self.spawn(&unit) {
            Ok(started) => started,
            Err(error) => return cannot(error),
        };
        let pid = child.id();
        self.tell(|state| {
            state.phase = if unit.notify { Phase::Starting } else { Phase::Active };
            state.pid = pid;
            state.active_since_unix_ms = (!unit.notify).then(now_unix_ms);
        });
        let end = self.watch(&mut child, &notify, &unit).await;
        // Whatever it left running in its group goes with it, as with systemd's control groups.
        if let Some(pid) = pid {
            end_group(pid);
        }
        let _ = std::fs::remove_file(self.paths.service_pid_file(&self.name));
        end
    }

    fn spawn(&self, unit: &Unit) -> Result<(Child, UnixDatagram), LabError> {
        let socket = self.paths.notify_socket(&self.name);
        // A socket of an earlier life would be in the way.
        let _ = std::fs::remove_file(&socket);
        let notify = UnixDatagram::bind(&socket).map_err(LabError::io(&socket))?;
        let log_path = self.paths.service_log(&self.name);
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(&log_path)
            .map_err(LabError::io(&log_path))?;
        let errors = log.try_clone().map_err(LabError::io(&log_path))?;
        let (program, arguments) =
            unit.argv.split_first().ok_or_else(|| LabError::host(&self.name, "no command"))?;
        let root = &self.paths.root;
        let child = Command::new(program)
            .args(arguments)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", root.join("root"))
            .env(ROOT_VARIABLE, root)
            .env("NOTIFY_SOCKET", &socket)
            .envs(unit.environment.iter().map(|(key, value)| (key, value)))
            .current_dir(unit.working_directory.as_ref().map_or(root.as_path(), |dir| dir.as_ref()))
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors)
            .process_group(0)
            .spawn()
            .map_err(LabError::io(program.as_ref()))?;
        if let Some(process) = child.id().and_then(Process::of) {
            process.write(&self.paths.service_pid_file(&self.name))?;
        }
        Ok((child, notify))
    }

    /// Follows the process until it ends, by itself or because it is not wanted any more.
    async fn watch(&mut self, child: &mut Child, notify: &UnixDatagram, unit: &Unit) -> End {
        let mut message = [0_u8; 4096];
        loop {
            let received = tokio::select! {
                status = child.wait() => return died(status, unit),
                received = notify.recv(&mut message) => received,
                () = unwanted(&mut self.wanted) => {
                    terminate(child, unit.stop_timeout).await;
                    return End::Stopped;
                }
            };
            let text = received.ok().and_then(|length| message.get(..length)).unwrap_or_default();
            if text.split(|byte| *byte == b'\n').any(|line| line == b"READY=1") {
                self.tell(|state| {
                    state.phase = Phase::Active;
                    state.active_since_unix_ms = Some(now_unix_ms());
                });
            }
        }
    }
}

/// Returns when the service shall stop, or when the supervisor goes away.
async fn unwanted(wanted: &mut watch::Receiver<bool>) {
    let _ = wanted.wait_for(|wanted| !wanted).await;
}

fn died(status: std::io::Result<ExitStatus>, unit: &Unit) -> End {
    let (reason, success) = match status {
        Ok(status) => (format!("{} ended: {status}", unit.argv.join(" ")), status.success()),
        Err(error) => (format!("{}: {error}", unit.argv.join(" ")), false),
    };
    let again = match unit.restart {
        Restart::Always => true,
        Restart::OnFailure => !success,
        Restart::No => false,
    };
    End::Died { reason, again: again.then_some(unit.restart_delay) }
}

/// SIGTERM, then SIGKILL when it takes longer than `limit`.
async fn terminate(child: &mut Child, limit: Duration) {
    if let Some(process) = child.id().and_then(Process::of) {
        process.signal(Signal::TERM);
    }
    if tokio::time::timeout(limit, child.wait()).await.is_err() {
        // It may have ended just now.
        let _ = child.kill().await;
    }
}

fn now_unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
