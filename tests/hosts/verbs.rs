//! The verbs of a cluster's life on real hosts, with a client that writes all the time.

use std::time::{Duration, Instant};

use k3sup_rs::node::http::{Connector, basic};
use k3sup_rs::pki::{Token, tls};
use serde_json::Value as Json;

use crate::ends::{
    assert_agreed, assert_good, assert_up_changes_nothing, in_a_thread, servers, whole, writer,
};
use crate::fleet::{Fleet, Wanted};
use crate::machines::Login;
use crate::support::{build, leader, shown, wait_for};
use crate::units::Unit;

const HOSTS: [Wanted; 6] = [
    ("server1", 11, Login::Root),
    ("server2", 12, Login::Free),
    ("server3", 13, Login::Password),
    ("server4", 14, Login::Free),
    ("agent1", 21, Login::Password),
    ("lb1", 31, Login::Free),
];

const SERVERS: [&str; 3] = ["server1", "server2", "server3"];

/// Another version of the product, of the same length.
const NEXT: &str = "0.2.0";

/// Runs a verb with the inventory; it must go well. Gives what it prints.
#[track_caller]
fn ok(fleet: &Fleet, args: &[&str]) -> String {
    let output = fleet.run(&[args, &["-i", &fleet.inventory()]].concat());
    assert!(output.status.success(), "{args:?}: {}", shown(&output));
    String::from_utf8(output.stdout).unwrap()
}

fn set_servers(fleet: &mut Fleet, servers: &[&str]) {
    fleet.groups.insert("servers", servers.iter().map(|name| (*name).to_owned()).collect());
}

/// The host's node loses everything it ever wrote; the host is switched off for it.
fn lose_disk(fleet: &mut Fleet, name: &str) {
    fleet.switch_off(name);
    std::fs::remove_dir_all(fleet.data(name)).unwrap();
}

#[test]
fn every_verb_on_real_hosts() {
    in_a_thread(|| {
        let Some(mut fleet) = Fleet::boot(&HOSTS) else { return };
        fleet.network.enter();
        set_servers(&mut fleet, &SERVERS);
        fleet.groups.insert("agents", vec!["agent1".to_owned()]);
        fleet.groups.insert("loadbalancers", vec!["lb1".to_owned()]);
        fleet.be_patient();
        fleet.ok("up", &["--yes"]);
        whole(&fleet);
        stage("snapshots", || takes_snapshots(&fleet));
        stage("restart", || restarts(&fleet));
        stage("upgrade", || upgrades(&mut fleet));
        stage("replace, disk lost", || replaces_who_lost_its_disk(&mut fleet));
        stage("replace by another host", || replaces_by_another_host(&mut fleet));
        stage("remove", || removes_and_takes_in_again(&mut fleet));
        stage("rotate", || rotates(&fleet));
        stage("recover", || recovers(&mut fleet));
        stage("restore", || restores(&mut fleet));
    });
}

/// Does a part of the test, and says what it took.
fn stage(name: &str, part: impl FnOnce()) {
    let started = Instant::now();
    part();
    eprintln!("{name}: {:?}", started.elapsed());
}

/// Saves a snapshot on a server while a client writes; gives its name and revision.
fn save(fleet: &Fleet, name: &str, on: &str) -> (String, i64) {
    let args = ["snapshot", "save", "--name", name, "--on", on, "--output", "json"];
    let saved: Json = serde_json::from_str(&ok(fleet, &args)).unwrap();
    let saved = &saved["snapshots"][0];
    let name = saved["name"].as_str().unwrap_or_else(|| panic!("{saved}"));
    (name.to_owned(), saved["revision"].as_i64().unwrap_or_else(|| panic!("{saved}")))
}

fn takes_snapshots(fleet: &Fleet) {
    let writer = writer(fleet, "snapshots");
    let said = ok(fleet, &["snapshot", "save", "--all", "--name", "all"]);
    assert_eq!(said.matches("saved and verified").count(), 3, "{said}");
    let table = ok(fleet, &["snapshot", "ls"]);
    for server in SERVERS {
        assert!(table.contains(&format!("all-{server}-")), "{table}");
    }
    ok(fleet, &["snapshot", "verify", "--all"]);
    let (name, _) = save(fleet, "one", "server2");
    ok(fleet, &["snapshot", "rm", &name, "--yes"]);
    assert!(!ok(fleet, &["snapshot", "ls"]).contains(&name));
    assert_good(fleet, writer);
}

/// Services of all nodes of the first cluster.
fn services(fleet: &Fleet) -> Vec<Unit> {
    let mut units: Vec<_> =
        servers(fleet).iter().map(|server| Unit::of(fleet, server, "k3sup")).collect();
    units.push(Unit::of(fleet, "agent1", "k3sup-agent"));
    units
}

/// No two nodes were away at once, and each is another process than before.
#[track_caller]
fn one_after_another(before: &[Unit], mut after: Vec<Unit>) {
    for (old, new) in before.iter().zip(&after) {
        assert!(new.pid != old.pid && new.stopped > old.ready, "{old:?} -> {new:?}");
    }
    after.sort_by_key(|unit| unit.stopped);
    for pair in after.windows(2) {
        assert!(pair[0].ready < pair[1].stopped, "two were away at once: {after:?}");
    }
}

fn restarts(fleet: &Fleet) {
    let (writer, before) = (writer(fleet, "restart"), services(fleet));
    ok(fleet, &["restart", "--yes"]);
    one_after_another(&before, services(fleet));
    assert_good(fleet, writer);
}

fn upgrades(fleet: &mut Fleet) {
    let next = fleet.network.dir.path().join("k3sup-rs-next");
    build::of_version(fleet.binary(), NEXT, &next);
    let (writer, before) = (writer(fleet, "upgrade"), services(fleet));
    ok(fleet, &["upgrade", "--yes", "--to", next.to_str().unwrap()]);
    one_after_another(&before, services(fleet));
    wait_for("all nodes to say their version", || {
        let status = whole(fleet);
        let nodes = status["nodes"].as_array()?;
        nodes.iter().all(|node| node["version"] == format!("v{NEXT}")).then_some(())
    });
    // The older program leaves the newer binaries alone, and so does the newer one.
    assert_up_changes_nothing(fleet);
    fleet.use_build(&next);
    assert_good(fleet, writer);
}

fn replaces_who_lost_its_disk(fleet: &mut Fleet) {
    let writer = writer(fleet, "replace");
    lose_disk(fleet, "server2");
    writer.wait_for_more(20);
    fleet.boot_again("server2", false);
    ok(fleet, &["replace", "server2", "--yes"]);
    assert_good(fleet, writer);
}

fn replaces_by_another_host(fleet: &mut Fleet) {
    let writer = writer(fleet, "replace-with");
    set_servers(fleet, &["server1", "server2", "server3", "server4"]);
    ok(fleet, &["replace", "server3", "--with", "server4", "--yes"]);
    assert!(!fleet.data("server3").exists(), "the old one is cleared");
    set_servers(fleet, &["server1", "server2", "server4"]);
    assert_good(fleet, writer);
}

fn removes_and_takes_in_again(fleet: &mut Fleet) {
    let writer = writer(fleet, "remove");
    ok(fleet, &["remove", "server4", "--yes"]);
    set_servers(fleet, &["server1", "server2"]);
    writer.wait_for_more(20);
    assert_agreed(fleet);
    assert_up_changes_nothing(fleet);
    set_servers(fleet, &SERVERS);
    ok(fleet, &["up", "--yes"]);
    assert_good(fleet, writer);
}

/// What a server answers to a token.
fn answer(fleet: &Fleet, token: &str) -> u16 {
    let token = Token::parse(token).unwrap();
    let ca = std::fs::read_to_string(fleet.bundle().join("ca.crt")).unwrap();
    let connector = Connector::tls(tls::client(&ca, None, &[]).unwrap(), Duration::from_secs(30));
    let authority = format!("{}:6443", fleet.machine("server2").address);
    let authorization = basic("server", &token.password);
    let asked = connector.ask(&authority, "GET", "/v1-k3sup/status", Some(&authorization), b"");
    tokio::runtime::Runtime::new().unwrap().block_on(asked).unwrap().status
}

/// Certificates and the token become others: no process ends, and no write fails.
fn rotates(fleet: &Fleet) {
    let leaf = |host: &str| {
        std::fs::read(fleet.data(host).join("server/tls/etcd/server-client.crt")).unwrap()
    };
    let (writer, units) = (writer(fleet, "rotate"), services(fleet));
    let leaves: Vec<_> = SERVERS.iter().map(|host| leaf(host)).collect();
    ok(fleet, &["certificate", "rotate", "--yes"]);
    for (host, old) in SERVERS.iter().zip(leaves) {
        assert_ne!(leaf(host), old, "{host}");
    }
    writer.wait_for_more(20);
    let old = ok(fleet, &["token", "show"]);
    assert_eq!(answer(fleet, &old), 200);
    ok(fleet, &["token", "rotate", "--yes"]);
    let new = ok(fleet, &["token", "show"]);
    assert_ne!(old, new);
    assert_eq!((answer(fleet, &old), answer(fleet, &new)), (401, 200));
    writer.wait_for_more(20);
    assert_eq!(services(fleet), units, "a service was restarted");
    let written = writer.written();
    assert!(written.failed().is_empty(), "{:?}", written.failed());
    assert_good(fleet, writer);
}

/// All but the leader lose their disks: what was acknowledged is on the one that is left.
fn recovers(fleet: &mut Fleet) {
    let before = assert_agreed(fleet);
    let writer = writer(fleet, "recover");
    let leads = leader(&whole(fleet));
    for server in SERVERS.iter().filter(|server| **server != leads) {
        lose_disk(fleet, server);
    }
    for server in SERVERS.iter().filter(|server| **server != leads) {
        fleet.switch_on(server);
    }
    for server in SERVERS {
        fleet.network.wait(fleet.machine(server));
    }
    ok(fleet, &["recover", "--yes"]);
    assert_ne!(assert_agreed(fleet), before);
    assert_good(fleet, writer);
}

/// Back to a snapshot while one server is away, twice: switched off, and with its cable pulled. It comes
/// back and neither forms nor disturbs a cluster.
fn restores(fleet: &mut Fleet) {
    let first = writer(fleet, "before");
    let (name, revision) = save(fleet, "good", "server1");
    first.wait_for_more(20);
    let first = first.stop();
    let mut clusters = vec![assert_agreed(fleet)];
    for (away, is_off) in [("server3", true), ("server2", false)] {
        let through = writer(fleet, &format!("through-{away}"));
        if is_off {
            fleet.switch_off(away);
        } else {
            fleet.network.cable(fleet.machine(away), false);
        }
        let refused =
            fleet.run(&["restore", "--yes", "--snapshot", &name, "-i", &fleet.inventory()]);
        assert_eq!(refused.status.code(), Some(4), "{}", shown(&refused));
        through.wait_for_more(20);
        ok(fleet, &["restore", "--yes", "--snapshot", &name, "--leave-out", away]);
        let until = through.written();
        through.wait_for_more(20);
        if is_off {
            fleet.switch_on(away);
            fleet.network.wait(fleet.machine(away));
        } else {
            fleet.network.cable(fleet.machine(away), true);
        }
        let fence = fleet.data(away).join("server/fence.json");
        wait_for(&format!("{away} to be told and to fence itself"), || {
            fence.exists().then_some(())
        });
        through.wait_for_more(20);
        ok(fleet, &["restore", "--resume", "--yes"]);
        let cluster = assert_agreed(fleet);
        assert!(!clusters.contains(&cluster), "{cluster:x} again: {clusters:x?}");
        clusters.push(cluster);
        let mut through = through.stop();
        let (_, pairs) = wait_for("a read", || fleet.store(&SERVERS).all().ok());
        first.assert_state_of(revision, &pairs);
        // What was written before it was restored is not in the snapshot; what came after is there.
        through.acknowledged.retain(|key, _| !until.acknowledged.contains_key(key));
        for key in through.acknowledged.keys() {
            assert!(pairs.contains_key(key), "acknowledged and lost: {key}");
        }
        assert_up_changes_nothing(fleet);
    }
}
