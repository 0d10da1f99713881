//! Where the drill's clients come in: at each server, and through the load balancers.

use std::collections::BTreeMap;

use serde_json::Value as Json;

use super::super::clusters;
use super::api::{self, Api};
use super::door::Door;
use super::etcd::Etcd;
use crate::cluster::layout::Role;
use crate::cluster::safety::node_of;
use crate::cluster::view::ClusterView;
use crate::error::{ExitCode, Failure};
use crate::inventory::{Host, Inventory};
use crate::limits::{CLIENT_PORT, SUPERVISOR_PORT};
use crate::rpc::client::TlsFiles;
use crate::run::address::{server_port, server_url};
use crate::run::{said, said_address, said_vip};
use crate::template::Engine;

/// The ways into a cluster.
pub(super) struct Ways {
    key: Key,
    /// Each server's name, and where clients find it.
    servers: Vec<(String, Vec<String>)>,
    /// The load balancers that clients come through.
    balancers: Vec<String>,
}

/// What opens the doors.
enum Key {
    /// The client bundle.
    Etcd(TlsFiles),
    /// The kubeconfig.
    Api(reqwest::Client),
}

impl Ways {
    /// Those into the embedded node's store.
    pub(super) fn of_etcd(inventory: &Inventory, view: &ClusterView) -> Result<Self, Failure> {
        let by_node: BTreeMap<&str, &[String]> = view
            .members
            .iter()
            .map(|member| (node_of(&member.name), member.client_urls.as_slice()))
            .collect();
        let engine = Engine::new();
        let own = |host: &Host| match by_node.get(host.name.as_str()) {
            Some(urls) if !urls.is_empty() => urls.to_vec(),
            _ => vec![server_url(&said_address(&engine, &host.name, &host.vars), CLIENT_PORT)],
        };
        Ok(Self {
            key: Key::Etcd(TlsFiles::in_bundle(&clusters::directory(&inventory.cluster_name)?)),
            servers: inventory.servers().map(|host| (host.name.clone(), own(host))).collect(),
            balancers: balancers(inventory, CLIENT_PORT),
        })
    }

    /// Those to the API servers of real K3s, with the administrator's kubeconfig.
    pub(super) fn of_api(
        inventory: &Inventory,
        view: &ClusterView,
        kubeconfig: &Json,
    ) -> Result<Self, Failure> {
        let engine = Engine::new();
        let http = api::client(kubeconfig).map_err(|why| Failure::new(ExitCode::Error, why))?;
        let own = |host: &Host| {
            // The address that the API server's certificate has for sure.
            let node = view.nodes.iter().find(|node| node.name == host.name);
            let address = node.map(|node| node.internal_ip.clone());
            let address = address.filter(|address| !address.is_empty());
            let said = || said_address(&engine, &host.name, &host.vars);
            server_url(&address.unwrap_or_else(said), server_port(&engine, &host.vars))
        };
        Ok(Self {
            key: Key::Api(http),
            servers: inventory.servers().map(|host| (host.name.clone(), vec![own(host)])).collect(),
            balancers: balancers(inventory, SUPERVISOR_PORT),
        })
    }

    /// Makes what the clients write into.
    pub(super) async fn prepare(&self) -> Result<(), Failure> {
        let Key::Api(http) = &self.key else { return Ok(()) };
        let urls = self.servers.iter().flat_map(|(_, urls)| urls);
        let servers: Vec<Api> = urls.map(|url| Api::at(http, url)).collect();
        api::prepare(&servers).await.map_err(|why| {
            let message = format!("cannot write through the Kubernetes API\n{why}");
            Failure::new(ExitCode::Unreachable, message)
                .hint("this machine must reach the servers' API port; nothing was stopped")
        })
    }

    /// A door for each server, with its name.
    pub(super) fn servers(&self) -> Result<Vec<(String, Door)>, Failure> {
        let door = |(name, urls): &(String, Vec<String>)| Ok((name.clone(), self.door(urls)?));
        self.servers.iter().map(door).collect()
    }

    /// The doors of each client, in the order in which it goes from one that fails to the next, and whether they are load
    /// balancers'. One client for each server, which goes to that server first; and one through the load balancers, if
    /// there are any.
    pub(super) fn of_clients(&self) -> Result<Vec<(Vec<Door>, bool)>, Failure> {
        let mut clients = Vec::new();
        for first in 0..self.servers.len() {
            let mut doors: Vec<Door> = self.servers()?.into_iter().map(|(_, door)| door).collect();
            doors.rotate_left(first);
            clients.push((doors, false));
        }
        if !self.balancers.is_empty() {
            let urls = self.balancers.iter();
            let doors = urls.map(|url| self.door(std::slice::from_ref(url)));
            clients.push((doors.collect::<Result<_, _>>()?, true));
        }
        Ok(clients)
    }

    /// A door to each one that must have all that was acknowledged, with its name: the members of the embedded node's
    /// store, or the API servers.
    pub(super) fn witnesses(&self, view: &ClusterView) -> Result<Vec<(String, Door)>, Failure> {
        match &self.key {
            Key::Api(_) => self.servers(),
            Key::Etcd(_) => {
                let members = view.members.iter();
                members.map(|one| Ok((one.name.clone(), self.door(&one.client_urls)?))).collect()
            }
        }
    }

    /// What a drill leaves when it cannot clear away.
    pub(super) fn markers(&self) -> String {
        match &self.key {
            Key::Etcd(_) => format!("the marker keys `{}`", super::etcd::PREFIX),
            Key::Api(_) => format!("the objects in the namespace `{}`", api::NAMESPACE),
        }
    }

    fn door(&self, urls: &[String]) -> Result<Door, Failure> {
        match &self.key {
            Key::Etcd(tls) => Etcd::of(urls, tls).map(Door::Etcd),
            Key::Api(http) => {
                let url = urls.first().map_or("", String::as_str);
                Ok(Door::Api(Api::at(http, url)))
            }
        }
    }
}

/// Where the load balancers are that balance `port`.
fn balancers(inventory: &Inventory, port: u16) -> Vec<String> {
    let engine = Engine::new();
    let ports = format!("{port} in (loadbalancer_ports | default([{port}])) and 'yes'");
    let balances = |host: &&Host| {
        host.role() == Some(Role::LoadBalancer) && said(&engine, &host.vars, &ports).is_some()
    };
    let mut urls: Vec<String> = Vec::new();
    for host in inventory.hosts.iter().filter(balances) {
        // A virtual address stands for all that have it.
        let address = said_vip(&engine, &host.vars)
            .unwrap_or_else(|| said_address(&engine, &host.name, &host.vars));
        let url = server_url(&address, port);
        if !urls.contains(&url) {
            urls.push(url);
        }
    }
    urls
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::view::NodeView;
    use crate::inventory::inventory_of;

    #[test]
    fn the_api_is_asked_where_its_certificate_says_and_through_what_balances_it() {
        let inventory = inventory_of(
            "servers:\n  hosts: {s1: {ansible_host: 203.0.113.1}, s2: {ansible_host: 10.0.0.2}}\n  \
             vars: {config: {https-listen-port: 7443}}\nloadbalancers:\n  hosts:\n    \
             lb1: {ansible_host: 10.0.0.8, loadbalancer_vip: 'fd00::9/64'}\n    \
             lb2: {ansible_host: 10.0.0.7, loadbalancer_vip: 'fd00::9/64'}\n    \
             lb3: {ansible_host: 10.0.0.6, loadbalancer_ports: [2379]}\n",
        );
        let node = NodeView {
            name: "s1".to_owned(),
            internal_ip: "10.0.0.1".to_owned(),
            ..NodeView::default()
        };
        let view = ClusterView { nodes: vec![node], ..ClusterView::default() };
        let ca = crate::pki::Authority::create("test").unwrap().pair().clone();
        let data = |text: &str| {
            use base64::Engine as _;
            base64::engine::general_purpose::STANDARD.encode(text)
        };
        let kubeconfig = serde_json::json!({
            "clusters": [{ "cluster": { "certificate-authority-data": data(&ca.certificate) } }],
            "users": [{ "user": {
                "client-certificate-data": data(&ca.certificate),
                "client-key-data": data(ca.key.expose()),
            } }],
        });
        let ways = Ways::of_api(&inventory, &view, &kubeconfig).unwrap();
        let urls: Vec<&str> = ways.servers.iter().map(|(_, urls)| urls[0].as_str()).collect();
        assert_eq!(urls, ["https://10.0.0.1:7443", "https://10.0.0.2:7443"]);
        assert_eq!(ways.balancers, ["https://[fd00::9]:6443"]);
        let wrong = Ways::of_api(&inventory, &view, &serde_json::json!({})).err().unwrap();
        assert!(wrong.message.contains("certificate-authority-data"), "{}", wrong.message);
    }
}
