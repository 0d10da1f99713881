//! Walks a play: waves of hosts, tasks in step, handlers at the end.

use std::collections::BTreeMap;

use serde_json::Value as Json;

use super::Run;
use super::event::Event;
use super::pending;
use super::vars::{PlayVars, Scope, templates};
use crate::error::{ExitCode, Failure};
use crate::playbook::program::{Program, Step, TaskStep};
use crate::playbook::{Inherited, Order, Play};
use crate::template::Vars;

/// How a play ended for all.
pub(super) enum PlayEnd {
    /// The next play may begin.
    GoOn,
    /// So many failed that the run ends.
    Stop,
}

impl Run<'_> {
    /// Runs `play` on those of its hosts that are left.
    pub(super) async fn play(&mut self, play: &Play) -> Result<PlayEnd, Failure> {
        let hosts: Vec<usize> = self.left(&self.hosts_of(play)?);
        if hosts.is_empty() {
            return Ok(PlayEnd::GoOn);
        }
        let program = Program::of(play);
        let mut vars = self.play_vars(play)?;
        for &place in &hosts {
            let Some(host) = self.hosts.get_mut(place) else { continue };
            host.flow = crate::playbook::program::Flow::default();
            host.ended_play = false;
            host.notified.clear();
            pending::recall(host, play);
        }
        vars.hosts = self.names(&hosts);
        let mut rest = hosts.clone();
        for size in wave_sizes(play, hosts.len()) {
            if play.order == Order::Rolling {
                let first = rest.len() == hosts.len();
                self.sort_rolling(&mut rest, first).await?;
            }
            let wave: Vec<usize> = rest.drain(..size.min(rest.len())).collect();
            vars.batch = self.names(&wave);
            let name = match play.order {
                Order::Inventory => play.name.clone(),
                Order::Rolling => format!("{}: {}", play.name, vars.batch.join(", ")),
            };
            self.context.emit(&Event::Play { name, hosts: vars.batch.clone() });
            self.wave(play, &program, &vars, &wave).await?;
            let failed = wave.iter().filter(|place| self.is_out(**place)).count();
            if self.too_many(play, failed, wave.len()) {
                return Ok(PlayEnd::Stop);
            }
        }
        Ok(PlayEnd::GoOn)
    }

    async fn wave(
        &mut self,
        play: &Play,
        program: &Program,
        vars: &PlayVars,
        wave: &[usize],
    ) -> Result<(), Failure> {
        for (number, step) in program.steps.iter().enumerate() {
            if self.context.is_interrupted() {
                return Err(self.interrupted(program, number));
            }
            match step {
                Step::Flush => self.flush(play, vars, wave).await?,
                Step::Task(step) if step.task.module.name == "meta" => {
                    self.meta(play, program, step, vars, wave).await?;
                }
                Step::Task(step) => {
                    if self.is_tagged(step) {
                        self.task(program, step, vars, wave, false).await?;
                    }
                }
            }
            let failed = wave.iter().filter(|place| self.is_out(**place)).count();
            let fatal = play.any_errors_fatal || is_fatal(step);
            if failed == wave.len() || (fatal && failed > 0) {
                break;
            }
        }
        Ok(())
    }

    /// Whether so many hosts of a wave failed that the run ends for all.
    fn too_many(&self, play: &Play, failed: usize, of: usize) -> bool {
        #[expect(clippy::cast_precision_loss, reason = "numbers of hosts are small")]
        let percent = failed as f64 * 100.0 / of.max(1) as f64;
        failed == of
            || (failed > 0 && (play.any_errors_fatal || self.fatal))
            || play.max_fail_percentage.is_some_and(|most| percent > most)
    }

    /// Runs the handlers that were notified, in their order.
    async fn flush(&mut self, play: &Play, vars: &PlayVars, wave: &[usize]) -> Result<(), Failure> {
        for handler in &play.handlers {
            let due: Vec<usize> = wave
                .iter()
                .copied()
                .filter(|place| {
                    self.hosts.get(*place).is_some_and(|host| {
                        !host.out
                            && host.notified.iter().any(|name| pending::answers(handler, name))
                    })
                })
                .collect();
            if due.is_empty() {
                continue;
            }
            let program = handler_program(play, handler);
            let Some(step) = program.tasks().next().cloned() else { continue };
            self.task(&program, &step, vars, &due, true).await?;
        }
        for &place in wave {
            let Some(host) = self.hosts.get_mut(place).filter(|host| !host.out) else { continue };
            host.notified.clear();
            if let Err(error) = pending::settle(&self.context, host).await {
                super::gather::lost(&self.context, host, "handlers", &error);
            }
        }
        Ok(())
    }

    async fn meta(
        &mut self,
        play: &Play,
        program: &Program,
        step: &TaskStep,
        vars: &PlayVars,
        wave: &[usize],
    ) -> Result<(), Failure> {
        let action = step.task.args.get("action").and_then(Json::as_str);
        match action.unwrap_or_default() {
            "flush_handlers" => self.flush(play, vars, wave).await?,
            ends @ ("end_play" | "end_host") => {
                let scope = self.scope(vars);
                let holds = |run: &Self, place: usize| {
                    let host = run.hosts.get(place)?;
                    let vars = scope.task(host, &step.inherited.vars, BTreeMap::new());
                    let conditions = &step.inherited.when;
                    crate::plan::conditions(&run.context.engine, conditions, &vars).ok()
                };
                let chosen: Vec<usize> = wave
                    .iter()
                    .copied()
                    .filter(|place| matches!(holds(self, *place), Some(None)))
                    .collect();
                let all = ends == "end_play" && !chosen.is_empty();
                for place in if all { wave.to_vec() } else { chosen } {
                    if let Some(host) = self.hosts.get_mut(place) {
                        host.ended_play = true;
                    }
                }
            }
            "noop" => {}
            _ => {
                // Its argument is checked by the module, which says what is possible.
                self.task(program, step, vars, wave, false).await?;
            }
        }
        Ok(())
    }

    /// What is not done because the run was interrupted before step `next`.
    fn interrupted(&self, program: &Program, next: usize) -> Failure {
        let steps = program.steps.iter().skip(next).filter_map(|step| match step {
            Step::Task(step) => Some(step.task.name.clone()),
            Step::Flush => None,
        });
        let later = self.plays_left.iter().map(|name| format!("play {name}"));
        self.context.emit(&Event::Undone { steps: steps.chain(later).collect() });
        Failure::new(ExitCode::Interrupted, "interrupted; the step that was going on is done")
            .hint("run the same command again: it looks, and does what is left")
    }

    /// Variables of a play.
    pub(super) fn play_vars(&self, play: &Play) -> Result<PlayVars, Failure> {
        let mut vars = BTreeMap::new();
        for file in &play.vars_files {
            let bad =
                |why: String| Failure::new(ExitCode::BadInput, format!("{}: {why}", file.mark));
            let found = self.context.library.playbook(&file.text).map_err(bad)?;
            let document = crate::yaml::parse(&found.file.name, &found.file.text)
                .map_err(|findings| bad(crate::yaml::report(&findings)))?;
            match document.root().to_json() {
                Json::Object(map) => vars.extend(templates(&map)),
                Json::Null => {}
                _ => return Err(bad("a file of variables must be a mapping".to_owned())),
            }
        }
        Ok(PlayVars { vars, ..PlayVars::default() })
    }

    /// Names of the hosts of `play`, those outside `--limit` left out.
    pub(super) fn hosts_of(&self, play: &Play) -> Result<Vec<String>, Failure> {
        let bad =
            |why: String| Failure::new(ExitCode::BadInput, format!("{}: {why}", play.hosts.mark));
        let mut pattern = play.hosts.text.clone();
        if pattern.contains("{{") {
            let vars = Vars::new().with(std::sync::Arc::clone(&self.fleet.extra));
            pattern = self
                .context
                .engine
                .render(&pattern, &vars)
                .map_err(|error| bad(error.to_string()))?
                .text;
        }
        let names = self.fleet.select(&pattern).map_err(|error| bad(error.to_string()))?;
        Ok(names.into_iter().filter(|name| self.limit.contains(name)).collect())
    }

    fn left(&self, names: &[String]) -> Vec<usize> {
        let places = self.hosts.iter().enumerate();
        places
            .filter(|(_, host)| !host.out && names.iter().any(|name| name == host.name()))
            .map(|(place, _)| place)
            .collect()
    }

    fn names(&self, places: &[usize]) -> Vec<String> {
        let hosts = places.iter().filter_map(|place| self.hosts.get(*place));
        hosts.map(|host| host.name().to_owned()).collect()
    }

    pub(super) fn is_out(&self, place: usize) -> bool {
        self.hosts.get(place).is_none_or(|host| host.out || host.flow.is_dead())
    }

    pub(super) fn scope(&self, vars: &PlayVars) -> Scope {
        Scope::new(&self.fleet, &self.hosts, &self.cluster, vars, &self.own_vars)
    }

    /// Whether `step` or its template speaks of the variable `word`.
    pub(super) fn mentions(&self, step: &TaskStep, word: &str) -> bool {
        let speaks = |text: &str| text.contains(word);
        let task = &step.task;
        let args = Json::Object(task.args.clone()).to_string();
        let vars = Json::Object(step.inherited.vars.clone()).to_string();
        let template = task.args.get("src").and_then(Json::as_str).is_some_and(|src| {
            task.module.name == "template"
                && self.context.library.template(src).is_ok_and(|found| speaks(&found.file.text))
        });
        let delegate = step.inherited.delegate_to.as_ref();
        speaks(&args)
            || speaks(&vars)
            || template
            || step.inherited.when.iter().chain(delegate).any(|text| speaks(&text.text))
    }

    /// Whether `--tags` wants this task.
    pub(super) fn is_tagged(&self, step: &TaskStep) -> bool {
        let tags = &step.inherited.tags;
        let wanted = &self.context.options.tags;
        if wanted.is_empty() {
            return !tags.iter().any(|tag| tag == "never");
        }
        tags.iter().any(|tag| tag == "always" || wanted.contains(tag))
    }
}

fn is_fatal(step: &Step) -> bool {
    match step {
        Step::Task(step) => step.inherited.any_errors_fatal.unwrap_or(false),
        Step::Flush => false,
    }
}

/// A handler as a program of its own, with what it inherits from the play.
fn handler_program(play: &Play, handler: &crate::playbook::Task) -> Program {
    let mut only = play.clone();
    only.inherited = Inherited { tags: Vec::new(), ..play.inherited.clone() };
    let item = crate::playbook::Item::Task(Box::new(handler.clone()));
    only.sections = [vec![item], Vec::new(), Vec::new()];
    Program::of(&only)
}

/// How many hosts each wave of a play on `count` hosts has.
fn wave_sizes(play: &Play, count: usize) -> Vec<usize> {
    use crate::playbook::WaveSize;
    let mut sizes = play.serial.iter();
    let mut size = None;
    let mut rest = count;
    let mut waves = Vec::new();
    while rest > 0 {
        size = sizes.next().or(size);
        let wave = match size {
            None => rest,
            Some(WaveSize::Hosts(hosts)) => *hosts,
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                clippy::cast_precision_loss,
                reason = "a part of the number of hosts, from 0 to that number"
            )]
            Some(WaveSize::Percent(percent)) => (count as f64 * percent / 100.0) as usize,
        };
        let wave = wave.clamp(1, rest);
        waves.push(wave);
        rest -= wave;
    }
    waves
}
