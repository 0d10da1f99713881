//! A file that shall have a content, mode and owner: what `copy`, `template` and `binary` share.

use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::diff::{Diff, Side};
use super::types::{Input, LocalFile, ModulePlan, PlanError, World, odd};
use crate::host::protocol::{Change, FileContent, Observed, PathFacts, PathKind, Read, SecretText};
use crate::secret::Secret;

/// Longest file that is read back for a diff, in bytes.
const DIFF_BYTES_MAX: u64 = 128 * 1024;

/// What a file shall be.
pub(super) struct Wanted {
    pub(super) path: String,
    pub(super) content: Content,
    /// `None`: as it is, and [`Wanted::mode_new`] for a new file.
    pub(super) mode: Option<u32>,
    pub(super) mode_new: u32,
    pub(super) owner: Option<String>,
    pub(super) group: Option<String>,
    pub(super) backup: bool,
    /// Overwrite what is there with another content.
    pub(super) force: bool,
    /// The command that must find the new file good; none when empty.
    pub(super) validate: Vec<String>,
}

/// What it shall hold.
pub(super) enum Content {
    Bytes(Bytes),
    Secret(Bytes),
    /// A file of the control machine that is too long to be read into memory for each host.
    Local(LocalFile),
    /// A copy of another file of the host.
    CopyOf {
        path: String,
        sha256: String,
    },
}

impl Content {
    fn sha256(&self) -> String {
        match self {
            Self::Bytes(bytes) | Self::Secret(bytes) => hex::encode(Sha256::digest(bytes)),
            Self::CopyOf { sha256, .. } => sha256.clone(),
            Self::Local(file) => file.sha256.clone(),
        }
    }

    fn side(&self) -> Side {
        match self {
            Self::Bytes(bytes) => Side::of(bytes),
            Self::Secret(_) => Side::Secret,
            Self::CopyOf { sha256, .. } | Self::Local(LocalFile { sha256, .. }) => {
                Side::Note(format!("sha256 {sha256}"))
            }
        }
    }

    fn into_change(self) -> Result<FileContent, PlanError> {
        Ok(match self {
            Self::Bytes(bytes) => FileContent::Bytes(bytes),
            Self::Secret(bytes) => match String::from_utf8(bytes.to_vec()) {
                Ok(text) => FileContent::Secret(SecretText(Secret::new(text))),
                Err(_) => return Err(PlanError::failed("a secret must be text")),
            },
            Self::CopyOf { path, sha256 } => FileContent::CopyOf { path, sha256 },
            Self::Local(LocalFile { path, sha256, size }) => {
                FileContent::Local { path, sha256, size }
            }
        })
    }
}

/// The plan that makes `wanted` true.
pub(super) fn plan(input: &Input, world: &World, wanted: Wanted) -> Result<ModulePlan, PlanError> {
    let mut plan = ModulePlan::default();
    let sha256 = wanted.content.sha256();
    plan.say("dest", wanted.path.as_str());
    plan.say("checksum", sha256.as_str());
    let found = world.path(&wanted.path, true)?;
    if found.is_some_and(|facts| facts.kind == PathKind::Directory) {
        return Err(PlanError::failed(format!(
            "{} is a directory, a file shall be there",
            wanted.path
        )));
    }
    let same = found.is_some_and(|facts| facts.sha256.as_deref() == Some(sha256.as_str()));
    if same || (found.is_some() && !wanted.force) {
        if let Some(facts) = found {
            attributes(&mut plan, &wanted, facts);
        }
        return Ok(plan);
    }
    if input.diff {
        let before = before(world, &wanted, found)?;
        plan.diffs.push(Diff { path: wanted.path.clone(), before, after: wanted.content.side() });
    }
    let reason = match found {
        None => format!("{} is not there", wanted.path),
        Some(facts) if facts.kind != PathKind::File => {
            format!("{} is not a regular file", wanted.path)
        }
        Some(_) => format!("the content of {} differs", wanted.path),
    };
    let mode = wanted.mode.or(found.map(|facts| facts.mode)).unwrap_or(wanted.mode_new);
    let change = Change::PutFile {
        path: wanted.path,
        content: wanted.content.into_change()?,
        mode,
        owner: wanted.owner.or(found.map(|facts| facts.owner.clone())),
        group: wanted.group.or(found.map(|facts| facts.group.clone())),
        backup: wanted.backup && found.is_some(),
        validate: wanted.validate,
    };
    plan.change(change, reason);
    Ok(plan)
}

fn before(world: &World, wanted: &Wanted, found: Option<&PathFacts>) -> Result<Side, PlanError> {
    let Some(facts) = found else { return Ok(Side::Absent) };
    match &wanted.content {
        Content::Secret(_) => return Ok(Side::Secret),
        Content::CopyOf { .. } | Content::Local(_) => {
            let sha256 = facts.sha256.as_deref().unwrap_or("unknown");
            return Ok(Side::Note(format!("sha256 {sha256}")));
        }
        Content::Bytes(_) => {}
    }
    if facts.kind != PathKind::File || facts.size > DIFF_BYTES_MAX {
        return Ok(Side::Note(format!("{:?}, {} bytes", facts.kind, facts.size)));
    }
    // What the file was may be a secret although what it will be is not: only a file that others
    // may read is shown.
    if facts.mode & 0o044 == 0 && wanted.mode.unwrap_or(facts.mode) & 0o044 != 0 {
        return Ok(Side::Secret);
    }
    match world.get(&Read::File { path: wanted.path.clone(), bytes_max: DIFF_BYTES_MAX })? {
        Observed::File(Some(bytes)) => Ok(Side::of(bytes)),
        Observed::File(None) => Ok(Side::Absent),
        other => Err(odd(other)),
    }
}

fn attributes(plan: &mut ModulePlan, wanted: &Wanted, facts: &PathFacts) {
    set_attributes(
        plan,
        &wanted.path,
        wanted.mode,
        wanted.owner.as_deref(),
        wanted.group.as_deref(),
        facts,
    );
}

/// Adds the change that corrects mode and owner, if one differs.
pub(super) fn set_attributes(
    plan: &mut ModulePlan,
    path: &str,
    mode: Option<u32>,
    owner: Option<&str>,
    group: Option<&str>,
    facts: &PathFacts,
) {
    let mut reasons = Vec::new();
    if let Some(mode) = mode.filter(|mode| *mode != facts.mode) {
        reasons.push(format!("mode is {:04o}, should be {mode:04o}", facts.mode));
    }
    if let Some(owner) = owner.filter(|owner| *owner != facts.owner) {
        reasons.push(format!("owner is {}, should be {owner}", facts.owner));
    }
    if let Some(group) = group.filter(|group| *group != facts.group) {
        reasons.push(format!("group is {}, should be {group}", facts.group));
    }
    if reasons.is_empty() {
        return;
    }
    let change = Change::SetAttributes {
        path: path.to_owned(),
        mode: mode.filter(|mode| *mode != facts.mode),
        owner: owner.filter(|owner| *owner != facts.owner).map(str::to_owned),
        group: group.filter(|group| *group != facts.group).map(str::to_owned),
    };
    plan.change(change, format!("{path}: {}", reasons.join(", ")));
}
