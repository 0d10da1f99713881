//! What must be each machine's own: name, id, address.

use std::collections::BTreeMap;

use super::finding::{Check, Finding};
use super::scene::{HostSeen, Scene};

/// One finding for each host, and one more for each thing that it shares.
pub(super) fn check(scene: &Scene) -> Vec<Finding> {
    let address = |host: &HostSeen| host.node_ip.clone();
    let machine = |host: &HostSeen| host.facts.as_ref().map(|facts| facts.machine_id.clone());
    let hostname = |host: &HostSeen| host.facts.as_ref().map(|facts| facts.hostname.clone());
    let mut findings = shared(scene, &address, |value, others| {
        let message = format!("its address {value} is also that of {others}");
        Finding::bad(Check::Identity, value, message).forceable().action(
            "set `node_ip` to each host's own address, or take one host out of the inventory",
        )
    });
    findings.extend(shared(scene, &machine, |value, others| {
        let short = value.get(..8).unwrap_or(value);
        let message = format!("its machine id {short}… is also that of {others}: they are clones");
        let action = "`rm /etc/machine-id && systemd-machine-id-setup`, then reboot";
        Finding::bad(Check::Identity, format!("id {short}"), message).forceable().action(action)
    }));
    findings.extend(shared(scene, &hostname, |value, others| {
        let message = format!("its host name {value} is also that of {others}");
        Finding::warning(Check::Identity, value, message).action(
            "`hostnamectl set-hostname` gives each its own; nodes are called as in the inventory",
        )
    }));
    for host in scene.hosts.iter().filter(|host| host.facts.is_some()) {
        let is_fine = !findings.iter().any(|found| found.host.as_ref() == Some(&host.name));
        if is_fine {
            findings.push(Finding::good(Check::Identity, "unique").on(&host.name));
        }
    }
    findings
}

/// A finding for each host that has what another one has; nothing is not shared.
fn shared(
    scene: &Scene,
    what: &dyn Fn(&HostSeen) -> Option<String>,
    say: impl Fn(&str, &str) -> Finding,
) -> Vec<Finding> {
    let mut owners: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for host in &scene.hosts {
        if let Some(value) = what(host).filter(|value| !value.is_empty()) {
            owners.entry(value).or_default().push(&host.name);
        }
    }
    let mut findings = Vec::new();
    for (value, names) in owners.iter().filter(|(_, names)| names.len() > 1) {
        for name in names {
            let others: Vec<&str> = names.iter().filter(|other| *other != name).copied().collect();
            findings.push(say(value, &others.join(", ")).on(name));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::checks::Severity;
    use crate::host::protocol::Facts;

    fn host(name: &str, hostname: &str, machine_id: &str, address: &str) -> HostSeen {
        HostSeen {
            name: name.to_owned(),
            node_ip: Some(address.to_owned()),
            facts: Some(Facts {
                hostname: hostname.to_owned(),
                machine_id: machine_id.to_owned(),
                ..Facts::default()
            }),
            ..HostSeen::default()
        }
    }

    fn told(hosts: Vec<HostSeen>) -> Vec<(String, Severity, String)> {
        let findings = check(&Scene { hosts, ..Scene::default() });
        let told = |found: Finding| (found.host.unwrap(), found.severity, found.message);
        findings.into_iter().map(told).collect()
    }

    #[test]
    fn machines_of_their_own_are_fine_also_without_an_id() {
        let found = told(vec![host("s1", "a", "", "10.0.0.1"), host("s2", "b", "", "10.0.0.2")]);
        assert!(found.iter().all(|(_, severity, _)| *severity == Severity::Good), "{found:?}");
        assert_eq!(found.len(), 2);
    }

    #[test]
    fn what_is_shared_is_named_on_all_who_share_it() {
        let found = told(vec![
            host("s1", "a", "id000001", "10.0.0.1"),
            host("s2", "a", "id000001", "10.0.0.1"),
            host("s3", "c", "id3", "10.0.0.3"),
        ]);
        let of = |name: &str| -> Vec<(Severity, &str)> {
            let own = found.iter().filter(|(host, ..)| host == name);
            own.map(|(_, severity, message)| (*severity, message.as_str())).collect()
        };
        assert_eq!(
            of("s1"),
            [
                (Severity::Bad, "its address 10.0.0.1 is also that of s2"),
                (Severity::Bad, "its machine id id000001… is also that of s2: they are clones"),
                (Severity::Warning, "its host name a is also that of s2"),
            ]
        );
        assert_eq!(of("s2").len(), 3);
        assert_eq!(of("s3"), [(Severity::Good, "")]);
    }
}
