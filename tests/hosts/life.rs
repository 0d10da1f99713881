//! A cluster on real hosts, from nothing to nothing.

use std::collections::BTreeMap;

use crate::fleet::{Fleet, Wanted};
use crate::machines::Login;
use crate::secrets::Canaries;
use crate::serving::Serving;
use crate::support::{shown, wait_for};
use crate::traffic::Traffic;
use crate::trees::Tree;
use crate::units::Unit;

const HOSTS: [Wanted; 5] = [
    ("server1", 11, Login::Root),
    ("server2", 12, Login::Free),
    ("server3", 13, Login::Password),
    ("agent1", 21, Login::Password),
    ("lb1", 31, Login::Free),
];

const MORE: [Wanted; 3] =
    [("server4", 14, Login::Password), ("server5", 15, Login::Root), ("agent2", 22, Login::Free)];

const SERVERS: [&str; 3] = ["server1", "server2", "server3"];

/// How often a recap says that a host did not change.
fn unchanged(recap: &str) -> usize {
    recap.matches("changed=0 ").count()
}

/// Each machine's files.
fn trees(fleet: &Fleet) -> BTreeMap<String, Tree> {
    fleet.machines().map(|machine| (machine.name.clone(), Tree::of(machine))).collect()
}

#[test]
fn a_cluster_lives_on_real_hosts() {
    let Some(mut fleet) = Fleet::boot(&HOSTS) else { return };
    fleet.groups.insert("servers", SERVERS.map(str::to_owned).to_vec());
    fleet.groups.insert("agents", vec!["agent1".to_owned()]);
    fleet.groups.insert("loadbalancers", vec!["lb1".to_owned()]);
    fleet.be_patient();
    let canaries = Canaries::of(&mut fleet);
    let watch = canaries.watch();
    // As an administrator may have it already; `reset` puts it back.
    fleet.on("lb1", "systemctl enable --now -q haproxy");
    let mut before = trees(&fleet);
    comes_up(&fleet);
    serves_while_each_server_is_stopped(&fleet);
    changes_one_server_at_a_time(&mut fleet);
    survives_restarts(&mut fleet);
    fleet.boot_more(&MORE);
    for (name, ..) in MORE {
        before.insert(name.to_owned(), Tree::of(fleet.machine(name)));
    }
    grows(&mut fleet);
    keeps_secrets(&fleet, &canaries);
    leaves_no_trace(&fleet, &before);
    watch.end();
    canaries.look_at("what was said", &fleet.said.lock().unwrap());
    canaries.look_over_control(&fleet.network.home());
}

fn comes_up(fleet: &Fleet) {
    let output = fleet.run(&["up", "-i", &fleet.inventory(), "--yes", "-vvv", "--diff"]);
    assert!(output.status.success(), "{}", shown(&output));
    let first = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(first.contains("RECAP"), "{first}");
    fleet.wait_ready(4);
    let second = fleet.ok("up", &["--yes", "-vvv"]);
    assert_eq!(unchanged(&second), 5, "{second}");
    fleet.etcdctl("put greeting hello");
    for (host, unit) in [("server1", "k3sup"), ("agent1", "k3sup-agent")] {
        let tenths = fleet.exposure(host, unit);
        assert!(tenths <= 20, "{unit} is exposed by {tenths}/10");
        let mode = fleet.on(host, &format!("stat -c %a /etc/systemd/system/{unit}.service.env"));
        assert_eq!(mode, "600");
    }
}

/// `etcdctl` and `curl` go on through HAProxy while each server in turn is away: the one it goes to
/// is never more than one try off.
fn serves_while_each_server_is_stopped(fleet: &Fleet) {
    let traffic = Traffic::start(fleet);
    traffic.goes_on("while all is well");
    for server in SERVERS {
        fleet.on(server, "systemctl stop k3sup");
        traffic.goes_on(&format!("while {server} is stopped"));
        fleet.on(server, "systemctl start k3sup");
        wait_for(&format!("{server} to have caught up"), || {
            let status = fleet.run(&["status", "-i", &fleet.inventory(), "--output", "json"]);
            let status: serde_json::Value = serde_json::from_slice(&status.stdout).ok()?;
            let members = status["members"].as_array()?.iter();
            let healthy = members.filter(|member| member["healthy"] == true).count();
            (healthy == SERVERS.len()).then_some(())
        });
        traffic.goes_on(&format!("after {server} came back"));
    }
    traffic.end(2 * SERVERS.len());
}

/// A setting of the servers restarts them and nothing else, each when the one before is back.
fn changes_one_server_at_a_time(fleet: &mut Fleet) {
    let services = |fleet: &Fleet| -> Vec<Unit> {
        SERVERS.iter().map(|server| Unit::of(fleet, server, "k3sup")).collect()
    };
    let others = |fleet: &Fleet| {
        [Unit::of(fleet, "agent1", "k3sup-agent"), Unit::of(fleet, "lb1", "haproxy")]
    };
    let (before, untouched) = (services(fleet), others(fleet));
    fleet.vars.insert("servers", "{config: {node-label: [tier=control]}}".to_owned());
    let (traffic, serving) = (Traffic::start(fleet), Serving::start(fleet, &SERVERS));
    let said = fleet.ok("up", &["--yes", "--diff"]);
    let there = serving.end();
    traffic.end(2 * SERVERS.len());
    assert!(said.contains("tier=control"), "no diff: {said}");
    assert_eq!(unchanged(&said), 2, "{said}");
    assert_eq!(others(fleet), untouched, "agent or balancer was touched");
    let after = services(fleet);
    for (old, new) in before.iter().zip(&after) {
        assert!(new.pid != old.pid && new.stopped > old.ready, "{old:?} -> {new:?}");
    }
    for pair in after.windows(2) {
        assert!(pair[0].ready < pair[1].stopped, "two were away at once: {after:?}");
    }
    // There may be none where the machine stands still again and again; the times above tell of it, too.
    let mut moments = there.iter().filter(|look| look.is_quick());
    assert!(moments.all(|look| look.count >= 2), "below quorum: {there:?}");
    let seen = |count: usize| there.iter().any(|look| look.count == count);
    assert!(seen(2) && seen(3), "nothing was seen: {there:?}");
}

/// A service is restarted by hand, a host boots again, another loses its power: all come back by
/// themselves.
fn survives_restarts(fleet: &mut Fleet) {
    fleet.on("server2", "systemctl restart k3sup");
    fleet.wait_ready(4);
    fleet.boot_again("server3", true);
    fleet.boot_again("agent1", false);
    fleet.wait_ready(4);
    let after = fleet.ok("up", &["--yes"]);
    assert_eq!(unchanged(&after), 5, "{after}");
}

/// Two servers and an agent are added: they join, HAProxy gets the servers without a restart, and
/// those who were there are left alone.
fn grows(fleet: &mut Fleet) {
    let old = |fleet: &Fleet| {
        let servers = SERVERS.map(|server| Unit::of(fleet, server, "k3sup").pid);
        let agent = Unit::of(fleet, "agent1", "k3sup-agent").pid;
        (servers, agent, Unit::of(fleet, "lb1", "haproxy"))
    };
    let before = old(fleet);
    fleet.groups.get_mut("servers").unwrap().extend(["server4", "server5"].map(str::to_owned));
    fleet.groups.get_mut("agents").unwrap().push("agent2".to_owned());
    let traffic = Traffic::start(fleet);
    let said = fleet.ok("up", &["--yes"]);
    fleet.wait_ready(7);
    assert_eq!(old(fleet), before, "something was restarted: {said}");
    let config = fleet.on("lb1", "cat /etc/haproxy/haproxy.cfg");
    for server in ["server4", "server5"] {
        let line = format!("server {server} {}:2379 check", fleet.machine(server).address);
        assert!(config.contains(&line), "{config}");
    }
    let members = fleet.etcdctl("member list");
    assert_eq!(members.matches(" started,").count(), 5, "{members}");
    // The new ones carry the cluster, behind the same balancer.
    for server in ["server1", "server2"] {
        fleet.on(server, "systemctl stop k3sup");
        traffic.goes_on(&format!("without {server}"));
    }
    for server in ["server1", "server2"] {
        fleet.on(server, "systemctl start k3sup");
    }
    traffic.end(4);
    fleet.wait_ready(7);
    let again = fleet.ok("up", &["--yes"]);
    assert_eq!(unchanged(&again), 8, "{again}");
}

/// Nothing that is secret is where others can read it: keys of the cluster are searched for, too.
fn keeps_secrets(fleet: &Fleet, canaries: &Canaries) {
    let trees = trees(fleet);
    let nodes = fleet.machines().filter(|machine| machine.name != "lb1");
    nodes.for_each(|machine| canaries.add_keys_of(machine, &trees[&machine.name]));
    for machine in fleet.machines() {
        canaries.look_over(fleet, machine, &trees[&machine.name]);
    }
}

/// `reset`, and every host is as it was before `up`.
fn leaves_no_trace(fleet: &Fleet, before: &BTreeMap<String, Tree>) {
    fleet.ok("reset", &["--yes"]);
    let mut left = Vec::new();
    for machine in fleet.machines() {
        let differences = before[&machine.name].differences(&Tree::of(machine), machine);
        left.extend(differences.iter().map(|line| format!("{}: {line}", machine.name)));
        let units = fleet.on(&machine.name, "systemctl list-units --all --plain 'k3sup*'");
        assert!(!units.contains("k3sup"), "{units}");
    }
    assert!(left.is_empty(), "reset left: {left:#?}");
    let haproxy = fleet.on("lb1", "systemctl is-active haproxy; systemctl is-enabled haproxy");
    assert_eq!(haproxy, "active\nenabled", "it ran before `up`");
}
