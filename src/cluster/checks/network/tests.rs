use super::*;
use crate::cluster::checks::Severity;

fn probe(to: &str, port: u16, udp: bool, reached: Reached) -> ProbeSeen {
    ProbeSeen { to: to.to_owned(), address: "10.0.0.9".to_owned(), port, udp, reached }
}

fn server(probes: Vec<ProbeSeen>) -> HostSeen {
    HostSeen {
        name: "s1".to_owned(),
        role: Some(Role::Server),
        node_ip: Some("10.0.0.1".to_owned()),
        probes,
        ..HostSeen::default()
    }
}

const YES: Reached = Reached::Yes { rtt_us: 300 };

#[test]
fn who_must_reach_what_follows_from_the_roles() {
    let ports = |distribution, external, from, to| -> String {
        let wiring = Wiring { distribution, external };
        let needs = wiring.needs(from, to, 6443).into_iter();
        let text = |need: Need| format!("{}{}", need.port, if need.udp { "u" } else { "" });
        needs.map(text).collect::<Vec<_>>().join(" ")
    };
    let (server, agent, balancer) = (Role::Server, Role::Agent, Role::LoadBalancer);
    let (embedded, k3s) = (Distribution::Embedded, Distribution::K3s);
    for (distribution, external, from, to, expected) in [
        (embedded, false, server, server, "6443 2379 2380"),
        (embedded, false, agent, server, "6443 2379"),
        (embedded, false, balancer, server, "6443 2379"),
        (embedded, false, server, agent, ""),
        (embedded, false, agent, agent, ""),
        (k3s, false, server, server, "6443 2379 2380 8472u 10250"),
        (k3s, true, server, server, "6443 8472u 10250"),
        (k3s, false, agent, server, "6443 8472u"),
        (k3s, false, server, agent, "8472u 10250"),
        (k3s, false, agent, agent, "8472u"),
        (k3s, false, balancer, server, "6443"),
        (k3s, false, server, balancer, ""),
    ] {
        let found = ports(distribution, external, from, to);
        assert_eq!(found, expected, "{distribution:?} {external} {from:?} {to:?}");
    }
}

#[test]
fn all_reached_is_good() {
    let host = server(vec![probe("s2", 2380, false, YES), probe("s3", 2380, false, YES)]);
    let findings = check(&host);
    let told: Vec<(Severity, &str)> =
        findings.iter().map(|found| (found.severity, found.value.as_str())).collect();
    assert_eq!(told, [(Severity::Good, "2/2"), (Severity::Good, "0.3 ms")]);
    assert!(check(&server(Vec::new())).is_empty());
}

#[test]
fn what_is_not_reached_names_pair_and_ports() {
    let host = server(vec![
        probe("s2", 2379, false, Reached::TimedOut),
        probe("s2", 2380, false, Reached::TimedOut),
        probe("s2", 6443, false, YES),
        probe("s3", 2380, false, Reached::Refused),
        probe("s3", 8472, true, Reached::TimedOut),
    ]);
    let findings = check(&host);
    let messages: Vec<&str> = findings.iter().map(|found| found.message.as_str()).collect();
    assert_eq!(
        messages,
        [
            "s1 does not reach s2 (10.0.0.9) on 2379, 2380: no answer: something drops it",
            "s1 does not reach s3 (10.0.0.9) on 8472/udp: no answer: something drops it",
            "s1 does not reach s3 (10.0.0.9) on 2380: the connection is refused although it listens: \
             something rejects it",
            "",
        ]
    );
    assert_eq!(findings[0].value, "1/5");
    assert!(findings[0].stops(false) && !findings[0].stops(true));
    assert!(findings[0].action.as_ref().unwrap().contains("open 2379, 2380 for 10.0.0.1"));
}

#[test]
fn strangers_and_errors_are_told_apart() {
    for (reached, words) in [
        (Reached::Stranger, "something else answers"),
        (Reached::Failed("no route to host".to_owned()), "no route to host"),
    ] {
        let found = check(&server(vec![probe("s2", 2380, false, reached)])).remove(0);
        assert_eq!(found.severity, Severity::Bad);
        assert!(found.message.contains(words), "{}", found.message);
    }
    // A port of K3s's own tunnel is taken by the kernel: it cannot be tried.
    let busy = Reached::Failed("in use".to_owned());
    let host = server(vec![probe("s2", 8472, true, busy), probe("s2", 2380, false, YES)]);
    assert_eq!((check(&host)[0].severity, check(&host)[0].value.as_str()), (Severity::Good, "1/2"));
}

#[test]
fn the_longest_round_trip_counts_of_each_hosts_shortest() {
    let at = |to: &str, port, ms: u64| probe(to, port, false, Reached::Yes { rtt_us: ms * 1000 });
    let host = server(vec![at("s2", 2379, 90), at("s2", 2380, 2), at("s3", 2380, 51)]);
    assert_eq!(longest_rtt_us(&host), Some(("s3", 51_000)));
    let found = check(&host).pop().unwrap();
    assert_eq!(found.severity, Severity::Warning);
    assert_eq!(found.message, "a round trip to s3 takes 51.0 ms, under 50.0 ms is good");
    assert!(found.action.unwrap().contains("heartbeat-interval=51, election-timeout=510"));
    let mut agent = host.clone();
    agent.role = Some(Role::Agent);
    assert_eq!(check(&agent).len(), 1, "it is the servers who wait for each other");
}
