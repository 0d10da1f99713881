//! Certificates that would expire are made anew while the server runs.

use std::sync::Arc;
use std::time::Duration;

use super::bundle;
use super::config::ServerConfig;
use super::identity::DataDir;
use crate::error::chain;
use crate::pki::tree::{Authorities, Leaves, Owner};
use crate::pki::{PkiError, tls};

/// How often the days that are left are looked at.
const INTERVAL: Duration = Duration::from_secs(24 * 60 * 60);

/// The certificates that the server's connections show.
#[derive(Clone)]
pub(crate) struct Shown {
    /// On the client API and the supervisor.
    pub(crate) serving: Arc<tls::Shown>,
    /// Between members.
    pub(crate) peer: Arc<tls::Shown>,
    /// To other servers' supervisors.
    pub(crate) supervisor: Arc<tls::Shown>,
}

impl Shown {
    /// Shows `leaves`.
    pub(crate) fn new(leaves: &Leaves) -> Result<Self, PkiError> {
        Ok(Self {
            serving: tls::Shown::new(&leaves.serving)?,
            peer: tls::Shown::new(&leaves.peer)?,
            supervisor: tls::Shown::new(&leaves.supervisor)?,
        })
    }

    fn replace(&self, leaves: &Leaves) -> Result<(), PkiError> {
        self.serving.replace(&leaves.serving)?;
        self.peer.replace(&leaves.peer)?;
        self.supervisor.replace(&leaves.supervisor)
    }
}

/// What is renewed, and for whom.
pub(crate) struct Renewal {
    pub(crate) config: ServerConfig,
    pub(crate) data: DataDir,
    pub(crate) authorities: Authorities,
    pub(crate) owner: Owner,
    pub(crate) shown: Shown,
}

impl Renewal {
    /// Looks at the certificates once a day, as long as it is polled.
    pub(crate) async fn keep(self) {
        let renewal = Arc::new(self);
        loop {
            tokio::time::sleep(INTERVAL).await;
            let renewal = Arc::clone(&renewal);
            match tokio::task::spawn_blocking(move || renewal.renew()).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::error!("certificates cannot be renewed: {error}"),
                Err(error) => tracing::error!(%error, "certificates cannot be renewed"),
            }
        }
    }

    /// Makes anew what has too few days left; the rest stays as it is.
    fn renew(&self) -> Result<(), String> {
        let leaves = self.data.tree().leaves(&self.authorities, &self.owner);
        let leaves = leaves.map_err(|error| chain(&error))?;
        self.shown.replace(&leaves).map_err(|error| chain(&error))?;
        bundle::write(&self.config, &self.data, &self.authorities, &leaves)
            .map_err(|error| chain(&error))
    }
}
