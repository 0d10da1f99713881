//! A lab host's supervisor, over its socket.

use std::io;
use std::path::Path;
use std::time::Duration;

use super::ASK_TIMEOUT_MS;
use crate::host::error::HostResult;
use crate::host::protocol::{HostError, HostErrorKind, ServiceAction, ServiceFacts};
use crate::lab::supervisor::client::{Request, Response, call};

pub(super) async fn facts(root: &Path, name: &str) -> HostResult<ServiceFacts> {
    let request = Request::Status { name: name.to_owned() };
    let response = ask(root, request, ASK_TIMEOUT_MS)
        .await
        .map_err(|error| HostError::io("ask the supervisor about service", name, &error))?;
    Ok(response.service.unwrap_or_default())
}

pub(super) async fn act(
    root: &Path,
    name: &str,
    action: ServiceAction,
    timeout_ms: u64,
) -> HostResult<()> {
    let what = action.verb();
    let name = name.to_owned();
    let log = root.join(format!("var/log/{name}.log"));
    let message = |reason: &str| format!("cannot {what} service {name}: {reason}");
    let request = match action {
        ServiceAction::Start => Request::Start { name: name.clone() },
        ServiceAction::Stop => Request::Stop { name: name.clone() },
        ServiceAction::Restart => Request::Restart { name: name.clone() },
        ServiceAction::Enable => Request::Enable { name: name.clone() },
        ServiceAction::Disable => Request::Disable { name: name.clone() },
        ServiceAction::Reload => Request::ReloadService { name: name.clone() },
    };
    let see = format!("its log is {}", log.display());
    match ask(root, request, timeout_ms).await {
        Ok(Response { error: None, .. }) => Ok(()),
        Ok(Response { error: Some(reason), .. }) => {
            Err(HostError::new(HostErrorKind::Service, message(&reason)).hint(see))
        }
        Err(error) if error.kind() == io::ErrorKind::TimedOut => {
            Err(HostError::new(HostErrorKind::Timeout, message("it is not done in time")).hint(see))
        }
        Err(error) => {
            Err(HostError::new(HostErrorKind::Service, message(&error.to_string())).hint(see))
        }
    }
}

async fn ask(root: &Path, request: Request, timeout_ms: u64) -> io::Result<Response> {
    let root = root.to_owned();
    let limit = Duration::from_millis(timeout_ms);
    tokio::task::spawn_blocking(move || call(&root, &request, limit))
        .await
        .unwrap_or_else(|error| Err(io::Error::other(error)))
}
