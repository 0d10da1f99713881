//! What the servers' disks and nodes say, and what follows for each host: the variables `layout`,
//! `node_ip`, `bootstrap`, `peers`, `node` and `cluster`.

use std::collections::BTreeMap;

use serde_json::{Value as Json, json};

use super::address::{Place, said, said_address, said_vip, server_port, server_url};
use super::fleet::{Fleet, FleetHost};
use super::host::HostRun;
use crate::cluster::bootstrap::{self, Action, BootstrapPlan, Observation};
use crate::cluster::layout::Role;
use crate::cluster::safety::SafetyFinding;
use crate::cluster::view::{ClusterView, DiskView};
use crate::host::protocol::Observed;
use crate::limits::SUPERVISOR_PORT;
use crate::pki::token::{Token, TokenError};
use crate::secret::Secret;
use crate::template::{Engine, Var};

/// Names that are not known before the hosts were looked at.
pub(super) const LATER: &[&str] =
    &["bootstrap", "cluster", "cluster_token", "doors", "node", "peers"];

/// What agents join with: a token of their own in the form of the cluster's, or the cluster's.
const AGENT_TOKEN: &str = "{{ cluster_token if agent_token is not defined else \
    cluster_token | regex_replace('server:.*$', 'node:') ~ agent_token if '::' in cluster_token else agent_token }}";

/// Names that are not known before a host's facts are.
pub(super) const AFTER_FACTS: &[&str] = &["ansible_facts", "layout", "lab_root"];

/// Whether `name` can stand in a certificate: an address, or a name of the DNS (RFC 1123).
fn may_be_certified(name: &str) -> bool {
    let label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.chars().all(|each| each.is_ascii_alphanumeric() || each == '-')
    };
    name.parse::<std::net::IpAddr>().is_ok() || name.split('.').all(label)
}

/// What is known of the cluster.
#[derive(Debug, Default)]
pub(super) struct ClusterState {
    pub(super) places: BTreeMap<String, Place>,
    /// Decided once, from what was there when the run began.
    pub(super) plan: Option<BootstrapPlan>,
    /// Which hosts' nodes were ready when the run began.
    ready: BTreeMap<String, bool>,
    /// Addresses and supervisors' ports of servers by the inventory.
    said: BTreeMap<String, (String, u16)>,
    /// Names and addresses of the load balancers by the inventory, in its order. Their facts do
    /// not count: a run that leaves them out must configure the servers alike.
    balancers: Vec<(String, String)>,
    /// By host: what it calls the cluster's entry.
    entries: BTreeMap<String, String>,
    ca_hash: Option<String>,
    name: String,
    secret: Secret,
    /// The servers' data is in a datastore outside of them.
    pub(super) external: bool,
    /// K3s's settings that must be equal on all servers and are not, in words.
    pub(super) differences: Vec<String>,
    /// Variables about K3s, by host.
    pub(super) k3s_vars: BTreeMap<String, BTreeMap<String, Var>>,
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

    /// Notes where the nodes of `fleet` are: by the inventory, and by the facts of `hosts`.
    pub(super) fn place(&mut self, engine: &Engine, fleet: &Fleet, hosts: &[HostRun]) {
        self.say(engine, &fleet.hosts);
        for host in hosts {
            if let (Some(role), Some(facts)) = (host.fleet.role, host.facts()) {
                let (name, vars) = (host.name(), &host.fleet.vars);
                let place = Place::of(engine, name, role, vars, facts, fleet.distribution);
                self.places.insert(name.to_owned(), place);
            }
        }
    }

    /// Takes in what the hosts' worlds say of the CA.
    pub(super) fn learn_ca(&mut self, hosts: &[HostRun]) {
        if self.ca_hash.is_some() {
            return;
        }
        let servers = hosts.iter().filter(|host| host.fleet.role == Some(Role::Server));
        self.ca_hash = servers.filter_map(|host| self.observe(host)).find_map(|seen| {
            let live = seen.view.map(|view| view.ca_hash).filter(|hash| !hash.is_empty());
            live.or_else(|| seen.disk.filter(|disk| !disk.removed)?.ca_hash)
        });
    }

    /// Whether the node of `host` was ready when the run began.
    pub(super) fn is_ready(&self, host: &str) -> bool {
        self.ready.get(host).copied().unwrap_or(false)
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
            self.plan = Some(if self.external {
                bootstrap::decide_external(&servers)?
            } else {
                bootstrap::decide(&servers, false)?
            });
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
        let k3s = self.k3s_vars.get(host.name());
        let peers = servers.iter().filter(|name| *name != host.name());
        let peers: Vec<String> = peers.filter_map(|name| self.url(name)).collect();
        set("peers", peers.into());
        let server = |name: &String| {
            let (address, port) = self.address(name)?;
            Some(json!({ "name": name, "address": address, "port": port }))
        };
        set("servers", servers.iter().filter_map(server).collect());
        let balancer =
            |(name, address): &(String, String)| json!({ "name": name, "address": address });
        set("loadbalancers", self.balancers.iter().map(balancer).collect());
        let entry = self.entries.get(host.name());
        set("entry_address", json!(entry));
        set("entry_url", json!(entry.map(|entry| server_url(entry, SUPERVISOR_PORT))));
        set("entry_names", self.entry_names(host.name()).into());
        vars.extend(k3s.into_iter().flatten().map(|(name, var)| (name.clone(), var.clone())));
        let mut set = |name: &str, value: Json| vars.insert(name.to_owned(), Var::Plain(value));
        if let Some(ready) = self.ready.get(host.name()) {
            let supervisor = place.map(|place| place.supervisor.as_str());
            set("node", json!({ "ready": ready, "supervisor": supervisor }));
            set("bootstrap", self.bootstrap(host.name()));
            let doors = servers.iter().filter(|name| self.is_ready(name));
            set("doors", doors.map(String::as_str).collect());
            vars.insert("cluster_token".to_owned(), Var::Secret(self.token()));
            let cluster = json!({
                "name": self.name,
                "token": "{{ cluster_token }}",
                "agent_token": AGENT_TOKEN,
            });
            vars.insert("cluster".to_owned(), Var::Template(cluster));
        } else {
            vars.extend(LATER.iter().map(|name| ((*name).to_owned(), Var::Unknown)));
        }
        vars
    }

    /// URL of a server's supervisor: where its facts say it is, or else where the inventory does,
    /// so that a server that is away for a while does not change the others' configuration.
    fn url(&self, server: &str) -> Option<String> {
        self.address(server).map(|(address, port)| server_url(address, port))
    }

    /// A server's address and its supervisor's port, likewise.
    fn address(&self, server: &str) -> Option<(&str, u16)> {
        let place = self.places.get(server).map(|place| (place.node_ip.as_str(), place.port));
        place.or_else(|| self.said.get(server).map(|(address, port)| (address.as_str(), *port)))
    }

    /// Notes where the inventory says that servers and load balancers are.
    fn say(&mut self, engine: &Engine, hosts: &[FleetHost]) {
        for host in hosts {
            let address = said_address(engine, &host.name, &host.vars);
            match host.role {
                Some(Role::Server) => {
                    let port = server_port(engine, &host.vars);
                    self.said.insert(host.name.clone(), (address, port));
                }
                Some(Role::LoadBalancer) => self.balancers.push((host.name.clone(), address)),
                _ => {}
            }
        }
        for host in hosts {
            let entry = said(engine, &host.vars, "loadbalancer_address")
                .or_else(|| said_vip(engine, &host.vars))
                .or_else(|| match self.balancers.as_slice() {
                    [(_, address)] => Some(address.clone()),
                    _ => None,
                });
            self.entries.extend(entry.map(|entry| (host.name.clone(), entry)));
        }
    }

    /// All names and addresses by which a client may come through a load balancer.
    fn entry_names(&self, host: &str) -> Vec<String> {
        let mut names: Vec<String> = Vec::new();
        let balancers = self.balancers.iter().flat_map(|(name, address)| [name, address]);
        for name in self.entries.get(host).into_iter().chain(balancers) {
            // An inventory's name of a load balancer need not be one of the DNS.
            if !names.contains(name) && may_be_certified(name) {
                names.push(name.clone());
            }
        }
        names
    }

    /// The token in the form that proves most.
    fn token(&self) -> Secret {
        let user = "server".to_owned();
        Token { ca_hash: self.ca_hash.clone(), user, password: self.secret.clone() }.text()
    }

    fn bootstrap(&self, name: &str) -> Json {
        let steps = self.plan.as_ref().map(|plan| plan.steps.as_slice()).unwrap_or_default();
        let url = |server: &str| self.url(server);
        // With an external datastore every server is as good as any other.
        let lives = |step: &&bootstrap::Step| match step.action {
            Action::None | Action::Start | Action::Init | Action::Migrate => true,
            Action::Join => self.external,
            Action::Rejoin | Action::Absent => false,
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
