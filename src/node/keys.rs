//! What a running server shows and whom it believes: its certificates and the cluster's CAs.
//!
//! All of it can be replaced while the server runs: connections made from then on show and believe
//! the new, those that are open stay as they are. Certificates that would expire are made anew by
//! themselves.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;

use super::bundle;
use super::config::ServerConfig;
use super::identity::DataDir;
use super::join::plain;
use crate::error::chain;
use crate::pki::rollover::Believed;
use crate::pki::tls::Roots;
use crate::pki::token::ca_hash;
use crate::pki::tree::{Authorities, Leaves, Owner};
use crate::pki::{PkiError, Tree, TreeError, files, tls};
use crate::secret::Secret;

/// How often the days that are left are looked at.
const INTERVAL: Duration = Duration::from_secs(24 * 60 * 60);

/// Why certificates could not be replaced.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// The files under `server/tls`.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// A certificate cannot be used.
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// Other files.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// The certificates that the server's connections show.
struct Shown {
    /// On the client API and the supervisor.
    serving: Arc<tls::Shown>,
    /// Between members.
    peer: Arc<tls::Shown>,
    /// To other servers' supervisors.
    supervisor: Arc<tls::Shown>,
}

/// Whom they believe.
struct Trusted {
    server: Arc<Roots>,
    client: Arc<Roots>,
    peer: Arc<Roots>,
}

/// The certificates and CAs of one server.
pub struct Keys {
    config: ServerConfig,
    data: DataDir,
    owner: Owner,
    authorities: ArcSwap<Authorities>,
    believed: ArcSwap<Believed>,
    shown: Shown,
    trusted: Trusted,
    /// One change at a time.
    changing: Mutex<()>,
}

impl Keys {
    /// Reads what is on disk, makes what is missing or due, and writes what is for people.
    pub fn open(
        config: ServerConfig,
        data: DataDir,
        authorities: Authorities,
        owner: Owner,
    ) -> Result<Self, KeysError> {
        let tree = data.tree();
        let authorities = if tree.finish_exchange()? {
            tree.authorities()?.unwrap_or(authorities)
        } else {
            authorities
        };
        let leaves = tree.leaves(&authorities, &owner)?;
        let believed = tree.believed(&authorities)?;
        let keys = Self {
            shown: Shown {
                serving: tls::Shown::new(&leaves.serving)?,
                peer: tls::Shown::new(&leaves.peer)?,
                supervisor: tls::Shown::new(&leaves.supervisor)?,
            },
            trusted: Trusted {
                server: Roots::new(&believed.server)?,
                client: Roots::new(&believed.client)?,
                peer: Roots::new(&believed.peer)?,
            },
            authorities: ArcSwap::from_pointee(authorities),
            believed: ArcSwap::from_pointee(believed),
            config,
            data,
            owner,
            changing: Mutex::new(()),
        };
        keys.tell(&leaves)?;
        Ok(keys)
    }

    /// The CAs that sign.
    pub fn authorities(&self) -> Arc<Authorities> {
        self.authorities.load_full()
    }

    /// The CAs that are believed.
    pub fn believed(&self) -> Arc<Believed> {
        self.believed.load_full()
    }

    /// The certificate files.
    pub fn tree(&self) -> Tree {
        self.data.tree()
    }

    /// For who answers clients: on the client API, and on the supervisor.
    pub(super) fn answering(
        &self,
        auth: tls::ClientAuth,
    ) -> Result<Arc<rustls::ServerConfig>, PkiError> {
        let (shown, roots) = (Arc::clone(&self.shown.serving), Arc::clone(&self.trusted.client));
        tls::server_believing(shown, roots, auth, &tls::ALPN_HTTP)
    }

    /// For who asks other servers' supervisors.
    pub(super) fn asking(&self) -> Result<Arc<rustls::ClientConfig>, PkiError> {
        let shown = Some(Arc::clone(&self.shown.supervisor));
        tls::client_believing(Arc::clone(&self.trusted.server), shown, &[])
    }

    /// Between members: who answers, and who asks.
    pub(super) fn peering(
        &self,
    ) -> Result<(Arc<rustls::ServerConfig>, Arc<rustls::ClientConfig>), PkiError> {
        let (shown, roots) = (&self.shown.peer, &self.trusted.peer);
        let auth = tls::ClientAuth::Required;
        let server = tls::server_believing(Arc::clone(shown), Arc::clone(roots), auth, &[])?;
        Ok((server, tls::client_believing(Arc::clone(roots), Some(Arc::clone(shown)), &[])?))
    }

    /// Looks at the certificates once a day, as long as it is polled.
    pub(super) async fn keep(self: Arc<Self>) {
        loop {
            tokio::time::sleep(INTERVAL).await;
            let keys = Arc::clone(&self);
            match tokio::task::spawn_blocking(move || keys.renew()).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    tracing::error!("certificates cannot be renewed: {}", chain(&error));
                }
                Err(error) => tracing::error!(%error, "certificates cannot be renewed"),
            }
        }
    }

    /// Makes anew what has too few days left; the rest stays as it is.
    fn renew(&self) -> Result<(), KeysError> {
        let _changing = self.changing.lock();
        let leaves = self.tree().leaves(&self.authorities(), &self.owner)?;
        self.show(&leaves)
    }

    /// Makes all certificates anew. What the old ones prove stays true until they expire: only a
    /// new CA ends that.
    pub(super) fn rotate(&self) -> Result<(), KeysError> {
        let _changing = self.changing.lock();
        let leaves = self.tree().new_leaves(&self.authorities(), &self.owner)?;
        self.show(&leaves)
    }

    /// Writes the token's file with this secret, if it is there with another.
    pub(super) fn keep_token(&self, password: &Secret) -> Result<(), KeysError> {
        let _changing = self.changing.lock();
        let ca = self.authorities();
        Ok(bundle::write_token(&self.data, ca.server.certificate(), password)?)
    }

    /// The token for agents alone that this server keeps, if it keeps one.
    pub(super) fn agent_token(&self) -> Result<Option<Secret>, KeysError> {
        let path = self.data.agent_token();
        if std::fs::read_link(&path).is_ok() {
            return Ok(None);
        }
        let text = files::read_private(&path)?;
        Ok(text.map(|text| plain(&Secret::new(text))))
    }

    /// Whether it is the one that this server was started with.
    pub(super) fn has_agent_token(&self) -> Result<bool, KeysError> {
        Ok(self.agent_token()? == self.config.agent_token.as_ref().map(plain))
    }

    /// Keeps it.
    pub(super) fn keep_agent_token(&self, password: Option<&Secret>) -> Result<(), KeysError> {
        let _changing = self.changing.lock();
        self.write_agent_token(password)
    }

    fn write_agent_token(&self, password: Option<&Secret>) -> Result<(), KeysError> {
        let ca = self.authorities();
        Ok(bundle::write_agent_token(&self.data, ca.server.certificate(), password)?)
    }

    /// Believes also the CAs that are to come: those given, or new ones. Nothing changes when there
    /// are some.
    pub(super) fn believe_next(&self, given: Option<&Authorities>) -> Result<(), KeysError> {
        let _changing = self.changing.lock();
        let tree = self.tree();
        if tree.next()?.is_none() {
            tree.prepare_next(given)?;
        }
        self.believe()?;
        let leaves = tree.leaves(&self.authorities(), &self.owner)?;
        self.tell(&leaves)
    }

    /// Signs with the CAs that were to come, and shows certificates of theirs.
    pub(super) fn sign_with_next(&self) -> Result<(), KeysError> {
        let _changing = self.changing.lock();
        let tree = self.tree();
        tree.exchange(&self.authorities())?;
        if let Some(authorities) = tree.authorities()? {
            self.authorities.store(Arc::new(authorities));
        }
        self.believe()?;
        let authorities = self.authorities();
        let leaves = tree.leaves(&authorities, &self.owner)?;
        if let Some(text) = files::read_private(&self.data.token())? {
            let ca = authorities.server.certificate();
            bundle::write_token(&self.data, ca, &plain(&Secret::new(text)))?;
        }
        if let Some(own) = self.agent_token()? {
            self.write_agent_token(Some(&own))?;
        }
        self.show(&leaves)
    }

    /// Believes the CAs that were no longer.
    pub(super) fn forget_previous(&self) -> Result<(), KeysError> {
        let _changing = self.changing.lock();
        let tree = self.tree();
        tree.forget_previous()?;
        self.believe()?;
        let leaves = tree.leaves(&self.authorities(), &self.owner)?;
        self.tell(&leaves)
    }

    /// How far a roll-over is here.
    pub(super) fn standing(&self) -> Result<Standing, KeysError> {
        let tree = self.tree();
        let hash = |pem: &str| ca_hash(pem);
        Ok(Standing {
            signing: hash(self.authorities().server.certificate()),
            next: tree.next()?.map(|next| hash(next.server.certificate())),
            previous: tree.previous()?.map(|[server, ..]| hash(&server)),
        })
    }

    fn believe(&self) -> Result<(), KeysError> {
        let believed = self.tree().believed(&self.authorities())?;
        self.trusted.server.replace(&believed.server)?;
        self.trusted.client.replace(&believed.client)?;
        self.trusted.peer.replace(&believed.peer)?;
        self.believed.store(Arc::new(believed));
        Ok(())
    }

    fn show(&self, leaves: &Leaves) -> Result<(), KeysError> {
        self.shown.serving.replace(&leaves.serving)?;
        self.shown.peer.replace(&leaves.peer)?;
        self.shown.supervisor.replace(&leaves.supervisor)?;
        self.tell(leaves)
    }

    /// What is for people and tools.
    fn tell(&self, leaves: &Leaves) -> Result<(), KeysError> {
        let ca = &self.believed().server;
        Ok(bundle::write(&self.config, &self.data, ca, leaves)?)
    }
}

/// How far a roll-over is on a server: hashes of its server CAs, as tokens have them.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Standing {
    /// The CA that signs.
    pub signing: String,
    /// The one that is to come, and is believed already.
    pub next: Option<String>,
    /// The one that was, and is still believed.
    pub previous: Option<String>,
}

impl Standing {
    /// Whether certificates of the CA with this hash are believed.
    pub fn believes(&self, hash: &str) -> bool {
        let others = [self.next.as_deref(), self.previous.as_deref()];
        self.signing == hash || others.contains(&Some(hash))
    }
}
