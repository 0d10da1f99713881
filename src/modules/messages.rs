//! `debug`, `fail` and `set_fact`: what concerns the run alone.

use serde::Deserialize;
use serde_json::{Map, Value as Json};

use super::args::Number;
use super::types::{Input, ModulePlan, PlanError, Spec, World, nothing_to_see, plain};

pub(super) static DEBUG: Spec = Spec {
    expressions: &["var"],
    ..plain("debug", &["msg", "var", "verbosity"], &[], nothing_to_see, debug)
};

pub(super) static FAIL: Spec =
    Spec { free_form: Some("msg"), ..plain("fail", &["msg"], &[], nothing_to_see, fail) };

pub(super) static SET_FACT: Spec =
    Spec { any_key: true, ..plain("set_fact", &[], &[], nothing_to_see, set_fact) };

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Debug {
    msg: Option<Json>,
    var: Option<Vec<Evaluated>>,
    verbosity: Option<Number>,
}

/// An expression with its value, as [`Spec::expressions`] come.
#[derive(Deserialize)]
struct Evaluated {
    expression: String,
    value: Json,
}

fn debug(input: &Input, _: &World) -> Result<ModulePlan, PlanError> {
    let args: Debug = input.decode()?;
    let mut plan = ModulePlan::default();
    if args.verbosity.is_some_and(|least| u64::from(input.verbosity) < least.0) {
        plan.skipped = Some("shown with more -v only".to_owned());
        return Ok(plan);
    }
    match args.var.and_then(|mut each| each.pop()) {
        Some(evaluated) => plan.say(&evaluated.expression, evaluated.value),
        None => plan.say("msg", args.msg.unwrap_or_else(|| "Hello world!".into())),
    }
    Ok(plan)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fail {
    msg: Option<String>,
}

fn fail(input: &Input, _: &World) -> Result<ModulePlan, PlanError> {
    let args: Fail = input.decode()?;
    let why = args.msg.unwrap_or_else(|| "Failed as requested from task".to_owned());
    Ok(ModulePlan { failed: Some(why), ..ModulePlan::default() })
}

#[expect(clippy::unnecessary_wraps, reason = "the table's type")]
fn set_fact(input: &Input, _: &World) -> Result<ModulePlan, PlanError> {
    let facts: Map<String, Json> = input
        .args
        .iter()
        .filter(|(key, _)| *key != "cacheable")
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    let mut plan = ModulePlan::default();
    plan.say("ansible_facts", Json::Object(facts.clone()));
    plan.facts = facts;
    Ok(plan)
}
