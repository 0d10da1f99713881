//! First contact with a cluster: the CA is fetched without trust and believed only when its hash is
//! the one in the token. Nothing secret is sent before that.

use std::time::Duration;

use rustls::ClientConfig;
use std::sync::Arc;

use super::http::{Connector, HttpError};
use crate::pki::{PkiError, Token, TokenError, tls};

/// How long one request may take: K3s's 10 s.
const TIMEOUT: Duration = Duration::from_secs(10);

/// How long a join may take on the server, which adds a member meanwhile.
const JOIN_TIMEOUT: Duration = Duration::from_secs(60);

/// Why a cluster is not trusted.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// The CA could not be fetched.
    #[error("failed to get CA certs: {0}")]
    Fetch(#[from] HttpError),
    /// The server answered something else.
    #[error("failed to get CA certs: it answers {0}")]
    Answer(u16),
    /// The pin does not hold.
    #[error(transparent)]
    Pin(#[from] TokenError),
    /// What came is not a CA.
    #[error("CA cert validation failed: {0}")]
    Content(#[from] PkiError),
}

impl TrustError {
    /// Whether another try may help.
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::Fetch(_) | Self::Answer(_))
    }
}

/// A cluster whose CA is the token's.
#[derive(Clone)]
pub struct Trusted {
    /// The CA, PEM.
    pub ca: String,
    /// Asks its servers, whose certificates are checked against that CA and their host name.
    pub connector: Connector,
    config: Arc<ClientConfig>,
}

impl Trusted {
    /// Asks with another limit of time.
    pub fn asking_for(&self, timeout: Duration) -> Connector {
        Connector::tls(Arc::clone(&self.config), timeout)
    }

    /// Asks with the time that a join may take.
    pub fn patient(&self) -> Connector {
        Connector::tls(Arc::clone(&self.config), JOIN_TIMEOUT)
    }
}

/// Fetches the CA from `authority` (`host:port`) and checks it against the token. The pin is
/// checked always, whatever CAs the host trusts.
pub async fn establish(authority: &str, token: &Token) -> Result<Trusted, TrustError> {
    // Asked for before anybody is: a token without a pin proves nothing.
    if token.ca_hash.is_none() {
        return Err(TokenError::NoHash.into());
    }
    let anybody = Connector::tls(tls::client_without_trust()?, TIMEOUT);
    let answer = anybody.ask(authority, "GET", "/cacerts", None, b"").await?;
    if answer.status != 200 {
        return Err(TrustError::Answer(answer.status));
    }
    // The hash is over the bytes as they are in the file.
    let ca = String::from_utf8_lossy(&answer.body).into_owned();
    token.check_ca(&ca)?;
    trusting(ca)
}

/// For a CA that was checked before and kept.
pub fn trusting(ca: String) -> Result<Trusted, TrustError> {
    let config = tls::client(&ca, None, &[])?;
    Ok(Trusted { ca, connector: Connector::tls(Arc::clone(&config), TIMEOUT), config })
}
