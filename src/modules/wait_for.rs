//! `wait_for`: until a port accepts connections or a path is there, or no longer.

use serde::Deserialize;
use serde_json::{Map, Value as Json};

use super::args::{Number, text};
use super::types::{Input, ModulePlan, PlanError, Spec, Until, Wait, World, path_read, plain};
use crate::host::protocol::Read;

/// How long one attempt to connect may take, in milliseconds.
const PROBE_MS: u64 = 1000;

pub(super) static WAIT_FOR: Spec = plain(
    "wait_for",
    &["host", "port", "path", "state", "timeout", "sleep", "msg"],
    &["port|path"],
    observe,
    plan,
);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Args {
    host: Option<String>,
    port: Option<Number>,
    path: Option<String>,
    state: Option<State>,
    timeout: Option<Number>,
    sleep: Option<Number>,
    msg: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum State {
    Started,
    Present,
    Stopped,
    Absent,
}

fn observe(args: &Map<String, Json>) -> Vec<Read> {
    if let Some(path) = text(args, &["path"]) {
        return vec![path_read(path, false)];
    }
    let host = if args.contains_key("host") { text(args, &["host"]) } else { Some("127.0.0.1") };
    let port = args.get("port").and_then(|port| match port {
        Json::String(text) => text.parse().ok(),
        other => other.as_u64().and_then(|port| u16::try_from(port).ok()),
    });
    match (host, port) {
        (Some(host), Some(port)) => vec![probe(host, port)],
        _ => Vec::new(),
    }
}

fn probe(host: &str, port: u16) -> Read {
    Read::TcpProbe { host: host.to_owned(), port, timeout_ms: PROBE_MS }
}

fn plan(input: &Input, world: &World) -> Result<ModulePlan, PlanError> {
    let args: Args = input.decode()?;
    let wanted = !matches!(args.state, Some(State::Stopped | State::Absent));
    let (read, until, what) = match (&args.path, args.port) {
        (Some(path), None) => {
            let what = if wanted { "to be there" } else { "to be gone" };
            (path_read(path, false), Until::Present(wanted), format!("{path} {what}"))
        }
        (None, Some(Number(port))) => {
            let port = u16::try_from(port)
                .map_err(|_| PlanError::failed(format!("{port} is not a port")))?;
            let host = args.host.as_deref().unwrap_or("127.0.0.1");
            let what = if wanted { "to accept connections" } else { "to be closed" };
            (probe(host, port), Until::Reachable(wanted), format!("{host}:{port} {what}"))
        }
        _ => return Err(PlanError::failed("give either `port` or `path`")),
    };
    let mut plan = ModulePlan::default();
    if until.check(world.get(&read)?).is_err() {
        plan.wait = Some(Wait {
            what: args.msg.unwrap_or(what),
            read,
            until,
            timeout_ms: args.timeout.map_or(300, |number| number.0) * 1000,
            interval_ms: args.sleep.map_or(1, |number| number.0) * 1000,
        });
    }
    Ok(plan)
}
