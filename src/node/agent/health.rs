//! The agent's health endpoint: plain HTTP on loopback. `/readyz` and `/livez` are for anybody on
//! the host, `/v1-k3sup/status` for who can read the secret in the data directory.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use http::{HeaderMap, StatusCode, header};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::Shared;
use crate::cluster::view::{CertificateView, ClusterView};
use crate::error::{ExitCode, Failure};
use crate::pki::token::{ca_hash, split};
use crate::secret::Secret;

/// How long a connection may live.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(30);

/// Connections at once.
const CONNECTIONS_MAX: usize = 32;

pub(super) async fn bind(address: SocketAddr) -> Result<TcpListener, Failure> {
    TcpListener::bind(address).await.map_err(|error| {
        Failure::new(ExitCode::Error, format!("cannot listen on {address}: {error}"))
    })
}

pub(super) async fn serve(listener: TcpListener, shared: Arc<Shared>, stop: CancellationToken) {
    let router = Router::new()
        .route("/livez", get(async || "ok"))
        .route("/readyz", get(readyz))
        .route("/v1-k3sup/status", get(status))
        .route("/v1-k3sup/certificate-rotate", post(rotate))
        .with_state(shared);
    let connections = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(permit) = Arc::clone(&connections).acquire_owned().await else { return };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => return,
        };
        let Ok((stream, _)) = accepted else {
            // Out of file descriptors, for example: others may be freed soon.
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let service = TowerToHyperService::new(router.clone());
        tokio::spawn(async move {
            let _permit = permit;
            let mut builder = auto::Builder::new(TokioExecutor::new());
            builder.http1().timer(TokioTimer::new()).header_read_timeout(CONNECTION_TIMEOUT);
            let connection = builder.serve_connection(TokioIo::new(stream), service);
            if let Ok(Err(error)) = timeout(CONNECTION_TIMEOUT, connection).await {
                tracing::debug!(%error, "a health connection ended");
            }
        });
    }
}

async fn readyz(State(shared): State<Arc<Shared>>) -> Response {
    match shared.standing() {
        Ok(()) => "ok".into_response(),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, reason).into_response(),
    }
}

/// Whether the caller can read the secret in the data directory.
fn is_local(shared: &Shared, headers: &HeaderMap) -> bool {
    let offered = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.strip_prefix("Bearer "));
    offered.map(Secret::from).as_ref() == Some(&shared.files.local_token)
}

fn stranger() -> Response {
    (StatusCode::UNAUTHORIZED, "the local token is needed").into_response()
}

async fn status(State(shared): State<Arc<Shared>>, headers: HeaderMap) -> Response {
    if !is_local(&shared, &headers) {
        return stranger();
    }
    axum::Json(view(&shared).await).into_response()
}

async fn rotate(State(shared): State<Arc<Shared>>, headers: HeaderMap) -> Response {
    if !is_local(&shared, &headers) {
        return stranger();
    }
    match shared.certify(true).await {
        Ok(()) => axum::Json(()).into_response(),
        Err(failure) => (StatusCode::SERVICE_UNAVAILABLE, failure.message).into_response(),
    }
}

/// The cluster as a server sees it, with this node's own standing.
async fn view(shared: &Shared) -> ClusterView {
    let answer = shared.ask("GET", "/v1-k3sup/status").await;
    let told = answer.ok().filter(|answer| answer.status == 200);
    let told = told.and_then(|answer| answer.json::<ClusterView>().ok());
    let standing = match &told {
        Some(_) => shared.standing(),
        None => Err("no server answers".to_owned()),
    };
    let certificate = shared.files.facts().map(|facts| CertificateView {
        file: "agent/client.crt".to_owned(),
        subject: facts.common_name,
        issuer: facts.issuer,
        not_after_unix_s: facts.not_after_unix_s,
    });
    ClusterView {
        member_id: String::new(),
        node_name: shared.config.node.name.clone(),
        ready: standing.is_ok(),
        not_ready_reason: standing.err(),
        ca_hash: split(&shared.ca.lock()).first().map(|ca| ca_hash(ca)).unwrap_or_default(),
        certificates: certificate.into_iter().collect(),
        ..told.unwrap_or_default()
    }
}
