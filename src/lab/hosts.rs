//! Lab hosts from outside: start, stop, kill, remove, list.

use std::fs::{File, OpenOptions};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::fs::FlockOperation;
use rustix::process::Signal;
use serde::{Deserialize, Serialize};

use super::paths::{HostPaths, labs_dir, private_dir, subdirectories};
use super::process::Process;
use super::{LabError, SSH_PORT, keys};
use crate::store::fs::write_atomic;

/// How long a lab host may take to answer on its port: nobody waits so long for one that ended.
const START_LIMIT: Duration = Duration::from_secs(120);

/// How long a host whose directory was taken away may take to leave its address.
const LEAVE_LIMIT: Duration = Duration::from_secs(20);

/// How long a lab host may take to stop its services.
const STOP_LIMIT: Duration = Duration::from_secs(60);

/// A lab host's definition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LabHost {
    /// The lab's name.
    pub lab: String,
    /// The host's name.
    pub name: String,
    /// Its own loopback address.
    pub address: IpAddr,
}

/// How to reach a lab host by SSH.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabAccess {
    /// Where its SSH server listens.
    pub address: SocketAddr,
    /// Login name: the present user's.
    pub user: String,
    /// The private key that it accepts.
    pub key: PathBuf,
    /// The file that knows its host key.
    pub known_hosts: PathBuf,
}

/// A lab host as `lab ls` shows it.
#[derive(Clone, Debug, Serialize)]
pub struct LabHostView {
    /// Its definition.
    #[serde(flatten)]
    pub host: LabHost,
    /// Its process, when it is up.
    pub pid: Option<u32>,
    /// Services that run, by name.
    pub services: Vec<String>,
    /// Its directory.
    pub directory: PathBuf,
}

impl LabHost {
    pub(super) fn read(paths: &HostPaths) -> Result<Self, LabError> {
        let path = paths.definition();
        let text = std::fs::read(&path).map_err(LabError::io(&path))?;
        serde_json::from_slice(&text).map_err(|error| LabError::Io { path, source: error.into() })
    }

    fn paths(&self) -> HostPaths {
        HostPaths::new(&self.lab, &self.name)
    }

    /// Its process, if it is up.
    fn process(&self) -> Option<Process> {
        Process::from_file(&self.paths().pid_file())
    }
}

/// How to reach the host, whether it is up or not.
pub fn access(host: &LabHost) -> LabAccess {
    let paths = host.paths();
    LabAccess {
        address: SocketAddr::new(host.address, SSH_PORT),
        user: std::env::var("USER").unwrap_or_else(|_| "lab".to_owned()),
        key: paths.client_key(),
        known_hosts: paths.known_hosts(),
    }
}

/// Starts the host if it is not up, making its directory and keys if there are none, and waits
/// until its SSH server answers. Blocks; call it from a thread that may.
///
/// # Errors
/// Its directory cannot be made, its address is taken, or it does not come up.
pub fn ensure(host: &LabHost) -> Result<LabAccess, LabError> {
    if !host.address.is_loopback() {
        let reason = format!("{} is not a loopback address (127.0.0.0/8)", host.address);
        return Err(LabError::host(&host.name, reason));
    }
    let paths = host.paths();
    private_dir(&paths.lab)?;
    let _lock = lock(&paths.lock())?;
    if host.process().is_some() && answers(host) {
        return Ok(access(host));
    }
    paths.make()?;
    let definition = serde_json::to_vec_pretty(host).unwrap_or_default();
    let file = paths.definition();
    write_atomic(&file, &definition).map_err(LabError::io(&file))?;
    let key = keys::read_or_make(&paths.host_key())?;
    keys::read_or_make(&paths.client_key())?;
    keys::know(&paths, host.address, &key)?;
    wait_for_address(host)?;
    spawn(host, &paths)?;
    Ok(access(host))
}

/// A host whose directory was taken away needs a moment until it has noticed and left.
fn wait_for_address(host: &LabHost) -> Result<(), LabError> {
    let until = Instant::now() + LEAVE_LIMIT;
    while answers(host) {
        if Instant::now() >= until {
            let address = access(host).address;
            let reason = format!("{address} is taken by another process (another lab's host?)");
            return Err(LabError::host(&host.name, reason));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

fn spawn(host: &LabHost, paths: &HostPaths) -> Result<(), LabError> {
    let log_path = paths.daemon_log();
    let log = OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(&log_path)
        .map_err(LabError::io(&log_path))?;
    let errors = log.try_clone().map_err(LabError::io(&log_path))?;
    let binary = std::env::current_exe().map_err(LabError::io(Path::new("/proc/self/exe")))?;
    let mut child = Command::new(&binary)
        .arg("lab-host")
        .arg(&paths.root)
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(errors)
        .current_dir("/")
        .spawn()
        .map_err(LabError::io(&binary))?;
    let until = Instant::now() + START_LIMIT;
    loop {
        if host.process().is_some_and(|process| process.pid == child.id()) && answers(host) {
            // It goes on by itself; whoever ends first, nobody waits for it.
            return Ok(());
        }
        if let Ok(Some(status)) = child.try_wait() {
            return Err(LabError::host(&host.name, format!("{status}: {}", last_line(&log_path))));
        }
        if Instant::now() >= until {
            // Not ours to leave half up.
            let _ = child.kill();
            let reason = format!("did not come up, see {}", log_path.display());
            return Err(LabError::host(&host.name, reason));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn answers(host: &LabHost) -> bool {
    TcpStream::connect_timeout(&access(host).address, Duration::from_secs(1)).is_ok()
}

fn last_line(path: &Path) -> String {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines().last().unwrap_or("no reason given").to_owned()
}

/// Held while a lab's hosts are started or removed.
fn lock(path: &Path) -> Result<File, LabError> {
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(path)
        .map_err(LabError::io(path))?;
    rustix::fs::flock(&file, FlockOperation::LockExclusive)
        .map_err(|error| LabError::io(path)(error.into()))?;
    Ok(file)
}

/// All labs' hosts, by lab and name.
pub fn list() -> Vec<LabHostView> {
    let dir = labs_dir();
    let mut views = Vec::new();
    for lab in subdirectories(&dir) {
        for name in subdirectories(&dir.join(&lab)) {
            let paths = HostPaths::new(&lab, &name);
            let Ok(host) = LabHost::read(&paths) else { continue };
            let pid = host.process().map(|process| process.pid);
            let services = services(&paths).into_iter().map(|(name, _)| name).collect();
            views.push(LabHostView { host, pid, services, directory: paths.root });
        }
    }
    views
}

/// Services of a host that run, with their processes.
fn services(paths: &HostPaths) -> Vec<(String, Process)> {
    let Ok(entries) = std::fs::read_dir(paths.root.join("run")) else { return Vec::new() };
    let mut services: Vec<_> = entries
        .flatten()
        .filter_map(|entry| {
            let file = entry.file_name();
            let name = file.to_str()?.strip_suffix(".pid")?;
            let process = Process::from_file(&entry.path()).filter(|_| name != "lab-host")?;
            Some((name.to_owned(), process))
        })
        .collect();
    services.sort_by(|(a, _), (b, _)| a.cmp(b));
    services
}

/// Sends a signal to all that the services of a host started.
pub(super) fn signal_services(paths: &HostPaths, signal: Signal) {
    for (_, process) in services(paths) {
        process.signal_group(signal);
    }
}

/// Ends services that a killed host left behind.
pub(super) fn end_leftovers(paths: &HostPaths) {
    for (_, process) in services(paths) {
        process.signal_group(Signal::KILL);
        process.wait_gone(STOP_LIMIT);
    }
}

/// Stops a host in an orderly way: its services first.
///
/// # Errors
/// It does not end in time.
pub fn stop(host: &LabHost) -> Result<(), LabError> {
    let Some(process) = host.process() else { return Ok(()) };
    process.signal(Signal::TERM);
    if process.wait_gone(STOP_LIMIT) {
        return Ok(());
    }
    Err(LabError::host(&host.name, "does not stop; `lab kill` ends it at once"))
}

/// Cuts a host's power: SIGKILL to the host and to all its services.
///
/// # Errors
/// A process cannot be killed.
pub fn kill(host: &LabHost) -> Result<(), LabError> {
    let paths = host.paths();
    let process = host.process();
    if let Some(process) = process {
        process.signal(Signal::KILL);
    }
    let services = services(&paths);
    for (_, service) in &services {
        service.signal_group(Signal::KILL);
    }
    let all = process.into_iter().chain(services.into_iter().map(|(_, service)| service));
    for process in all {
        if !process.wait_gone(STOP_LIMIT) {
            let reason = format!("process {} does not end", process.pid);
            return Err(LabError::host(&host.name, reason));
        }
    }
    Ok(())
}

/// Kills a host and removes its directory; the lab's too when it was the last.
///
/// # Errors
/// It cannot be ended, or its files cannot be removed.
pub fn remove(host: &LabHost) -> Result<(), LabError> {
    kill(host)?;
    let paths = host.paths();
    std::fs::remove_dir_all(&paths.root).map_err(LabError::io(&paths.root))?;
    if subdirectories(&paths.lab).is_empty() {
        std::fs::remove_dir_all(&paths.lab).map_err(LabError::io(&paths.lab))?;
    }
    Ok(())
}

/// Whether the host's process runs.
pub fn is_up(host: &LabHost) -> bool {
    host.process().is_some()
}
