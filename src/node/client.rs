//! Asks the node of this host: for the executor and for commands run on a host.
//!
//! A server is asked over TLS with the administrator's certificate from its data directory, and
//! believed only when its certificate is from the CA there. An agent is asked on its loopback
//! health port with the secret from its data directory.

use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use super::http::{Answer, Connector, HttpError};
use super::identity::DataDir;
use super::keys::Standing;
use super::snapshots::api::SnapshotRequest;
use super::supervisor::rotation::{CaStep, Stage, TokenRotate};
use super::wire::Sent;
use crate::cluster::view::{ClusterView, DiskView};
use crate::pki::{KeyPairPem, PkiError, Tree, files, tls};
use crate::secret::Secret;

/// How long one question may take.
const ASK_TIMEOUT: Duration = Duration::from_secs(5);

/// How often readiness is asked for while waiting.
const POLL_INTERVAL: Duration = Duration::from_millis(200);

/// Name of the file with the secret of an agent's health endpoint, under `agent/`.
pub(crate) const LOCAL_TOKEN_FILE: &str = "local-token";

/// Why the local node could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The data directory has no credentials, or they cannot be read.
    #[error("cannot read the node's credentials: {0}")]
    Credentials(#[from] io::Error),
    /// They are there and wrong.
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// It did not answer as it should.
    #[error("{supervisor}: {source}")]
    Http {
        /// Who was asked.
        supervisor: String,
        /// Why.
        source: HttpError,
    },
    /// It refused.
    #[error("{supervisor} answers {status}: {message}")]
    Refused {
        /// Who was asked.
        supervisor: String,
        /// HTTP status.
        status: u16,
        /// Its words.
        message: String,
    },
}

/// What a data directory says about its member; `None` when there is no data. Needs no running
/// node and no lock.
pub fn disk_view(data_dir: &Path) -> io::Result<Option<DiskView>> {
    DataDir::new(data_dir).view()
}

/// The cluster as the local node sees it; `None` when no node answers at `supervisor`
/// (`address:port`, of a server's supervisor or of an agent's health endpoint).
pub async fn cluster_view(
    data_dir: &Path,
    supervisor: &str,
) -> Result<Option<ClusterView>, ClientError> {
    let Some(door) = Door::open(data_dir, supervisor)? else { return Ok(None) };
    let answer = match door.ask("GET", "/v1-k3sup/status", &[]).await {
        Err(HttpError::Connect(_)) => return Ok(None),
        other => other.map_err(|source| door.failed(source))?,
    };
    let answer = door.accepted(answer)?;
    answer.json().map(Some).map_err(|source| door.failed(source))
}

/// The local server's counters, asked on its client API at `authority` (`address:port`); `None` when
/// nothing answers there.
pub async fn metrics(data_dir: &Path, authority: &str) -> Result<Option<String>, ClientError> {
    let Some(door) = Door::open(data_dir, authority)? else { return Ok(None) };
    let answer = match door.ask("GET", "/metrics", &[]).await {
        Err(HttpError::Connect(_)) => return Ok(None),
        other => other.map_err(|source| door.failed(source))?,
    };
    door.accepted(answer).map(|answer| Some(answer.text()))
}

/// Waits until the local node is ready or `timeout` is over: then says why it is not.
pub async fn ready(data_dir: &Path, supervisor: &str, timeout: Duration) -> Result<(), String> {
    let end = Instant::now() + timeout;
    loop {
        let reason = match cluster_view(data_dir, supervisor).await {
            Ok(Some(view)) if view.ready => return Ok(()),
            Ok(Some(view)) => view.not_ready_reason.unwrap_or_else(|| "it gives no reason".into()),
            Ok(None) => format!("nothing answers at {supervisor}"),
            Err(error) => error.to_string(),
        };
        if Instant::now() + POLL_INTERVAL > end {
            return Err(reason);
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

/// Removes a member (number in hex) from the local node's cluster. One that is not there is fine.
pub async fn remove_member(
    data_dir: &Path,
    supervisor: &str,
    member_id: &str,
) -> Result<(), ClientError> {
    let body = serde_json::json!({ "member_id": member_id });
    post(data_dir, supervisor, "/v1-k3sup/member-remove", &body).await
}

/// Lets another voter lead, if the local server does. A server of a version that does not know the
/// question hands over when it stops: that is no error here.
pub async fn hand_over(data_dir: &Path, supervisor: &str) -> Result<(), ClientError> {
    match post(data_dir, supervisor, "/v1-k3sup/leader-hand-over", &serde_json::json!({})).await {
        Err(ClientError::Refused { status: 404, .. }) => Ok(()),
        other => other,
    }
}

/// Deletes a node's record, and with it the claim on its name. One that is not there is fine.
pub async fn delete_node(data_dir: &Path, supervisor: &str, name: &str) -> Result<(), ClientError> {
    let body = serde_json::json!({ "name": name });
    post(data_dir, supervisor, "/v1-k3sup/node-delete", &body).await
}

/// Asks the server at `supervisor` for something about its snapshots; gives its answer as JSON.
pub async fn snapshot(
    data_dir: &Path,
    supervisor: &str,
    request: &SnapshotRequest,
    timeout: Duration,
) -> Result<serde_json::Value, ClientError> {
    let Some(door) = Door::open_for(data_dir, supervisor, timeout)? else {
        let missing = io::Error::new(io::ErrorKind::NotFound, "no server was ever started there");
        return Err(ClientError::Credentials(missing));
    };
    let body = serde_json::to_vec(request).map_err(io::Error::other)?;
    let answer = door.ask("POST", "/db/snapshot", &body).await;
    let answer = door.accepted(answer.map_err(|source| door.failed(source))?)?;
    answer.json().map_err(|source| door.failed(source))
}

/// Makes all certificates of the local node anew.
pub async fn rotate_certificates(data_dir: &Path, supervisor: &str) -> Result<(), ClientError> {
    let nothing = serde_json::json!({});
    post(data_dir, supervisor, "/v1-k3sup/certificate-rotate", &nothing).await
}

/// Makes `token` the cluster's, and the old one worth nothing.
pub async fn rotate_token(
    data_dir: &Path,
    supervisor: &str,
    token: &Secret,
) -> Result<(), ClientError> {
    let request = TokenRotate { new_token: Sent(token.clone()) };
    let body = serde_json::to_value(&request).map_err(io::Error::other)?;
    send("PUT", data_dir, supervisor, "/v1-k3sup/token", &body).await.map(drop)
}

/// Takes a stage of a CA roll-over on the local server, and says how far it is.
pub async fn roll_ca(
    data_dir: &Path,
    supervisor: &str,
    stage: Stage,
) -> Result<Standing, ClientError> {
    let body = serde_json::to_value(CaStep { stage }).map_err(io::Error::other)?;
    let answer = send("POST", data_dir, supervisor, "/v1-k3sup/ca", &body).await?;
    let failed = |source| ClientError::Http { supervisor: supervisor.to_owned(), source };
    answer.json().map_err(failed)
}

/// The CAs of servers that are believed; a data directory of an older version has one.
fn believed(tree: &Tree) -> io::Result<Option<String>> {
    match files::read_private(&tree.believed_path())? {
        Some(bundle) => Ok(Some(bundle)),
        None => files::read_private(&tree.server_ca_path()),
    }
}

async fn post(
    data_dir: &Path,
    supervisor: &str,
    path: &str,
    body: &serde_json::Value,
) -> Result<(), ClientError> {
    send("POST", data_dir, supervisor, path, body).await.map(drop)
}

async fn send(
    method: &str,
    data_dir: &Path,
    supervisor: &str,
    path: &str,
    body: &serde_json::Value,
) -> Result<Answer, ClientError> {
    let Some(door) = Door::open(data_dir, supervisor)? else {
        let missing = io::Error::new(io::ErrorKind::NotFound, "no node was ever started there");
        return Err(ClientError::Credentials(missing));
    };
    let body = zeroize::Zeroizing::new(body.to_string());
    let answer = door.ask(method, path, body.as_bytes()).await;
    door.accepted(answer.map_err(|source| door.failed(source))?)
}

/// A way to the local node, with what it takes to be let in.
struct Door {
    connector: Connector,
    supervisor: String,
    bearer: Option<Secret>,
}

impl Door {
    /// `None` when the data directory has credentials of neither a server nor an agent.
    fn open(data_dir: &Path, supervisor: &str) -> Result<Option<Self>, ClientError> {
        Self::open_for(data_dir, supervisor, ASK_TIMEOUT)
    }

    /// The same, where a question may take longer than usual.
    fn open_for(
        data_dir: &Path,
        supervisor: &str,
        timeout: Duration,
    ) -> Result<Option<Self>, ClientError> {
        let data = DataDir::new(data_dir);
        let tree = data.tree();
        let (certificate, key) = tree.admin_paths();
        let supervisor = supervisor.to_owned();
        if let Some(certificate) = files::read_private(&certificate)?
            && let Some(key) = files::read_private(&key)?
            && let Some(ca) = believed(&tree)?
        {
            let pair = KeyPairPem { certificate, key: Secret::new(key) };
            let connector = Connector::tls(tls::client(&ca, Some(&pair), &[])?, timeout);
            return Ok(Some(Self { connector, supervisor, bearer: None }));
        }
        let token = files::read_private(&data.agent().join(LOCAL_TOKEN_FILE))?;
        Ok(token.map(|token| Self {
            connector: Connector::plain(timeout),
            supervisor,
            bearer: Some(Secret::new(token.trim())),
        }))
    }

    async fn ask(&self, method: &str, path: &str, body: &[u8]) -> Result<Answer, HttpError> {
        let authorization = self.bearer.as_ref().map(super::http::bearer);
        self.connector.ask(&self.supervisor, method, path, authorization.as_ref(), body).await
    }

    fn accepted(&self, answer: Answer) -> Result<Answer, ClientError> {
        if answer.status < 300 {
            return Ok(answer);
        }
        Err(ClientError::Refused {
            supervisor: self.supervisor.clone(),
            status: answer.status,
            message: answer.text(),
        })
    }

    fn failed(&self, source: HttpError) -> ClientError {
        ClientError::Http { supervisor: self.supervisor.clone(), source }
    }
}
