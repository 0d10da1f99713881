//! Who asks: the token or the certificate that came with a call, and the tokens of this member.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use tonic::Request;
use tonic::metadata::MetadataMap;

use super::errors::ApiError;
use super::jwt::Jwt;
use super::member::Member;
use crate::store::auth::{Auth, AuthError, TokenHash};
use crate::store::lease::Leases;
use crate::store::types::{Caller, Command};

/// How often tokens are looked through for those that ended.
const SWEEP_PACE: Duration = Duration::from_secs(1);

/// How users log in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Login {
    /// How long a token lasts after it was last used on a member (etcd's `--auth-token-ttl`).
    pub token_ttl: Duration,
    /// What hashing a password costs, as the logarithm of rounds: 4 to 31 (etcd's `--bcrypt-cost`).
    pub bcrypt_cost: u32,
    /// Whether the common name of a client's certificate is a user's (etcd: with
    /// `--client-cert-auth`).
    pub by_certificate: bool,
}

impl Default for Login {
    /// etcd's defaults where clients must show certificates.
    fn default() -> Self {
        Self { token_ttl: Duration::from_secs(300), bcrypt_cost: 10, by_certificate: true }
    }
}

/// What users get for their passwords (etcd's `--auth-token`).
#[derive(Clone, Debug, Default)]
pub enum Tokens {
    /// Random letters that all members remember.
    #[default]
    Simple,
    /// Signed ones that nobody has to remember.
    Signed(Arc<Jwt>),
    /// Nothing: users come with certificates only.
    None,
}

/// The name in the certificate of the client at the other end of a connection.
#[derive(Clone, Debug)]
pub(crate) struct CertificateName(pub(crate) Arc<str>);

/// When each token was last used on this member.
#[derive(Default)]
pub(crate) struct TokenUse(Mutex<HashMap<TokenHash, Instant>>);

/// What came with a call to show who calls. Not for logs.
#[derive(Clone, Default)]
pub(crate) struct Credentials {
    token: Option<String>,
    certificate: Option<CertificateName>,
}

impl Credentials {
    /// Those of a call.
    pub(crate) fn of<T>(request: &Request<T>) -> Self {
        Self {
            token: token(request.metadata()),
            certificate: request.extensions().get::<CertificateName>().cloned(),
        }
    }
}

fn token(metadata: &MetadataMap) -> Option<String> {
    let given = metadata.get("token").or_else(|| metadata.get("authorization"))?;
    let given = given.to_str().unwrap_or_default();
    Some(given.strip_prefix("Bearer ").unwrap_or(given).to_owned())
}

/// What is kept of a token: who reads the log or memory of a member cannot use it.
pub(crate) fn token_hash(token: &str) -> TokenHash {
    Sha256::digest(token.as_bytes()).into()
}

impl Member {
    /// Who makes a call; nobody where nobody has to be somebody.
    pub(crate) async fn caller<T>(&self, request: &Request<T>) -> Result<Option<Caller>, ApiError> {
        if !self.state.auth_enabled() {
            return Ok(None);
        }
        // Taken out before anything is waited for: not every request can be looked at elsewhere.
        let credentials = Credentials::of(request);
        self.caller_with(&credentials).await
    }

    /// The same for who showed `credentials` earlier.
    pub(crate) async fn caller_with(
        &self,
        credentials: &Credentials,
    ) -> Result<Option<Caller>, ApiError> {
        if !self.state.auth_enabled() {
            return Ok(None);
        }
        if let Some(token) = &credentials.token {
            let invalid = ApiError::INVALID_AUTH_TOKEN;
            return match &self.tokens {
                Tokens::Simple => self.caller_of_token(token).await.map(Some),
                Tokens::Signed(jwt) => {
                    jwt.caller(token, SystemTime::now()).ok_or(invalid).map(Some)
                }
                Tokens::None => Err(invalid),
            };
        }
        let revision = self.state.rights(|auth, _| auth.revision);
        let named = credentials.certificate.as_ref();
        Ok(named.map(|name| Caller { user: name.0.to_string(), revision }))
    }

    /// A token was made by the log entry whose index it names: one that this member has yet to apply
    /// is waited for.
    async fn caller_of_token(&self, token: &str) -> Result<Caller, ApiError> {
        let invalid = ApiError::INVALID_AUTH_TOKEN;
        let (name, index) = token.split_once('.').ok_or(invalid)?;
        let index: u64 = index.parse().map_err(|_| invalid)?;
        let hash = token_hash(name);
        let known = || {
            self.state.rights(|auth, _| {
                let user = auth.token_user(&hash)?.to_owned();
                Some(Caller { user, revision: auth.revision })
            })
        };
        let mut caller = known();
        if caller.is_none() && index > self.state.applied_index() {
            self.barrier().await?;
            caller = known();
        }
        let caller = caller.ok_or(invalid)?;
        self.token_use.0.lock().insert(hash, Instant::now());
        Ok(caller)
    }

    /// Refuses what the rights of a caller do not allow.
    pub(crate) fn permit(
        &self,
        check: impl FnOnce(&Auth, &Leases) -> Result<(), AuthError>,
    ) -> Result<(), ApiError> {
        if !self.state.auth_enabled() {
            return Ok(());
        }
        Ok(self.state.rights(check)?)
    }

    /// Refuses a caller who is not root.
    pub(crate) fn permit_root(&self, caller: Option<&Caller>) -> Result<(), ApiError> {
        self.permit(|auth, _| auth.permit_admin(caller))
    }

    /// Refuses a caller who did not say who it is.
    pub(crate) fn permit_known(&self, caller: Option<&Caller>) -> Result<(), ApiError> {
        self.permit(|_, _| caller.map(drop).ok_or(AuthError::UserEmpty))
    }

    /// Refuses an answer if users or roles were changed while it was made.
    pub(crate) fn permit_still(&self, caller: Option<&Caller>) -> Result<(), ApiError> {
        self.permit(|auth, _| match caller {
            Some(caller) if caller.revision != auth.revision => Err(AuthError::OldRevision),
            _ => Ok(()),
        })
    }

    /// Ends tokens that were not used for long, until the server stops.
    pub(crate) async fn watch_tokens(self) {
        loop {
            tokio::select! {
                () = tokio::time::sleep(SWEEP_PACE) => {}
                () = self.stop.cancelled() => return,
            }
            let tokens: Vec<TokenHash> =
                self.state.rights(|auth, _| auth.tokens().copied().collect());
            let now = Instant::now();
            let mut used = self.token_use.0.lock();
            used.retain(|token, _| tokens.contains(token));
            for token in tokens {
                let since = *used.entry(token).or_insert(now);
                if now.duration_since(since) > self.login.token_ttl {
                    self.state.forget_token(&token);
                }
            }
        }
    }
}

/// A command as it is proposed for a caller.
pub(crate) fn signed(caller: Option<Caller>, command: Command) -> Command {
    match caller {
        None => command,
        Some(caller) => Command::As { caller, command: Box::new(command) },
    }
}
