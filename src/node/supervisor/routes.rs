//! Paths and what answers them.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{DefaultBodyLimit, Extension, Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use axum::{Json, Router};
use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use serde::de::DeserializeOwned;

use super::super::context::Context;
use super::super::records::unix_now;
use super::super::snapshots::{self, keeper::KeepError};
use super::super::view;
use super::caller::{Caller, Origin, identify};
use super::{join, nodes, rotation};

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
        .route("/v1-k3sup/leader-hand-over", post(leader_hand_over))
        .route("/v1-k3sup/node-delete", post(node_delete))
        .route("/v1-k3sup/certificate-rotate", post(certificate_rotate))
        .route("/v1-k3sup/token", put(token_rotate))
        .route("/v1-k3sup/ca", get(ca_standing).post(ca_step))
        .route("/v1-k3sup/ca-next", get(ca_next))
        .layer(middleware::from_fn_with_state(Arc::clone(&context), authenticate));
    // A large store takes longer than other requests may: S3's own time-out ends it.
    let patient = Router::new()
        .route("/db/snapshot", post(snapshot))
        .layer(middleware::from_fn_with_state(Arc::clone(&context), authenticate))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX));
    Router::new()
        .route("/cacerts", get(cacerts))
        .route("/ping", get(async || "pong"))
        .route("/livez", get(async || "ok"))
        .route("/readyz", get(readyz))
        .merge(known)
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(middleware::from_fn(limit_time))
        .merge(patient)
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
    context.keys.authorities().server.certificate().to_owned()
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

async fn snapshot(
    State(context): Shared,
    Extension(caller): Extension<Caller>,
    Extension(origin): Extension<Origin>,
    bytes: Bytes,
) -> Answer<serde_json::Value> {
    allow(caller.administers())?;
    let Some(keeper) = &context.snapshots else {
        let message = "this server takes no snapshots";
        return Err(Refusal::new(StatusCode::NOT_IMPLEMENTED, message));
    };
    let _long = origin.patience.take();
    let status = context.consensus.status().borrow().clone();
    let done = snapshots::api::answer(keeper, body(&bytes)?, &status).await;
    done.map(Json).map_err(|error| {
        let status = match &error {
            KeepError::Request(_) | KeepError::Learner => StatusCode::BAD_REQUEST,
            KeepError::Busy => StatusCode::CONFLICT,
            KeepError::NoRoom { .. } => StatusCode::INSUFFICIENT_STORAGE,
            KeepError::Disk(_) | KeepError::Wrong(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Refusal::new(status, error.to_string())
    })
}

async fn member_remove(
    State(context): Shared,
    Extension(caller): Extension<Caller>,
    bytes: Bytes,
) -> Answer<()> {
    allow(caller.administers())?;
    nodes::remove_member(&context, body(&bytes)?).await.map(Json)
}

async fn leader_hand_over(
    State(context): Shared,
    Extension(caller): Extension<Caller>,
) -> Answer<()> {
    allow(caller.administers())?;
    nodes::hand_over(&context).await.map(Json)
}

async fn node_delete(
    State(context): Shared,
    Extension(caller): Extension<Caller>,
    bytes: Bytes,
) -> Answer<()> {
    allow(caller.administers())?;
    nodes::delete_node(&context, body(&bytes)?).await.map(Json)
}

async fn certificate_rotate(
    State(context): Shared,
    Extension(caller): Extension<Caller>,
) -> Answer<()> {
    allow(caller.administers())?;
    rotation::certificates(&context).await.map(Json)
}

async fn token_rotate(
    State(context): Shared,
    Extension(caller): Extension<Caller>,
    bytes: Bytes,
) -> Answer<()> {
    allow(caller.administers())?;
    rotation::token(&context, body(&bytes)?).await.map(Json)
}

async fn ca_standing(
    State(context): Shared,
    Extension(caller): Extension<Caller>,
) -> Answer<super::super::keys::Standing> {
    allow(caller.reads())?;
    rotation::standing(&context).map(Json)
}

/// CAs with their keys: for servers, which have such keys anyway.
async fn ca_next(
    State(context): Shared,
    Extension(caller): Extension<Caller>,
) -> Answer<super::super::wire::SentAuthorities> {
    allow(matches!(caller, Caller::Server | Caller::ServerToken))?;
    rotation::upcoming(&context).map(Json)
}

async fn ca_step(
    State(context): Shared,
    Extension(caller): Extension<Caller>,
    bytes: Bytes,
) -> Answer<super::super::keys::Standing> {
    allow(caller.administers())?;
    let step: rotation::CaStep = body(&bytes)?;
    rotation::step(&context, step.stage).await.map(Json)
}
