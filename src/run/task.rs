//! One task on the hosts of a wave: look and plan at all of them, check the whole, then act.

use std::collections::BTreeMap;

use futures::StreamExt;
use serde_json::{Map, Value as Json, json};

use super::Run;
use super::event::{Event, Status, TaskResult};
use super::gather::lost;
use super::host::HostRun;
use super::job::{self, Job, Outcome, Stage};
use super::perform::{carry_out, foretell, plan_job};
use super::vars::{PlayVars, Scope};
use crate::cluster::layout::Role;
use crate::cluster::safety::SafetyFinding;
use crate::error::Failure;
use crate::host::protocol::Change;
use crate::plan::{self, Danger};
use crate::playbook::program::{Caught, Program, TaskStep};
use crate::template::Var;

impl Run<'_> {
    /// Runs `step` on those hosts of `wave` that come to it.
    pub(super) async fn task(
        &mut self,
        program: &Program,
        step: &TaskStep,
        vars: &PlayVars,
        wave: &[usize],
        handler: bool,
    ) -> Result<(), Failure> {
        let mut places: Vec<usize> =
            wave.iter().copied().filter(|place| self.comes_to(*place, step)).collect();
        if places.is_empty() {
            return Ok(());
        }
        let once = step.inherited.run_once.unwrap_or(false);
        let everybody = places.clone();
        if once {
            places.truncate(1);
        }
        self.context.emit(&Event::Task { name: step.task.name.clone(), handler });
        if !self.cluster.has_ca() && self.mentions(step, "cluster") {
            self.refresh_cluster().await;
        }
        let mut jobs = self.planned(step, vars, &places).await;
        if self.checks(step) {
            self.foretell(&mut jobs, step);
        } else {
            let mut dangers = self.dangers(&jobs).await?;
            if dangers.is_some() && self.decides_anew(step) {
                jobs = self.planned(step, vars, &places).await;
                dangers = self.dangers(&jobs).await?;
            }
            self.refuse(&dangers.unwrap_or_default())?;
            self.on_targets(&mut jobs, Phase::Act, step).await;
        }
        for job in jobs {
            let beneficiaries = if once { everybody.clone() } else { vec![job.owner] };
            self.conclude(program, step, job, &beneficiaries);
        }
        Ok(())
    }

    fn comes_to(&self, place: usize, step: &TaskStep) -> bool {
        self.hosts
            .get(place)
            .is_some_and(|host| !host.out && !host.ended_play && host.flow.runs(step))
    }

    /// Whether `step` is only foretold.
    fn checks(&self, step: &TaskStep) -> bool {
        step.inherited.check_mode.unwrap_or(self.context.options.check)
    }

    fn prepare(&self, step: &TaskStep, vars: &PlayVars, places: &[usize]) -> Vec<Job> {
        let scope = self.scope(vars);
        let mut jobs = Vec::new();
        for &place in places {
            let Some(host) = self.hosts.get(place) else { continue };
            let target = self.target(&scope, host, place, step);
            let runs_on = target.as_ref().ok().and_then(|target| self.hosts.get(*target));
            let runs_on = runs_on.unwrap_or(host);
            let mut job =
                job::prepare(&self.context, &self.cluster, &scope, host, place, runs_on, step);
            match target {
                Ok(target) => job.target = target,
                // What is skipped anyway does not need a host to run on.
                Err(why) => job.refuse(&why),
            }
            jobs.push(job);
        }
        jobs
    }

    /// The place of the host that `step` of `host` runs on.
    fn target(
        &self,
        scope: &Scope,
        host: &HostRun,
        place: usize,
        step: &TaskStep,
    ) -> Result<usize, String> {
        let Some(delegate) = &step.inherited.delegate_to else { return Ok(place) };
        let vars = scope.task(host, &step.inherited.vars, BTreeMap::new());
        let name = self.context.engine.render(&delegate.text, &vars);
        let found = match name {
            Ok(name) => self.find(name.text.trim()),
            Err(error) => Err(error.to_string()),
        };
        found.map_err(|why| format!("{}: {why}", delegate.mark))
    }

    fn find(&self, name: &str) -> Result<usize, String> {
        let found = self.hosts.iter().position(|host| host.name() == name);
        match found {
            Some(place) if self.hosts.get(place).is_some_and(|host| host.out) => {
                Err(format!("{name} is out of the run"))
            }
            Some(place) => Ok(place),
            None => Err(format!("{name} takes no part in the run")),
        }
    }

    /// Works on all jobs, those of different targets at the same time.
    async fn on_targets(&mut self, jobs: &mut Vec<Job>, phase: Phase, step: &TaskStep) {
        let context = &self.context;
        let mut by_target: BTreeMap<usize, Vec<Job>> = BTreeMap::new();
        for job in jobs.drain(..) {
            by_target.entry(job.target).or_default().push(job);
        }
        // Servers that are started together wait for each other: none may wait for its turn.
        let at_once = context.at_once(by_target.len().min(self.servers));
        let work = self.hosts.iter_mut().enumerate().filter_map(|(place, host)| {
            let mut jobs = by_target.remove(&place)?;
            Some(async move {
                for job in &mut jobs {
                    if job.lost.is_some() {
                        continue;
                    }
                    match phase {
                        Phase::Plan => plan_job(context, host, job, step).await,
                        Phase::Act => carry_out(context, host, job, step).await,
                    }
                }
                jobs
            })
        });
        let work: Vec<_> = work.collect();
        let done: Vec<Vec<Job>> =
            futures::stream::iter(work).buffer_unordered(at_once.min(4096)).collect().await;
        jobs.extend(done.into_iter().flatten());
        jobs.sort_by_key(|job| job.owner);
    }

    fn foretell(&mut self, jobs: &mut [Job], step: &TaskStep) {
        for job in jobs {
            let Some(host) = self.hosts.get_mut(job.target) else { continue };
            for item in &mut job.items {
                foretell(host, item, step);
            }
        }
    }

    /// The jobs of `step`, as far as they can be planned.
    async fn planned(&mut self, step: &TaskStep, vars: &PlayVars, places: &[usize]) -> Vec<Job> {
        let mut jobs = self.prepare(step, vars, places);
        self.on_targets(&mut jobs, Phase::Plan, step).await;
        jobs
    }

    /// Before anything is sent: the lock is taken, and what is not safe about the whole is told.
    /// Nothing where no change can be dangerous; else the cluster was looked at again.
    async fn dangers(&mut self, jobs: &[Job]) -> Result<Option<Vec<SafetyFinding>>, Failure> {
        let changes = |job: &Job| -> Vec<Change> {
            let planned = job.items.iter().filter_map(|item| match &item.stage {
                Stage::Planned(_, planned) => Some(planned.plan.changes.clone()),
                // Not planned yet because it depends on an earlier item: it will change something.
                _ => None,
            });
            planned.flatten().collect()
        };
        let all: Vec<(usize, Vec<Change>)> =
            jobs.iter().map(|job| (job.target, changes(job))).collect();
        if all.iter().all(|(_, changes)| changes.is_empty()) {
            return Ok(None);
        }
        self.lock.take(&self.context, &mut self.hosts).await?;
        let mut dangers: Vec<(String, Danger)> = Vec::new();
        for (place, changes) in &all {
            let Some(host) = self.hosts.get(*place) else { continue };
            let server = host.fleet.role == Some(Role::Server);
            let Some(layout) = self.cluster.places.get(host.name()) else { continue };
            let service = &layout.layout.service;
            let own = changes.iter().filter_map(|change| Danger::of(change, service));
            dangers.extend(own.filter(|_| server).map(|danger| (host.name().to_owned(), danger)));
        }
        if dangers.is_empty() || self.context.options.ends_cluster {
            return Ok(None);
        }
        self.look_again().await;
        let named: Vec<(&str, Danger)> =
            dangers.iter().map(|(name, danger)| (name.as_str(), danger.clone())).collect();
        Ok(Some(plan::check(&named, self.best_view())))
    }

    /// Whether `step` hangs on what servers must do, and that is another thing by now: a node that
    /// an earlier run started may have joined after it was looked at, and its member is then not one
    /// that was lost with a disk.
    fn decides_anew(&mut self, step: &TaskStep) -> bool {
        if !self.mentions(step, "bootstrap") {
            return false;
        }
        let before = self.cluster.plan.clone();
        self.cluster.decide(&self.hosts).is_ok() && self.cluster.plan != before
    }

    /// Takes in how a job ended: results, notifications, failures, the report.
    fn conclude(&mut self, program: &Program, step: &TaskStep, job: Job, hosts: &[usize]) {
        if let Some(error) = &job.lost {
            let Some(target) = self.hosts.get_mut(job.target) else { return };
            lost(&self.context, target, &step.task.name, error);
            if job.owner != job.target {
                self.fail(program, step, &[job.owner]);
            }
            return;
        }
        let outcomes: Vec<(Option<String>, Outcome)> = job
            .items
            .into_iter()
            .map(|item| match item.stage {
                Stage::Ended(outcome) => (item.label, *outcome),
                _ => (item.label, Outcome::failed("it was not run")),
            })
            .collect();
        let total = total(&outcomes);
        let ignored = total == Status::Failed && step.inherited.ignore_errors.unwrap_or(false);
        self.report(step, job.owner, job.is_loop, &outcomes, total, ignored);
        self.count(job.owner, total, ignored);
        let unknown = outcomes.iter().any(|(_, outcome)| outcome.unknown);
        let var = if unknown || (total == Status::Unknown && self.context.options.check) {
            Var::Unknown
        } else {
            Var::Plain(combined(&outcomes, job.is_loop, total))
        };
        for &place in hosts {
            let Some(host) = self.hosts.get_mut(place) else { continue };
            if let Some(name) = &step.task.register {
                host.known.insert(name.clone(), var.clone());
            }
            for (_, outcome) in &outcomes {
                host.known.extend(outcome.facts.clone());
            }
        }
        if total == Status::Changed
            && let Some(host) = self.hosts.get_mut(job.owner)
        {
            host.notified.extend(step.task.notify.iter().cloned());
            self.changed = true;
        }
        if total == Status::Failed && !ignored {
            self.fail(program, step, hosts);
        }
    }

    /// The hosts at `places` failed at `step`.
    fn fail(&mut self, program: &Program, step: &TaskStep, places: &[usize]) {
        for &place in places {
            let Some(host) = self.hosts.get_mut(place) else { continue };
            match host.flow.fail(program, step) {
                Caught::Rescued => {
                    host.recap.rescued += 1;
                    host.recap.failed = host.recap.failed.saturating_sub(1);
                    let result = json!({ "name": step.task.name });
                    host.known.insert("ansible_failed_task".to_owned(), Var::Plain(result));
                }
                Caught::Nobody => {
                    self.fatal |= step.inherited.any_errors_fatal.unwrap_or(false);
                }
            }
        }
    }

    fn count(&mut self, owner: usize, total: Status, ignored: bool) {
        let Some(host) = self.hosts.get_mut(owner) else { return };
        let recap = &mut host.recap;
        match total {
            Status::Ok => recap.ok += 1,
            Status::Changed => {
                recap.ok += 1;
                recap.changed += 1;
            }
            Status::Failed if ignored => {
                recap.ok += 1;
                recap.ignored += 1;
            }
            Status::Failed => recap.failed += 1,
            Status::Skipped | Status::Unknown => recap.skipped += 1,
            Status::Unreachable => recap.unreachable = 1,
        }
    }

    fn report(
        &self,
        step: &TaskStep,
        owner: usize,
        is_loop: bool,
        outcomes: &[(Option<String>, Outcome)],
        total: Status,
        ignored: bool,
    ) {
        let Some(host) = self.hosts.get(owner) else { return };
        let name = host.name().to_owned();
        let silent = step.inherited.no_log.unwrap_or(false);
        if is_loop && outcomes.is_empty() {
            self.context.result(TaskResult {
                host: name,
                task: step.task.name.clone(),
                status: total,
                message: Some("the loop has no items".to_owned()),
                ..TaskResult::default()
            });
            return;
        }
        for (label, outcome) in outcomes {
            let hidden = || Some("the output is hidden: no_log is set".to_owned());
            self.context.result(TaskResult {
                host: name.clone(),
                task: step.task.name.clone(),
                item: label.clone().filter(|_| !silent),
                status: outcome.status,
                message: if silent { hidden() } else { outcome.message.clone() },
                hint: outcome.hint.clone().filter(|_| !silent),
                reasons: if silent { Vec::new() } else { outcome.reasons.clone() },
                diff: outcome.diff.clone().filter(|_| !silent),
                ignored: ignored && outcome.status == Status::Failed,
            });
        }
    }
}

/// What is done with jobs.
#[derive(Clone, Copy)]
enum Phase {
    Plan,
    Act,
}

/// How a task as a whole ended, from its items.
fn total(outcomes: &[(Option<String>, Outcome)]) -> Status {
    let any = |status: Status| outcomes.iter().any(|(_, outcome)| outcome.status == status);
    let order = [Status::Failed, Status::Changed, Status::Unknown, Status::Ok];
    order.into_iter().find(|status| any(*status)).unwrap_or(Status::Skipped)
}

/// The value for `register`.
fn combined(outcomes: &[(Option<String>, Outcome)], is_loop: bool, total: Status) -> Json {
    let one = |outcome: &Outcome| {
        let mut map = outcome.result.clone();
        map.insert("changed".to_owned(), (outcome.status == Status::Changed).into());
        map.insert("failed".to_owned(), (outcome.status == Status::Failed).into());
        if outcome.status == Status::Skipped {
            map.insert("skipped".to_owned(), true.into());
        }
        if let Some(message) = &outcome.message {
            map.entry("msg").or_insert_with(|| message.as_str().into());
        }
        map
    };
    match outcomes {
        [(_, outcome)] if !is_loop => Json::Object(one(outcome)),
        _ => {
            let results: Vec<Map<String, Json>> =
                outcomes.iter().map(|(_, outcome)| one(outcome)).collect();
            json!({
                "results": results,
                "changed": total == Status::Changed,
                "failed": total == Status::Failed,
                "skipped": total == Status::Skipped,
            })
        }
    }
}
