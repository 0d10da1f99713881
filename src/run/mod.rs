//! Effects of the control half: gather, execute, lock, journal, events.
//!
//! A run looks at all hosts first (two round trips each: what machine it is, then all reads of all
//! tasks), decides what each server must do, and walks the playbook task by task: plan at all hosts
//! of the wave, check the whole for safety, act. What was observed is used until a change makes it
//! stale; a run that changes nothing asks no more. Truth is on the hosts: a run that died is run
//! again.
//!
//! [`execute`] is the engine; it reaches hosts only through a [`Connector`].

pub(crate) mod address;
mod cluster;
mod context;
pub mod event;
#[cfg(test)]
mod fake;
mod fleet;
mod gather;
pub mod history;
mod host;
mod inspect;
mod job;
mod journal;
mod k3s;
mod library;
mod lock;
mod mask;
pub(crate) mod operator;
mod pending;
mod perform;
mod play;
mod preflight;
mod preview;
pub mod reach;
mod reconnect;
mod rolling;
mod survey;
mod task;
#[cfg(test)]
mod tests;
mod vars;
mod wait;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use parking_lot::Mutex;
use serde_json::json;

use cluster::ClusterState;
use context::{Context, Sinks};
use event::{Event, EventSink};
use host::HostRun;
use lock::Lock;

pub(crate) use address::{Place, said, said_address, said_vip};
pub use context::{Connector, Options};
pub use fleet::{Fleet, FleetHost};
pub use inspect::inspect;
pub use journal::{Beginning, Ending, Journal};
pub use library::{Found, Library};
pub use lock::VerbLock;
pub use preflight::{Purpose, examine};
pub use preview::{Preview, Wish, preview};

use crate::cluster::layout::Role;
use crate::cluster::safety::Rule;
use crate::error::{ExitCode, Failure};
use crate::playbook::Playbook;
use crate::playbook::program::{Program, TaskStep};
use crate::template::Var;

/// What a run came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RunSummary {
    /// Hosts on which a task failed.
    pub failed: Vec<String>,
    /// Hosts that could not be reached, or were lost.
    pub unreachable: Vec<String>,
    /// Something was changed, or would be in a check.
    pub changed: bool,
    /// The most round trips that one host took.
    pub round_trips_max: u64,
}

/// What is run, and where the tools for it are.
pub struct Job<'a> {
    /// The playbook's name, for example `site.yml`.
    pub playbook: &'a str,
    /// Playbooks and templates.
    pub library: Library,
    /// The hosts.
    pub fleet: Fleet,
    /// How.
    pub options: Options,
    /// Opens sessions.
    pub connector: &'a dyn Connector,
    /// The run's own name, unique; also the lock's.
    pub id: String,
    /// When it began, for names of what is set aside: digits only.
    pub stamp: String,
    /// Events are also written there.
    pub journal: Option<Journal>,
    /// Set when a person wants it to stop.
    pub interrupted: Arc<AtomicBool>,
}

/// A run while it goes on.
struct Run<'a> {
    context: Context<'a>,
    fleet: Fleet,
    hosts: Vec<HostRun>,
    cluster: ClusterState,
    lock: Lock,
    /// Names of the hosts inside `--limit`.
    limit: BTreeSet<String>,
    own_vars: Arc<BTreeMap<String, Var>>,
    /// How many servers there are.
    servers: usize,
    plays_left: Vec<String>,
    changed: bool,
    /// A failure that ends the run for all.
    fatal: bool,
    /// Some task puts K3s on a host.
    installs: bool,
}

/// An engine whose templates include those of `library`.
fn engine(library: &Library) -> crate::template::Engine {
    let templates = library.clone();
    crate::template::Engine::with_loader(move |name| {
        Ok(templates.template(name).ok().map(|found| found.file.text))
    })
}

/// Runs a playbook on hosts.
///
/// # Errors
/// The playbook is wrong, a safety check refuses, the lock is held, or a person interrupts. Hosts
/// that fail or cannot be reached are no error of the run: they are in the summary.
pub async fn execute(job: Job<'_>, sink: &mut dyn EventSink) -> Result<RunSummary, Failure> {
    let begun = Instant::now();
    let (found, playbook) = inspect::read(&job.library, job.fleet.distribution, job.playbook)?;
    let name = job.playbook.to_owned();
    let mut run = Run::new(job, sink)?;
    run.context.emit(&Event::Run {
        id: run.context.id.clone(),
        playbook: format!("{name} ({})", found.origin),
        check: run.context.options.check,
    });
    if found.replaces {
        run.context.warn(format!("{name} is {}, not the built-in one", found.origin));
    }
    let result = run.walk(&playbook).await;
    run.lock.give_back(&run.context, &mut run.hosts).await;
    let elapsed_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
    let summary = run.summary(elapsed_ms);
    let result = result.map(|()| summary);
    run.context.end(&result);
    result
}

impl<'a> Run<'a> {
    fn new(job: Job<'a>, sink: &'a mut dyn EventSink) -> Result<Self, Failure> {
        let bad = |why: String| Failure::new(ExitCode::BadInput, why);
        let fleet = job.fleet;
        let limit = inspect::limited(&fleet, job.options.limit.as_deref())?;
        let limit: BTreeSet<String> = limit.into_iter().collect();
        let hosts: Vec<HostRun> = fleet
            .hosts
            .iter()
            .filter(|host| limit.contains(&host.name) || host.role == Some(Role::Server))
            .map(|host| HostRun::new(host.clone(), fleet.distribution, !limit.contains(&host.name)))
            .collect();
        let cluster = ClusterState::new(&fleet.cluster_name, &fleet.token)
            .map_err(|error| bad(format!("the token: {error}")))?;
        let mut masker = mask::Masker::default();
        masker.learn(cluster.secret());
        let vars = fleet.hosts.iter().flat_map(|host| host.vars.iter().map(|(_, var)| var));
        for var in vars.chain(fleet.extra.values()) {
            if let Var::Secret(secret) = var {
                masker.learn(secret);
            }
        }
        let library = job.library;
        let purpose = library.verb(job.playbook);
        let engine = engine(&library);
        let own_vars = BTreeMap::from([
            (
                "run".to_owned(),
                Var::Plain(json!({
                    "id": job.id,
                    "stamp": job.stamp,
                    "ends_cluster": job.options.ends_cluster,
                })),
            ),
            ("ansible_check_mode".to_owned(), Var::Plain(job.options.check.into())),
            ("ansible_diff_mode".to_owned(), Var::Plain(job.options.diff.into())),
            ("ansible_verbosity".to_owned(), Var::Plain(job.options.verbosity.into())),
        ]);
        let servers = hosts.iter().filter(|host| host.fleet.role == Some(Role::Server)).count();
        Ok(Self {
            context: Context {
                options: job.options,
                engine,
                library,
                connector: job.connector,
                masker,
                interrupted: job.interrupted,
                id: job.id,
                purpose,
                sinks: Mutex::new(Sinks { report: sink, journal: job.journal }),
            },
            fleet,
            hosts,
            cluster,
            lock: Lock::default(),
            limit,
            own_vars: Arc::new(own_vars),
            servers,
            plays_left: Vec::new(),
            changed: false,
            fatal: false,
            installs: false,
        })
    }

    async fn walk(&mut self, playbook: &Playbook) -> Result<(), Failure> {
        // What is wrong with the plays' hosts and files is found before any host is touched.
        for play in &playbook.plays {
            self.hosts_of(play)?;
            self.play_vars(play)?;
        }
        self.read_ahead(playbook);
        self.installs = self.speaks(playbook, "k3s_source");
        self.gather(playbook).await?;
        self.refuse_k3s_differences()?;
        if !self.context.options.past_fence {
            gather::check_fences(self)?;
        }
        self.decide(playbook)?;
        if self.brings_up(playbook) && !self.context.options.skip_preflight {
            self.preflight().await?;
        }
        self.plays_left = playbook.plays.iter().map(|play| play.name.clone()).collect();
        for play in &playbook.plays {
            self.plays_left.remove(0);
            let end = self.play(play).await?;
            for host in &mut self.hosts {
                host.out |= host.flow.is_dead();
            }
            if matches!(end, play::PlayEnd::Stop) {
                break;
            }
        }
        Ok(())
    }

    /// Has the files hashed that `playbook` copies from here.
    fn read_ahead(&self, playbook: &Playbook) {
        let copied = |step: &Arc<TaskStep>| {
            let args = &step.task.args;
            let from_here = step.task.module.name == "copy" && !args.contains_key("remote_src");
            let src = args.get("src").and_then(serde_json::Value::as_str);
            src.filter(|src| from_here && !src.contains("{{")).map(str::to_owned)
        };
        let files = |play| Program::of(play).tasks().filter_map(copied).collect::<Vec<_>>();
        let names: Vec<String> = playbook.plays.iter().flat_map(files).collect();
        if !names.is_empty() {
            self.context.library.read_ahead(names);
        }
    }

    /// Bootstrap or join, for every server; a finding that refuses ends the run.
    fn decide(&mut self, playbook: &Playbook) -> Result<(), Failure> {
        let findings = match self.cluster.decide(&self.hosts) {
            Ok(()) => {
                let plan = self.cluster.plan.as_ref();
                self.tell(plan.map_or(&[], |plan| &plan.warnings), false);
                return Ok(());
            }
            // Where nobody asks what a server must do, it does not matter.
            Err(_) if !self.brings_up(playbook) => return Ok(()),
            Err(findings) => findings,
        };
        let mut failure = Failure::new(ExitCode::Refused, "it would not be safe to go on");
        // Where no server can be reached at all, that is what has to be mended.
        let mut servers = self.hosts.iter().filter(|h| h.fleet.role == Some(Role::Server));
        let refusing = self.hosts.iter().any(|host| host.recap.failed > 0);
        if servers.all(|host| host.recap.unreachable > 0 || host.recap.failed > 0)
            && findings.iter().all(|finding| finding.rule == Rule::MayHaveData)
        {
            failure.code = if refusing { ExitCode::HostFailed } else { ExitCode::Unreachable };
        }
        self.tell(&findings, true);
        for finding in findings {
            failure.message = format!("{}\n{finding}", failure.message);
            failure.hints.extend(finding.hint);
        }
        Err(failure)
    }

    /// Whether any task depends on the decision.
    fn brings_up(&self, playbook: &Playbook) -> bool {
        self.speaks(playbook, "bootstrap")
    }

    /// Whether any task speaks of the variable `word`.
    fn speaks(&self, playbook: &Playbook, word: &str) -> bool {
        playbook
            .plays
            .iter()
            .any(|play| Program::of(play).tasks().any(|step| self.mentions(step, word)))
    }

    fn summary(&mut self, elapsed_ms: u64) -> RunSummary {
        let mut summary = RunSummary { changed: self.changed, ..RunSummary::default() };
        let mut recaps = Vec::new();
        for host in &mut self.hosts {
            let trips = host.round_trips();
            host.recap.round_trips += trips;
            if host.witness {
                continue;
            }
            summary.round_trips_max = summary.round_trips_max.max(host.recap.round_trips);
            if host.recap.unreachable > 0 {
                summary.unreachable.push(host.name().to_owned());
            } else if host.flow.is_dead() || host.out {
                summary.failed.push(host.name().to_owned());
            }
            recaps.push(host.recap.clone());
        }
        self.context.emit(&Event::Recap { hosts: recaps, elapsed_ms });
        summary
    }
}
