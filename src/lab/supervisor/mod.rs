//! The small supervisor of a lab host, in the place of systemd.
//!
//! It starts the services of `<root>/etc/systemd/system/NAME.service`, waits until they say that
//! they are ready, starts them again when they end, and answers on a Unix socket: one JSON line in,
//! one out. What is enabled starts with the host.

pub mod client;
mod service;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Mutex;

use self::service::Service;
use super::LabError;
use super::paths::{HostPaths, private_dir, supervisor_socket};
use crate::host::protocol::ServiceFacts;

/// What the supervisor is asked.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "verb", rename_all = "lowercase")]
pub enum Request {
    /// Only tell how it is.
    Status {
        /// The service.
        name: String,
    },
    /// Start it if it does not run; answers when it is ready or has failed.
    Start {
        /// The service.
        name: String,
    },
    /// Stop it if it runs; answers when it has ended.
    Stop {
        /// The service.
        name: String,
    },
    /// Stop and start.
    Restart {
        /// The service.
        name: String,
    },
    /// Make it read its configuration again.
    ReloadService {
        /// The service.
        name: String,
    },
    /// Start it with the host.
    Enable {
        /// The service.
        name: String,
    },
    /// Do not start it with the host.
    Disable {
        /// The service.
        name: String,
    },
    /// Units are read at each start, so there is nothing to do.
    Reload,
}

/// What the supervisor answers.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Response {
    /// Why it could not be done.
    pub error: Option<String>,
    /// How the service is now; `None` after [`Request::Reload`].
    pub service: Option<ServiceFacts>,
}

/// The supervisor of one host.
pub(super) struct Supervisor {
    paths: HostPaths,
    services: Mutex<HashMap<String, Arc<Service>>>,
}

impl Supervisor {
    pub(super) fn new(paths: HostPaths) -> Arc<Self> {
        Arc::new(Self { paths, services: Mutex::default() })
    }

    /// Starts what is enabled, without waiting for readiness.
    pub(super) async fn start_enabled(&self) {
        let wants = self.paths.unit_dir().join("multi-user.target.wants");
        let Ok(entries) = std::fs::read_dir(wants) else { return };
        for entry in entries.flatten() {
            let name = entry.file_name();
            if let Some(name) = name.to_str().and_then(|name| name.strip_suffix(".service")) {
                self.service(name).await.begin();
            }
        }
    }

    /// Answers on the control socket until the process ends.
    pub(super) async fn serve(self: Arc<Self>) -> Result<(), LabError> {
        let socket = supervisor_socket(&self.paths.root);
        // What a killed host left behind would be in the way.
        let _ = std::fs::remove_file(&socket);
        let listener = UnixListener::bind(&socket).map_err(LabError::io(&socket))?;
        loop {
            let (stream, _) = listener.accept().await.map_err(LabError::io(&socket))?;
            let supervisor = Arc::clone(&self);
            tokio::spawn(async move { supervisor.converse(stream).await });
        }
    }

    /// One request per line until the caller hangs up.
    async fn converse(&self, stream: UnixStream) {
        let (reader, mut writer) = stream.into_split();
        let mut lines = BufReader::new(reader).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            let response = match serde_json::from_str(&line) {
                Ok(request) => self.answer(request).await,
                Err(error) => Response { error: Some(error.to_string()), service: None },
            };
            let mut text = serde_json::to_string(&response).unwrap_or_default();
            text.push('\n');
            if writer.write_all(text.as_bytes()).await.is_err() {
                return;
            }
        }
    }

    async fn answer(&self, request: Request) -> Response {
        let (name, done) = match request {
            Request::Status { name } => (name, Ok(())),
            Request::Start { name } => {
                let done = self.service(&name).await.start().await;
                (name, done)
            }
            Request::Stop { name } => {
                self.service(&name).await.stop().await;
                (name, Ok(()))
            }
            Request::Restart { name } => {
                let service = self.service(&name).await;
                service.stop().await;
                let done = service.start().await;
                (name, done)
            }
            Request::ReloadService { name } => {
                let done = self.service(&name).await.reload(&self.paths.unit(&name)).await;
                (name, done)
            }
            Request::Enable { name } => {
                let done = self.enable(&name).map_err(|error| error.to_string());
                (name, done)
            }
            Request::Disable { name } => {
                let done = remove_if_there(&self.paths.wants(&name));
                (name, done.map_err(|error| error.to_string()))
            }
            Request::Reload => return Response::default(),
        };
        let facts = self.facts(&name).await;
        Response { error: done.err(), service: Some(facts) }
    }

    fn enable(&self, name: &str) -> Result<(), LabError> {
        let link = self.paths.wants(name);
        if let Some(dir) = link.parent() {
            private_dir(dir)?;
        }
        remove_if_there(&link)?;
        std::os::unix::fs::symlink(self.paths.unit(name), &link).map_err(LabError::io(&link))
    }

    async fn facts(&self, name: &str) -> ServiceFacts {
        let known = self.services.lock().await.get(name).cloned();
        let running = known.map(|service| service.facts()).unwrap_or_default();
        ServiceFacts {
            exists: self.paths.unit(name).exists(),
            enabled: self.paths.wants(name).is_symlink(),
            ..running
        }
    }

    async fn service(&self, name: &str) -> Arc<Service> {
        let mut services = self.services.lock().await;
        let make = || Arc::new(Service::new(name, self.paths.clone()));
        Arc::clone(services.entry(name.to_owned()).or_insert_with(make))
    }

    /// Stops all services in an orderly way.
    pub(super) async fn stop_all(&self) {
        let services: Vec<_> = self.services.lock().await.values().cloned().collect();
        futures::future::join_all(services.iter().map(|service| service.stop())).await;
    }
}

fn remove_if_there(path: &Path) -> Result<(), LabError> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(LabError::io(path)(error))
        }
        _ => Ok(()),
    }
}
