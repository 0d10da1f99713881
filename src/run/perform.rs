//! A job on its target: plan it, and carry the plan out.

use std::time::Duration;

use serde_json::{Value as Json, json};

use super::context::Context;
use super::event::{Event, Status};
use super::host::HostRun;
use super::job::{Item, Job, Outcome, Stage};
use super::pending;
use super::reconnect::{Made, done_before, left_of, not_again};
use super::wait::{node_service, service_log, wait_for};
use crate::host::protocol::{Change, Done, HostError, HostErrorKind};
use crate::modules::{Input, PlanError, Until};
use crate::plan::{PlannedTask, affects};
use crate::playbook::program::TaskStep;
use crate::remote::RemoteError;
use crate::template::Var;

/// Most times a module may ask for more observations before it has a plan.
const ASK_TIMES_MAX: usize = 8;

/// Plans every item of `job` that does not depend on what an earlier item changes.
pub(super) async fn plan_job(
    context: &Context<'_>,
    host: &mut HostRun,
    job: &mut Job,
    step: &TaskStep,
) {
    let mut earlier: Vec<Change> = Vec::new();
    for item in &mut job.items {
        let Stage::Ready(input) = &item.stage else { continue };
        let reads = (step.task.module.observe)(&input.args);
        let depends = reads.iter().any(|read| earlier.iter().any(|change| affects(change, read)));
        if depends && !context.options.check {
            continue;
        }
        if let Err(error) = plan_item(context, host, job.user.as_deref(), item, step).await {
            job.lost = Some(error);
            return;
        }
        if let Stage::Planned(_, planned) = &item.stage {
            earlier.extend(planned.plan.changes.iter().cloned());
        }
    }
}

async fn plan_item(
    context: &Context<'_>,
    host: &mut HostRun,
    user: Option<&str>,
    item: &mut Item,
    step: &TaskStep,
) -> Result<(), RemoteError> {
    let Stage::Ready(input) = &item.stage else { return Ok(()) };
    let input = input.clone();
    let spec = step.task.module;
    for _ in 0..ASK_TIMES_MAX {
        match (spec.plan)(&input, &host.world) {
            Ok(plan) => {
                let name = host.name().to_owned();
                let label = item.label.clone();
                let planned = PlannedTask::new(&name, &step.task.name, spec.name, label, plan);
                item.stage = Stage::Planned(input, Box::new(planned));
                return Ok(());
            }
            Err(PlanError::Missing(reads)) => host.read(context, user, reads).await?,
            Err(PlanError::Failed(why)) => {
                let reads = (spec.observe)(&input.args);
                let hit = |change| reads.iter().any(|read| affects(change, read));
                // In a check, what an earlier task would have made is not there.
                let outcome = if host.predicted.iter().any(hit) {
                    Outcome::new(Status::Unknown, format!("known after earlier changes: {why}"))
                } else {
                    Outcome::failed(why)
                };
                item.stage = Stage::Ended(Box::new(outcome));
                return Ok(());
            }
        }
    }
    let why = "the module asks for more and more observations";
    item.stage = Stage::Ended(Box::new(Outcome::failed(why)));
    Ok(())
}

/// Carries out what is planned and plans what is left, item by item.
pub(super) async fn carry_out(
    context: &Context<'_>,
    host: &mut HostRun,
    job: &mut Job,
    step: &TaskStep,
) {
    let alone = step.task.retries.is_some() || !step.task.until.is_empty();
    let mut next = 0;
    while next < job.items.len() && job.lost.is_none() {
        let together = if alone { 1 } else { together(&job.items, next) };
        let user = job.user.clone();
        let Some(items) = job.items.get_mut(next..next + together) else { return };
        let result = match items {
            [item] => one(context, host, user.as_deref(), item, step, None).await,
            items => several(context, host, user.as_deref(), items, step).await,
        };
        if let Err(error) = result {
            job.lost = Some(error);
        }
        next += together;
    }
}

/// How many items from `start` on can be sent in one request: those that are planned, change
/// something and wait for nothing.
fn together(items: &[Item], start: usize) -> usize {
    let simple = |item: &&Item| match &item.stage {
        Stage::Planned(_, planned) => planned.changes() && planned.wait.is_none(),
        _ => false,
    };
    items.iter().skip(start).take_while(simple).count().max(1)
}

async fn several(
    context: &Context<'_>,
    host: &mut HostRun,
    user: Option<&str>,
    items: &mut [Item],
    step: &TaskStep,
) -> Result<(), RemoteError> {
    let mut changes = pending::owe(host, step, false);
    let mut rest = vec![changes.len()];
    for item in items.iter() {
        if let Stage::Planned(_, planned) = &item.stage {
            changes.extend(planned.plan.changes.iter().cloned());
        }
        rest.push(changes.len());
    }
    let Made::Answers(answers) = host.change(context, user, changes).await? else {
        for item in items {
            let Stage::Planned(input, planned) = &item.stage else { continue };
            let before = planned.clone();
            item.stage = Stage::Ready(input.clone());
            one(context, host, user, item, step, Some(before)).await?;
        }
        return Ok(());
    };
    for (number, item) in items.iter_mut().enumerate() {
        let from = rest.get(number).copied().unwrap_or_default();
        let to = rest.get(number + 1).copied().unwrap_or_default();
        let own = answers.get(from.min(answers.len())..to.min(answers.len())).unwrap_or_default();
        let first_error = answers.iter().take(from).any(Result::is_err);
        if first_error {
            // Nothing of this one was tried: it has a request of its own now.
            one(context, host, user, item, step, None).await?;
            continue;
        }
        let Stage::Planned(input, planned) = &item.stage else { continue };
        let outcome = settle(context, step, item, input, planned, Ok(own));
        item.stage = Stage::Ended(Box::new(outcome));
    }
    Ok(())
}

/// One item, with all its tries. `cut` is what was under way when the link was cut.
async fn one(
    context: &Context<'_>,
    host: &mut HostRun,
    user: Option<&str>,
    item: &mut Item,
    step: &TaskStep,
    mut cut: Option<Box<PlannedTask>>,
) -> Result<(), RemoteError> {
    let mut left = step.task.retries.unwrap_or(0);
    loop {
        plan_item(context, host, user, item, step).await?;
        let Stage::Planned(input, planned) = &item.stage else { return Ok(()) };
        let (input, mut planned) = (input.clone(), planned.clone());
        if let Some(before) = &cut {
            planned = left_of(before, planned);
            if let Some(outcome) = not_again(before, &planned) {
                item.stage = Stage::Ended(Box::new(outcome));
                return Ok(());
            }
        }
        let mut outcome = if planned.changes() {
            let mut changes = pending::owe(host, step, cut.is_some());
            let marks = changes.len();
            changes.extend(planned.plan.changes.iter().cloned());
            let Made::Answers(answers) = host.change(context, user, changes).await? else {
                cut = Some(planned);
                item.stage = Stage::Ready(input);
                continue;
            };
            let own = answers.get(marks.min(answers.len())..).unwrap_or_default();
            let early = answers.iter().take(marks).find_map(|answer| answer.as_ref().err());
            let answers = early.map_or(Ok(own), Err);
            let failed = answers.err().or(own.iter().find_map(|answer| answer.as_ref().err()));
            let service = failed.is_some_and(|error| error.kind == HostErrorKind::Service);
            let mut outcome = settle(context, step, item, &input, &planned, answers);
            if service && let Some(name) = service_of(&planned) {
                outcome.hint = service_log(context, host, user, name).await.or(outcome.hint);
            }
            outcome
        } else {
            let outcome = settle(context, step, item, &input, &planned, Ok(&[]));
            if cut.is_some() { done_before(outcome, step) } else { outcome }
        };
        let before = cut.take();
        let wait =
            planned.wait.as_ref().or(before.as_ref().and_then(|before| before.wait.as_ref()));
        if let Some(wait) = wait.filter(|_| outcome.status != Status::Failed)
            && let Err(why) = wait_for(context, host, user, wait).await?
        {
            outcome = Outcome::failed(format!("waited for {}: {why}", wait.what));
            if wait.until == Until::Ready {
                let name = node_service(host);
                outcome.hint = service_log(context, host, user, &name).await;
            }
        }
        let again = try_again(context, step, item, &outcome);
        if left == 0 || !again || context.is_interrupted() {
            if again && !step.task.until.is_empty() && outcome.status != Status::Failed {
                outcome.status = Status::Failed;
                outcome.message = Some("`until` is still not true".to_owned());
            }
            item.stage = Stage::Ended(Box::new(outcome));
            return Ok(());
        }
        let (host_name, task) = (host.name().to_owned(), step.task.name.clone());
        context.emit(&Event::Retry { host: host_name, task, left });
        left -= 1;
        tokio::time::sleep(Duration::from_secs(step.task.delay_seconds.into())).await;
        host.forget_reads(&(step.task.module.observe)(&input.args));
        item.stage = Stage::Ready(input);
    }
}

/// Whether another try may help: `until` is not true yet, or without one the try failed.
fn try_again(context: &Context<'_>, step: &TaskStep, item: &Item, outcome: &Outcome) -> bool {
    if step.task.until.is_empty() {
        return outcome.status == Status::Failed;
    }
    let mut vars = item.vars.clone();
    if let Some(name) = &step.task.register {
        vars.set(name.as_str(), Var::Plain(Json::Object(outcome.result.clone())));
    }
    step.task.until.iter().any(|text| !context.engine.condition(&text.text, &vars).unwrap_or(false))
}

/// What the answers to a plan's changes come to.
fn settle(
    context: &Context<'_>,
    step: &TaskStep,
    item: &Item,
    input: &Input,
    planned: &PlannedTask,
    answers: Result<&[Result<Done, HostError>], &HostError>,
) -> Outcome {
    let mut outcome = outcome_of(planned, planned.counts());
    let refused = match answers {
        Err(error) => Some(error),
        Ok(answers) => answers.iter().find_map(|answer| answer.as_ref().err()),
    };
    if let Some(error) = refused {
        outcome.status = Status::Failed;
        outcome.message = Some(error.message.clone());
        outcome.hint.clone_from(&error.hint);
        outcome.result.insert("msg".to_owned(), error.message.as_str().into());
    } else if let Ok(answers) = answers {
        let done: Vec<Done> = answers.iter().flatten().cloned().collect();
        (step.task.module.conclude)(&mut outcome.result, &done);
        if outcome.result.get("failed") == Some(&Json::Bool(true)) {
            outcome.status = Status::Failed;
            outcome.message = Some(failure(&outcome));
        }
    }
    if let Some(facts) = facts(input, planned) {
        outcome.facts = facts;
    }
    judge(context, step, item, outcome)
}

/// What a plan alone says.
pub(super) fn outcome_of(planned: &PlannedTask, changed: bool) -> Outcome {
    let plan = &planned.plan;
    let mut outcome = Outcome {
        status: if changed { Status::Changed } else { Status::Ok },
        result: plan.result.clone(),
        reasons: plan.reasons.clone(),
        ..Outcome::default()
    };
    let diffs: Vec<String> = plan.diffs.iter().map(crate::modules::Diff::unified).collect();
    outcome.diff = (!diffs.is_empty()).then(|| diffs.concat());
    if let Some(why) = &plan.failed {
        outcome.status = Status::Failed;
        outcome.message = Some(why.clone());
        outcome.result.insert("msg".to_owned(), why.as_str().into());
    } else if let Some(why) = &plan.skipped {
        outcome.status = Status::Skipped;
        outcome.message = Some(why.clone());
    } else if planned.module == "debug" {
        outcome.message = Some(spoken(&plan.result));
    }
    outcome
}

/// What `debug` says: a text as it is, anything else as JSON.
fn spoken(result: &serde_json::Map<String, Json>) -> String {
    match result.iter().next() {
        Some((key, Json::String(text))) if key == "msg" => text.clone(),
        Some((key, value)) if key == "msg" => format!("{value:#}"),
        Some((key, value)) => format!("{key}: {value:#}"),
        None => String::new(),
    }
}

fn facts(input: &Input, planned: &PlannedTask) -> Option<std::collections::BTreeMap<String, Var>> {
    if planned.plan.facts.is_empty() {
        return None;
    }
    let var = |(key, value): (&String, &Json)| {
        (key.clone(), Var::data(value.clone(), input.secrets.contains(key)))
    };
    Some(planned.plan.facts.iter().map(var).collect())
}

fn failure(outcome: &Outcome) -> String {
    let text = |key: &str| outcome.result.get(key).and_then(Json::as_str).unwrap_or_default();
    let said = [text("stderr"), text("stdout")].into_iter().find(|text| !text.trim().is_empty());
    match said {
        Some(said) => format!("{}: {}", text("msg"), said.trim()),
        None => text("msg").to_owned(),
    }
}

/// `failed_when` and `changed_when` have the last word.
fn judge(context: &Context<'_>, step: &TaskStep, item: &Item, mut outcome: Outcome) -> Outcome {
    if outcome.status == Status::Skipped {
        return outcome;
    }
    let mut vars = item.vars.clone();
    let failed = outcome.status == Status::Failed;
    outcome.result.insert("failed".to_owned(), failed.into());
    outcome.result.insert("changed".to_owned(), (outcome.status == Status::Changed).into());
    if let Some(name) = &step.task.register {
        vars.set(name.as_str(), Var::Plain(Json::Object(outcome.result.clone())));
    }
    let holds = |texts: &[crate::playbook::Text]| -> Result<bool, String> {
        for text in texts {
            match context.engine.condition(&text.text, &vars) {
                Ok(true) => {}
                Ok(false) => return Ok(false),
                Err(error) => return Err(format!("{}: `{}`: {error}", text.mark, text.text)),
            }
        }
        Ok(true)
    };
    if let Some(conditions) = &step.task.failed_when {
        match holds(conditions) {
            Ok(true) => {
                outcome.status = Status::Failed;
                outcome.message =
                    outcome.message.or_else(|| Some("`failed_when` is true".to_owned()));
            }
            Ok(false) if failed => {
                outcome.status = Status::Changed;
                outcome.message = None;
            }
            Ok(false) => {}
            Err(why) => return Outcome { result: outcome.result, ..Outcome::failed(why) },
        }
    }
    if let Some(conditions) = &step.task.changed_when
        && outcome.status != Status::Failed
    {
        outcome.status = match holds(conditions) {
            Ok(true) => Status::Changed,
            Ok(false) => Status::Ok,
            Err(why) => return Outcome { result: outcome.result, ..Outcome::failed(why) },
        };
    }
    let changed = outcome.status == Status::Changed;
    outcome.result.insert("failed".to_owned(), (outcome.status == Status::Failed).into());
    outcome.result.insert("changed".to_owned(), changed.into());
    outcome
}

/// In a check: what the plan says, without anything sent.
pub(super) fn foretell(host: &mut HostRun, item: &mut Item, step: &TaskStep) {
    let Stage::Planned(input, planned) = &item.stage else { return };
    let mut outcome = outcome_of(planned, planned.counts());
    let runs = planned.plan.changes.iter().any(|change| matches!(change, Change::Run(_)));
    let undecided = step.task.changed_when.is_some() || step.task.failed_when.is_some();
    if planned.changes() {
        outcome.message = Some(format!("would {}", planned.actions.join(", ")));
        outcome.unknown = runs;
        if runs && undecided {
            outcome.status = Status::Unknown;
        } else {
            host.predicted.extend(planned.plan.changes.iter().cloned());
        }
    } else if let Some(wait) = &planned.wait {
        outcome.status = Status::Unknown;
        outcome.message = Some(format!("would wait for {}", wait.what));
    }
    let changed = outcome.status == Status::Changed;
    outcome.result.insert("changed".to_owned(), changed.into());
    outcome.result.insert("failed".to_owned(), json!(outcome.status == Status::Failed));
    if let Some(facts) = facts(input, planned) {
        outcome.facts = facts;
    }
    item.stage = Stage::Ended(Box::new(outcome));
}

/// The service that a plan acts on.
fn service_of(planned: &PlannedTask) -> Option<&str> {
    planned.plan.changes.iter().find_map(|change| match change {
        Change::Service { name, .. } => Some(name.as_str()),
        _ => None,
    })
}
