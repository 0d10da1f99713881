//! The process of a lab host: SSH server and supervisor, until it is told to stop or its
//! directory is taken away.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use rustix::process::Signal;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use super::hosts::{self, LabHost};
use super::paths::HostPaths;
use super::process::Process;
use super::supervisor::Supervisor;
use super::{LabError, SSH_PORT, keys, ssh};

/// How often the host looks whether its directory is still its own.
const WATCH_INTERVAL: Duration = Duration::from_millis(500);

/// Runs the lab host whose directory is `root` until SIGTERM; then stops its services.
///
/// # Errors
/// Its definition or keys cannot be read, or its address is taken.
pub async fn run(root: &Path) -> Result<(), LabError> {
    // A session of its own: it outlives the terminal it was started from. Refused only when it
    // leads one already, which is as good.
    let _ = rustix::process::setsid();
    let paths = HostPaths::of_root(root);
    let host = LabHost::read(&paths)?;
    let address = SocketAddr::new(host.address, SSH_PORT);
    let host_key = keys::read_or_make(&paths.host_key())?;
    let client_key = keys::read_or_make(&paths.client_key())?.public_key().clone();
    let listener = TcpListener::bind(address)
        .await
        .map_err(|error| LabError::host(&host.name, format!("{address}: {error}")))?;
    hosts::end_leftovers(&paths);
    let me = Process::of(std::process::id())
        .ok_or_else(|| LabError::host(&host.name, "/proc is not mounted"))?;
    me.write(&paths.pid_file())?;

    let supervisor = Supervisor::new(paths.clone());
    let control = tokio::spawn(std::sync::Arc::clone(&supervisor).serve());
    tokio::spawn(ssh::serve(listener, host_key, client_key, root.to_owned()));
    supervisor.start_enabled().await;

    let mut term = signal(SignalKind::terminate()).map_err(LabError::io(root))?;
    tokio::select! {
        _ = term.recv() => {}
        () = disowned(&paths, me) => {
            // The directory was removed under it: a power cut and a blank disk.
            supervisor.stop_all().await;
            return Ok(());
        }
        ended = control => return ended.unwrap_or(Ok(())),
    }
    supervisor.stop_all().await;
    // Gone already is as good.
    let _ = std::fs::remove_file(paths.pid_file());
    Ok(())
}

/// Returns when the pid file does not name this process any more.
async fn disowned(paths: &HostPaths, me: Process) {
    loop {
        tokio::time::sleep(WATCH_INTERVAL).await;
        if Process::from_file(&paths.pid_file()) != Some(me) {
            hosts::signal_services(paths, Signal::KILL);
            return;
        }
    }
}
