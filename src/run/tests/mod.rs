//! The engine against hosts in memory.

mod balancers;
mod bootstrap;
mod rolling;
mod syntax;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use parking_lot::Mutex;

use super::event::{Event, Status, TaskResult};
use super::fake::{FakeConnector, World};
use super::*;
use crate::secret::Secret;
use crate::template::Vars;

/// A token's secret that must never be seen.
const SECRET: &str = "hunter22hunter22hunter22hunter22";

/// A world with an engine to run playbooks on it.
struct Stage {
    world: Arc<Mutex<World>>,
    fleet: Fleet,
    options: Options,
    events: Vec<Event>,
    runs: u32,
}

impl Stage {
    fn new(servers: usize, agents: usize) -> Self {
        let servers: Vec<String> = (1..=servers).map(|number| format!("server{number}")).collect();
        let agents: Vec<String> = (1..=agents).map(|number| format!("agent{number}")).collect();
        let roles: Vec<(&str, Role)> = servers
            .iter()
            .map(|name| (name.as_str(), Role::Server))
            .chain(agents.iter().map(|name| (name.as_str(), Role::Agent)))
            .collect();
        let host = |(name, role): &(&str, Role)| FleetHost {
            name: (*name).to_owned(),
            role: Some(*role),
            groups: BTreeSet::from([format!("{role:?}s").to_lowercase()]),
            vars: Vars::for_host(*name),
            become_: None,
            become_user: "root".to_owned(),
        };
        let fleet = Fleet {
            hosts: roles.iter().map(host).collect(),
            groups: BTreeMap::from([
                ("servers".to_owned(), servers.clone()),
                ("agents".to_owned(), agents.clone()),
            ]),
            cluster_name: "lab".to_owned(),
            token: Secret::new(SECRET),
            ..Fleet::default()
        };
        Self {
            world: Arc::new(Mutex::new(World::new(&roles))),
            fleet,
            options: Options { diff: true, verbosity: 1, ..Options::default() },
            events: Vec::new(),
            runs: 0,
        }
    }

    /// Adds load balancers.
    fn with_balancers(mut self, count: usize) -> Self {
        let names: Vec<String> = (1..=count).map(|number| format!("lb{number}")).collect();
        for (number, name) in names.iter().enumerate() {
            let mut vars = Vars::for_host(name.as_str());
            let address = format!("10.0.9.{}", number + 1);
            vars.set("ansible_host", crate::template::Var::Plain(address.as_str().into()));
            self.fleet.hosts.push(FleetHost {
                name: name.clone(),
                role: Some(Role::LoadBalancer),
                groups: BTreeSet::from(["loadbalancers".to_owned()]),
                vars,
                become_: None,
                become_user: "root".to_owned(),
            });
            let role = Some(Role::LoadBalancer);
            let host = super::fake::Host { address, role, ..super::fake::Host::default() };
            self.world.lock().hosts.insert(name.clone(), host);
        }
        self.fleet.groups.insert("loadbalancers".to_owned(), names);
        self
    }

    /// Runs `playbook` with the files of `directory`, or the built-in ones.
    async fn play(
        &mut self,
        playbook: &str,
        directory: Option<&Path>,
    ) -> Result<RunSummary, Failure> {
        self.runs += 1;
        let library =
            directory.map_or_else(Library::built_in, |path| Library::new(Some(path), path));
        let connector = FakeConnector(Arc::clone(&self.world));
        let job = Job {
            playbook,
            library,
            fleet: self.fleet.clone(),
            options: self.options.clone(),
            connector: &connector,
            id: format!("run{}", self.runs),
            stamp: "20260101000000".to_owned(),
            journal: None,
            interrupted: Arc::new(AtomicBool::new(false)),
        };
        self.events.clear();
        let summary = execute(job, &mut self.events).await;
        let shown = format!("{:?}", self.events);
        assert!(!shown.contains(SECRET), "the secret is shown");
        summary
    }

    async fn up(&mut self) -> Result<RunSummary, Failure> {
        self.play("site.yml", None).await
    }

    fn results(&self) -> impl Iterator<Item = &TaskResult> {
        self.events.iter().filter_map(|event| match event {
            Event::Result(result) => Some(&**result),
            _ => None,
        })
    }

    /// `host task: status` of all results, those that did nothing left out.
    fn told(&self, wanted: &[Status]) -> Vec<String> {
        let chosen = self.results().filter(|result| wanted.contains(&result.status));
        chosen
            .map(|result| format!("{} {}: {:?}", result.host, result.task, result.status))
            .collect()
    }
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}
