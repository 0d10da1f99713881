//! `assert`: the task fails when one of its expressions is not true.

use serde::Deserialize;

use super::types::{Input, ModulePlan, PlanError, Spec, World, nothing_to_see, plain};

pub(super) static ASSERT: Spec = Spec {
    expressions: &["that"],
    ..plain(
        "assert",
        &["that", "fail_msg", "msg", "success_msg", "quiet"],
        &["that"],
        nothing_to_see,
        plan,
    )
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Args {
    that: Vec<Judged>,
    #[serde(alias = "msg")]
    fail_msg: Option<String>,
    success_msg: Option<String>,
    #[serde(rename = "quiet")]
    _quiet: Option<bool>,
}

/// An expression with its value, as [`Spec::expressions`] come.
#[derive(Deserialize)]
struct Judged {
    expression: String,
    truth: bool,
}

fn plan(input: &Input, _: &World) -> Result<ModulePlan, PlanError> {
    let args: Args = input.decode()?;
    let mut plan = ModulePlan::default();
    match args.that.iter().find(|judged| !judged.truth) {
        Some(judged) => {
            plan.say("assertion", judged.expression.as_str());
            plan.failed = Some(
                args.fail_msg.unwrap_or_else(|| format!("`{}` is not true", judged.expression)),
            );
        }
        None => plan.say("msg", args.success_msg.as_deref().unwrap_or("All assertions passed")),
    }
    Ok(plan)
}
