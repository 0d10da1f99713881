//! An agent's credentials, and how it uses them to register and to be heard of.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::super::config::{AgentConfig, ServerUrl};
use super::super::host;
use super::super::http::{Answer, Connector, HttpError, basic};
use super::super::identity::DataDir;
use super::super::trust::{self, Trusted};
use super::super::wire::{PROTOCOL, RegisterAnswer, RegisterRequest, Sent, Servers};
use super::failed;
use crate::error::{ExitCode, Failure};
use crate::pki::authority::{fresh_key, public_key};
use crate::pki::{KeyPairPem, Token, files, tls};
use crate::secret::Secret;

/// How long one question to a server may take.
const ASK_TIMEOUT: Duration = Duration::from_secs(10);

/// Why a server did not do it.
pub(super) enum Refusal {
    /// Trying again will not change it.
    Final(Failure),
    /// Another server, or the same one later, may do it.
    Later(String),
}

impl From<HttpError> for Refusal {
    fn from(error: HttpError) -> Self {
        Self::Later(crate::error::chain(&error))
    }
}

/// Credentials on disk and in memory.
pub(super) struct Registration {
    server: ServerUrl,
    token: Option<Token>,
    key: Secret,
    password: Secret,
    certificate: Option<String>,
    ca: Arc<Mutex<Option<String>>>,
    ca_file: PathBuf,
    certificate_file: PathBuf,
}

impl Registration {
    /// Reads what an earlier run left, and makes the key when there is none.
    pub(super) fn open(config: &AgentConfig, data: &DataDir) -> Result<Self, Failure> {
        let dir = data.agent();
        let io = |error: std::io::Error| failed(&error);
        let server = config
            .node
            .server
            .clone()
            .ok_or_else(|| Failure::new(ExitCode::BadInput, "--server is required"))?;
        let token =
            config.node.token.as_ref().map(|token| Token::parse(token.expose())).transpose();
        let token = token.map_err(|error| Failure::new(ExitCode::BadInput, error.to_string()))?;
        let key_file = dir.join("client-node.key");
        let key = if let Some(key) = files::read_private(&key_file).map_err(io)? {
            Secret::new(key)
        } else {
            let (key, _) = fresh_key().map_err(|error| failed(&error))?;
            files::write_private(&key_file, key.expose().as_bytes()).map_err(io)?;
            key
        };
        let (ca_file, certificate_file) = (dir.join("server-ca.crt"), dir.join("client-node.crt"));
        Ok(Self {
            server,
            token,
            key,
            password: host::node_password(&data.node_password())?,
            certificate: files::read_private(&certificate_file).map_err(io)?,
            ca: Arc::new(Mutex::new(files::read_private(&ca_file).map_err(io)?)),
            ca_file,
            certificate_file,
        })
    }

    /// The registration address as a URL.
    pub(super) fn server_url(&self) -> String {
        format!("https://{}", self.authority(&self.server.host))
    }

    /// The registration address's host.
    pub(super) fn server_host(&self) -> &str {
        &self.server.host
    }

    /// The supervisors' port.
    pub(super) fn server_port(&self) -> u16 {
        self.server.port
    }

    /// The cluster's CA, as soon as it is known and its hash was compared.
    pub(super) fn ca(&self) -> Arc<Mutex<Option<String>>> {
        Arc::clone(&self.ca)
    }

    fn authority(&self, host: &str) -> String {
        let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
        format!("{host}:{}", self.server.port)
    }

    /// Registers with a server and keeps the certificate. Gives the servers' addresses.
    pub(super) async fn register(
        &mut self,
        server: &str,
        config: &AgentConfig,
    ) -> Result<Vec<String>, Refusal> {
        let Some(token) = self.token.clone() else {
            // It has a certificate from an earlier run, which is as good.
            return self.heartbeat(server).await;
        };
        let trusted = self.trusted(server, &token).await?;
        let request = RegisterRequest {
            protocol: PROTOCOL,
            about: host::about(&config.node),
            password: Sent(self.password.clone()),
            public_key: public_key(&self.key).map_err(wrong)?,
        };
        let body = serde_json::to_vec(&request).map_err(wrong)?;
        let authorization = basic(&token.user, &token.password);
        let answer = trusted
            .connector
            .ask(&self.authority(server), "POST", "/v1-k3sup/register", Some(&authorization), &body)
            .await?;
        let registered: RegisterAnswer = accepted(&answer)?.json()?;
        files::write_private(&self.certificate_file, registered.certificate.as_bytes())
            .map_err(wrong)?;
        self.certificate = Some(registered.certificate);
        Ok(hosts(&registered.servers))
    }

    /// The cluster's CA: the one on disk if it is the token's, else the server's, which must be the
    /// token's. No secret is sent before.
    async fn trusted(&self, server: &str, token: &Token) -> Result<Trusted, Refusal> {
        let known = self.ca.lock().clone();
        if let Some(ca) = known.filter(|ca| token.check_ca(ca).is_ok()) {
            return trust::trusting(ca).map_err(wrong);
        }
        let trusted = trust::establish(&self.authority(server), token).await;
        let trusted = trusted.map_err(|error| {
            if error.is_passing() { Refusal::Later(error.to_string()) } else { wrong(error) }
        })?;
        files::write_private(&self.ca_file, trusted.ca.as_bytes()).map_err(wrong)?;
        *self.ca.lock() = Some(trusted.ca.clone());
        Ok(trusted)
    }

    /// Is heard of by a server. Gives the servers' addresses.
    pub(super) async fn heartbeat(&self, server: &str) -> Result<Vec<String>, Refusal> {
        let ca = self.ca.lock().clone();
        let (Some(ca), Some(certificate)) = (ca, self.certificate.clone()) else {
            let failure = Failure::new(ExitCode::BadInput, "--token is required");
            return Err(Refusal::Final(failure));
        };
        let pair = KeyPairPem { certificate, key: self.key.clone() };
        let config_tls = tls::client(&ca, Some(&pair), &[]).map_err(wrong)?;
        let answer = Connector::tls(config_tls, ASK_TIMEOUT)
            .ask(&self.authority(server), "POST", "/v1-k3sup/heartbeat", None, &[])
            .await?;
        let servers: Servers = accepted(&answer)?.json()?;
        Ok(hosts(&servers))
    }
}

/// A refusal of this agent is final; that a server is not able just now is not.
fn accepted(answer: &Answer) -> Result<&Answer, Refusal> {
    match answer.status {
        200..300 => Ok(answer),
        400..500 => {
            let message = format!("the server refuses this agent: {}", answer.text());
            Err(Refusal::Final(Failure::new(ExitCode::Error, message).hint(
                "compare the token with `k3sup-rs token show`, and the node's name with \
                 `k3sup-rs nodes`",
            )))
        }
        status => Err(Refusal::Later(format!("{status}: {}", answer.text()))),
    }
}

fn wrong(error: impl std::error::Error) -> Refusal {
    Refusal::Final(Failure::new(ExitCode::Error, crate::error::chain(&error)))
}

/// The hosts of `host:port` supervisors, sorted as given, each once.
fn hosts(servers: &Servers) -> Vec<String> {
    let mut hosts: Vec<String> = Vec::new();
    for supervisor in &servers.supervisors {
        let host = supervisor.rsplit_once(':').map_or(supervisor.as_str(), |(host, _)| host);
        let host = host.trim_start_matches('[').trim_end_matches(']');
        if !hosts.iter().any(|known| known == host) {
            hosts.push(host.to_owned());
        }
    }
    hosts
}
