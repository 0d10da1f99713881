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
use crate::limits::{AGENT_LB_PORT, SUPERVISOR_PORT};
use crate::pki::token::{Token, TokenError};
use crate::secret::Secret;
use crate::template::{Engine, Var};

/// Names that are not known before the hosts were looked at.
pub(super) const LATER: &[&str] = &["bootstrap", "cluster", "cluster_token", "node"];

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
        let text = |name: &str| {
            let value = engine.evaluate(&json!(format!("{{{{ {name} }}}}")), &host.fleet.vars);
            match value.ok()?.value {
                Json::String(text) => Some(text),
                Json::Number(number) => Some(number.to_string()),
                _ => None,
            }
        };
        let address = facts.default_address.clone().or_else(|| facts.addresses.first().cloned());
        let node_ip = text("node_ip")
            .or(address)
            .or_else(|| text("ansible_host"))
            .unwrap_or_else(|| host.fleet.name.clone());
        let setting = |key: &str| text(&format!("(config | default({{}}))['{key}']"));
        let port = |key: &str, default: u16| {
            setting(key).and_then(|port| port.parse().ok()).unwrap_or(default)
        };
        let bracketed =
            if node_ip.contains(':') { format!("[{node_ip}]") } else { node_ip.clone() };
        let (door, port) = match role {
            Role::Agent if facts.lab_root.is_none() => {
                ("127.0.0.1".to_owned(), port("lb-server-port", AGENT_LB_PORT))
            }
            Role::Agent => (bracketed.clone(), port("lb-server-port", AGENT_LB_PORT)),
            Role::Server | Role::LoadBalancer => {
                (bracketed.clone(), port("https-listen-port", SUPERVISOR_PORT))
            }
        };
        Some(Self {
            layout: Layout::new(distribution, role, facts.lab_root.as_deref()),
            supervisor: format!("{door}:{port}"),
            url: format!("https://{bracketed}:{port}"),
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

/// What is known of the cluster.
#[derive(Debug, Default)]
pub(super) struct ClusterState {
    pub(super) places: BTreeMap<String, Place>,
    /// Decided once, from what was there when the run began.
    pub(super) plan: Option<BootstrapPlan>,
    /// Which hosts' nodes were ready when the run began.
    ready: BTreeMap<String, bool>,
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
        let others = servers.iter().filter(|name| *name != host.name());
        let urls: Option<Vec<&str>> =
            others.map(|name| Some(self.places.get(name)?.url.as_str())).collect();
        // A server that cannot be reached has no place, and still is a peer by its address.
        let known: Vec<&str> = urls.unwrap_or_else(|| {
            servers
                .iter()
                .filter(|name| *name != host.name())
                .filter_map(|name| Some(self.places.get(name)?.url.as_str()))
                .collect()
        });
        set("peers", known.into());
        match self.ready.get(host.name()) {
            Some(ready) => {
                set("node", json!({ "ready": ready }));
                set("bootstrap", self.bootstrap(host.name()));
                vars.insert("cluster_token".to_owned(), Var::Secret(self.token()));
                let cluster = json!({ "name": self.name, "token": "{{ cluster_token }}" });
                vars.insert("cluster".to_owned(), Var::Template(cluster));
            }
            None => {
                for name in LATER {
                    vars.insert((*name).to_owned(), Var::Unknown);
                }
                vars.insert("peers".to_owned(), Var::Unknown);
            }
        }
        vars
    }

    /// The token in the form that proves most.
    fn token(&self) -> Secret {
        let user = "server".to_owned();
        Token { ca_hash: self.ca_hash.clone(), user, password: self.secret.clone() }.text()
    }

    fn bootstrap(&self, name: &str) -> Json {
        let steps = self.plan.as_ref().map(|plan| plan.steps.as_slice()).unwrap_or_default();
        let url = |server: &str| self.places.get(server).map(|place| place.url.clone());
        let lives = |step: &&bootstrap::Step| {
            matches!(step.action, Action::None | Action::Start | Action::Init)
        };
        match steps.iter().find(|step| step.server == name) {
            Some(step) => json!({
                "action": step.action,
                "server_url": step.via.as_deref().and_then(url),
                "remove": step.remove,
            }),
            // An agent registers through a server that is there when its turn comes.
            None => json!({
                "action": "none",
                "server_url": steps.iter().find(lives).and_then(|step| url(&step.server)),
                "remove": [],
            }),
        }
    }
}
