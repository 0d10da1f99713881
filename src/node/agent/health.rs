//! The agent's health endpoint: plain HTTP, for probes and for this host's own commands.
//!
//! `/readyz` and `/livez` are for anybody; `/v1-k3sup/status` wants the secret that only those who
//! may read the data directory know.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use tokio::net::TcpListener;

use super::super::client::LOCAL_TOKEN_FILE;
use super::super::identity::DataDir;
use super::failed;
use crate::cluster::view::ClusterView;
use crate::error::Failure;
use crate::pki::files;
use crate::pki::token::generate_password;
use crate::secret::Secret;

type Viewer = Arc<dyn Fn() -> ClusterView + Send + Sync>;

/// The secret of the endpoint: made at first, kept.
pub(super) fn local_token(data: &DataDir) -> Result<Secret, Failure> {
    let path = data.agent().join(LOCAL_TOKEN_FILE);
    if let Some(token) = files::read_private(&path).map_err(|error| failed(&error))? {
        return Ok(Secret::new(token.trim()));
    }
    let token = generate_password().map_err(|error| failed(&error))?;
    files::write_private(&path, token.expose().as_bytes()).map_err(|error| failed(&error))?;
    Ok(token)
}

/// Answers until the process ends.
pub(super) async fn serve(
    listener: TcpListener,
    token: Secret,
    view: impl Fn() -> ClusterView + Send + Sync + 'static,
) {
    let view: Viewer = Arc::new(view);
    let router = Router::new()
        .route("/livez", get(|| async { "ok" }))
        .route("/readyz", get(readyz))
        .route("/v1-k3sup/status", get(status))
        .with_state((view, Arc::new(token)));
    if let Err(error) = axum::serve(listener, router).await {
        tracing::error!(%error, "the health endpoint ended");
    }
}

async fn readyz(State((view, _)): State<(Viewer, Arc<Secret>)>) -> Response {
    let view = view();
    match view.not_ready_reason {
        None => "ok".into_response(),
        // The reason names servers: only for who may see the status.
        Some(_) => (StatusCode::SERVICE_UNAVAILABLE, "not ready").into_response(),
    }
}

async fn status(
    State((view, token)): State<(Viewer, Arc<Secret>)>,
    headers: HeaderMap,
) -> Response {
    let given = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let given = given.and_then(|value| value.strip_prefix("Bearer ")).map(Secret::new);
    if given.is_some_and(|given| given == *token) {
        Json(view()).into_response()
    } else {
        StatusCode::UNAUTHORIZED.into_response()
    }
}
