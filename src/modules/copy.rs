//! `copy` and `template`: a file with a given content.

use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Map, Value as Json};

use super::args::{Flag, Mode, Who, text};
use super::content::{self, Content, Wanted};
use super::types::{Input, ModulePlan, PlanError, Spec, World, path_read, plain};
use crate::host::protocol::Read;

pub(super) static COPY: Spec = plain(
    "copy",
    &[
        "dest",
        "content",
        "src",
        "remote_src",
        "mode",
        "owner",
        "group",
        "backup",
        "force",
        "validate",
    ],
    &["dest", "content|src"],
    observe,
    plan,
);

pub(super) static TEMPLATE: Spec = plain(
    "template",
    &["src", "dest", "mode", "owner", "group", "backup", "force", "validate"],
    &["src", "dest"],
    observe,
    plan,
);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Args {
    dest: String,
    content: Option<Json>,
    src: Option<String>,
    remote_src: Option<Flag>,
    mode: Option<Mode>,
    owner: Option<Who>,
    group: Option<Who>,
    backup: Option<Flag>,
    force: Option<Flag>,
    validate: Option<String>,
}

fn observe(args: &Map<String, Json>) -> Vec<Read> {
    let mut reads = Vec::new();
    let src = text(args, &["src"]);
    if let Some(dest) = text(args, &["dest"]) {
        if !dest.ends_with('/') {
            reads.push(path_read(dest, true));
        } else if let Some(src) = src {
            reads.push(path_read(&in_directory(dest, src), true));
        }
    }
    if let (Some(src), Some(_)) = (src, args.get("remote_src")) {
        reads.push(path_read(src, true));
    }
    reads
}

fn in_directory(directory: &str, src: &str) -> String {
    let name = src.rsplit('/').next().unwrap_or(src);
    format!("{directory}{}", name.strip_suffix(".j2").unwrap_or(name))
}

fn plan(input: &Input, world: &World) -> Result<ModulePlan, PlanError> {
    let args: Args = input.decode()?;
    if args.content.is_some() && args.src.is_some() {
        return Err(PlanError::failed("`content` and `src` exclude each other"));
    }
    let path = match (&args.src, args.dest.ends_with('/')) {
        (Some(src), true) => in_directory(&args.dest, src),
        _ => args.dest.clone(),
    };
    let secret = input.is_secret("content") || input.is_secret("src");
    let remote = args.remote_src.is_some_and(|flag| flag.0);
    let content = match (args.content, args.src) {
        (Some(Json::String(text)), _) => local(Bytes::from(text), secret),
        (Some(other), _) => local(Bytes::from(format!("{other:#}")), secret),
        (None, Some(src)) if remote => {
            let facts = world.path(&src, true)?;
            let sha256 = facts
                .and_then(|facts| facts.sha256.clone())
                .ok_or_else(|| PlanError::failed(format!("{src} is not a file on the host")))?;
            Content::CopyOf { path: src, sha256 }
        }
        (None, _) => match (&input.content, &input.local) {
            (Some(bytes), _) => local(bytes.clone(), secret),
            (None, Some(file)) => Content::Local(file.clone()),
            (None, None) => return Err(PlanError::failed("neither `content` nor `src`")),
        },
    };
    let wanted = Wanted {
        path,
        content,
        mode: args.mode.map(|mode| mode.0),
        mode_new: if secret { 0o600 } else { 0o644 },
        owner: args.owner.map(|who| who.0),
        group: args.group.map(|who| who.0),
        backup: args.backup.is_some_and(|flag| flag.0),
        force: args.force.is_none_or(|flag| flag.0),
        validate: args.validate.as_deref().map(command).transpose()?.unwrap_or_default(),
    };
    if secret && wanted.mode.is_some_and(|mode| mode & 0o007 != 0) {
        return Err(PlanError::failed(format!(
            "{} would hold a secret and be open to everybody: its mode must end in 0",
            wanted.path
        )));
    }
    content::plan(input, world, wanted)
}

/// The words of `validate`. As in Ansible there is no shell, and `%s` is the file.
fn command(text: &str) -> Result<Vec<String>, PlanError> {
    let words = shell_words::split(text)
        .map_err(|error| PlanError::failed(format!("argument `validate`: {error}")))?;
    if words.iter().any(|word| word.contains("%s")) {
        return Ok(words);
    }
    Err(PlanError::failed("argument `validate` must contain %s, the file to look at"))
}

fn local(bytes: Bytes, secret: bool) -> Content {
    if secret { Content::Secret(bytes) } else { Content::Bytes(bytes) }
}
