//! What the node reads of the host it runs on, and how it sets up its own process.

use std::net::SocketAddr;
use std::path::Path;

use rustix::fs::Mode;
use rustix::process::{Resource, Rlimit, setrlimit, umask};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing_subscriber::EnvFilter;

use super::config::NodeConfig;
use super::wire::About;
use crate::error::{ExitCode, Failure};

/// Version of the binary, as nodes show it.
pub fn version() -> String {
    format!("v{}", crate::version::own())
}

/// Nothing this process makes is for others, and no core dump writes its secrets to disk.
pub fn harden() {
    umask(Mode::from_raw_mode(0o077));
    // A process that may not lower its own limit is odd, but no reason not to start.
    let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
}

/// Memory that is freed goes back soon, and is in pages of 4 KiB, not of 2 MiB, which the allocator would ask for: of a fresh server's
/// 89 MB of heap 36 MB were the unused rest of such pages.
pub fn spare_memory() {
    k3sup_rs_allocator::spare();
    // A kernel without huge pages has none to spare.
    let _ = rustix::thread::disable_transparent_huge_pages(true);
}

/// What the node says of itself when it registers.
pub fn about(config: &NodeConfig) -> About {
    About {
        name: config.name.clone(),
        version: version(),
        internal_ip: config.ip().to_string(),
        os_image: os_image(Path::new("/etc/os-release")),
        kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
        labels: config.labels.clone(),
        taints: config.taints.clone(),
    }
}

fn os_image(path: &Path) -> String {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let value = text.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    value.map_or_else(|| "Linux".to_owned(), |value| value.trim_matches(['"', '\'']).to_owned())
}

/// Refuses to start while another process listens on one of `addresses`, and names it.
pub fn check_ports(addresses: &[SocketAddr]) -> Result<(), Failure> {
    for address in addresses {
        let found = crate::host::net::listener(&address.ip().to_string(), address.port());
        let Ok(Some(listener)) = found else { continue };
        let who = match (listener.process, listener.pid) {
            (Some(process), Some(pid)) => format!("{process} (pid {pid})"),
            (None, Some(pid)) => format!("pid {pid}"),
            _ => "a process of another user".to_owned(),
        };
        let message = format!("port {} is taken by {who}", address.port());
        return Err(Failure::new(ExitCode::Error, message)
            .hint(format!("stop it, or let it leave {address}")));
    }
    Ok(())
}

/// Tells the service manager, if there is one.
pub fn notify(states: &[sd_notify::NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "the service manager was not told");
    }
}

/// Tells the service manager that the node is ready, and gives back what only the start needed: the thread that
/// calls this waits for the node's end, and does nothing else.
pub fn ready() {
    notify(&[sd_notify::NotifyState::Ready]);
    k3sup_rs_allocator::give_back();
}

/// SIGTERM and SIGINT, which end the node cleanly.
pub struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignals {
    /// From now on these signals do not end the process by themselves.
    pub fn new() -> Result<Self, Failure> {
        let take = |kind| {
            signal(kind).map_err(|error| {
                Failure::new(ExitCode::Error, format!("cannot take signals: {error}"))
            })
        };
        Ok(Self {
            terminate: take(SignalKind::terminate())?,
            interrupt: take(SignalKind::interrupt())?,
        })
    }

    /// Waits for one of them.
    pub async fn wait(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Waits for SIGTERM or SIGINT, for who has nothing to end cleanly before the first.
pub async fn stop_signal() {
    match StopSignals::new() {
        Ok(mut signals) => signals.wait().await,
        Err(_) => std::future::pending().await,
    }
}

/// Sets up the log: to standard error, where the service manager takes it, or to a file. `RUST_LOG`
/// chooses more finely than `debug`.
pub fn log(debug: bool, file: Option<&Path>) -> Result<(), Failure> {
    let level = if debug { "info,k3sup_rs=debug" } else { "warn,openraft=error,k3sup_rs=info" };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_target(false);
    let set = match file {
        None => builder.with_writer(std::io::stderr).with_ansi(false).try_init(),
        Some(path) => {
            let opened = std::fs::OpenOptions::new().create(true).append(true).open(path);
            let file = opened.map_err(|error| {
                let message = format!("cannot log to {}: {error}", path.display());
                Failure::new(ExitCode::BadInput, message)
            })?;
            builder.with_writer(std::sync::Mutex::new(file)).with_ansi(false).try_init()
        }
    };
    // Another part of the program has set up the log already, and that one stays.
    if let Err(error) = set {
        tracing::debug!(%error, "the log was set up before");
    }
    Ok(())
}

/// The secret that proves this node's name: made once, kept.
pub fn node_password(path: &Path) -> Result<crate::secret::Secret, Failure> {
    use crate::pki::{files, token::generate_password};
    let failed = |what: String| Failure::new(ExitCode::Error, what);
    if let Some(text) = files::read_private(path).map_err(|error| failed(error.to_string()))?
        && !text.trim().is_empty()
    {
        return Ok(text.trim().into());
    }
    let password = generate_password().map_err(|error| failed(error.to_string()))?;
    files::write_private(path, password.expose().as_bytes())
        .map_err(|error| failed(error.to_string()))?;
    Ok(password)
}
