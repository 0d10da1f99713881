//! Where nodes are: addresses, ports and paths, from what the inventory and a host's facts say.
//!
//! Pure. Shared by runs and by commands that only look, so that both ask the same node. It knows
//! nothing of what the nodes answer.

use serde_json::{Value as Json, json};

use crate::cluster::layout::{Distribution, K3sNode, Layout, Role};
use crate::host::protocol::{Facts, Read};
use crate::limits::{
    AGENT_HEALTH_PORT, AGENT_LB_PORT, CLIENT_PORT, KUBELET_PORT, PEER_PORT, SUPERVISOR_PORT,
};
use crate::template::{Engine, Vars};

/// Where a host's node is, and how it is asked.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    /// Paths and names of the node.
    pub(crate) layout: Layout,
    /// The host's address in the cluster.
    pub(crate) node_ip: String,
    /// Address and port of the supervisor, or of an agent's health endpoint.
    pub(crate) supervisor: String,
    /// Port on which others reach a server's supervisor.
    pub(crate) port: u16,
    /// Addresses and ports that the node listens on.
    pub(crate) listens: Vec<(String, u16)>,
    /// The node is K3s's: how it is asked.
    pub(crate) k3s: Option<K3sNode>,
}

impl Place {
    /// The place of the node of the host `name`, from what the inventory says and the facts say.
    pub(crate) fn of(
        engine: &Engine,
        name: &str,
        role: Role,
        vars: &Vars,
        facts: &Facts,
        distribution: Distribution,
    ) -> Self {
        let address = facts.default_address.clone().or_else(|| facts.addresses.first().cloned());
        let node_ip = said(engine, vars, "node_ip")
            .or(address)
            .unwrap_or_else(|| said_address(engine, name, vars));
        let port = server_port(engine, vars);
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
            k3s_listens(engine, vars, role, is_lab, &node_ip)
        } else {
            listens(engine, vars, role, is_lab, &node_ip)
        };
        Self {
            k3s: k3s.then(|| layout.k3s_node(role, name)),
            listens,
            layout,
            supervisor,
            port,
            node_ip,
        }
    }

    /// What is looked at to know the node's state.
    pub(crate) fn reads(&self) -> [Read; 2] {
        [self.disk_read(), self.cluster_read()]
    }

    pub(crate) fn disk_read(&self) -> Read {
        let data_dir = self.layout.data_dir.clone();
        if self.k3s.is_some() { Read::K3sDisk { data_dir } } else { Read::Disk { data_dir } }
    }

    pub(crate) fn ready_read(&self, timeout_ms: u64) -> Read {
        match &self.k3s {
            Some(node) => Read::K3sReady { node: node.clone(), timeout_ms },
            None => Read::Ready {
                data_dir: self.layout.data_dir.clone(),
                supervisor: self.supervisor.clone(),
                timeout_ms,
            },
        }
    }

    /// What is looked at to know how far the server's log goes.
    pub(crate) fn log_end_read(&self) -> Read {
        let data_dir = self.layout.data_dir.clone();
        if self.k3s.is_some() { Read::K3sLogEnd { data_dir } } else { Read::LogEnd { data_dir } }
    }

    /// What is looked at to know the cluster as this node sees it.
    pub(crate) fn cluster_read(&self) -> Read {
        if let Some(node) = &self.k3s {
            return Read::K3sCluster { node: node.clone() };
        }
        Read::Cluster {
            data_dir: self.layout.data_dir.clone(),
            supervisor: self.supervisor.clone(),
        }
    }
}

/// A text or number that the inventory says of a host, if it is not empty.
pub(crate) fn said(engine: &Engine, vars: &Vars, expression: &str) -> Option<String> {
    let template = json!(format!("{{{{ {expression} }}}}"));
    match engine.evaluate(&template, vars).ok()?.value {
        Json::String(text) if !text.is_empty() => Some(text),
        Json::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

/// The virtual address of load balancers, without its prefix length.
pub(crate) fn said_vip(engine: &Engine, vars: &Vars) -> Option<String> {
    let vip = said(engine, vars, "loadbalancer_vip")?;
    Some(vip.split('/').next().unwrap_or_default().to_owned())
}

/// Where a K3s node listens, beside the node's own address for the kubelet; a lab's node has none.
fn k3s_listens(
    engine: &Engine,
    vars: &Vars,
    role: Role,
    is_lab: bool,
    node_ip: &str,
) -> Vec<(String, u16)> {
    let any = if is_lab { node_ip } else { "0.0.0.0" };
    let at = |address: &str, port: u16| (address.to_owned(), port);
    let mut listens = match role {
        Role::LoadBalancer => Vec::new(),
        Role::Agent => vec![at("127.0.0.1", AGENT_LB_PORT)],
        Role::Server => vec![at(any, server_port(engine, vars))],
    };
    if role == Role::Server && said(engine, vars, "datastore_endpoint").is_none() {
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
    vars: &Vars,
    role: Role,
    is_lab: bool,
    node_ip: &str,
) -> Vec<(String, u16)> {
    let set = |key: &str| said(engine, vars, &format!("(config | default({{}}))['{key}']"));
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

/// Port of a server's supervisor.
pub(crate) fn server_port(engine: &Engine, vars: &Vars) -> u16 {
    let port = said(engine, vars, "(config | default({}))['https-listen-port']");
    port.and_then(|port| port.parse().ok()).unwrap_or(SUPERVISOR_PORT)
}

/// URL of a supervisor.
pub(crate) fn server_url(address: &str, port: u16) -> String {
    format!("https://{}:{port}", bracketed(address))
}

/// Where the inventory says that a host is, for the other hosts.
pub(crate) fn said_address(engine: &Engine, name: &str, vars: &Vars) -> String {
    let address = said(engine, vars, "node_ip").or_else(|| said(engine, vars, "ansible_host"));
    address.unwrap_or_else(|| name.to_owned())
}
