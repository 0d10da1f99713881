//! Which host must reach which port of which other host, and what came of trying.

use std::collections::BTreeMap;

use super::finding::{Check, Finding};
use super::limits::RTT_WARNED_US;
use super::scene::{HostSeen, ProbeSeen};
use super::text::ms;
use crate::cluster::layout::{Distribution, Role};
use crate::host::protocol::Reached;
use crate::limits::{CLIENT_PORT, KUBELET_PORT, PEER_PORT, VXLAN_PORT};

/// A port that others must reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Need {
    /// The port.
    pub port: u16,
    /// UDP; else TCP.
    pub udp: bool,
}

/// What the cluster is like, as far as it matters here.
#[derive(Clone, Copy, Debug)]
pub struct Wiring {
    /// What is provisioned.
    pub distribution: Distribution,
    /// The data is in a datastore outside of the servers.
    pub external: bool,
}

impl Wiring {
    /// The ports of a host with the role `to`, whose supervisor is at `supervisor`, that a host with
    /// the role `from` must reach. (K3s: "Networking" in its requirements.)
    pub fn needs(self, from: Role, to: Role, supervisor: u16) -> Vec<Need> {
        let mut ports = Vec::new();
        if to == Role::Server {
            ports.push((supervisor, false));
            let clients = self.distribution == Distribution::Embedded || from == Role::Server;
            if clients && !self.external {
                ports.push((CLIENT_PORT, false));
            }
            if from == Role::Server && !self.external {
                ports.push((PEER_PORT, false));
            }
        }
        let nodes = from != Role::LoadBalancer && to != Role::LoadBalancer;
        if self.distribution == Distribution::K3s && nodes {
            ports.push((VXLAN_PORT, true));
            if from == Role::Server {
                ports.push((KUBELET_PORT, false));
            }
        }
        ports.into_iter().map(|(port, udp)| Need { port, udp }).collect()
    }
}

/// What is wrong with the network as `host` sees it.
pub(super) fn check(host: &HostSeen) -> Vec<Finding> {
    if host.probes.is_empty() {
        return Vec::new();
    }
    let mut findings = unreached(host);
    if findings.is_empty() {
        let count = host.probes.len();
        let tried = host.probes.iter().filter(|probe| !is_unknown(probe)).count();
        findings.push(Finding::good(Check::Network, format!("{tried}/{count}")));
    }
    findings.extend(round_trips(host));
    findings
}

/// It could not be tried, which says nothing of the network.
fn is_unknown(probe: &ProbeSeen) -> bool {
    matches!(probe.reached, Reached::Failed(_)) && probe.udp
}

/// One finding for each other host and way of failing, with the ports.
fn unreached(host: &HostSeen) -> Vec<Finding> {
    let mut failed: BTreeMap<(&str, String), Vec<&ProbeSeen>> = BTreeMap::new();
    for probe in &host.probes {
        if let Some(how) = failure(probe) {
            failed.entry((&probe.to, how)).or_default().push(probe);
        }
    }
    let reached = host.probes.iter().filter(|probe| failure(probe).is_none()).count();
    let value = format!("{reached}/{}", host.probes.len());
    let finding = |((to, how), probes): (&(&str, String), &Vec<&ProbeSeen>)| {
        let ports: Vec<String> = probes.iter().map(|probe| port(probe)).collect();
        let address = probes.first().map(|probe| probe.address.as_str()).unwrap_or_default();
        let message =
            format!("{} does not reach {to} ({address}) on {}: {how}", host.name, ports.join(", "));
        let action = format!(
            "open {} for {} in the firewall of {to} and in between (security groups, nftables, ufw, \
             firewalld)",
            ports.join(", "),
            host.node_ip.as_deref().unwrap_or(&host.name),
        );
        Finding::bad(Check::Network, value.clone(), message).forceable().action(action)
    };
    failed.iter().map(finding).collect()
}

fn port(probe: &ProbeSeen) -> String {
    if probe.udp { format!("{}/udp", probe.port) } else { probe.port.to_string() }
}

fn failure(probe: &ProbeSeen) -> Option<String> {
    match &probe.reached {
        Reached::Yes { .. } => None,
        Reached::Refused => {
            Some("the connection is refused although it listens: something rejects it".to_owned())
        }
        Reached::Stranger => {
            Some("something else answers: another machine with its address, or a proxy".to_owned())
        }
        Reached::TimedOut => Some("no answer: something drops it".to_owned()),
        Reached::Failed(_) if is_unknown(probe) => None,
        Reached::Failed(why) => Some(why.clone()),
    }
}

/// The longest of the shortest round trips to each of the others over TCP.
pub(super) fn longest_rtt_us(host: &HostSeen) -> Option<(&str, u64)> {
    let mut shortest: BTreeMap<&str, u64> = BTreeMap::new();
    for probe in host.probes.iter().filter(|probe| !probe.udp) {
        if let Reached::Yes { rtt_us } = probe.reached {
            let best = shortest.entry(&probe.to).or_insert(rtt_us);
            *best = rtt_us.min(*best);
        }
    }
    shortest.into_iter().max_by_key(|(_, rtt)| *rtt)
}

fn round_trips(host: &HostSeen) -> Option<Finding> {
    let (to, rtt_us) = longest_rtt_us(host).filter(|_| host.is_server())?;
    let value = ms(rtt_us);
    if rtt_us <= RTT_WARNED_US {
        return Some(Finding::good(Check::RoundTrip, value));
    }
    let message =
        format!("a round trip to {to} takes {value}, under {} is good", ms(RTT_WARNED_US));
    let action = format!(
        "keep the servers in one region; or give all of them `etcd-arg: [heartbeat-interval={}, \
         election-timeout={}]`",
        rtt_us.div_ceil(1000),
        rtt_us.div_ceil(1000) * 10,
    );
    Some(Finding::warning(Check::RoundTrip, value, message).action(action))
}

#[cfg(test)]
mod tests;
