//! A task on one host, before anything is sent: conditions, loop items, rendered arguments.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde_json::{Map, Value as Json};

use super::cluster::ClusterState;
use super::context::Context;
use super::event::Status;
use super::host::HostRun;
use super::library::LocalContent;
use super::vars::Scope;
use crate::modules::Input;
use crate::plan::{self, PlannedTask};
use crate::playbook::Text;
use crate::playbook::program::TaskStep;
use crate::remote::RemoteError;
use crate::secret::MASK;
use crate::template::{ErrorKind, TemplateError, Var, Vars};
use crate::yaml::Mark;

/// A task for one host.
pub(super) struct Job {
    /// The host whose task it is, by its place in the run.
    pub(super) owner: usize,
    /// The host that it runs on.
    pub(super) target: usize,
    /// The user that it runs as.
    pub(super) user: Option<String>,
    pub(super) items: Vec<Item>,
    pub(super) is_loop: bool,
    /// The target was lost while it ran.
    pub(super) lost: Option<RemoteError>,
}

impl Job {
    /// Every item that is not over yet fails: why.
    pub(super) fn refuse(&mut self, why: &str) {
        for item in &mut self.items {
            if !matches!(item.stage, Stage::Ended(_)) {
                item.stage = Stage::Ended(Box::new(Outcome::failed(why)));
            }
        }
    }
}

/// One item of a task; a task without a loop has one.
pub(super) struct Item {
    pub(super) label: Option<String>,
    pub(super) vars: Vars,
    pub(super) stage: Stage,
}

/// How far an item is.
pub(super) enum Stage {
    /// Arguments are rendered.
    Ready(Box<Input>),
    /// It is planned.
    Planned(Box<Input>, Box<PlannedTask>),
    /// It ended.
    Ended(Box<Outcome>),
}

/// How an item ended.
#[derive(Clone, Debug, Default)]
pub(super) struct Outcome {
    pub(super) status: Status,
    pub(super) result: Map<String, Json>,
    pub(super) message: Option<String>,
    pub(super) hint: Option<String>,
    pub(super) reasons: Vec<String>,
    pub(super) diff: Option<String>,
    /// Variables for the host.
    pub(super) facts: BTreeMap<String, Var>,
    /// In a check: the result would be known only after the change.
    pub(super) unknown: bool,
}

impl Outcome {
    pub(super) fn new(status: Status, message: impl Into<String>) -> Self {
        Self { status, message: Some(message.into()), ..Self::default() }
    }

    pub(super) fn failed(message: impl Into<String>) -> Self {
        Self::new(Status::Failed, message)
    }

    /// What becomes of the task at `mark` whose template cannot be rendered.
    fn of_template(error: &TemplateError, mark: &Mark) -> Self {
        match error.kind {
            ErrorKind::NotYetKnown => Self {
                unknown: true,
                ..Self::new(Status::Unknown, format!("known after earlier changes: {error}"))
            },
            _ => Self::failed(format!("{mark}: {error}")),
        }
    }
}

/// Finds out what `step` is for the host at `owner` when it runs on `target`; everything that can be known without asking
/// the host.
pub(super) fn prepare(
    context: &Context<'_>,
    cluster: &ClusterState,
    scope: &Scope,
    host: &HostRun,
    owner: usize,
    target: &HostRun,
    step: &TaskStep,
) -> Job {
    let vars = scope.task(host, &step.inherited.vars, BTreeMap::new());
    let keyword_user = step.inherited.become_user.as_ref().and_then(|text| {
        context.engine.render(&text.text, &vars).ok().map(|rendered| rendered.text)
    });
    let items = match items(context, scope, host, step, &vars) {
        Ok(items) => items,
        Err(outcome) => vec![(None, vars, Some(*outcome))],
    };
    let items = items
        .into_iter()
        .map(|(label, vars, ended)| {
            let stage = match ended {
                Some(outcome) => Stage::Ended(Box::new(outcome)),
                None => match input(context, cluster, target, step, &vars) {
                    Ok(input) => Stage::Ready(Box::new(input)),
                    Err(outcome) => Stage::Ended(outcome),
                },
            };
            Item { label, vars, stage }
        })
        .collect();
    Job {
        owner,
        target: owner,
        user: target.user(step.inherited.become_, keyword_user.as_deref()),
        items,
        is_loop: step.task.loop_.is_some(),
        lost: None,
    }
}

/// Label, variables, and how it ended if it did already.
type Unfolded = (Option<String>, Vars, Option<Outcome>);

/// The items of a task, each with its variables.
pub(super) fn items(
    context: &Context<'_>,
    scope: &Scope,
    host: &HostRun,
    step: &TaskStep,
    vars: &Vars,
) -> Result<Vec<Unfolded>, Box<Outcome>> {
    let Some(control) = &step.task.loop_ else {
        return Ok(vec![(None, vars.clone(), None)]);
    };
    let evaluated = match context.engine.evaluate(&control.items, vars) {
        Ok(evaluated) => evaluated,
        Err(error) => {
            // A list that does not exist does not matter when the task is skipped anyway.
            return match plan::conditions(&context.engine, &step.inherited.when, vars) {
                Ok(Some(condition)) => Err(Box::new(skipped(condition))),
                _ => Err(Box::new(Outcome::of_template(&error, &step.task.mark))),
            };
        }
    };
    let Json::Array(mut list) = evaluated.value else {
        return Err(Box::new(Outcome::failed("the loop is not a list")));
    };
    if control.flatten {
        list = list
            .into_iter()
            .flat_map(|item| match item {
                Json::Array(inner) => inner,
                other => vec![other],
            })
            .collect();
    }
    let unfold = |(index, item): (usize, Json)| {
        let shown = match &item {
            _ if evaluated.secret => MASK.to_owned(),
            Json::String(text) => text.clone(),
            other => other.to_string(),
        };
        let var = Var::data(item, evaluated.secret);
        let mut own = BTreeMap::from([(control.variable.clone(), var)]);
        if let Some(name) = &control.index_variable {
            own.insert(name.clone(), Var::Plain(index.into()));
        }
        let vars = scope.task(host, &step.inherited.vars, own);
        let label = match &control.label {
            Some(label) => match context.engine.render(&label.text, &vars) {
                Ok(rendered) if rendered.secret => MASK.to_owned(),
                Ok(rendered) => rendered.text,
                Err(error) => format!("({error})"),
            },
            None => shown,
        };
        (Some(label), vars, None)
    };
    Ok(list.into_iter().enumerate().map(unfold).collect())
}

fn skipped(condition: &Text) -> Outcome {
    Outcome::new(Status::Skipped, format!("`{}` is false", condition.text))
}

/// The module's input, unless a condition does not hold.
fn input(
    context: &Context<'_>,
    cluster: &ClusterState,
    host: &HostRun,
    step: &TaskStep,
    vars: &Vars,
) -> Result<Input, Box<Outcome>> {
    match plan::conditions(&context.engine, &step.inherited.when, vars) {
        Ok(None) => {}
        Ok(Some(condition)) => {
            return Err(Box::new(skipped(condition)));
        }
        Err(error) => return Err(Box::new(Outcome::of_template(&error, &step.task.mark))),
    }
    let mut input = plan::prepare(
        &context.engine,
        step.task.module,
        &step.task.args,
        &step.inherited.environment,
        vars,
        false,
    )
    .map_err(|error| Box::new(Outcome::of_template(&error, &step.task.mark)))?;
    fill_node(cluster, host, step, &mut input);
    input.diff = context.options.diff;
    input.verbosity = context.options.verbosity;
    content(context, step, vars, &mut input)?;
    Ok(input)
}

/// `ready`, `member` and `token` are about the host's own node unless they say otherwise.
pub(super) fn fill_node(
    cluster: &ClusterState,
    host: &HostRun,
    step: &TaskStep,
    input: &mut Input,
) {
    let Some(place) = cluster.places.get(host.name()) else { return };
    if matches!(step.task.module.name, "ready" | "member" | "token") {
        let mut default = |key: &str, value: &str| {
            input.args.entry(key).or_insert_with(|| value.into());
        };
        default("data_dir", &place.layout.data_dir);
        default("supervisor", &place.supervisor);
        if let Some(node) = &place.k3s {
            let node = serde_json::to_value(node).unwrap_or_default();
            input.args.insert("k3s".to_owned(), node);
        }
    }
}

/// What `src` names on the control machine.
fn content(
    context: &Context<'_>,
    step: &TaskStep,
    vars: &Vars,
    input: &mut Input,
) -> Result<(), Box<Outcome>> {
    let Some(src) = input.args.get("src").and_then(Json::as_str) else { return Ok(()) };
    match step.task.module.name {
        "template" => {
            let found =
                context.library.template(src).map_err(|why| Box::new(Outcome::failed(why)))?;
            let rendered = context.engine.render(&found.file.text, vars).map_err(|error| {
                let line = error.line.map(|line| format!(":{line}")).unwrap_or_default();
                let message = format!("{}{line}: {error}", found.file.name);
                Box::new(Outcome::of_template(&TemplateError { message, ..error }, &step.task.mark))
            })?;
            if rendered.secret {
                input.secrets.insert("content".to_owned());
            }
            input.content = Some(Bytes::from(rendered.text));
        }
        "copy" if !input.args.contains_key("remote_src") => {
            let failed = |why: String| Box::new(Outcome::failed(why));
            match context.library.file(src).map_err(failed)? {
                LocalContent::Short(bytes) => input.content = Some(Bytes::from(bytes)),
                LocalContent::Long(file) => input.local = Some(file),
            }
        }
        _ => {}
    }
    Ok(())
}
