//! Whether each host's node runs and is ready, and if not, why.

use super::finding::{Check, Finding};
use super::scene::{HostSeen, Scene};
use super::symptoms::{STOPPING, Symptoms, because};
use crate::cluster::layout::Role;

/// One finding for each host that can be reached and shall have a node.
pub(super) fn check(scene: &Scene, symptoms: &Symptoms<'_>) -> Vec<Finding> {
    let has_node = |host: &&HostSeen| {
        matches!(host.role, Some(Role::Server | Role::Agent)) && host.lost.is_none()
    };
    let hosts = scene.hosts.iter().filter(has_node);
    hosts.map(|host| node(scene, host, symptoms).on(&host.name)).collect()
}

fn node(scene: &Scene, host: &HostSeen, symptoms: &Symptoms<'_>) -> Finding {
    match &host.view {
        Some(view) if view.ready => Finding::good(Check::Node, "ready"),
        Some(view) => {
            let reason = view.not_ready_reason.as_deref().unwrap_or("it gives no reason");
            let cause = symptoms.of(&host.name, STOPPING);
            let message = format!("its node is not ready: {reason}{}", because(cause.as_deref()));
            Finding::bad(Check::Node, "not ready", message).action(look_and_mend(scene, host))
        }
        None => {
            let (value, message) = stopped(host, symptoms);
            Finding::bad(Check::Node, value, message).action(look_and_mend(scene, host))
        }
    }
}

/// Why nothing answers on `host`: the state of its service in a word, and in words.
pub(super) fn stopped(host: &HostSeen, symptoms: &Symptoms<'_>) -> (&'static str, String) {
    let service = host.service.clone().unwrap_or_default();
    let (value, what) = if service.active {
        ("silent", "its service runs and does not answer")
    } else if service.starting {
        ("starting", "its service is on its way up and does not answer yet")
    } else if service.failed {
        ("failed", "its service failed")
    } else if service.exists {
        ("stopped", "its service does not run")
    } else {
        ("absent", "it has no service of a node")
    };
    let cause = symptoms.of(&host.name, STOPPING);
    let said = last_line(host).map_or_else(String::new, |line| format!("; its last words: {line}"));
    (value, format!("{what}{}{said}", because(cause.as_deref())))
}

/// The last line of the service's log that says something.
fn last_line(host: &HostSeen) -> Option<&str> {
    let lines = host.last_words.as_deref()?.lines().rev();
    lines.map(str::trim).find(|line| !line.is_empty())
}

/// Where its log is, and what starts it.
pub(super) fn look_and_mend(scene: &Scene, host: &HostSeen) -> String {
    let up = scene.command("up");
    if host.is_lab() || host.service_name.is_empty() {
        return format!("mend it: {up}");
    }
    format!("look: `journalctl -u {} -n 50` on {}; mend it: {up}", host.service_name, host.name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::checks::Severity;
    use crate::cluster::view::ClusterView;
    use crate::host::protocol::ServiceFacts;

    fn host() -> HostSeen {
        HostSeen {
            name: "s1".to_owned(),
            role: Some(Role::Server),
            service_name: "k3sup".to_owned(),
            ..HostSeen::default()
        }
    }

    fn found(host: HostSeen, symptoms: &[Finding]) -> Vec<Finding> {
        let scene =
            Scene { hosts: vec![host], inventory: "inv.yaml".to_owned(), ..Scene::default() };
        check(&scene, &Symptoms(symptoms))
    }

    #[test]
    fn a_node_that_is_ready_is_good_and_one_that_is_not_says_why() {
        let view = |ready, reason: Option<&str>| ClusterView {
            ready,
            not_ready_reason: reason.map(str::to_owned),
            ..ClusterView::default()
        };
        let ready = HostSeen { view: Some(view(true, None)), ..host() };
        assert_eq!(found(ready, &[])[0].severity, Severity::Good);
        let waits = HostSeen { view: Some(view(false, Some("no leader"))), ..host() };
        assert_eq!(found(waits, &[])[0].message, "its node is not ready: no leader");
    }

    #[test]
    fn a_silent_node_is_told_by_its_service_its_log_and_what_else_is_wrong() {
        let service = |change: fn(&mut ServiceFacts)| {
            let mut facts = ServiceFacts { exists: true, ..ServiceFacts::default() };
            change(&mut facts);
            Some(facts)
        };
        for (service, expected) in [
            (None, "it has no service of a node"),
            (service(|_| ()), "its service does not run"),
            (service(|facts| facts.failed = true), "its service failed"),
            (service(|facts| facts.starting = true), "its service is on its way up"),
            (service(|facts| facts.active = true), "its service runs and does not answer"),
        ] {
            let found = found(HostSeen { service, ..host() }, &[]).remove(0);
            assert!(found.message.starts_with(expected), "{}", found.message);
            assert_eq!(found.severity, Severity::Bad);
        }
        let silent = HostSeen {
            service: service(|facts| facts.failed = true),
            last_words: Some("one\nerror: cannot bind\n\n".to_owned()),
            ..host()
        };
        let taken = Finding::bad(Check::Ports, "", "port 2380 is taken by nginx").on("s1");
        let elsewhere = Finding::bad(Check::Ports, "", "port 1 is taken").on("s2");
        let found = found(silent, &[taken, elsewhere]).remove(0);
        assert_eq!(
            found.message,
            "its service failed; likely because port 2380 is taken by nginx; its last words: error: \
             cannot bind"
        );
        assert_eq!(
            found.action.as_deref(),
            Some("look: `journalctl -u k3sup -n 50` on s1; mend it: k3sup-rs up -i inv.yaml")
        );
    }

    #[test]
    fn who_has_no_node_or_is_away_is_not_asked_for_one() {
        assert!(found(HostSeen { role: Some(Role::LoadBalancer), ..host() }, &[]).is_empty());
        assert!(found(HostSeen { lost: Some("down".to_owned()), ..host() }, &[]).is_empty());
    }
}
