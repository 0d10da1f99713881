//! Who calls, and what that caller may do.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, StatusCode, header};
use zeroize::Zeroizing;

use super::super::context::Context;
use super::super::secrets;
use super::routes::Refusal;
use crate::pki::inspect::Facts;
use crate::pki::token::{AGENT_USER, SERVER_USER};
use crate::pki::tree::{ADMIN_GROUP, NODE_GROUP, NODE_PREFIX, SERVER_GROUP};
use crate::secret::Secret;

/// Where a request came from.
#[derive(Clone, Debug)]
pub(super) struct Origin {
    /// The address.
    pub(super) source: IpAddr,
    /// The client certificate, verified by TLS.
    pub(super) certificate: Option<Arc<Facts>>,
    /// Asks that the connection be left open.
    pub(super) patience: Patience,
}

/// Requests under way for which their connection stays open longer than usual.
#[derive(Clone, Debug, Default)]
pub(super) struct Patience(Arc<AtomicUsize>);

/// One of them.
#[derive(Debug)]
pub(super) struct Taken(Arc<AtomicUsize>);

impl Patience {
    /// Another one, until what this gives is dropped.
    pub(super) fn take(&self) -> Taken {
        self.0.fetch_add(1, Ordering::Relaxed);
        Taken(Arc::clone(&self.0))
    }

    /// Whether there is one.
    pub(super) fn is_taken(&self) -> bool {
        self.0.load(Ordering::Relaxed) > 0
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Who calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Caller {
    /// Nobody in particular.
    Anonymous,
    /// The administrator's certificate.
    Admin,
    /// Another server's certificate.
    Server,
    /// An agent's certificate, of this node.
    Node(String),
    /// The token that admits servers and agents.
    ServerToken,
    /// The token that admits agents only.
    AgentToken,
}

impl Caller {
    /// May change members and nodes.
    pub(super) fn administers(&self) -> bool {
        matches!(self, Self::Admin | Self::ServerToken)
    }

    /// May read how the cluster stands.
    pub(super) fn reads(&self) -> bool {
        !matches!(self, Self::Anonymous | Self::AgentToken)
    }
}

/// Finds out who calls. A wrong secret is an error, and its answer late; none is anonymous.
pub(super) async fn identify(
    context: &Arc<Context>,
    origin: &Origin,
    headers: &HeaderMap,
) -> Result<Caller, Refusal> {
    if let Some(caller) = origin.certificate.as_deref().and_then(by_certificate) {
        return Ok(caller);
    }
    let Some(value) = headers.get(header::AUTHORIZATION) else { return Ok(Caller::Anonymous) };
    let Some((user, password)) = value.to_str().ok().and_then(basic) else {
        return Err(denied(context, origin).await);
    };
    let Some(settings) = context.records.settings() else {
        let message = "the cluster has not written its settings yet";
        return Err(Refusal::new(StatusCode::SERVICE_UNAVAILABLE, message));
    };
    // Hashing takes milliseconds: not on a thread that others wait for.
    let found = tokio::task::spawn_blocking(move || {
        let is_server = secrets::matches(&settings.server_secret, &password);
        let agent = settings.agent_secret.as_ref();
        match user.as_str() {
            SERVER_USER if is_server => Some(Caller::ServerToken),
            AGENT_USER if agent.is_none() && is_server => Some(Caller::AgentToken),
            AGENT_USER if agent.is_some_and(|hash| secrets::matches(hash, &password)) => {
                Some(Caller::AgentToken)
            }
            _ => None,
        }
    });
    match found.await.ok().flatten() {
        Some(caller) => {
            context.guard.succeeded(origin.source);
            Ok(caller)
        }
        None => Err(denied(context, origin).await),
    }
}

async fn denied(context: &Context, origin: &Origin) -> Refusal {
    let delay = context.guard.failed(origin.source, Instant::now());
    tracing::warn!(source = %origin.source, "a wrong token was offered");
    tokio::time::sleep(delay).await;
    Refusal::new(StatusCode::UNAUTHORIZED, "the token is not valid for this cluster")
}

fn by_certificate(facts: &Facts) -> Option<Caller> {
    match facts.organization.as_str() {
        ADMIN_GROUP => Some(Caller::Admin),
        SERVER_GROUP => Some(Caller::Server),
        NODE_GROUP => {
            facts.common_name.strip_prefix(NODE_PREFIX).map(|name| Caller::Node(name.to_owned()))
        }
        _ => None,
    }
}

fn basic(value: &str) -> Option<(String, Secret)> {
    let encoded = value.strip_prefix("Basic ")?;
    let decoded = Zeroizing::new(STANDARD.decode(encoded.trim()).ok()?);
    let (user, password) = std::str::from_utf8(&decoded).ok()?.split_once(':')?;
    Some((user.to_owned(), Secret::new(password)))
}
