//! `package`: packages of the host's own package manager that are there, or not.

use serde::Deserialize;
use serde_json::{Map, Value as Json};

use super::args::Flag;
use super::types::{Input, ModulePlan, PlanError, Spec, World, plain};
use crate::host::protocol::{Change, PackageAction, Read};

pub(super) static PACKAGE: Spec =
    plain("package", &["name", "state", "update_cache"], &["name"], observe, plan);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Args {
    name: Names,
    state: Option<State>,
    update_cache: Option<Flag>,
}

/// One name, several with commas between them, or a list.
#[derive(Deserialize)]
#[serde(untagged)]
enum Names {
    Text(String),
    List(Vec<String>),
}

impl Names {
    fn list(&self) -> Vec<String> {
        let name = |text: &str| text.trim().to_owned();
        match self {
            Self::Text(text) => text.split(',').map(name).filter(|name| !name.is_empty()).collect(),
            Self::List(names) => names.iter().map(|text| name(text)).collect(),
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum State {
    #[serde(alias = "installed")]
    Present,
    #[serde(alias = "removed")]
    Absent,
}

fn observe(args: &Map<String, Json>) -> Vec<Read> {
    let names = args.get("name").cloned().unwrap_or_default();
    match serde_json::from_value::<Names>(names) {
        Ok(names) => vec![Read::Packages { names: names.list() }],
        Err(_) => Vec::new(),
    }
}

fn plan(input: &Input, world: &World) -> Result<ModulePlan, PlanError> {
    let args: Args = input.decode()?;
    let names = args.name.list();
    if names.is_empty() {
        return Err(PlanError::failed("argument `name` names no package"));
    }
    let facts = world.packages(&names)?;
    let (action, there, what) = match args.state {
        Some(State::Absent) => (PackageAction::Remove, false, "is installed"),
        Some(State::Present) | None => (PackageAction::Install, true, "is not installed"),
    };
    let names: Vec<String> =
        names.into_iter().filter(|name| facts.installed.contains(name) != there).collect();
    let mut plan = ModulePlan::default();
    if names.is_empty() {
        return Ok(plan);
    }
    if facts.manager.is_none() {
        return Err(PlanError::failed(format!(
            "{} {what}, and none of apt, dnf and apk is there to change that",
            names.join(", ")
        )));
    }
    let reason = format!("{} {what}", names.join(", "));
    let update_cache = args.update_cache.is_some_and(|flag| flag.0);
    plan.change(Change::Packages { names, action, update_cache }, reason);
    Ok(plan)
}
