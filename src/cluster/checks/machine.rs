//! One host's machine: system, processors, memory, ports, default route.

use super::finding::{Check, Finding};
use super::limits::{
    AGENT_MEMORY_BYTES, LOAD_PER_CPU_MILLI, MEMORY_LEFT_BYTES, SERVER_CPUS, SERVER_MEMORY_BYTES,
};
use super::scene::{HostSeen, Scene};
use super::text::size;
use crate::cluster::layout::{Distribution, Role};
use crate::host::protocol::Facts;

/// Machines that binaries are made for.
const ARCHITECTURES: [&str; 2] = ["x86_64", "aarch64"];

/// All of it.
pub(super) fn check(scene: &Scene, host: &HostSeen) -> Vec<Finding> {
    let mut findings = Vec::new();
    if let Some(facts) = &host.facts {
        findings.push(system(facts));
        if host.role != Some(Role::LoadBalancer) {
            findings.push(processors(host, facts));
            findings.push(memory(host, facts));
        }
        findings.push(route(scene, facts));
    }
    findings.extend(ports(host));
    findings
}

fn system(facts: &Facts) -> Finding {
    let os = format!("{} {}", facts.os_id, facts.os_version);
    let value = format!("{} {}", os.trim(), facts.architecture);
    if facts.service_manager == "none" {
        let message = "neither systemd nor OpenRC runs: nothing would start the node";
        return Finding::bad(Check::System, value, message)
            .action("use a machine that was booted with systemd or OpenRC, not a plain container");
    }
    if !ARCHITECTURES.contains(&facts.architecture.as_str()) {
        let message = format!("{} is a machine that nobody tests", facts.architecture);
        return Finding::warning(Check::System, value, message);
    }
    Finding::good(Check::System, value)
}

fn processors(host: &HostSeen, facts: &Facts) -> Finding {
    let load = host.vitals.map(|vitals| vitals.load_milli);
    let value = match load {
        Some(load) => format!("{}, load {}.{}", facts.cpus, load / 1000, load % 1000 / 100),
        None => facts.cpus.to_string(),
    };
    if host.is_server() && facts.cpus < SERVER_CPUS {
        let message = format!("a server wants {SERVER_CPUS} processors, it has {}", facts.cpus);
        return Finding::warning(Check::Processors, value, message)
            .action("give the machine another processor");
    }
    if is_overloaded(host) {
        let message = "processes wait for a processor";
        return Finding::warning(Check::Processors, value, message)
            .action("`top` shows which; move them, or give the machine more processors");
    }
    Finding::good(Check::Processors, value)
}

/// More processes want to run than there are processors for.
pub(super) fn is_overloaded(host: &HostSeen) -> bool {
    let (Some(facts), Some(vitals)) = (&host.facts, host.vitals) else { return false };
    vitals.load_milli > LOAD_PER_CPU_MILLI * u64::from(facts.cpus.max(1))
}

fn memory(host: &HostSeen, facts: &Facts) -> Finding {
    let left = host.vitals.map(|vitals| vitals.memory_available_bytes);
    let value = size(facts.memory_bytes);
    let (wanted, said) = match host.role {
        Some(Role::Server) => (SERVER_MEMORY_BYTES, "a server wants 2 GiB"),
        _ => (AGENT_MEMORY_BYTES, "an agent wants 512 MiB"),
    };
    if facts.memory_bytes < wanted {
        let message = format!("{said} of memory, it has {value}");
        return Finding::warning(Check::Memory, value, message)
            .action("give the machine more memory");
    }
    if let Some(left) = left.filter(|left| *left < MEMORY_LEFT_BYTES) {
        let message = format!("only {} of memory are left", size(left));
        return Finding::warning(Check::Memory, format!("{} left", size(left)), message)
            .action("`ps aux --sort -rss | head` shows who has it");
    }
    Finding::good(Check::Memory, value)
}

fn route(scene: &Scene, facts: &Facts) -> Finding {
    if facts.default_address.is_some() {
        let interface = facts.default_interface.as_deref().unwrap_or("yes");
        return Finding::good(Check::Route, interface);
    }
    let message = "there is no default route";
    let action = "add one, be it to nowhere: `ip link add dummy0 type dummy && ip link set dummy0 up && \
                  ip route add default dev dummy0 metric 1000`";
    match scene.distribution {
        Distribution::K3s => Finding::bad(Check::Route, "none", message).forceable().action(action),
        Distribution::Embedded => Finding::warning(Check::Route, "none", message)
            .action("set `node_ip` for this host if its address is not the right one"),
    }
}

fn ports(host: &HostSeen) -> Vec<Finding> {
    let Some(ports) = &host.ports else { return Vec::new() };
    let mut findings: Vec<Finding> = Vec::new();
    for seen in ports {
        let Some(holder) = &seen.taken_by else { continue };
        let message = format!("port {} is taken by {holder}", seen.port);
        if !findings.iter().any(|finding| finding.message == message) {
            let value = format!("{} taken", seen.port);
            let action = format!("stop it: `ss -ltnp 'sport = :{}'` shows who it is", seen.port);
            findings.push(Finding::bad(Check::Ports, value, message).action(action));
        }
    }
    if findings.is_empty() {
        let mut numbers: Vec<u16> = ports.iter().map(|seen| seen.port).collect();
        numbers.sort_unstable();
        numbers.dedup();
        findings.push(Finding::good(Check::Ports, format!("{} free", numbers.len())));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::checks::Severity;
    use crate::cluster::checks::limits::MIB;
    use crate::cluster::checks::scene::PortSeen;
    use crate::host::protocol::Vitals;

    fn host() -> HostSeen {
        let facts = Facts {
            os_id: "debian".to_owned(),
            os_version: "12".to_owned(),
            architecture: "x86_64".to_owned(),
            service_manager: "systemd".to_owned(),
            cpus: 2,
            memory_bytes: 2048 * MIB,
            default_address: Some("10.0.0.1".to_owned()),
            default_interface: Some("eth0".to_owned()),
            ..Facts::default()
        };
        HostSeen { role: Some(Role::Server), facts: Some(facts), ..HostSeen::default() }
    }

    fn with(change: impl FnOnce(&mut Facts)) -> HostSeen {
        let mut host = host();
        change(host.facts.as_mut().unwrap());
        host
    }

    /// The finding of `check`, as severity, value and message.
    fn of(scene: &Scene, host: &HostSeen, wanted: Check) -> (Severity, String, String) {
        let found = check(scene, host).into_iter().find(|finding| finding.check == wanted).unwrap();
        (found.severity, found.value, found.message)
    }

    #[test]
    fn a_fine_machine_has_nothing_but_good_news() {
        let findings = check(&Scene::default(), &host());
        assert!(findings.iter().all(|finding| finding.severity == Severity::Good), "{findings:?}");
        let values: Vec<&str> = findings.iter().map(|finding| finding.value.as_str()).collect();
        assert_eq!(values, ["debian 12 x86_64", "2", "2.0 GiB", "eth0"]);
    }

    #[test]
    fn machines_are_judged_by_what_their_role_wants() {
        let scene = Scene::default();
        let severity = |host: &HostSeen, check| of(&scene, host, check).0;
        for (host, check, expected) in [
            (with(|facts| facts.cpus = 1), Check::Processors, Severity::Warning),
            (with(|facts| facts.memory_bytes = 1799 * MIB), Check::Memory, Severity::Warning),
            (with(|facts| facts.memory_bytes = 1800 * MIB), Check::Memory, Severity::Good),
            (
                with(|facts| "none".clone_into(&mut facts.service_manager)),
                Check::System,
                Severity::Bad,
            ),
            (
                with(|facts| "openrc".clone_into(&mut facts.service_manager)),
                Check::System,
                Severity::Good,
            ),
            (
                with(|facts| "riscv64".clone_into(&mut facts.architecture)),
                Check::System,
                Severity::Warning,
            ),
            (with(|facts| facts.default_address = None), Check::Route, Severity::Warning),
        ] {
            assert_eq!(severity(&host, check), expected, "{check:?}");
        }
        let mut agent = with(|facts| (facts.cpus, facts.memory_bytes) = (1, 512 * MIB));
        agent.role = Some(Role::Agent);
        assert_eq!(severity(&agent, Check::Processors), Severity::Good);
        assert_eq!(severity(&agent, Check::Memory), Severity::Good);
        let k3s = Scene { distribution: Distribution::K3s, ..Scene::default() };
        let unrouted = with(|facts| facts.default_address = None);
        assert_eq!(of(&k3s, &unrouted, Check::Route).0, Severity::Bad);
    }

    #[test]
    fn load_and_memory_that_is_gone_are_pointed_out() {
        let mut host = host();
        let vitals = |load_milli, memory_available_bytes| {
            Some(Vitals { load_milli, memory_available_bytes, ..Vitals::default() })
        };
        host.vitals = vitals(4000, 1024 * MIB);
        assert_eq!(of(&Scene::default(), &host, Check::Processors).0, Severity::Good);
        host.vitals = vitals(4100, 99 * MIB);
        let found = of(&Scene::default(), &host, Check::Processors);
        assert_eq!(found.1, "2, load 4.1");
        assert_eq!(found.0, Severity::Warning);
        let found = of(&Scene::default(), &host, Check::Memory);
        assert_eq!(found.2, "only 99 MiB of memory are left");
    }

    #[test]
    fn a_taken_port_is_named_once() {
        let mut host = host();
        let seen =
            |port, taken_by: Option<&str>| PortSeen { port, taken_by: taken_by.map(Into::into) };
        host.ports = Some(vec![seen(2379, None), seen(2379, None), seen(2380, None)]);
        assert_eq!(of(&Scene::default(), &host, Check::Ports).1, "2 free");
        let nginx = Some("nginx (pid 8)");
        host.ports = Some(vec![seen(2379, nginx), seen(2379, nginx), seen(2380, None)]);
        let found = check(&Scene::default(), &host);
        let found: Vec<&Finding> =
            found.iter().filter(|found| found.check == Check::Ports).collect();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].message, "port 2379 is taken by nginx (pid 8)");
        assert!(found[0].stops(true), "a taken port cannot be forced");
    }
}
