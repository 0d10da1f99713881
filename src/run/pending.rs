//! Handlers that a host is owed survive a run that dies: each is a mark on the host, made in the
//! same request as the change that notified it, and removed when the handler has run.

use super::context::Context;
use super::host::HostRun;
use crate::host::protocol::{Change, FileContent, Observed, Read};
use crate::playbook::program::TaskStep;
use crate::playbook::{Play, Task};
use crate::remote::RemoteError;

/// Where the marks are, under the host's root.
const DIRECTORY: &str = "/var/lib/k3sup-rs/pending";

/// What is read to know the marks.
pub(super) fn read(host: &HostRun) -> Read {
    Read::Directory { path: format!("{}{DIRECTORY}", host.root()) }
}

fn path(host: &HostRun, name: &str) -> String {
    format!("{}{DIRECTORY}/{}", host.root(), file_name(name))
}

/// A handler's name as a file's: letters, digits and `-`, all else as `_`.
fn file_name(name: &str) -> String {
    name.chars().map(|each| if each.is_ascii_alphanumeric() { each } else { '_' }).collect()
}

/// Whether `task`, a handler, answers to `name`.
pub(super) fn answers(task: &Task, name: &str) -> bool {
    task.name == name || task.listen.iter().any(|topic| topic == name)
}

/// Marks for what `step` notifies, as far as they are not there; all of them when it is not known
/// `again` which are.
pub(super) fn owe(host: &mut HostRun, step: &TaskStep, again: bool) -> Vec<Change> {
    let mut changes = Vec::new();
    for name in &step.task.notify {
        if host.owed.contains(name) && !again {
            continue;
        }
        let directory = format!("{}{DIRECTORY}", host.root());
        if changes.is_empty() && (host.owed.is_empty() || again) {
            changes.push(Change::MakeDirectory {
                path: directory,
                mode: 0o700,
                owner: None,
                group: None,
            });
        }
        changes.push(Change::PutFile {
            path: path(host, name),
            content: FileContent::Bytes(bytes::Bytes::new()),
            mode: 0o600,
            owner: None,
            group: None,
            backup: false,
            validate: Vec::new(),
        });
        host.owed.insert(name.clone());
    }
    changes
}

/// Before the first change: what marks an earlier run left. From then on only this run makes and
/// removes them, and what was read of them becomes stale with nearly every change.
pub(super) fn remember(host: &mut HostRun) {
    if let Some(Observed::Names(Some(names))) = host.world.peek(&read(host)) {
        host.marks = names.clone();
    }
}

/// At the beginning of a play: what an earlier run left undone.
pub(super) fn recall(host: &mut HostRun, play: &Play) {
    let known = play.handlers.iter().flat_map(|handler| {
        std::iter::once(&handler.name).chain(&handler.listen).cloned().collect::<Vec<_>>()
    });
    for name in known {
        if host.marks.contains(&file_name(&name)) {
            host.notified.insert(name.clone());
            host.owed.insert(name);
        }
    }
}

/// The handlers have run: the marks go.
pub(super) async fn settle(context: &Context<'_>, host: &mut HostRun) -> Result<(), RemoteError> {
    let names = std::mem::take(&mut host.owed);
    host.marks.retain(|mark| !names.iter().any(|name| file_name(name) == *mark));
    let changes: Vec<Change> =
        names.iter().map(|name| Change::Remove { path: path(host, name) }).collect();
    if changes.is_empty() || context.options.check {
        return Ok(());
    }
    let user = host.user(None, None);
    let answers = host.insist(context, user.as_deref(), changes).await?;
    if let Some(error) = answers.into_iter().find_map(Result::err) {
        context.warn(format!("{}: cannot remove a mark of a handler: {error}", host.name()));
    }
    Ok(())
}
