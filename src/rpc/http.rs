//! What is asked over plain HTTP: health, readiness, version and metrics, with etcd's paths, bodies
//! and status codes (etcd `server/etcdserver/api/etcdhttp`).

use std::fmt::Write;
use std::time::Duration;

use axum::extract::{RawQuery, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, any, get};
use axum::{Json, Router};
use serde_json::json;

use super::ETCD_API_VERSION;
use super::downgrade::cluster_version;
use super::errors::ApiError;
use super::member::Member;
use crate::store::types::{AlarmKind, KeyRange, RangeQuery};

/// Routes over a member.
pub(crate) fn router(member: Member) -> Router {
    observation(member)
}

/// Routes that show how the member is, and nothing of what it holds.
pub(crate) fn observation(member: Member) -> Router {
    let router = Router::new()
        .route("/health", only(get(health)))
        .route("/version", only(get(version)))
        .route("/metrics", any(metrics))
        .fallback(async || (StatusCode::NOT_FOUND, "404 page not found\n"));
    probes(probes(router, "livez", &LIVEZ), "readyz", &READYZ).with_state(member)
}

/// Refuses every method but GET, HEAD too, as etcd does.
fn only(get: MethodRouter<Member>) -> MethodRouter<Member> {
    let refused = async || {
        let headers = [(header::ALLOW, "GET"), (header::X_CONTENT_TYPE_OPTIONS, "nosniff")];
        (StatusCode::METHOD_NOT_ALLOWED, headers, "Method Not Allowed\n")
    };
    get.head(refused).fallback(refused)
}

/// A path for all checks, and below it one for each.
fn probes(router: Router<Member>, page: &'static str, all: &'static [Check]) -> Router<Member> {
    let every = get(async move |State(member): State<Member>, RawQuery(query)| {
        checks(&member, page, all, query).await
    });
    all.iter().fold(router.route(&format!("/{page}"), only(every)), |router, check| {
        let alone = get(async move |State(member): State<Member>, RawQuery(query): RawQuery| {
            run(&member, page, &[*check], query.as_deref()).await
        });
        router.route(&format!("/{page}/{}", check.name()), only(alone))
    })
}

/// A thing that is checked by itself.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Check {
    DataCorruption,
    SerializableRead,
    LinearizableRead,
    NonLearner,
}

const LIVEZ: [Check; 1] = [Check::SerializableRead];
const READYZ: [Check; 4] =
    [Check::DataCorruption, Check::SerializableRead, Check::LinearizableRead, Check::NonLearner];

impl Check {
    fn name(self) -> &'static str {
        match self {
            Self::DataCorruption => "data_corruption",
            Self::SerializableRead => "serializable_read",
            Self::LinearizableRead => "linearizable_read",
            Self::NonLearner => "non_learner",
        }
    }

    async fn run(self, member: &Member) -> Result<(), String> {
        match self {
            Self::DataCorruption => {
                let standing = member.state.alarms();
                if standing.iter().any(|(_, kind)| *kind == AlarmKind::Corrupt) {
                    return Err("alarm activated: CORRUPT".to_owned());
                }
                Ok(())
            }
            Self::SerializableRead => read(member, true).await,
            Self::LinearizableRead => read(member, false).await,
            Self::NonLearner if member.status.borrow().is_learner() => {
                Err("not supported for learner".to_owned())
            }
            Self::NonLearner => Ok(()),
        }
    }
}

/// A read of no key, as a client would make it. Gives up after etcd's request time-out.
async fn read(member: &Member, serializable: bool) -> Result<(), String> {
    let text = |error: ApiError| error.text().to_owned();
    if !serializable {
        let patience = Duration::from_secs(5) + 2 * member.settings.election_timeout;
        let barrier = tokio::time::timeout(patience, member.barrier());
        barrier.await.map_err(|_| text(ApiError::TIMEOUT))?.map_err(text)?;
    }
    let range = KeyRange { key: "\0".into(), end: bytes::Bytes::new() };
    let query = RangeQuery { range, limit: 1, keys_only: true, ..RangeQuery::default() };
    member.state.range(&query).map_err(|error| text(error.into()))?;
    Ok(())
}

/// The values of one parameter of a query. Names and values here never need percent-encoding.
fn parameter<'a>(query: Option<&'a str>, name: &'a str) -> impl Iterator<Item = &'a str> {
    let pairs = query.unwrap_or("").split('&');
    pairs.filter_map(move |pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (key == name).then_some(value)
    })
}

async fn health(State(member): State<Member>, RawQuery(query): RawQuery) -> Response {
    let query = query.as_deref();
    let serializable = parameter(query, "serializable").next() == Some("true");
    let excluded = |kind| match kind {
        AlarmKind::NoSpace => parameter(query, "exclude").any(|name| name == "NOSPACE"),
        AlarmKind::Corrupt => parameter(query, "exclude").any(|name| name == "CORRUPT"),
    };
    let alarms = member.state.alarms();
    let reason = match alarms.into_iter().find(|(_, kind)| !excluded(*kind)) {
        Some((_, AlarmKind::NoSpace)) => Err("ALARM NOSPACE".to_owned()),
        Some((_, AlarmKind::Corrupt)) => Err("ALARM CORRUPT".to_owned()),
        None if !serializable && member.status.borrow().leader.is_none() => {
            Err("RAFT NO LEADER".to_owned())
        }
        None => read(&member, serializable).await.map_err(|error| format!("RANGE ERROR:{error}")),
    };
    match reason {
        Ok(()) => {
            member.metrics.health_success.inc();
            // etcd sends this body without naming its type; Go then says plain text.
            let body = json!({ "health": "true", "reason": "" }).to_string();
            ([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], body).into_response()
        }
        Err(reason) => {
            member.metrics.health_failures.inc();
            unavailable(json!({ "health": "false", "reason": reason }).to_string())
        }
    }
}

/// 503 with a line of text, as Go's `http.Error` writes it.
fn unavailable(body: String) -> Response {
    let headers = [
        (header::CONTENT_TYPE, "text/plain; charset=utf-8"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    (StatusCode::SERVICE_UNAVAILABLE, headers, body + "\n").into_response()
}

/// Runs all checks but those that `?exclude=` names.
async fn checks(member: &Member, page: &str, all: &[Check], query: Option<String>) -> Response {
    let query = query.as_deref();
    let excluded = |check: &Check| parameter(query, "exclude").any(|name| name == check.name());
    let chosen: Vec<Check> = all.iter().copied().filter(|check| !excluded(check)).collect();
    run(member, page, &chosen, query).await
}

async fn run(member: &Member, page: &str, checks: &[Check], query: Option<&str>) -> Response {
    let mut lines = String::new();
    let mut healthy = true;
    for check in checks {
        let done = check.run(member).await;
        member.metrics.checks.ended(page, check.name(), done.is_ok());
        // Writing to a string cannot fail.
        let _ = match done {
            Ok(()) => writeln!(lines, "[+]{} ok", check.name()),
            Err(reason) => {
                healthy = false;
                writeln!(lines, "[-]{} failed: {reason}", check.name())
            }
        };
    }
    if !healthy {
        return unavailable(lines);
    }
    if parameter(query, "verbose").next().is_none() {
        lines.clear();
    }
    lines.push_str("ok\n");
    let headers = [
        (header::CONTENT_TYPE, "text/plain; charset=utf-8"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    (headers, lines).into_response()
}

async fn version() -> Response {
    Json(json!({ "etcdserver": ETCD_API_VERSION, "etcdcluster": cluster_version() }))
        .into_response()
}

async fn metrics(State(member): State<Member>) -> Response {
    match member.metrics.render(&member) {
        Ok(text) => ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text)
            .into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}
