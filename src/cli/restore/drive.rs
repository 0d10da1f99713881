//! Carries out what is left, step by step, looking again after each.

use super::super::kubeconfig;
use super::super::output::{self, Format};
use super::super::playbook::{self, Purpose};
use super::super::work::Work;
use super::Verb;
use super::hosts::{Server, Servers};
use crate::cluster::fence::{FENCE, Fence, Operation, RESTORED, Stage, aside};
use crate::cluster::restore::{self, Intent, Seen, Step};
use crate::error::{ExitCode, Failure};
use crate::host::protocol::{Change, CommandSpec, Done, ServiceAction};

/// How long a service may take to start or stop.
const SERVICE_MS: u64 = 180_000;

/// How long K3s may take to start: longer than its API server does on a slow machine.
const K3S_START_MS: u64 = 600_000;

/// How long a reset may take: it reads and writes the whole state.
pub(super) const RESET_MS: u64 = 30 * 60 * 1000;

/// Far more looks than any restore takes: one that turns in circles ends.
const LOOKS_MAX: usize = 1000;

/// One restore on its way.
pub(super) struct Drive<'a> {
    pub(super) verb: &'a Verb<'a>,
    pub(super) intent: &'a Intent,
    /// The fence of all servers, closed.
    pub(super) fence: Fence,
}

impl Drive<'_> {
    /// Goes on until nothing is left.
    pub(super) async fn run(
        &self,
        servers: &mut Servers<'_>,
        work: &mut Work,
    ) -> Result<(), Failure> {
        let mut last: Option<Step> = None;
        for _ in 0..LOOKS_MAX {
            let seen =
                servers.look(Some(self.intent)).await.map_err(|failure| self.advise(failure))?;
            let steps = restore::next(self.intent, &seen)
                .map_err(|halt| self.advise(Verb::halted(&halt, true)))?;
            let Some(step) = steps.into_iter().next() else { return Ok(()) };
            if last.as_ref() == Some(&step) {
                let message = format!("it did not help: {}", step.words(self.intent));
                return Err(self.advise(Failure::new(ExitCode::HostFailed, message)));
            }
            self.tell(&step)?;
            let done = self.step(servers, &seen, &step).await;
            let noted = done.as_ref().map(|()| None).map_err(|failure| failure.message.clone());
            work.note(step.host().unwrap_or("all"), &step.words(self.intent), noted);
            done.map_err(|failure| {
                let message = format!("{}\nwhile: {}", failure.message, step.words(self.intent));
                self.advise(Failure { message, ..failure })
            })?;
            last = Some(step);
        }
        Err(self.advise(Failure::new(ExitCode::Error, "it does not come to an end")))
    }

    fn tell(&self, step: &Step) -> Result<(), Failure> {
        if self.verb.args.output == Format::Json {
            let line = serde_json::json!({ "event": "step", "step": step });
            return output::line(&line.to_string());
        }
        output::line(&format!("* {}", step.words(self.intent)))
    }

    /// Where it stands, and what to do.
    fn advise(&self, failure: Failure) -> Failure {
        let failure = failure.hint(
            "no server with old data can come back by itself meanwhile: those that are not done are \
             fenced",
        );
        if self.intent.operation == Operation::Rollback {
            return failure.hint("run `k3sup-rs restore --rollback` again to go on");
        }
        failure.hint(format!(
            "run `k3sup-rs {}` again to go on, or `k3sup-rs restore --rollback` to go back",
            if self.intent.operation == Operation::Recover {
                "recover"
            } else {
                "restore --resume"
            }
        ))
    }

    async fn step(
        &self,
        servers: &mut Servers<'_>,
        seen: &[Seen],
        step: &Step,
    ) -> Result<(), Failure> {
        match step {
            Step::Fence(name) => servers.get(name)?.close(&self.fence).await,
            Step::Stop(name) => servers.get(name)?.service(ServiceAction::Stop).await,
            Step::Reset(name) if self.verb.is_k3s() => self.reset_k3s(servers, seen, name).await,
            Step::Reset(name) => {
                // One with data of its own has all else, too.
                if self.intent.operation != Operation::Recover {
                    self.prepare(servers, name).await?;
                }
                let reset = self.reset(servers.get(name)?);
                servers.get(name)?.command(reset).await
            }
            Step::SetAside(name) => {
                let server = servers.get(name)?;
                if self.verb.is_k3s() {
                    server.forget_stamps().await?;
                }
                server.move_store(&aside(self.fence.stamp())).await
            }
            Step::BringBack(name) => self.bring_back(servers, seen, name).await,
            Step::Open(name) => {
                let fence = Fence { stage: Stage::Open, ..self.fence.clone() };
                servers.get(name)?.open(&fence).await
            }
            Step::Start(name) => servers.get(name)?.start().await,
            Step::Join => {
                self.join(servers).await?;
                self.joined(servers, seen).await
            }
            Step::Finish(name) => self.finish(servers.get(name)?).await,
        }
    }

    /// Takes the fence away; what was done stays known.
    async fn finish(&self, server: &mut Server) -> Result<(), Failure> {
        let cluster = match (self.verb.is_k3s(), &server.view) {
            // K3s has no number that tells.
            (true, _) => self.intent.id.clone(),
            (false, view) => view.as_ref().map(|view| view.cluster_id.clone()).unwrap_or_default(),
        };
        let fence = Fence { stage: Stage::Open, cluster, ..self.fence.clone() };
        if self.intent.operation == Operation::Rollback {
            let remove = Change::Remove { path: server.data(RESTORED) };
            server.change(vec![remove]).await?;
        } else {
            server.fence(&fence, RESTORED).await?;
        }
        let remove = Change::Remove { path: server.data(FENCE) };
        server.change(vec![remove]).await.map(drop)
    }

    /// A server that never was one gets binary, configuration and token.
    pub(super) async fn prepare(
        &self,
        servers: &mut Servers<'_>,
        name: &str,
    ) -> Result<(), Failure> {
        servers.unlock().await;
        let args = self.verb.args.part(Some(name.to_owned()));
        let finished = playbook::run(&args, "restore.yml", Purpose::Reset { whole: true }).await?;
        playbook::ended(&finished.summary, false)?;
        servers.lock(self.verb.name, self.verb.args.break_lock).await
    }

    fn reset(&self, server: &Server) -> CommandSpec {
        let layout = &server.place.layout;
        let mut argv = vec![layout.binary.clone(), "server".to_owned()];
        let mut add = |flag: &str, value: &str| argv.extend([flag.to_owned(), value.to_owned()]);
        add("--config", &layout.config_file);
        // Whoever was to join another server before is the first now.
        add("--server", "");
        if self.intent.operation != Operation::Recover {
            add("--token-file", &layout.token_file);
        }
        if !self.fence.path.is_empty() {
            add("--cluster-reset-restore-path", &self.fence.path);
        }
        argv.push("--cluster-reset".to_owned());
        CommandSpec { argv, timeout_ms: RESET_MS, ..CommandSpec::default() }
    }

    async fn bring_back(
        &self,
        servers: &mut Servers<'_>,
        seen: &[Seen],
        name: &str,
    ) -> Result<(), Failure> {
        let host = seen.iter().find(|host| host.name == name);
        let server = servers.get(name)?;
        if host.is_some_and(|host| host.disk.is_some()) {
            let now = super::target::now_unix_s();
            server.move_store(&format!("etcd-undone-{}-{now}", self.fence.stamp())).await?;
        }
        if self.verb.is_k3s() {
            server.forget_stamps().await?;
        }
        if host.is_some_and(|host| host.aside) {
            let from = server.data(&format!("server/db/{}", aside(self.fence.stamp())));
            let to = server.data("server/db/etcd");
            server.change(vec![Change::Move { from, to }]).await?;
        }
        Ok(())
    }

    /// Notes on the first server that all was brought up.
    async fn joined(&self, servers: &mut Servers<'_>, seen: &[Seen]) -> Result<(), Failure> {
        let first = &self.intent.first;
        if seen.iter().any(|host| host.name == *first && host.fence.is_some()) {
            let fence = Fence { stage: Stage::Open, joined: true, ..self.fence.clone() };
            servers.get(first)?.fence(&fence, FENCE).await?;
        }
        Ok(())
    }

    /// All that is not up is brought up, by the very playbook of `up`.
    async fn join(&self, servers: &mut Servers<'_>) -> Result<(), Failure> {
        if self.verb.is_k3s() && self.intent.operation == Operation::Restore {
            let hosts = self.verb.inventory.hosts.iter();
            let names: Vec<String> = hosts.map(|host| host.name.clone()).collect();
            servers.get(&self.intent.first)?.forget_passwords(&names).await?;
        }
        servers.unlock().await;
        let left_out = self.verb.leave_out;
        let limit = (!left_out.is_empty()).then(|| format!("all:!{}", left_out.join(":!")));
        let args = self.verb.args.part(limit);
        let finished = playbook::run(&args, super::super::up::PLAYBOOK, Purpose::Up).await?;
        playbook::ended(&finished.summary, false)?;
        // The CAs may be others than before.
        if self.verb.is_k3s() {
            kubeconfig::keep(&finished.inventory, &finished.reach).await?;
        } else {
            super::super::up::keep_bundle(&finished).await?;
        }
        servers.lock(self.verb.name, self.verb.args.break_lock).await
    }
}

impl Server {
    async fn service(&mut self, action: ServiceAction) -> Result<(), Failure> {
        let name = self.place.layout.service.clone();
        let change = Change::Service { name, action, timeout_ms: self.patience_ms() };
        self.change(vec![change]).await.map(drop)
    }

    fn patience_ms(&self) -> u64 {
        if self.place.k3s.is_some() { K3S_START_MS } else { SERVICE_MS }
    }

    async fn start(&mut self) -> Result<(), Failure> {
        self.service(ServiceAction::Start).await?;
        let read = self.place.ready_read(self.patience_ms());
        match self.read(vec![read]).await?.pop() {
            Some(crate::host::protocol::Observed::Ready(Err(why))) => {
                Err(Failure::new(ExitCode::HostFailed, format!("{}: {why}", self.name)))
            }
            _ => Ok(()),
        }
    }

    pub(super) async fn command(&mut self, command: CommandSpec) -> Result<(), Failure> {
        let done = self.change(vec![Change::Run(command)]).await?;
        let Some(Done::Output(output)) = done.into_iter().next() else { return Ok(()) };
        if output.status == 0 {
            return Ok(());
        }
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        let last: Vec<&str> = text.lines().rev().take(5).collect();
        let last: Vec<&str> = last.into_iter().rev().collect();
        Err(Failure::new(ExitCode::HostFailed, format!("{}: {}", self.name, last.join("\n"))))
    }

    /// Moves the store's directory aside under `name`.
    pub(super) async fn move_store(&mut self, name: &str) -> Result<(), Failure> {
        let from = self.data("server/db/etcd");
        let to = self.data(&format!("server/db/{name}"));
        self.change(vec![Change::Move { from, to }]).await.map(drop)
    }
}
