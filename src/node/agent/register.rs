//! How an agent enters a cluster: with the token the first time, with its certificate afterwards.

use std::time::Duration;

use http::HeaderValue;

use super::files::AgentFiles;
use super::{RETRY_INTERVAL, broken};
use crate::error::{ExitCode, Failure};
use crate::node::config::{AgentConfig, ServerUrl};
use crate::node::host;
use crate::node::http::{Answer, Connector, HttpError, basic};
use crate::node::records::unix_now;
use crate::node::trust::{self, TrustError};
use crate::node::wire::{PROTOCOL, RegisterAnswer, RegisterRequest, Sent, Servers};
use crate::pki::authority::{fresh_key, public_key};
use crate::pki::inspect::Facts;
use crate::pki::token::{AGENT_USER, SERVER_USER};
use crate::pki::tree::RENEW_DAYS;
use crate::pki::{KeyPairPem, PkiError, Token, TokenError, tls};
use crate::secret::Secret;

/// How long one server may take: it hashes and writes.
const TIMEOUT: Duration = Duration::from_secs(15);

/// An agent that is in.
pub(super) struct Entered {
    pub(super) ca: String,
    pub(super) pair: KeyPairPem,
    pub(super) servers: Servers,
}

/// A verified CA, and what the agent shows to its servers.
struct Credentials {
    ca: String,
    connector: Connector,
    /// Tried in order while the answer is that a token is wrong; empty with a certificate.
    authorization: Vec<HeaderValue>,
    /// The certificate is to be for a new key.
    rekey: bool,
}

/// Why one server did not take the agent in.
enum Attempt {
    /// Another server, or the same one later, may.
    Again(String),
    /// None will.
    Final(Failure),
}

impl From<Failure> for Attempt {
    fn from(failure: Failure) -> Self {
        Self::Final(failure)
    }
}

/// Registers at the first of the known servers or the configured one that answers; waits for one as
/// long as it takes. A wrong token, another cluster and a name that is taken are errors.
pub(super) async fn enter(
    config: &AgentConfig,
    files: &AgentFiles,
    known: &[String],
) -> Result<Entered, Failure> {
    let configured = config.node.server.as_ref().map(ServerUrl::authority);
    let mut candidates = known.to_vec();
    candidates.extend(configured.filter(|server| !known.contains(server)));
    let mut tries = 0_u32;
    loop {
        // While it waits the token may be rotated.
        let token = token(config)?;
        let kept = kept(files, token.as_ref())?;
        for authority in &candidates {
            match try_one(config, files, authority, token.as_ref(), kept.as_ref()).await {
                Ok(entered) => return Ok(entered),
                Err(Attempt::Final(failure)) => return Err(failure),
                Err(Attempt::Again(message)) => {
                    if tries.is_multiple_of(10) {
                        tracing::info!("Waiting for {authority}: {message}");
                    }
                }
            }
        }
        tries = tries.wrapping_add(1);
        tokio::time::sleep(RETRY_INTERVAL).await;
    }
}

/// Registers once more with the token, for a node that was deleted while it ran.
pub(super) async fn again(
    config: &AgentConfig,
    files: &AgentFiles,
    ca: &str,
    servers: &[String],
) -> Result<Entered, Failure> {
    let Some(token) = token(config)? else {
        let message = "the cluster does not know this node any more, and there is no token";
        return Err(Failure::new(ExitCode::Error, message).hint("set --token-file"));
    };
    let credentials = by_token(ca.to_owned(), &token).map_err(|error| broken(&error))?;
    at_one_of(config, files, servers, &credentials).await
}

/// Whether the certificate on disk has so few days left that a new one is due.
pub(super) fn is_due(files: &AgentFiles) -> bool {
    files.facts().is_some_and(|facts| facts.days_left(unix_now()) < RENEW_DAYS)
}

/// Registers once more with the certificate, which gives a new one; with a new key when `rekey`.
pub(super) async fn renew(
    config: &AgentConfig,
    files: &AgentFiles,
    servers: &[String],
    rekey: bool,
) -> Result<Entered, Failure> {
    let credentials = kept(files, None)?;
    let mut credentials =
        credentials.ok_or_else(|| Failure::new(ExitCode::Error, "there is no certificate"))?;
    credentials.rekey = rekey;
    at_one_of(config, files, servers, &credentials).await
}

async fn at_one_of(
    config: &AgentConfig,
    files: &AgentFiles,
    servers: &[String],
    credentials: &Credentials,
) -> Result<Entered, Failure> {
    let mut last = Failure::new(ExitCode::Error, "no server is known");
    for authority in servers {
        match send(config, files, authority, credentials).await {
            Ok(entered) => return Ok(entered),
            Err(Attempt::Final(failure)) => return Err(failure),
            Err(Attempt::Again(message)) => last = Failure::new(ExitCode::Error, message),
        }
    }
    Err(last)
}

fn token(config: &AgentConfig) -> Result<Option<Token>, Failure> {
    let token = config.node.token_now().map(|text| Token::parse(text.expose())).transpose();
    token.map_err(|error| Failure::new(ExitCode::BadInput, error.to_string()))
}

/// The CA and certificate of an earlier run, unless the token is for another cluster.
fn kept(files: &AgentFiles, token: Option<&Token>) -> Result<Option<Credentials>, Failure> {
    let ca = files.ca().map_err(|error| broken(&error))?;
    let pair = files.pair().map_err(|error| broken(&error))?;
    let Some((ca, pair)) = ca.zip(pair) else { return Ok(None) };
    // A short token says nothing against a CA that was verified once.
    let wrong = |token: &Token| matches!(token.check_any_ca(&ca), Err(TokenError::WrongCa { .. }));
    let other = token.is_some_and(wrong);
    if other {
        return Ok(None);
    }
    let config = tls::client(&ca, Some(&pair), &[]).map_err(|error| broken(&error))?;
    let connector = Connector::tls(config, TIMEOUT);
    Ok(Some(Credentials { ca, connector, authorization: Vec::new(), rekey: false }))
}

async fn try_one(
    config: &AgentConfig,
    files: &AgentFiles,
    authority: &str,
    token: Option<&Token>,
    kept: Option<&Credentials>,
) -> Result<Entered, Attempt> {
    if let Some(credentials) = kept {
        match send(config, files, authority, credentials).await {
            // The node was deleted, or its certificate is over: the token may still do.
            Err(Attempt::Final(_)) if token.is_some() => {}
            other => return other,
        }
    }
    let Some(token) = token else {
        return Err(Failure::new(ExitCode::BadInput, "--token is required").into());
    };
    let trusted = match trust::establish(authority, token).await {
        Ok(trusted) => trusted,
        Err(error) if error.is_passing() => return Err(Attempt::Again(error.to_string())),
        Err(TrustError::Pin(error)) => {
            let message = format!("{authority}: {error}");
            return Err(Failure::new(ExitCode::BadInput, message).into());
        }
        Err(error) => return Err(broken(&error).into()),
    };
    let credentials = by_token(trusted.ca, token).map_err(|error| broken(&error))?;
    send(config, files, authority, &credentials).await
}

/// A full token says whose it is; the secret of a short one may be the agents' or the servers'.
fn by_token(ca: String, token: &Token) -> Result<Credentials, PkiError> {
    let users: &[&str] = match token.user.as_str() {
        SERVER_USER => &[SERVER_USER],
        AGENT_USER => &[AGENT_USER],
        _ => &[AGENT_USER, SERVER_USER],
    };
    let authorization = users.iter().map(|user| basic(user, &token.password)).collect();
    let connector = Connector::tls(tls::client(&ca, None, &[])?, TIMEOUT);
    Ok(Credentials { ca, connector, authorization, rekey: false })
}

async fn send(
    config: &AgentConfig,
    files: &AgentFiles,
    authority: &str,
    credentials: &Credentials,
) -> Result<Entered, Attempt> {
    let (key, public_key) =
        if credentials.rekey { fresh_key().map_err(|error| broken(&error))? } else { key(files)? };
    let request = RegisterRequest {
        protocol: PROTOCOL,
        about: host::about(&config.node),
        password: Sent(host::node_password(&files.password)?),
        public_key,
    };
    let body = Secret::new(serde_json::to_string(&request).map_err(|error| broken(&error))?);
    let answer = match ask(authority, credentials, &body).await {
        Ok(answer) if answer.status == 200 => answer,
        Ok(answer) if answer.status >= 500 => return Err(Attempt::Again(answer.text())),
        Ok(answer) => {
            let message = format!("{authority} refuses: {}", answer.text());
            return Err(Failure::new(ExitCode::Error, message).into());
        }
        Err(error) => return Err(Attempt::Again(error.to_string())),
    };
    let answer: RegisterAnswer = answer.json().map_err(|error| broken(&error))?;
    let pair = KeyPairPem { certificate: answer.certificate, key };
    // It came over a connection that the CA known so far vouches for.
    let ca = Some(answer.ca).filter(|ca| !ca.is_empty()).unwrap_or_else(|| credentials.ca.clone());
    files.keep(&ca, &pair).map_err(|error| broken(&error))?;
    Ok(Entered { ca, pair, servers: answer.servers })
}

async fn ask(
    authority: &str,
    credentials: &Credentials,
    body: &Secret,
) -> Result<Answer, HttpError> {
    let body = body.expose().as_bytes();
    let post = async |value| {
        credentials.connector.ask(authority, "POST", "/v1-k3sup/register", value, body).await
    };
    let Some((last, others)) = credentials.authorization.split_last() else {
        return post(None).await;
    };
    for value in others {
        let answer = post(Some(value)).await?;
        if answer.status != 401 {
            return Ok(answer);
        }
    }
    post(Some(last)).await
}

/// The key on disk while its certificate lasts, else a new one; with its public half.
fn key(files: &AgentFiles) -> Result<(Secret, String), Failure> {
    let pair = files.pair().map_err(|error| broken(&error))?;
    let lasts = |pair: &KeyPairPem| {
        let facts = Facts::from_pem(&pair.certificate);
        facts.is_ok_and(|facts| facts.days_left(unix_now()) >= RENEW_DAYS)
    };
    if let Some(pair) = pair.filter(lasts)
        && let Ok(public) = public_key(&pair.key)
    {
        return Ok((pair.key, public));
    }
    fresh_key().map_err(|error| broken(&error))
}
