//! `stat` and `slurp`: what is at a path.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Map, Value as Json, json};

use super::args::{Flag, text};
use super::types::{Input, ModulePlan, PlanError, Spec, World, odd, plain};
use crate::host::protocol::{Observed, PathKind, Read};
use crate::limits::OUTPUT_BYTES_MAX;

pub(super) static STAT: Spec = plain(
    "stat",
    &["path", "follow", "get_checksum", "checksum_algorithm"],
    &["path"],
    observe_stat,
    stat,
);

pub(super) static SLURP: Spec =
    plain("slurp", &["src", "path"], &["src|path"], observe_slurp, slurp);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Stat {
    path: String,
    #[serde(default)]
    follow: Flag,
    get_checksum: Option<Flag>,
    checksum_algorithm: Option<String>,
}

fn observe_stat(args: &Map<String, Json>) -> Vec<Read> {
    let flag = |key: &str, default: bool| args.get(key).map_or(Some(default), Json::as_bool);
    match (text(args, &["path"]), flag("follow", false), flag("get_checksum", true)) {
        (Some(path), Some(follow), Some(hash)) => {
            vec![Read::Path { path: path.to_owned(), follow, hash }]
        }
        _ => Vec::new(),
    }
}

fn stat(input: &Input, world: &World) -> Result<ModulePlan, PlanError> {
    let args: Stat = input.decode()?;
    if args.checksum_algorithm.is_some_and(|name| name != "sha256") {
        return Err(PlanError::failed("the only checksum_algorithm is sha256"));
    }
    let hash = args.get_checksum.is_none_or(|flag| flag.0);
    let read = Read::Path { path: args.path.clone(), follow: args.follow.0, hash };
    let seen = world.get(&read)?;
    let Observed::Path(facts) = seen else { return Err(odd(seen)) };
    let mut plan = ModulePlan::default();
    plan.say(
        "stat",
        match facts {
            None => json!({ "exists": false }),
            Some(facts) => json!({
                "exists": true,
                "path": args.path,
                "mode": format!("{:04o}", facts.mode),
                "isdir": facts.kind == PathKind::Directory,
                "isreg": facts.kind == PathKind::File,
                "islnk": facts.kind == PathKind::Link,
                "size": facts.size,
                "pw_name": facts.owner,
                "gr_name": facts.group,
                "checksum": facts.sha256,
                "lnk_target": facts.target,
            }),
        },
    );
    Ok(plan)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Slurp {
    #[serde(alias = "path")]
    src: String,
}

fn file(path: &str) -> Read {
    Read::File { path: path.to_owned(), bytes_max: OUTPUT_BYTES_MAX as u64 }
}

fn observe_slurp(args: &Map<String, Json>) -> Vec<Read> {
    text(args, &["src", "path"]).map(file).into_iter().collect()
}

fn slurp(input: &Input, world: &World) -> Result<ModulePlan, PlanError> {
    let args: Slurp = input.decode()?;
    match world.get(&file(&args.src))? {
        Observed::File(Some(bytes)) => {
            let mut plan = ModulePlan::default();
            plan.say("content", STANDARD.encode(bytes));
            plan.say("encoding", "base64");
            plan.say("source", args.src);
            Ok(plan)
        }
        Observed::File(None) => Err(PlanError::failed(format!("{} is not there", args.src))),
        other => Err(odd(other)),
    }
}
