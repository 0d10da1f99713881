//! How a server enters a cluster: the side that asks.

use std::io;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::config::ServerConfig;
use super::host;
use super::http::{Answer, HttpError, basic};
use super::identity::{DataDir, Identity, Phase, hex_number};
use super::trust::{self, TrustError};
use super::wire::{JoinAnswer, JoinRequest, PROTOCOL, Sent};
use crate::limits::{CLIENT_PORT, PEER_PORT};
use crate::pki::token::SERVER_USER;
use crate::pki::tree::Authorities;
use crate::pki::{Token, files};
use crate::secret::Secret;
use crate::store::fs::remove_file;

/// How long to wait before another try: K3s's second.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// Why a server could not join.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// The other side is not the cluster of the token.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// The cluster said no.
    #[error("{server} refuses: {message}")]
    Refused {
        /// Which server.
        server: String,
        /// Its words.
        message: String,
    },
    /// The answer makes no sense.
    #[error("{server}: {source}")]
    Answer {
        /// Which server.
        server: String,
        /// Why.
        source: HttpError,
    },
    /// The answer's CAs are not usable.
    #[error("the cluster's CAs cannot be used: {0}")]
    Authorities(#[from] crate::pki::PkiError),
    /// Disk.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// The number and name chosen for a member that is not one yet. Written before the cluster is
/// asked, so that asking again after a crash does not add a second member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Candidate {
    /// The cluster it was chosen for.
    ca_hash: Option<String>,
    #[serde(with = "hex_number")]
    member_id: u64,
    member_name: String,
}

/// A number that is not 0, by chance.
pub(crate) fn random_id() -> io::Result<u64> {
    loop {
        let mut bytes = [0_u8; 8];
        getrandom::fill(&mut bytes).map_err(|error| io::Error::other(error.to_string()))?;
        let id = u64::from_le_bytes(bytes);
        if id != 0 {
            return Ok(id);
        }
    }
}

/// `<node>-<8 hex>`, as K3s names members.
pub(crate) fn member_name(node: &str, id: u64) -> String {
    format!("{node}-{:08x}", id & 0xffff_ffff)
}

/// Joins the cluster of `token` through `config.node.server`: until it answers, until others have
/// finished joining. Then CAs and identity are on disk.
pub async fn join(
    config: &ServerConfig,
    data: &DataDir,
    token: &Token,
    password: &Secret,
) -> Result<(Identity, Authorities), JoinError> {
    let server = config.node.server.as_ref().map(super::config::ServerUrl::authority);
    let server = server.unwrap_or_default();
    let trusted = loop {
        match trust::establish(&server, token).await {
            Ok(trusted) => break trusted,
            Err(error) if error.is_passing() => {
                tracing::info!("Waiting for {server}: {error}");
                tokio::time::sleep(RETRY_INTERVAL).await;
            }
            Err(error) => return Err(error.into()),
        }
    };
    let authorization = basic(SERVER_USER, &token.password);
    let connector = trusted.patient();
    let mut candidate = choose(config, data, token)?;
    loop {
        let body = body(config, &candidate, password)?;
        let asked = connector
            .ask(&server, "POST", "/v1-k3sup/join", Some(&authorization), body.expose().as_bytes())
            .await;
        match verdict(asked) {
            Verdict::Joined(answer) => {
                let answer: JoinAnswer = answer
                    .json()
                    .map_err(|source| JoinError::Answer { server: server.clone(), source })?;
                return settle(data, token, candidate, answer);
            }
            Verdict::Again(message) => {
                tracing::info!(
                    "Waiting for other members to finish joining etcd cluster: {message}"
                );
                tokio::time::sleep(RETRY_INTERVAL).await;
            }
            Verdict::Gone(message) => {
                tracing::info!("{message}; joining under a new number");
                forget(data)?;
                candidate = choose(config, data, token)?;
            }
            Verdict::Refused(message) => return Err(JoinError::Refused { server, message }),
        }
    }
}

enum Verdict {
    Joined(Answer),
    Again(String),
    Gone(String),
    Refused(String),
}

fn verdict(asked: Result<Answer, HttpError>) -> Verdict {
    match asked {
        Ok(answer) if answer.status == 200 => Verdict::Joined(answer),
        Ok(answer) if answer.status == 410 => Verdict::Gone(answer.text()),
        Ok(answer) if answer.status >= 500 => Verdict::Again(answer.text()),
        Ok(answer) => Verdict::Refused(answer.text()),
        // The name is not in the certificate: waiting does not put it there.
        Err(HttpError::Tls(error)) => Verdict::Refused(format!(
            "TLS: {error}; is the name or address in --server also in --tls-san of the servers?"
        )),
        Err(error) => Verdict::Again(error.to_string()),
    }
}

fn body(
    config: &ServerConfig,
    candidate: &Candidate,
    password: &Secret,
) -> Result<Secret, JoinError> {
    let request = JoinRequest {
        protocol: PROTOCOL,
        about: host::about(&config.node),
        password: Sent(password.clone()),
        member_id: candidate.member_id,
        member_name: candidate.member_name.clone(),
        peer_urls: vec![config.url(PEER_PORT)],
        client_urls: vec![config.url(CLIENT_PORT)],
        supervisor_url: config.supervisor_url(),
        critical: config.critical(),
        agent_token: config.agent_token.as_ref().map(|token| Sent(plain(token))),
    };
    Ok(Secret::new(serde_json::to_string(&request).map_err(io::Error::other)?))
}

/// The secret part of a token in either form.
pub(crate) fn plain(token: &Secret) -> Secret {
    Token::parse(token.expose()).map_or_else(|_| token.clone(), |token| token.password)
}

fn candidate_path(data: &DataDir) -> std::path::PathBuf {
    data.path().join("server/joining.json")
}

/// The candidate on disk if it was chosen for this cluster and node, else a new one.
fn choose(config: &ServerConfig, data: &DataDir, token: &Token) -> Result<Candidate, JoinError> {
    let path = candidate_path(data);
    let known = files::read_private(&path)?
        .and_then(|text| serde_json::from_str::<Candidate>(&text).ok())
        .filter(|known| known.ca_hash == token.ca_hash)
        .filter(|known| known.member_name == member_name(&config.node.name, known.member_id));
    if let Some(known) = known {
        return Ok(known);
    }
    let member_id = random_id()?;
    let member_name = member_name(&config.node.name, member_id);
    let candidate = Candidate { ca_hash: token.ca_hash.clone(), member_id, member_name };
    if let Some(directory) = path.parent() {
        files::private_directory(directory)?;
    }
    let text = serde_json::to_vec(&candidate).map_err(io::Error::other)?;
    files::write_private(&path, &text)?;
    Ok(candidate)
}

fn forget(data: &DataDir) -> io::Result<()> {
    remove_file(&candidate_path(data))
}

/// Writes what the cluster gave: the identity last, because it says that all else is there.
fn settle(
    data: &DataDir,
    token: &Token,
    candidate: Candidate,
    answer: JoinAnswer,
) -> Result<(Identity, Authorities), JoinError> {
    let authorities = Authorities::try_from(answer.authorities)?;
    token.check_ca(authorities.server.certificate()).map_err(TrustError::from)?;
    data.tree().write_authorities(&authorities)?;
    let identity = Identity {
        cluster_id: answer.cluster_id,
        member_id: candidate.member_id,
        member_name: candidate.member_name,
        phase: Phase::Joining,
        supersedes: answer.supersedes,
        restore_id: None,
    };
    files::write_private(&data.token(), format!("{}\n", token.text().expose()).as_bytes())?;
    data.write_identity(&identity)?;
    forget(data)?;
    tracing::info!("Starting etcd to join cluster with members [{}]", answer.members.join(" "));
    Ok((identity, authorities))
}

impl From<crate::pki::TreeError> for JoinError {
    fn from(error: crate::pki::TreeError) -> Self {
        Self::Io(io::Error::other(error))
    }
}
