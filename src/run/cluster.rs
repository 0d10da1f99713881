//! What the servers' disks and nodes say, and what follows for each host: the variables `layout`,
//! `node_ip`, `bootstrap`, `peers`, `node` and `cluster`.

use std::collections::BTreeMap;

use serde_json::{Value as Json, json};

use super::host::HostRun;
use crate::cluster::bootstrap::{self, Action, BootstrapPlan, Observation};
use crate::cluster::layout::{Distribution, Layout, Role};
use crate::cluster::safety::SafetyFinding;
use crate::cluster::view::{ClusterView, DiskView};
use crate::host::protocol::{Observed, Read};
use crate::limits::{AGENT_HEALTH_PORT, SUPERVISOR_PORT};
use crate::pki::token::{Token, TokenError};
use crate::secret::Secret;
use crate::template::{Engine, Var};

/// Names that are not known before the hosts were looked at.
pub(super) const LATER: &[&str] = &["bootstrap", "cluster", "cluster_token", "node", "peers"];

/// Names that are not known before a host's facts are.
pub(super) const AFTER_FACTS: &[&str] = &["ansible_facts", "layout", "lab_root"];

/// Where a host's node is, and how it is asked.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) layout: Layout,
    pub(super) node_ip: String,
    /// Address and port of the supervisor, or of an agent's health endpoint.
    pub(super) supervisor: String,
    /// URL by which others reach a server's supervisor.
    pub(super) url: String,
}

impl Place {
    /// Needs the host's facts.
    pub(super) fn of(engine: &Engine, host: &HostRun, distribution: Distribution) -> Option<Self> {
        let facts = host.facts()?;
        let role = host.fleet.role?;
        let address = facts.default_address.clone().or_else(|| facts.addresses.first().cloned());
        let node_ip = said(engine, host, "node_ip")
            .or(address)
            .or_else(|| said(engine, host, "ansible_host"))
            .unwrap_or_else(|| host.fleet.name.clone());
        let url = server_url(engine, host, &node_ip);
        let supervisor = match role {
            // An agent's health endpoint is on loopback, which a lab host has an own address of.
            Role::Agent if facts.lab_root.is_none() => format!("127.0.0.1:{AGENT_HEALTH_PORT}"),
            Role::Agent => format!("{}:{AGENT_HEALTH_PORT}", bracketed(&node_ip)),
            Role::Server | Role::LoadBalancer => url.trim_start_matches("https://").to_owned(),
        };
        Some(Self {
            layout: Layout::new(distribution, role, facts.lab_root.as_deref()),
            supervisor,
            url,
            node_ip,
        })
    }

    /// What is looked at to know the node's state.
    pub(super) fn reads(&self) -> [Read; 2] {
        [self.disk_read(), self.cluster_read()]
    }

    pub(super) fn disk_read(&self) -> Read {
        Read::Disk { data_dir: self.layout.data_dir.clone() }
    }

    pub(super) fn cluster_read(&self) -> Read {
        Read::Cluster {
            data_dir: self.layout.data_dir.clone(),
            supervisor: self.supervisor.clone(),
        }
    }
}

/// A text or number that the inventory says of `host`.
fn said(engine: &Engine, host: &HostRun, expression: &str) -> Option<String> {
    let template = json!(format!("{{{{ {expression} }}}}"));
    match engine.evaluate(&template, &host.fleet.vars).ok()?.value {
        Json::String(text) => Some(text),
        Json::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

fn bracketed(address: &str) -> String {
    if address.contains(':') { format!("[{address}]") } else { address.to_owned() }
}

fn server_url(engine: &Engine, host: &HostRun, address: &str) -> String {
    let port = said(engine, host, "(config | default({}))['https-listen-port']");
    let port: u16 = port.and_then(|port| port.parse().ok()).unwrap_or(SUPERVISOR_PORT);
    format!("https://{}:{port}", bracketed(address))
}

/// What is known of the cluster.
#[derive(Debug, Default)]
pub(super) struct ClusterState {
    pub(super) places: BTreeMap<String, Place>,
    /// Decided once, from what was there when the run began.
    pub(super) plan: Option<BootstrapPlan>,
    /// Which hosts' nodes were ready when the run began.
    ready: BTreeMap<String, bool>,
    /// URLs of servers by the inventory.
    said: BTreeMap<String, String>,
    ca_hash: Option<String>,
    name: String,
    secret: Secret,
}

impl ClusterState {
    /// `token` is the bare secret or the full form.
    pub(super) fn new(name: &str, token: &Secret) -> Result<Self, TokenError> {
        if token.is_empty() {
            return Ok(Self { name: name.to_owned(), ..Self::default() });
        }
        let token = Token::parse(token.expose())?;
        Ok(Self {
            name: name.to_owned(),
            ca_hash: token.ca_hash,
            secret: token.password,
            ..Self::default()
        })
    }

    /// The secrets that must not be shown.
    pub(super) fn secret(&self) -> &Secret {
        &self.secret
    }

    /// Whether the full token is known.
    pub(super) fn has_ca(&self) -> bool {
        self.ca_hash.is_some()
    }

    /// Takes in what the hosts' worlds say of the CA.
    pub(super) fn learn_ca(&mut self, hosts: &[HostRun]) {
        if self.ca_hash.is_some() {
            return;
        }
        let servers = hosts.iter().filter(|host| host.fleet.role == Some(Role::Server));
        self.ca_hash =
            servers.filter_map(|host| self.observe(host).ok_or(()).ok()).find_map(|seen| {
                let live = seen.view.map(|view| view.ca_hash).filter(|hash| !hash.is_empty());
                live.or_else(|| seen.disk.filter(|disk| !disk.removed)?.ca_hash)
            });
    }

    /// Decides what each server must do, from what was observed.
    pub(super) fn decide(&mut self, hosts: &[HostRun]) -> Result<(), Vec<SafetyFinding>> {
        for host in hosts {
            let view = self.observe(host).and_then(|seen| seen.view);
            self.ready.insert(host.name().to_owned(), view.is_some_and(|view| view.ready));
        }
        let servers: Vec<Observation> = hosts
            .iter()
            .filter(|host| host.fleet.role == Some(Role::Server))
            .map(|host| {
                self.observe(host).unwrap_or_else(|| Observation {
                    name: host.name().to_owned(),
                    ..Observation::default()
                })
            })
            .collect();
        if !servers.is_empty() {
            self.plan = Some(bootstrap::decide(&servers, false)?);
        }
        self.learn_ca(hosts);
        Ok(())
    }

    fn observe(&self, host: &HostRun) -> Option<Observation> {
        let place = self.places.get(host.name())?;
        if host.out {
            return None;
        }
        Some(Observation {
            name: host.name().to_owned(),
            reachable: true,
            disk: match host.world.peek(&place.disk_read()) {
                Some(Observed::Disk(disk)) => disk.clone(),
                _ => None::<DiskView>,
            },
            view: self.view(host).cloned(),
        })
    }

    /// The cluster as the node of `host` was last seen to see it.
    pub(super) fn view<'a>(&self, host: &'a HostRun) -> Option<&'a ClusterView> {
        match host.world.peek(&self.places.get(host.name())?.cluster_read()) {
            Some(Observed::Cluster(view)) => view.as_deref(),
            _ => None,
        }
    }

    /// Variables of `host` that come from all this; unknown ones are marked so.
    pub(super) fn vars(&self, host: &HostRun, servers: &[String]) -> BTreeMap<String, Var> {
        let mut vars = BTreeMap::new();
        let mut set = |name: &str, value: Json| vars.insert(name.to_owned(), Var::Plain(value));
        let place = self.places.get(host.name());
        if let Some(place) = place {
            set("layout", serde_json::to_value(&place.layout).unwrap_or_default());
            set("node_ip", place.node_ip.as_str().into());
        }
        let peers = servers.iter().filter(|name| *name != host.name());
        let peers: Vec<&str> = peers.filter_map(|name| self.url(name)).collect();
        set("peers", peers.into());
        if let Some(ready) = self.ready.get(host.name()) {
            set("node", json!({ "ready": ready }));
            set("bootstrap", self.bootstrap(host.name()));
            vars.insert("cluster_token".to_owned(), Var::Secret(self.token()));
            let cluster = json!({ "name": self.name, "token": "{{ cluster_token }}" });
            vars.insert("cluster".to_owned(), Var::Template(cluster));
        } else {
            vars.extend(LATER.iter().map(|name| ((*name).to_owned(), Var::Unknown)));
        }
        vars
    }

    /// URL of a server's supervisor: where its facts say it is, or else where the inventory does,
    /// so that a server that is away for a while does not change the others' configuration.
    fn url(&self, server: &str) -> Option<&str> {
        let place = self.places.get(server).map(|place| place.url.as_str());
        place.or_else(|| self.said.get(server).map(String::as_str))
    }

    /// Notes where the inventory says that the servers are.
    pub(super) fn say(&mut self, engine: &Engine, hosts: &[HostRun]) {
        for host in hosts.iter().filter(|host| host.fleet.role == Some(Role::Server)) {
            let address =
                said(engine, host, "node_ip").or_else(|| said(engine, host, "ansible_host"));
            let url = server_url(engine, host, &address.unwrap_or_else(|| host.name().to_owned()));
            self.said.insert(host.name().to_owned(), url);
        }
    }

    /// The token in the form that proves most.
    fn token(&self) -> Secret {
        let user = "server".to_owned();
        Token { ca_hash: self.ca_hash.clone(), user, password: self.secret.clone() }.text()
    }

    fn bootstrap(&self, name: &str) -> Json {
        let steps = self.plan.as_ref().map(|plan| plan.steps.as_slice()).unwrap_or_default();
        let url = |server: &str| self.url(server).map(str::to_owned);
        let lives = |step: &&bootstrap::Step| {
            matches!(step.action, Action::None | Action::Start | Action::Init)
        };
        match steps.iter().find(|step| step.server == name) {
            Some(step) => json!({
                "action": step.action,
                "via": step.via,
                "server_url": step.via.as_deref().and_then(url),
                "remove": step.remove,
            }),
            // An agent registers through a server that is there when its turn comes.
            None => json!({
                "action": "none",
                "via": steps.iter().find(lives).map(|step| step.server.as_str()),
                "server_url": steps.iter().find(lives).and_then(|step| url(&step.server)),
                "remove": [],
            }),
        }
    }
}
