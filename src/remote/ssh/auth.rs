//! Logging in: the agent, key files, the password; a bounded number of tries.
//!
//! Keys that are named for the host come first, from the agent if it has them; a server counts
//! tries, and an agent with many keys must not use them up. Agent forwarding is never asked for.

use std::path::{Path, PathBuf};

use russh::client::{AuthResult, Handle, KeyboardInteractiveAuthResponse};
use russh::keys::agent::AgentIdentity;
use russh::keys::agent::client::AgentClient;
use russh::keys::{HashAlg, PrivateKeyWithHashAlg, PublicKey};
use russh::{MethodKind, MethodSet};
use tokio::net::UnixStream;

use super::client::Client;
use super::keys::{KeyRing, public_half};
use crate::remote::RemoteError;
use crate::remote::target::{Agent, SshTarget};
use crate::secret::Secret;

/// Keys that are offered at most: one less than OpenSSH's `MaxAuthTries`, so that a password can
/// still be tried.
const KEYS_MAX: usize = 5;

/// Questions in a row that a server may ask before a login counts as refused.
const QUESTIONS_MAX: usize = 5;

/// Logs in or says what was tried.
pub(super) async fn login(
    handle: &mut Handle<Client>,
    target: &SshTarget,
    keys: &KeyRing,
) -> Result<(), RemoteError> {
    let mut attempt = Attempt { handle, target, tried: Vec::new(), offered: 0, methods: None };
    match attempt.all(keys).await {
        Ok(true) => Ok(()),
        Ok(false) => Err(attempt.refused()),
        Err(error) => Err(RemoteError::Unreachable {
            message: format!("lost {} while logging in: {error}", target.address),
            hint: None,
        }),
    }
}

struct Attempt<'a> {
    handle: &'a mut Handle<Client>,
    target: &'a SshTarget,
    /// For the message when all fails.
    tried: Vec<String>,
    offered: usize,
    /// What the server still accepts, once it has said.
    methods: Option<MethodSet>,
}

impl Attempt<'_> {
    async fn all(&mut self, keys: &KeyRing) -> Result<bool, russh::Error> {
        let files =
            if self.target.keys.is_empty() { keys.usual() } else { self.target.keys.clone() };
        let named = !self.target.keys.is_empty() || self.target.identities_only;
        let socket = match &self.target.agent {
            Agent::Usual => keys.agent(),
            Agent::None => None,
            Agent::At(socket) => Some(socket.as_path()),
        };
        let mut agent = self.agent(socket).await;
        let mut in_agent = match &mut agent {
            Some(agent) => identities(agent).await,
            None => Vec::new(),
        };
        if named {
            let wanted: Vec<PublicKey> =
                files.iter().filter_map(|path| public_half(path)).collect();
            let is_wanted = |key: &PublicKey| wanted.iter().any(|w| w.key_data() == key.key_data());
            in_agent.sort_by_key(|key| !is_wanted(key));
            let first = in_agent.partition_point(is_wanted);
            let others = in_agent.split_off(first);
            if self.offer_agent(agent.as_mut(), &in_agent).await?
                || self.offer_files(keys, &files, &in_agent).await?
            {
                return Ok(true);
            }
            if !self.target.identities_only && self.offer_agent(agent.as_mut(), &others).await? {
                return Ok(true);
            }
        } else if self.offer_agent(agent.as_mut(), &in_agent).await?
            || self.offer_files(keys, &files, &in_agent).await?
        {
            return Ok(true);
        }
        match &self.target.password {
            Some(password) => self.password(password).await,
            None => Ok(false),
        }
    }

    /// The running agent, bound to this session where it knows how, so that keys that are limited
    /// to a destination can be used.
    async fn agent(&self, socket: Option<&Path>) -> Option<AgentClient<UnixStream>> {
        let socket = socket?;
        let mut agent = AgentClient::connect_uds(socket).await.ok()?;
        if let Some(binding) = self.handle.agent_session_binding()
            && agent.bind_session(binding, false).await.is_err()
        {
            // An older agent: it has no such keys either. Its connection may be out of step.
            return AgentClient::connect_uds(socket).await.ok();
        }
        Some(agent)
    }

    async fn offer_agent(
        &mut self,
        agent: Option<&mut AgentClient<UnixStream>>,
        keys: &[PublicKey],
    ) -> Result<bool, russh::Error> {
        let Some(agent) = agent else { return Ok(false) };
        for key in keys {
            if !self.may_offer() {
                return Ok(false);
            }
            let Some(hash) = self.hash_for(key).await? else { continue };
            self.note(format!("agent key {}", key.fingerprint(HashAlg::Sha256)));
            let user = self.target.user.clone();
            let result =
                self.handle.authenticate_publickey_with(user, key.clone(), hash, agent).await;
            match result {
                Ok(result) => {
                    if self.accepted(result) {
                        return Ok(true);
                    }
                }
                Err(error) => self.tried.push(format!("(the agent does not sign: {error})")),
            }
        }
        Ok(false)
    }

    /// Offers key files, without those the agent has offered already.
    async fn offer_files(
        &mut self,
        keys: &KeyRing,
        files: &[PathBuf],
        offered: &[PublicKey],
    ) -> Result<bool, russh::Error> {
        for path in files {
            let half = public_half(path);
            if half.is_some_and(|half| offered.iter().any(|o| o.key_data() == half.key_data())) {
                continue;
            }
            if !self.may_offer() {
                return Ok(false);
            }
            let key = match keys.load(path).await {
                Ok(key) => key,
                Err(reason) => {
                    self.tried.push(format!("({reason})"));
                    continue;
                }
            };
            if offered.iter().any(|o| o.key_data() == key.public_key().key_data()) {
                continue;
            }
            let Some(hash) = self.hash_for(key.public_key()).await? else { continue };
            self.note(format!("key {}", path.display()));
            let user = self.target.user.clone();
            let key = PrivateKeyWithHashAlg::new(key, hash);
            let result = self.handle.authenticate_publickey(user, key).await?;
            if self.accepted(result) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn password(&mut self, password: &Secret) -> Result<bool, russh::Error> {
        if self.allows(MethodKind::Password) {
            self.tried.push("password".to_owned());
            let user = self.target.user.clone();
            let result = self.handle.authenticate_password(user, password.expose()).await?;
            if self.accepted(result) {
                return Ok(true);
            }
            // Refused as wrong, it is not tried again; refused as a way, it was not looked at.
            if self.allows(MethodKind::Password) {
                return Ok(false);
            }
        }
        if self.allows(MethodKind::KeyboardInteractive) {
            self.tried.push("password (keyboard-interactive)".to_owned());
            return self.converse(password).await;
        }
        self.tried.push("(the server takes no password)".to_owned());
        Ok(false)
    }

    /// Answers the one question that hides what is typed with the password; another is not ours to
    /// answer.
    async fn converse(&mut self, password: &Secret) -> Result<bool, russh::Error> {
        let user = self.target.user.clone();
        let mut response = self.handle.authenticate_keyboard_interactive_start(user, None).await?;
        let mut given = false;
        for _ in 0..QUESTIONS_MAX {
            let answers = match response {
                KeyboardInteractiveAuthResponse::Success => return Ok(true),
                KeyboardInteractiveAuthResponse::Failure { .. } => return Ok(false),
                KeyboardInteractiveAuthResponse::InfoRequest { prompts, .. } => {
                    match prompts.as_slice() {
                        [] => Vec::new(),
                        [only] if !only.echo && !given => {
                            given = true;
                            vec![password.expose().to_owned()]
                        }
                        _ => return Ok(false),
                    }
                }
            };
            response = self.handle.authenticate_keyboard_interactive_respond(answers).await?;
        }
        Ok(false)
    }

    /// `Some` of the hash to sign with; `None` for an RSA key where the server takes only SHA-1.
    async fn hash_for(&mut self, key: &PublicKey) -> Result<Option<Option<HashAlg>>, russh::Error> {
        if !key.algorithm().is_rsa() {
            return Ok(Some(None));
        }
        match self.handle.best_supported_rsa_hash().await? {
            Some(None) => {
                self.tried.push("(an RSA key: the server takes only SHA-1 for it)".to_owned());
                Ok(None)
            }
            Some(hash) => Ok(Some(hash)),
            None => Ok(Some(Some(HashAlg::Sha512))),
        }
    }

    fn note(&mut self, what: String) {
        self.offered += 1;
        self.tried.push(what);
    }

    fn may_offer(&self) -> bool {
        self.offered < KEYS_MAX && !self.handle.is_closed() && self.allows(MethodKind::PublicKey)
    }

    fn allows(&self, method: MethodKind) -> bool {
        self.methods.as_ref().is_none_or(|methods| methods.contains(&method))
    }

    fn accepted(&mut self, result: AuthResult) -> bool {
        match result {
            AuthResult::Success => true,
            AuthResult::Failure { remaining_methods, .. } => {
                self.methods = Some(remaining_methods);
                false
            }
        }
    }

    fn refused(&self) -> RemoteError {
        let who = format!("{}@{}", self.target.user, self.target.address);
        let tried = match self.tried.as_slice() {
            [] => "there is no key and no password to try".to_owned(),
            tried => format!("tried {}", tried.join(", ")),
        };
        RemoteError::Authentication {
            message: format!("{who} is not let in: {tried}"),
            hint: Some(
                "check ansible_user and ansible_ssh_private_key_file, or add the key to ssh-agent"
                    .to_owned(),
            ),
        }
    }
}

/// The agent's plain keys; certificates are not used.
async fn identities(agent: &mut AgentClient<UnixStream>) -> Vec<PublicKey> {
    let identities = agent.request_identities().await.unwrap_or_default();
    identities
        .into_iter()
        .filter_map(|identity| match identity {
            AgentIdentity::PublicKey { key, .. } => Some(key),
            AgentIdentity::Certificate { .. } => None,
        })
        .collect()
}
