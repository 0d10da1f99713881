//! `file`: directories, links, attributes, and what shall not be there.

use serde::Deserialize;
use serde_json::{Map, Value as Json};

use super::args::{Mode, Who, text};
use super::content::set_attributes;
use super::diff::{Diff, Side};
use super::types::{Input, ModulePlan, PlanError, Spec, World, path_read, plain};
use crate::host::protocol::{Change, FileContent, PathFacts, PathKind, Read};

pub(super) static FILE: Spec = plain(
    "file",
    &["path", "dest", "name", "state", "mode", "owner", "group", "src"],
    &["path|dest|name"],
    observe,
    plan,
);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Args {
    #[serde(alias = "dest", alias = "name")]
    path: String,
    #[serde(default)]
    state: State,
    mode: Option<Mode>,
    owner: Option<Who>,
    group: Option<Who>,
    src: Option<String>,
}

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum State {
    #[default]
    File,
    Directory,
    Absent,
    Link,
    Touch,
}

fn observe(args: &Map<String, Json>) -> Vec<Read> {
    text(args, &["path", "dest", "name"]).map(|path| path_read(path, false)).into_iter().collect()
}

fn plan(input: &Input, world: &World) -> Result<ModulePlan, PlanError> {
    let args: Args = input.decode()?;
    let found = world.path(&args.path, false)?;
    let mut plan = ModulePlan::default();
    plan.say("path", args.path.as_str());
    match (args.state, found) {
        (State::Absent, None) => {}
        (State::Absent, Some(facts)) => remove(&mut plan, &args.path, facts),
        (State::Directory, Some(facts)) if facts.kind == PathKind::Directory => {
            correct(&mut plan, &args, facts);
        }
        (State::Directory, None) => {
            let change = Change::MakeDirectory {
                path: args.path.clone(),
                mode: args.mode.map_or(0o755, |mode| mode.0),
                owner: args.owner.map(|who| who.0),
                group: args.group.map(|who| who.0),
            };
            plan.diffs.push(note(&args.path, Side::Absent, "directory"));
            plan.change(change, format!("{} is not there", args.path));
        }
        (State::File | State::Touch, Some(facts)) if facts.kind != PathKind::Directory => {
            correct(&mut plan, &args, facts);
        }
        (State::Touch, None) => touch(&mut plan, args),
        (State::File, None) => {
            return Err(PlanError::failed(format!(
                "{} is not there; `file` makes a file only with state: touch, `copy` gives it a \
                 content",
                args.path
            )));
        }
        (State::Link, _) => link(&mut plan, &args, found)?,
        (State::Directory | State::File | State::Touch, Some(facts)) => {
            return Err(PlanError::failed(format!(
                "{} is there already and is a {:?}",
                args.path, facts.kind
            )));
        }
    }
    Ok(plan)
}

fn remove(plan: &mut ModulePlan, path: &str, facts: &PathFacts) {
    let kind = format!("{:?}", facts.kind).to_lowercase();
    plan.diffs.push(Diff { path: path.to_owned(), before: Side::Note(kind), after: Side::Absent });
    plan.change(Change::Remove { path: path.to_owned() }, format!("{path} is there"));
}

fn touch(plan: &mut ModulePlan, args: Args) {
    let change = Change::PutFile {
        path: args.path.clone(),
        content: FileContent::Bytes(bytes::Bytes::new()),
        mode: args.mode.map_or(0o644, |mode| mode.0),
        owner: args.owner.map(|who| who.0),
        group: args.group.map(|who| who.0),
        backup: false,
        validate: Vec::new(),
    };
    plan.diffs.push(note(&args.path, Side::Absent, "empty file"));
    plan.change(change, format!("{} is not there", args.path));
}

fn link(plan: &mut ModulePlan, args: &Args, found: Option<&PathFacts>) -> Result<(), PlanError> {
    let Some(target) = &args.src else {
        return Err(PlanError::failed("a link needs `src`: what it points to"));
    };
    let reason = match found {
        None => format!("{} is not there", args.path),
        Some(facts) if facts.kind != PathKind::Link => {
            return Err(PlanError::failed(format!("{} is there and is no link", args.path)));
        }
        Some(facts) if facts.target.as_ref() == Some(target) => return Ok(()),
        Some(facts) => format!(
            "{} points to {}, should to {target}",
            args.path,
            facts.target.as_deref().unwrap_or("nothing")
        ),
    };
    plan.change(Change::Link { path: args.path.clone(), target: target.clone() }, reason);
    Ok(())
}

fn correct(plan: &mut ModulePlan, args: &Args, facts: &PathFacts) {
    set_attributes(
        plan,
        &args.path,
        args.mode.map(|mode| mode.0),
        args.owner.as_ref().map(|who| who.0.as_str()),
        args.group.as_ref().map(|who| who.0.as_str()),
        facts,
    );
}

fn note(path: &str, before: Side, after: &str) -> Diff {
    Diff { path: path.to_owned(), before, after: Side::Note(after.to_owned()) }
}
