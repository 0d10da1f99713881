//! What the node reads of the host it runs on, and how it sets up its own process.

use std::net::SocketAddr;
use std::path::Path;

use rustix::fs::Mode;
use rustix::process::{Resource, Rlimit, setrlimit, umask};
use tokio::signal::unix::{SignalKind, signal};

use super::config::NodeConfig;
use super::wire::About;
use crate::error::{ExitCode, Failure};

/// Version of the binary, as nodes show it.
pub const VERSION: &str = concat!("v", env!("CARGO_PKG_VERSION"));

/// Nothing this process makes is for others, and no core dump writes its secrets to disk.
pub fn harden() {
    umask(Mode::from_raw_mode(0o077));
    // A process that may not lower its own limit is odd, but no reason not to start.
    let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
}

/// What the node says of itself when it registers.
pub fn about(config: &NodeConfig) -> About {
    About {
        name: config.name.clone(),
        version: VERSION.to_owned(),
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

/// Waits for SIGTERM or SIGINT.
pub async fn stop_signal() {
    let (Ok(mut terminate), Ok(mut interrupt)) =
        (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
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
