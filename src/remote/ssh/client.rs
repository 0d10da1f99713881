//! The handshake: SSH with strong algorithms only, the host's key, the login.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use russh::client::{Config, Handle, Handler, Session};
use russh::keys::ssh_key::Algorithm;
use russh::keys::{EcdsaCurve, HashAlg, PublicKeyOrCertificate};
use russh::{Names, Preferred, cipher};
use tokio::time::timeout;

use super::auth;
use super::channel::Connection;
use super::dial::{self, Way, unreachable};
use crate::remote::RemoteError;
use crate::remote::hostkey::{Accepted, HostKeys};
use crate::remote::target::{ConnectOptions, Progress, ProgressFn, SSH_PORT, SshTarget};

/// After this long without a word from the server it is asked for one…
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);

/// …and after so many questions without an answer it is lost.
const KEEPALIVE_MAX: usize = 3;

/// For the whole login; a person may have to touch a key. OpenSSH's `LoginGraceTime`.
const LOGIN_TIMEOUT: Duration = Duration::from_secs(120);

/// Host key algorithms in order of preference. No SHA-1 (`ssh-rsa`).
const HOST_KEYS: [Algorithm; 6] = [
    Algorithm::Ed25519,
    Algorithm::Ecdsa { curve: EcdsaCurve::NistP256 },
    Algorithm::Ecdsa { curve: EcdsaCurve::NistP384 },
    Algorithm::Ecdsa { curve: EcdsaCurve::NistP521 },
    Algorithm::Rsa { hash: Some(HashAlg::Sha512) },
    Algorithm::Rsa { hash: Some(HashAlg::Sha256) },
];

/// No CBC. AES first: both sides nearly always have instructions for it.
const CIPHERS: [cipher::Name; 5] = [
    cipher::AES_256_GCM,
    cipher::CHACHA20_POLY1305,
    cipher::AES_256_CTR,
    cipher::AES_192_CTR,
    cipher::AES_128_CTR,
];

/// Why the SSH library gave up: its own reasons, or ours.
#[derive(Debug)]
pub(super) enum ClientError {
    Ssh(russh::Error),
    Ours(RemoteError),
}

impl From<russh::Error> for ClientError {
    fn from(error: russh::Error) -> Self {
        Self::Ssh(error)
    }
}

/// What is decided while the handshake runs.
pub(super) struct Client {
    key: KeyOf,
    accepted: Option<tokio::sync::oneshot::Sender<Accepted>>,
}

/// Whose key it must be.
#[derive(Clone)]
struct KeyOf {
    host_keys: HostKeys,
    /// The name under which it is known…
    name: String,
    /// …and the port.
    port: u16,
}

impl KeyOf {
    fn new(target: &SshTarget, options: &ConnectOptions) -> Self {
        let host_keys = target.host_keys.as_ref().unwrap_or(&options.host_keys).clone();
        match &target.host_key_alias {
            // An alias stands for the port too.
            Some(alias) => Self { host_keys, name: alias.clone(), port: SSH_PORT },
            None => Self { host_keys, name: target.address.clone(), port: target.port },
        }
    }

    /// Asks `question` on a thread that may wait for files.
    async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Self) -> Result<T, RemoteError> + Send + 'static,
    ) -> Result<T, RemoteError> {
        let key = self.clone();
        tokio::task::spawn_blocking(move || question(&key)).await.unwrap_or_else(|error| {
            let message = format!("the host's key cannot be checked: {error}");
            Err(RemoteError::HostKey { message, hint: None })
        })
    }
}

impl Handler for Client {
    type Error = ClientError;

    async fn check_server_key(
        &mut self,
        offered: &PublicKeyOrCertificate,
    ) -> Result<bool, Self::Error> {
        let key = offered.public_key();
        let certificate = offered.certificate().cloned();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let check = move |of: &KeyOf| match &certificate {
            Some(shown) => of.host_keys.check_certificate(&of.name, of.port, shown, now),
            None => of.host_keys.check(&of.name, of.port, &key),
        };
        let accepted = self.key.ask(check).await.map_err(ClientError::Ours)?;
        if let Some(sender) = self.accepted.take() {
            // Who does not listen any more has given up.
            let _ = sender.send(accepted);
        }
        Ok(true)
    }

    async fn kex_done(
        &mut self,
        _secret: Option<&[u8]>,
        names: &Names,
        _session: &mut Session,
    ) -> Result<(), Self::Error> {
        // Without strict key exchange, messages can be cut out unseen with this cipher
        // (CVE-2023-48795, "Terrapin").
        if names.cipher == cipher::CHACHA20_POLY1305 && !names.strict_kex() {
            return Err(ClientError::Ours(RemoteError::Unreachable {
                message: format!(
                    "{}: the server offers {} without strict key exchange (CVE-2023-48795)",
                    self.key.name,
                    cipher::CHACHA20_POLY1305.as_ref()
                ),
                hint: Some("update the host's SSH server, or enable AES-GCM on it".to_owned()),
            }));
        }
        Ok(())
    }
}

/// Connects and logs in.
pub(super) async fn login(
    target: &SshTarget,
    options: &ConnectOptions,
    progress: ProgressFn<'_>,
) -> Result<Connection, RemoteError> {
    let limit = dial::limit(target, options);
    let Way { stream, peer, near, via } = dial::dial(target, options, progress).await?;
    let (accepted, mut told) = tokio::sync::oneshot::channel();
    let key = KeyOf::new(target, options);
    let config = config(&key).await?;
    let client = Client { key, accepted: Some(accepted) };
    let handshake = russh::client::connect_stream(Arc::new(config), stream, client);
    let mut handle: Handle<Client> = match timeout(limit, handshake).await {
        Ok(Ok(handle)) => handle,
        Ok(Err(ClientError::Ours(error))) => return Err(error),
        Ok(Err(ClientError::Ssh(error))) => return Err(handshake_failed(target, &error)),
        Err(_) => {
            let reason = format!("no SSH handshake in {} s", limit.as_secs_f32());
            return Err(unreachable(target, &reason, None));
        }
    };
    match told.try_recv() {
        Ok(Accepted::Learned { fingerprint }) => progress(Progress::Learned { fingerprint }),
        Ok(Accepted::Unchecked { warning }) => progress(Progress::Warning(warning)),
        Ok(Accepted::Known) | Err(_) => {}
    }
    let logged_in = auth::login(&mut handle, target, &options.keys);
    timeout(LOGIN_TIMEOUT, logged_in).await.map_err(|_| RemoteError::Authentication {
        message: format!(
            "{}@{}: no login in {} s",
            target.user,
            target.address,
            LOGIN_TIMEOUT.as_secs()
        ),
        hint: None,
    })??;
    Ok(Connection { handle: Arc::new(handle), peer, near, _via: via.map(Box::new) })
}

async fn config(key: &KeyOf) -> Result<Config, RemoteError> {
    let wanted = key.ask(|of| of.host_keys.wanted(&of.name, of.port)).await?;
    let preferred = Preferred {
        key: Cow::Owned(order(&wanted.algorithms)),
        host_key_certificates: Cow::Borrowed(if wanted.certificate { &HOST_KEYS } else { &[] }),
        cipher: Cow::Borrowed(&CIPHERS),
        ..Preferred::DEFAULT
    };
    Ok(Config {
        preferred,
        keepalive_interval: Some(KEEPALIVE_INTERVAL),
        keepalive_max: KEEPALIVE_MAX,
        inactivity_timeout: None,
        nodelay: true,
        ..Config::default()
    })
}

/// The types of key that are known for the host come first: a server with several keys shall show
/// the one that can be compared.
fn order(known: &[Algorithm]) -> Vec<Algorithm> {
    let is_known = |algorithm: &Algorithm| {
        known.iter().any(|known| match (known, algorithm) {
            (Algorithm::Rsa { .. }, Algorithm::Rsa { .. }) => true,
            (known, algorithm) => known == algorithm,
        })
    };
    let (mut first, rest): (Vec<_>, Vec<_>) = HOST_KEYS.iter().cloned().partition(is_known);
    first.extend(rest);
    first
}

fn handshake_failed(target: &SshTarget, error: &russh::Error) -> RemoteError {
    match error {
        russh::Error::NoCommonAlgo { kind, theirs, .. } => {
            // What a server says goes to a terminal: only what names of algorithms are made of.
            let theirs: Vec<String> = theirs
                .iter()
                .map(|name| name.chars().filter(char::is_ascii_graphic).take(64).collect())
                .collect();
            let reason = format!(
                "no {kind:?} algorithm in common that is safe; the server has {}",
                theirs.join(", ")
            );
            let hint = "update the host's SSH server: SHA-1 signatures and CBC are not used";
            unreachable(target, &reason, Some(hint))
        }
        _ => unreachable(target, &format!("the SSH handshake failed: {error}"), None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_weak_algorithm_is_offered() {
        let offered = order(&[]);
        assert!(!offered.contains(&Algorithm::Rsa { hash: None }));
        assert!(CIPHERS.iter().all(|cipher| !cipher.as_ref().contains("cbc")));
        let macs = Preferred::DEFAULT.mac;
        assert!(macs.iter().all(|mac| !mac.as_ref().contains("sha1")));
        let kex = Preferred::DEFAULT.kex;
        assert!(kex.iter().all(|kex| !kex.as_ref().ends_with("sha1")));
        let compression = Preferred::DEFAULT.compression;
        assert!(compression.iter().all(|name| name.as_ref() == "none"));
    }

    #[test]
    fn the_known_type_of_key_is_asked_for_first() {
        let rsa = Algorithm::Rsa { hash: Some(HashAlg::Sha512) };
        let known = order(&[Algorithm::Rsa { hash: None }]);
        assert_eq!(known.first(), Some(&rsa));
        assert_eq!(known.len(), HOST_KEYS.len());
        assert_eq!(order(&[]).first(), Some(&Algorithm::Ed25519));
    }
}
