//! What the servers' disks and nodes say, and what follows for each host: the variables `layout`,
//! `node_ip`, `bootstrap`, `peers`, `node` and `cluster`.

use std::collections::BTreeMap;

use serde_json::{Value as Json, json};

use super::fleet::FleetHost;
use super::host::HostRun;
use crate::cluster::bootstrap::{self, Action, BootstrapPlan, Observation};
use crate::cluster::layout::{Distribution, K3sNode, Layout, Role};
use crate::cluster::safety::SafetyFinding;
use crate::cluster::view::{ClusterView, DiskView};
use crate::host::protocol::{Observed, Read};
use crate::limits::{
    AGENT_HEALTH_PORT, AGENT_LB_PORT, CLIENT_PORT, KUBELET_PORT, PEER_PORT, SUPERVISOR_PORT,
};
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
    /// Port on which others reach a server's supervisor.
    pub(super) port: u16,
    /// Addresses and ports that the node listens on.
    pub(super) listens: Vec<(String, u16)>,
    /// The node is K3s's: how it is asked.
    pub(super) k3s: Option<K3sNode>,
}

impl Place {
    /// Needs the host's facts.
    pub(super) fn of(engine: &Engine, host: &HostRun, distribution: Distribution) -> Option<Self> {
        let facts = host.facts()?;
        let role = host.fleet.role?;
        let address = facts.default_address.clone().or_else(|| facts.addresses.first().cloned());
        let node_ip = said(engine, &host.fleet, "node_ip")
            .or(address)
            .unwrap_or_else(|| said_address(engine, &host.fleet));
        let port = server_port(engine, &host.fleet);
        let url = server_url(&node_ip, port);
        let supervisor = match role {
            // An agent's health endpoint is on loopback, which a lab host has an own address of.
            Role::Agent if facts.lab_root.is_none() => format!("127.0.0.1:{AGENT_HEALTH_PORT}"),
            Role::Agent => format!("{}:{AGENT_HEALTH_PORT}", bracketed(&node_ip)),
            Role::Server | Role::LoadBalancer => url.trim_start_matches("https://").to_owned(),
        };
        let layout = Layout::new(distribution, role, facts.lab_root.as_deref())
            .managed_by(&facts.service_manager);
        let k3s = distribution == Distribution::K3s;
        let is_lab = facts.lab_root.is_some();
        let listens = if k3s {
            k3s_listens(engine, &host.fleet, role, is_lab, &node_ip)
        } else {
            listens(engine, &host.fleet, role, is_lab, &node_ip)
        };
        Some(Self {
            k3s: k3s.then(|| layout.k3s_node(role, host.name())),
            listens,
            layout,
            supervisor,
            port,
            node_ip,
        })
    }

    /// What is looked at to know the node's state.
    pub(super) fn reads(&self) -> [Read; 2] {
        [self.disk_read(), self.cluster_read()]
    }

    pub(super) fn disk_read(&self) -> Read {
        let data_dir = self.layout.data_dir.clone();
        if self.k3s.is_some() { Read::K3sDisk { data_dir } } else { Read::Disk { data_dir } }
    }

    pub(super) fn cluster_read(&self) -> Read {
        if let Some(node) = &self.k3s {
            return Read::K3sCluster { node: node.clone() };
        }
        Read::Cluster {
            data_dir: self.layout.data_dir.clone(),
            supervisor: self.supervisor.clone(),
        }
    }
}

/// A text or number that the inventory says of `host`.
fn said(engine: &Engine, host: &FleetHost, expression: &str) -> Option<String> {
    let template = json!(format!("{{{{ {expression} }}}}"));
    match engine.evaluate(&template, &host.vars).ok()?.value {
        Json::String(text) => Some(text),
        Json::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

/// Where a K3s node listens, beside the node's own address for the kubelet; a lab's node has none.
fn k3s_listens(
    engine: &Engine,
    host: &FleetHost,
    role: Role,
    is_lab: bool,
    node_ip: &str,
) -> Vec<(String, u16)> {
    let any = if is_lab { node_ip } else { "0.0.0.0" };
    let at = |address: &str, port: u16| (address.to_owned(), port);
    let mut listens = match role {
        Role::LoadBalancer => Vec::new(),
        Role::Agent => vec![at("127.0.0.1", AGENT_LB_PORT)],
        Role::Server => vec![at(any, server_port(engine, host))],
    };
    if role == Role::Server && said(engine, host, "datastore_endpoint").is_none() {
        listens.extend([at(node_ip, CLIENT_PORT), at(node_ip, PEER_PORT)]);
    }
    if role != Role::LoadBalancer {
        listens.push(at(any, KUBELET_PORT));
    }
    if is_lab && role == Role::Agent { Vec::new() } else { listens }
}

/// What a node listens on: as [`crate::node::config`] and the templates of its configuration say.
fn listens(
    engine: &Engine,
    host: &FleetHost,
    role: Role,
    is_lab: bool,
    node_ip: &str,
) -> Vec<(String, u16)> {
    let set = |key: &str| said(engine, host, &format!("(config | default({{}}))['{key}']"));
    let port =
        |key: &str, default: u16| set(key).and_then(|port| port.parse().ok()).unwrap_or(default);
    let bind = set("bind-address").or_else(|| is_lab.then(|| node_ip.to_owned()));
    let at = |address: &str, port: u16| (address.to_owned(), port);
    match role {
        Role::LoadBalancer => Vec::new(),
        Role::Agent => {
            let bind = bind.as_deref().unwrap_or("127.0.0.1");
            let lb = at(bind, port("lb-server-port", AGENT_LB_PORT));
            let health = at(if is_lab { bind } else { "127.0.0.1" }, AGENT_HEALTH_PORT);
            vec![lb, at(bind, CLIENT_PORT), health]
        }
        Role::Server => {
            let supervisor = port("https-listen-port", SUPERVISOR_PORT);
            match bind.as_deref() {
                Some(bind) if bind != "0.0.0.0" && bind != "::" => {
                    vec![at(bind, supervisor), at(bind, CLIENT_PORT), at(bind, PEER_PORT)]
                }
                any => vec![
                    at(any.unwrap_or("0.0.0.0"), supervisor),
                    at(node_ip, CLIENT_PORT),
                    at("127.0.0.1", CLIENT_PORT),
                    at(node_ip, PEER_PORT),
                    at("127.0.0.1", PEER_PORT),
                ],
            }
        }
    }
}

fn bracketed(address: &str) -> String {
    if address.contains(':') { format!("[{address}]") } else { address.to_owned() }
}

fn server_port(engine: &Engine, host: &FleetHost) -> u16 {
    let port = said(engine, host, "(config | default({}))['https-listen-port']");
    port.and_then(|port| port.parse().ok()).unwrap_or(SUPERVISOR_PORT)
}

fn server_url(address: &str, port: u16) -> String {
    format!("https://{}:{port}", bracketed(address))
}

/// Where the inventory says that a host is, for the other hosts.
pub(super) fn said_address(engine: &Engine, host: &FleetHost) -> String {
    let address = said(engine, host, "node_ip").or_else(|| said(engine, host, "ansible_host"));
    address.unwrap_or_else(|| host.name.clone())
}

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
    fn url(&self, server: &str) -> Option<String> {
        self.address(server).map(|(address, port)| server_url(address, port))
    }

    /// A server's address and its supervisor's port, likewise.
    fn address(&self, server: &str) -> Option<(&str, u16)> {
        let place = self.places.get(server).map(|place| (place.node_ip.as_str(), place.port));
        place.or_else(|| self.said.get(server).map(|(address, port)| (address.as_str(), *port)))
    }

    /// Notes where the inventory says that servers and load balancers are.
    pub(super) fn say(&mut self, engine: &Engine, hosts: &[FleetHost]) {
        for host in hosts {
            let address = said_address(engine, host);
            match host.role {
                Some(Role::Server) => {
                    let port = server_port(engine, host);
                    self.said.insert(host.name.clone(), (address, port));
                }
                Some(Role::LoadBalancer) => self.balancers.push((host.name.clone(), address)),
                _ => {}
            }
        }
        for host in hosts {
            let vip = || said(engine, host, "loadbalancer_vip");
            let entry = said(engine, host, "loadbalancer_address")
                .or_else(|| vip().map(|vip| vip.split('/').next().unwrap_or_default().to_owned()))
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
