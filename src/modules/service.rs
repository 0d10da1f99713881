//! `service`, `systemd` and `systemd_service`: state of a service.

use serde::Deserialize;
use serde_json::{Map, Value as Json};

use super::args::{Flag, Number, text};
use super::types::{Input, ModulePlan, PlanError, Spec, World, plain};
use crate::host::protocol::{Change, Read, ServiceAction};

/// How long a start may take, in seconds, when `timeout` is not given. Joining a cluster with much
/// data takes minutes.
const TIMEOUT_SECONDS_DEFAULT: u64 = 300;

const KEYS: &[&str] = &["name", "state", "enabled", "daemon_reload", "timeout"];

pub(super) static SERVICE: Spec = plain("service", KEYS, &["name|daemon_reload"], observe, plan);
pub(super) static SYSTEMD: Spec = plain("systemd", KEYS, &["name|daemon_reload"], observe, plan);
pub(super) static SYSTEMD_SERVICE: Spec =
    plain("systemd_service", KEYS, &["name|daemon_reload"], observe, plan);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Args {
    name: Option<String>,
    state: Option<State>,
    enabled: Option<Flag>,
    daemon_reload: Option<Flag>,
    timeout: Option<Number>,
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum State {
    Started,
    Stopped,
    Restarted,
    Reloaded,
}

fn observe(args: &Map<String, Json>) -> Vec<Read> {
    text(args, &["name"]).map(|name| Read::Service { name: unit(name) }).into_iter().collect()
}

fn unit(name: &str) -> String {
    name.strip_suffix(".service").unwrap_or(name).to_owned()
}

fn plan(input: &Input, world: &World) -> Result<ModulePlan, PlanError> {
    let args: Args = input.decode()?;
    let mut plan = ModulePlan::default();
    if args.daemon_reload.is_some_and(|flag| flag.0) {
        plan.change(Change::ReloadUnits, "the service manager is told to read its units again");
    }
    let Some(name) = args.name.as_deref().map(unit) else { return Ok(plan) };
    let facts = world.service(&name)?;
    plan.say("name", name.as_str());
    let stopping = args.state == Some(State::Stopped);
    if !facts.exists {
        if stopping && args.enabled.is_none_or(|flag| !flag.0) {
            return Ok(plan);
        }
        return Err(PlanError::failed(format!("there is no service `{name}` on the host")));
    }
    let timeout_ms = args.timeout.map_or(TIMEOUT_SECONDS_DEFAULT, |number| number.0) * 1000;
    let mut act = |action, reason: String| {
        let name = name.clone();
        plan.change(Change::Service { name, action, timeout_ms }, reason);
    };
    if let Some(Flag(enabled)) = args.enabled
        && enabled != facts.enabled
    {
        let (action, what) = if enabled {
            (ServiceAction::Enable, "does not start at boot")
        } else {
            (ServiceAction::Disable, "starts at boot")
        };
        act(action, format!("{name} {what}"));
    }
    let running = facts.active || facts.starting;
    match args.state {
        Some(State::Started) if !facts.active => {
            let what = if facts.failed { "has failed" } else { "is not running" };
            act(ServiceAction::Start, format!("{name} {what}"));
        }
        Some(State::Restarted | State::Reloaded) if !running => {
            act(ServiceAction::Start, format!("{name} is not running"));
        }
        Some(State::Stopped) if running => act(ServiceAction::Stop, format!("{name} is running")),
        Some(State::Restarted) => act(ServiceAction::Restart, "a restart is asked for".to_owned()),
        Some(State::Reloaded) => act(ServiceAction::Reload, "a reload is asked for".to_owned()),
        Some(State::Started | State::Stopped) | None => {}
    }
    Ok(plan)
}
