//! Paths and what answers them.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{DefaultBodyLimit, Extension, Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use serde::de::DeserializeOwned;

use super::super::context::Context;
use super::super::records::unix_now;
use super::super::view;
use super::caller::{Caller, Origin, identify};
use super::{join, nodes};

/// Largest request body, in bytes.
const BODY_BYTES_MAX: usize = 256 * 1024;

/// How long a request may take in all.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);

/// A request that is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    pub(super) message: String,
}

impl Refusal {
    pub(super) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into() }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.status, format!("{}\n", self.message)).into_response()
    }
}

type Shared = State<Arc<Context>>;
type Answer<T> = Result<Json<T>, Refusal>;

/// All paths.
pub(super) fn router(context: Arc<Context>) -> Router {
    let known = Router::new()
        .route("/v1-k3sup/config", get(config))
        .route("/v1-k3sup/status", get(status))
        .route("/v1-k3sup/members", get(members))
        .route("/v1-k3sup/nodes", get(node_list))
        .route("/v1-k3sup/self", get(own))
        .route("/v1-k3sup/join", post(join_server))
        .route("/v1-k3sup/register", post(register))
        .route("/v1-k3sup/heartbeat", post(heartbeat))
        .route("/v1-k3sup/member-remove", post(member_remove))
        .route("/v1-k3sup/node-delete", post(node_delete))
        .layer(middleware::from_fn_with_state(Arc::clone(&context), authenticate));
    Router::new()
        .route("/cacerts", get(cacerts))
        .route("/ping", get(async || "pong"))
        .route("/livez", get(async || "ok"))
        .route("/readyz", get(readyz))
        .merge(known)
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(middleware::from_fn(limit_time))
        .with_state(context)
}

async fn limit_time(request: Request, next: Next) -> Response {
    match tokio::time::timeout(REQUEST_TIMEOUT, next.run(request)).await {
        Ok(response) => response,
        Err(_) => Refusal::new(StatusCode::GATEWAY_TIMEOUT, "it took too long").into_response(),
    }
}

async fn authenticate(
    State(context): Shared,
    Extension(origin): Extension<Origin>,
    headers: HeaderMap,
    mut request: Request,
    next: Next,
) -> Response {
    match identify(&context, &origin, &headers).await {
        Ok(Caller::Anonymous) => {
            Refusal::new(StatusCode::UNAUTHORIZED, "a client certificate or a token is needed")
                .into_response()
        }
        Ok(caller) => {
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Err(refusal) => refusal.into_response(),
    }
}

fn allow(allowed: bool) -> Result<(), Refusal> {
    let refused = || Refusal::new(StatusCode::FORBIDDEN, "not with these credentials");
    if allowed { Ok(()) } else { Err(refused()) }
}

fn body<T: DeserializeOwned>(bytes: &Bytes) -> Result<T, Refusal> {
    // The parser's message may quote what it read, and that may be a secret: only where it is said.
    serde_json::from_slice(bytes).map_err(|error| {
        let place = format!("line {} column {}", error.line(), error.column());
        Refusal::new(StatusCode::BAD_REQUEST, format!("the request cannot be read at {place}"))
    })
}

async fn cacerts(State(context): Shared) -> String {
    context.authorities.server.certificate().to_owned()
}

async fn readyz(State(context): Shared) -> Response {
    match context.ready().await {
        Ok(()) => "ok".into_response(),
        Err(reason) => Refusal::new(StatusCode::SERVICE_UNAVAILABLE, reason).into_response(),
    }
}

async fn config(State(context): Shared) -> Answer<Vec<(String, String)>> {
    Ok(Json(context.records.settings().unwrap_or_default().critical))
}

async fn status(
    State(context): Shared,
    Extension(caller): Extension<Caller>,
) -> Answer<crate::cluster::view::ClusterView> {
    allow(caller.reads())?;
    Ok(Json(view::cluster(&context).await))
}

async fn members(
    State(context): Shared,
    Extension(caller): Extension<Caller>,
) -> Answer<Vec<crate::cluster::view::MemberView>> {
    allow(caller.reads())?;
    Ok(Json(view::members(&context).await))
}

async fn node_list(
    State(context): Shared,
    Extension(caller): Extension<Caller>,
) -> Answer<Vec<crate::cluster::view::NodeView>> {
    allow(caller.reads())?;
    Ok(Json(context.records.views(unix_now())))
}

async fn own(
    State(context): Shared,
    Extension(caller): Extension<Caller>,
) -> Answer<super::super::wire::MemberSelf> {
    allow(caller.reads())?;
    Ok(Json(view::own(&context)))
}

async fn join_server(
    State(context): Shared,
    Extension(caller): Extension<Caller>,
    bytes: Bytes,
) -> Answer<super::super::wire::JoinAnswer> {
    allow(caller == Caller::ServerToken)?;
    join::admit(&context, body(&bytes)?).await.map(Json)
}

async fn register(
    State(context): Shared,
    Extension(caller): Extension<Caller>,
    bytes: Bytes,
) -> Answer<super::super::wire::RegisterAnswer> {
    nodes::register(&context, &caller, body(&bytes)?).await.map(Json)
}

async fn heartbeat(
    State(context): Shared,
    Extension(caller): Extension<Caller>,
) -> Answer<super::super::wire::Servers> {
    nodes::heartbeat(&context, &caller).map(Json)
}

async fn member_remove(
    State(context): Shared,
    Extension(caller): Extension<Caller>,
    bytes: Bytes,
) -> Answer<()> {
    allow(caller.administers())?;
    nodes::remove_member(&context, body(&bytes)?).await.map(Json)
}

async fn node_delete(
    State(context): Shared,
    Extension(caller): Extension<Caller>,
    bytes: Bytes,
) -> Answer<()> {
    allow(caller.administers())?;
    nodes::delete_node(&context, body(&bytes)?).await.map(Json)
}
