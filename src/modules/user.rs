//! `user`: an account that is there, or not.

use serde::Deserialize;
use serde_json::{Map, Value as Json};

use super::args::{Flag, text};
use super::types::{Input, ModulePlan, PlanError, Spec, World, plain};
use crate::host::protocol::{Change, Read};

pub(super) static USER: Spec =
    plain("user", &["name", "state", "system", "group", "home", "shell"], &["name"], observe, plan);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Args {
    name: String,
    state: Option<State>,
    system: Option<Flag>,
    group: Option<String>,
    home: Option<String>,
    shell: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum State {
    Present,
    Absent,
}

fn observe(args: &Map<String, Json>) -> Vec<Read> {
    text(args, &["name"]).map(|name| Read::User { name: name.to_owned() }).into_iter().collect()
}

fn plan(input: &Input, world: &World) -> Result<ModulePlan, PlanError> {
    let args: Args = input.decode()?;
    let found = world.user(&args.name)?;
    let mut plan = ModulePlan::default();
    plan.say("name", args.name.as_str());
    let absent = args.state == Some(State::Absent);
    match found {
        Some(_) if absent => {
            let reason = format!("the user {} is there", args.name);
            plan.change(Change::RemoveUser { name: args.name }, reason);
        }
        // An account that is there is left as it is: changing a live account's home or shell is
        // more than a cluster needs.
        Some(facts) => plan.say("uid", facts.uid),
        None if absent => {}
        None => {
            let reason = format!("there is no user {}", args.name);
            let change = Change::AddUser {
                name: args.name,
                system: args.system.is_some_and(|flag| flag.0),
                group: args.group,
                home: args.home,
                shell: args.shell,
            };
            plan.change(change, reason);
        }
    }
    Ok(plan)
}
