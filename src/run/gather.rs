//! One look at everything: all reads of all tasks that can be known, in one request per host.

use std::collections::BTreeMap;

use futures::StreamExt;

use super::Run;
use super::event::{Event, Status, TaskResult};
use super::host::HostRun;
use super::job;
use super::pending;
use super::vars::{PlayVars, Scope};
use crate::cluster::fence::{FENCE, Fence};
use crate::cluster::layout::Role;
use crate::error::{ExitCode, Failure};
use crate::host::protocol::{Observed, Read};
use crate::plan;
use crate::playbook::Playbook;
use crate::playbook::program::{Program, TaskStep};
use crate::remote::RemoteError;

/// Longest fence that is looked at.
const FENCE_BYTES_MAX: u64 = 64 * 1024;

impl Run<'_> {
    /// Connects to all hosts and looks: first what machine it is, then everything that the
    /// playbook's tasks want to know.
    pub(super) async fn gather(&mut self, playbook: &Playbook) -> Result<(), Failure> {
        let facts = vec![vec![Read::Facts]; self.hosts.len()];
        self.read_all(facts).await;
        self.cluster.place(&self.context.engine, &self.fleet, &self.hosts);
        self.prepare_k3s().await?;
        let programs: Vec<(Vec<String>, Program, PlayVars)> = playbook
            .plays
            .iter()
            .filter_map(|play| {
                let vars = self.play_vars(play).ok()?;
                Some((self.hosts_of(play).ok()?, Program::of(play), vars))
            })
            .collect();
        let mut wanted: Vec<Vec<Read>> = self.hosts.iter().map(|_| Vec::new()).collect();
        for (names, program, vars) in &programs {
            let scope = self.scope(vars);
            for (host, wanted) in self.hosts.iter().zip(&mut wanted) {
                if host.out || !names.iter().any(|name| name == host.name()) {
                    continue;
                }
                for step in program.tasks().filter(|step| self.is_tagged(step)) {
                    wanted.extend(self.reads_of(&scope, host, step));
                }
            }
        }
        for (host, wanted) in self.hosts.iter().zip(&mut wanted) {
            if let Some(place) = self.cluster.places.get(host.name()) {
                wanted.extend(place.reads());
                if host.fleet.role == Some(Role::Server) {
                    wanted.push(fence_read(&place.layout.data_dir));
                }
            }
            if !host.witness {
                wanted.push(pending::read(host));
            }
            wanted.push(super::lock::read(host));
        }
        self.read_all(wanted).await;
        self.hosts.iter_mut().for_each(pending::remember);
        Ok(())
    }

    /// What is read for `step`, as far as its arguments are known.
    fn reads_of(&self, scope: &Scope, host: &super::host::HostRun, step: &TaskStep) -> Vec<Read> {
        if step.inherited.delegate_to.is_some() {
            return Vec::new();
        }
        let engine = &self.context.engine;
        let vars = scope.task(host, &step.inherited.vars, BTreeMap::new());
        let Ok(items) = job::items(&self.context, scope, host, step, &vars) else {
            return Vec::new();
        };
        let mut reads = Vec::new();
        for (_, vars, _) in items {
            if matches!(plan::conditions(engine, &step.inherited.when, &vars), Ok(Some(_))) {
                continue;
            }
            let module = step.task.module;
            let environment = serde_json::Map::new();
            let input = plan::prepare(engine, module, &step.task.args, &environment, &vars, true);
            if let Ok(mut input) = input {
                job::fill_node(&self.cluster, host, step, &mut input);
                reads.extend((module.observe)(&input.args));
            }
        }
        reads
    }

    /// Takes `reads` of each host, all hosts at once.
    pub(super) async fn read_all(&mut self, reads: Vec<Vec<Read>>) {
        let context = &self.context;
        let work = self.hosts.iter_mut().zip(reads).filter(|(host, _)| !host.out);
        let work = work.map(async |(host, reads)| {
            let user = host.user(None, None);
            let result = host.read(context, user.as_deref(), reads).await;
            (host, result)
        });
        let at_once = context.at_once(1);
        let results: Vec<_> =
            futures::stream::iter(work).buffer_unordered(at_once.min(4096)).collect().await;
        for (host, result) in results {
            if let Err(error) = result {
                lost(context, host, "Gathering facts", &error);
            }
        }
    }

    /// Reads the servers' disks and nodes again where changes made that stale.
    pub(super) async fn refresh_cluster(&mut self) {
        let reads = self
            .hosts
            .iter()
            .map(|host| match self.cluster.places.get(host.name()) {
                Some(place) if host.fleet.role == Some(Role::Server) => place.reads().to_vec(),
                _ => Vec::new(),
            })
            .collect();
        self.read_all(reads).await;
        self.cluster.learn_ca(&self.hosts);
    }
}

/// What is read to know whether a server is fenced.
fn fence_read(data_dir: &str) -> Read {
    Read::File { path: format!("{data_dir}/{FENCE}"), bytes_max: FENCE_BYTES_MAX }
}

/// Refuses while a server is fenced: what goes on there is not over, and only its own verb knows what
/// is left to be done.
pub(super) fn check_fences(run: &Run<'_>) -> Result<(), Failure> {
    let fence = |host: &HostRun| {
        let place = run.cluster.places.get(host.name())?;
        match host.world.peek(&fence_read(&place.layout.data_dir)) {
            Some(Observed::File(Some(text))) => {
                // What cannot be read is a fence all the same.
                let fence: Fence = serde_json::from_slice(text).unwrap_or_default();
                Some((host.name().to_owned(), fence))
            }
            _ => None,
        }
    };
    let fences: Vec<(String, Fence)> = run.hosts.iter().filter_map(fence).collect();
    let Some((_, fence)) = fences.first() else { return Ok(()) };
    let names: Vec<&str> = fences.iter().map(|(name, _)| name.as_str()).collect();
    let since = std::time::UNIX_EPOCH + std::time::Duration::from_secs(fence.since_unix_s);
    let message = format!(
        "{} is fenced since {} by {}: {}",
        names.join(", "),
        humantime::format_rfc3339_seconds(since),
        fence.by,
        fence.reason
    );
    Err(Failure::new(ExitCode::Refused, message).hint(fence.advice()))
}

/// The host is out: it could not be reached, or does not let us work there.
pub(super) fn lost(
    context: &super::context::Context<'_>,
    host: &mut super::host::HostRun,
    task: &str,
    error: &RemoteError,
) {
    let hint = match error {
        RemoteError::Unreachable { hint, .. }
        | RemoteError::HostKey { hint, .. }
        | RemoteError::Authentication { hint, .. }
        | RemoteError::Become { hint, .. }
        | RemoteError::Executor { hint, .. } => hint.clone(),
    };
    host.lose();
    host.lost_why = Some(context.masker.text(&error.to_string()));
    // A host that answers, and only lets nobody become another user, is no host that is away.
    let refuses = matches!(error, RemoteError::Become { .. });
    if refuses {
        host.recap.unreachable = 0;
        host.recap.failed += 1;
    }
    if host.witness {
        // It takes no part in the run; that it cannot be looked at matters for decisions only.
        host.recap.unreachable = 0;
        context.emit(&Event::Warning {
            message: format!("{}: {}", host.name(), context.masker.text(&error.to_string())),
        });
        return;
    }
    context.result(TaskResult {
        host: host.name().to_owned(),
        task: task.to_owned(),
        status: if refuses { Status::Failed } else { Status::Unreachable },
        message: Some(error.to_string()),
        hint,
        ..TaskResult::default()
    });
}
