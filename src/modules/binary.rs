//! `binary`: this very program at a path of the host, as a copy of the pushed executor.

use serde::Deserialize;
use serde_json::{Map, Value as Json};

use super::args::{Mode, Who, text};
use super::content::{self, Content, Wanted};
use super::types::{Input, ModulePlan, PlanError, Spec, World, path_read, plain};
use crate::host::protocol::Read;

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
