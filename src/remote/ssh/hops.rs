//! Jump hosts: each is logged into once for all hosts behind it, its key checked under its own name.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;

use super::channel::Connection;
use super::client;
use crate::remote::RemoteError;
use crate::remote::target::{ConnectOptions, Progress, ProgressFn, SshTarget};

/// The jump hosts of a run.
#[derive(Default)]
pub struct Hops {
    /// By everything that is known of the way to them.
    open: Mutex<HashMap<String, Arc<tokio::sync::Mutex<Hop>>>>,
}

#[derive(Default)]
enum Hop {
    #[default]
    Untried,
    Open(Connection),
    Failed(Instant, RemoteError),
}

impl fmt::Debug for Hops {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hops").finish_non_exhaustive()
    }
}

impl Hops {
    /// A connection to `hop`, the open one if there is one. Who waits for another's attempt shares
    /// what comes of it.
    pub(super) async fn connection(
        &self,
        hop: &SshTarget,
        options: &ConnectOptions,
        progress: ProgressFn<'_>,
    ) -> Result<Connection, RemoteError> {
        let asked = Instant::now();
        let place = Arc::clone(self.open.lock().entry(format!("{hop:?}")).or_default());
        let mut place = place.lock().await;
        match &*place {
            Hop::Open(connection) if !connection.handle.is_closed() => {
                return Ok(connection.clone());
            }
            Hop::Failed(when, error) if *when >= asked => return Err(error.clone()),
            _ => {}
        }
        let name = format!("jump host {}", hop.address);
        let told = |said: Progress| match said {
            Progress::Learned { fingerprint } => progress(Progress::Warning(format!(
                "{name}: its host key is now known: {fingerprint}"
            ))),
            Progress::Warning(said) => progress(Progress::Warning(format!("{name}: {said}"))),
            _ => {}
        };
        match Box::pin(client::login(hop, options, &told)).await {
            Ok(connection) => {
                *place = Hop::Open(connection.clone());
                Ok(connection)
            }
            Err(error) => {
                let error = error.because_of(&name);
                *place = Hop::Failed(Instant::now(), error.clone());
                Err(error)
            }
        }
    }
}
