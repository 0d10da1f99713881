//! `binary`: this very program at a path of the host, as a copy of the pushed executor.

use serde::Deserialize;
use serde_json::{Map, Value as Json};

use super::args::{Mode, Who, text};
use super::content::{self, Content, Wanted};
use super::types::{Input, ModulePlan, PlanError, Spec, World, path_read, plain};
use crate::cluster::rolling::skew;
use crate::host::protocol::{CommandSpec, Observed, Read};

/// How long a binary may take to say its version, in milliseconds.
const VERSION_TIMEOUT_MS: u64 = 10_000;

pub(super) static BINARY: Spec =
    plain("binary", &["path", "dest", "mode", "owner", "group"], &["path|dest"], observe, plan);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Args {
    #[serde(alias = "dest")]
    path: String,
    mode: Option<Mode>,
    owner: Option<Who>,
    group: Option<Who>,
}

fn observe(args: &Map<String, Json>) -> Vec<Read> {
    let path = text(args, &["path", "dest"]).map(|path| path_read(path, true));
    std::iter::once(Read::Facts).chain(path).collect()
}

fn plan(input: &Input, world: &World) -> Result<ModulePlan, PlanError> {
    let args: Args = input.decode()?;
    let facts = world.facts()?;
    if let Some(newer) = newer(world, &args.path, &facts.executor_sha256)? {
        let kept = format!(
            "{} is {newer}, newer than this program ({}), and is kept",
            args.path,
            crate::version::own()
        );
        return Ok(ModulePlan { skipped: Some(kept), ..ModulePlan::default() });
    }
    let wanted = Wanted {
        path: args.path,
        content: Content::CopyOf {
            path: facts.executor_path.clone(),
            sha256: facts.executor_sha256.clone(),
        },
        mode: Some(args.mode.map_or(0o755, |mode| mode.0)),
        mode_new: 0o755,
        owner: args.owner.map(|who| who.0),
        group: args.group.map(|who| who.0),
        backup: false,
        force: true,
        validate: Vec::new(),
    };
    content::plan(input, world, wanted)
}

/// The version of what is at `path`, if that is another build and a newer one: whoever upgraded it does
/// not want it back as it was because of an older control machine.
fn newer(world: &World, path: &str, ours: &str) -> Result<Option<String>, PlanError> {
    let there = world.path(path, true)?;
    let other = there.and_then(|facts| facts.sha256.as_deref()).is_some_and(|hash| hash != ours);
    if !other {
        return Ok(None);
    }
    let read = Read::Command(CommandSpec {
        argv: [path, "version", "--output", "json"].map(str::to_owned).to_vec(),
        timeout_ms: VERSION_TIMEOUT_MS,
        ..CommandSpec::default()
    });
    if !world.has(&read) {
        return Err(PlanError::Missing(vec![read]));
    }
    // What does not run is none to keep.
    let Some(Observed::Output(output)) = world.peek(&read) else { return Ok(None) };
    let said: Option<Json> = serde_json::from_slice(&output.stdout).ok();
    let version = said.as_ref().and_then(|said| said.get("version")).and_then(Json::as_str);
    let version = version.filter(|version| skew::is_newer(version, crate::version::own()));
    Ok(version.map(str::to_owned))
}
