//! etcd's own client on a cluster that `up` made: all that an operator does with it, and word for
//! word what it prints beside a real etcd.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a test fails by panicking and tells by printing"
)]

#[path = "../support/mod.rs"]
mod support;
mod transcript;

use std::process::Stdio;

use k3sup_rs::cluster::snapshots::SnapshotFormat;
use serde_json::Value;

use support::etcd::{Ctl, Etcd, clients};
use support::member::Alone;
use support::{Lab, wait_for};

const SCRIPT: &str = include_str!("transcript.txt");

/// What the client of our own does of it.
const OWN: &str = include_str!("own.txt");

/// A client of one server of the lab.
fn client(lab: &Lab, program: &std::path::Path, servers: &[usize]) -> Ctl {
    let endpoints = lab.endpoints(servers).join(",");
    Ctl { program: program.to_owned(), endpoints, bundle: Some(lab.bundle()) }
}

#[test]
fn it_prints_what_it_prints_with_a_real_etcd() {
    let clients = clients();
    let Some(etcd) = (if clients.is_empty() { None } else { Etcd::start("127.79.3.1") }) else {
        return;
    };
    let lab = Lab::new("79.1", 1, 0);
    lab.up(&[]);
    for program in clients {
        let ours = client(&lab, &program, &[1]);
        let real = Ctl { program: program.clone(), endpoints: etcd.url.clone(), bundle: None };
        for one in [&real, &ours] {
            // Those of the client before.
            let none = || one.ok(&["lease", "list"]).starts_with("found 0 ").then_some(());
            wait_for("no leases are left", none);
        }
        let real = transcript::play(&real, SCRIPT);
        let ours = transcript::play(&ours, SCRIPT);
        assert!(real.len() > 100 && real.len() == ours.len());
        let mut differences = 0;
        for ((line, wanted), (_, got)) in real.into_iter().zip(ours) {
            assert!(!wanted.contains("was never printed"), "etcd, {line}: {wanted}");
            if wanted != got {
                differences += 1;
                eprintln!("$ {line}\n--- etcd\n{wanted}\n--- ours\n{got}\n");
            }
        }
        assert_eq!(differences, 0, "{}", program.display());
    }
}

#[test]
fn the_client_of_our_own_prints_what_etcds_prints() {
    let Some(program) = clients().pop() else { return };
    let etcds = Alone::start("127.79.4.1");
    let ours = Alone::start("127.79.4.2");
    let directory = tempfile::tempdir().unwrap();
    let own = directory.path().join("etcdctl");
    std::os::unix::fs::symlink(support::BINARY, &own).unwrap();
    let of = |program, alone: &Alone| Ctl { program, endpoints: alone.url.clone(), bundle: None };
    let wanted = transcript::play(&of(program, &etcds), OWN);
    let got = transcript::play(&of(own, &ours), OWN);
    assert!(wanted.len() > 50 && wanted.len() == got.len());
    let mut differences = 0;
    for ((line, wanted), (_, got)) in wanted.into_iter().zip(got) {
        if essence(&wanted) != essence(&got) {
            differences += 1;
            eprintln!("$ {line}\n--- etcd's\n{wanted}\n--- ours\n{got}\n");
        }
    }
    assert_eq!(differences, 0);
}

/// What was printed; of a command that failed what the store said and that it failed, for etcd's client
/// words and numbers its ends in several ways. Without what that says of its next release.
fn essence(printed: &str) -> String {
    if printed.ends_with("\n-> Some(0)") || !printed.contains("\n-> ") {
        let lines = printed.lines().filter(|line| !line.starts_with("In etcd v3.6, "));
        return lines.collect::<Vec<_>>().join("\n");
    }
    let said = printed.find("etcdserver: ").map_or(printed, |at| &printed[at..]);
    format!("failed: {}", said.lines().next().unwrap_or_default().trim_end_matches(')'))
}

#[test]
fn it_runs_the_cluster() {
    let clients = clients();
    let Some(last) = clients.last() else { return };
    let lab = Lab::new("79.2", 3, 0);
    lab.up(&[]);
    for program in &clients {
        let all = client(&lab, program, &[1, 2, 3]);
        members_are_listed(&lab, &all);
        members_tell_how_they_stand(&all);
        members_come_and_go(&lab, &all);
        leadership_moves(&lab, &all);
        leases_end(&all);
        snapshots_are_saved(&lab, program);
        space_is_given_back(&all);
        locks_and_elections_are_held(&all);
        users_and_roles_come_and_go(&all);
    }
    performance_is_checked(&client(&lab, last, &[1, 2, 3]));
}

fn members_are_listed(lab: &Lab, all: &Ctl) {
    let json = all.json(&["member", "list"]);
    let members = json["members"].as_array().unwrap();
    assert_eq!(members.len(), 3, "{json}");
    for number in 1..=3 {
        let name = format!("server{number}-");
        let named = |member: &&Value| member["name"].as_str().unwrap().starts_with(&name);
        let member = members.iter().find(named).unwrap();
        let address = lab.server_address(number);
        assert_eq!(member["clientURLs"][0], format!("https://{address}:2379"));
        assert_eq!(member["peerURLs"][0], format!("https://{address}:2380"));
        let id = format!("{:x}", member["ID"].as_u64().unwrap());
        let simple = all.ok(&["member", "list"]);
        let line = simple.lines().find(|line| line.starts_with(&id)).unwrap();
        let name = member["name"].as_str().unwrap();
        assert_eq!(
            line,
            format!("{id}, started, {name}, https://{address}:2380, https://{address}:2379, false")
        );
        let table = all.ok(&["member", "list", "-w", "table"]);
        let row = table.lines().find(|line| line.contains(&id)).unwrap();
        assert!(row.contains("| started |") && row.contains(name), "{table}");
    }
}

/// `endpoint status` of all, as JSON.
fn statuses(all: &Ctl) -> Vec<Value> {
    let json = all.json(&["endpoint", "status", "--cluster"]);
    json.as_array().unwrap().iter().map(|one| one["Status"].clone()).collect()
}

fn leader(all: &Ctl) -> Option<u64> {
    let statuses = statuses(all);
    let leader = statuses.first()?["leader"].as_u64()?;
    let agreed = statuses.iter().all(|status| status["leader"] == leader);
    agreed.then_some(leader)
}

fn members_tell_how_they_stand(all: &Ctl) {
    let health = all.ok(&["endpoint", "health", "--cluster"]);
    assert_eq!(health.matches("is healthy: successfully committed proposal").count(), 3);
    all.ok(&["put", "how", "large"]);
    let leader = wait_for("a leader", || leader(all));
    let statuses = statuses(all);
    assert_eq!(statuses.len(), 3);
    for status in &statuses {
        assert_eq!(status["version"], "3.5.30");
        assert_eq!(status["raftTerm"], statuses[0]["raftTerm"]);
        let (size, used) = (status["dbSize"].as_u64().unwrap(), status["dbSizeInUse"].as_u64());
        assert!(size < 64 * 1024 * 1024 && used.unwrap() > 0 && used.unwrap() <= size, "{status}");
        let (index, applied) = (&status["raftIndex"], &status["raftAppliedIndex"]);
        assert!(applied.as_u64().unwrap() > 0 && index.as_u64() >= applied.as_u64(), "{status}");
    }
    let leads = |status: &&Value| status["header"]["member_id"] == leader;
    assert_eq!(statuses.iter().filter(leads).count(), 1);
    let table = all.ok(&["endpoint", "status", "--cluster", "-w", "table"]);
    assert_eq!(table.matches("https://").count(), 3, "{table}");
    assert_eq!(table.matches(" true |").count(), 1, "{table}");

    let revision = statuses[0]["header"]["revision"].as_i64().unwrap().to_string();
    let hashes = all.json(&["endpoint", "hashkv", "--cluster", "--rev", &revision]);
    let hash = |one: &Value| one["HashKV"]["hash"].as_u64().unwrap();
    let hashes: Vec<u64> = hashes.as_array().unwrap().iter().map(hash).collect();
    assert!(hashes.len() == 3 && hashes.iter().all(|hash| *hash == hashes[0]), "{hashes:?}");
    assert_eq!(all.ok(&["alarm", "list"]), "");
}

fn members_come_and_go(lab: &Lab, all: &Ctl) {
    let voter = format!("{:x}", leader(all).unwrap());
    let url = |number: usize| format!("--peer-urls=https://{}.{number}:2380", lab.net);
    let added = all.ok(&["member", "add", "new", "--learner", &url(99)]);
    assert!(added.contains("ETCD_NAME=\"new\""), "{added}");
    assert!(added.contains("ETCD_INITIAL_CLUSTER_STATE=\"existing\""), "{added}");
    let listed = all.ok(&["member", "list"]);
    let line = listed.lines().find(|line| line.contains(", unstarted, ")).unwrap();
    assert!(line.ends_with(&format!("https://{}.99:2380, , true", lab.net)), "{listed}");
    let id = line.split(',').next().unwrap();
    for (command, words) in [
        (["promote", id], "can only promote a learner member which is in sync with leader"),
        (["promote", &voter], "can only promote a learner member"),
        (["remove", "1"], "member not found"),
    ] {
        let told = all.refused(&[&["member"], &command[..]].concat());
        assert!(told.contains(&format!("Error: etcdserver: {words}\n")), "{command:?}: {told}");
    }
    let again = all.refused(&["member", "add", "again", "--learner", &url(99)]);
    assert!(again.contains("etcdserver: Peer URLs already exists"), "{again}");
    let second = all.refused(&["member", "add", "second", "--learner", &url(98)]);
    assert!(second.contains("etcdserver: too many learner members in cluster"), "{second}");
    let moved = all.ok(&["member", "update", id, &url(97)]);
    assert!(moved.contains(&format!("Member {id:>16} updated in cluster")), "{moved}");
    assert!(all.ok(&["member", "list"]).contains(&format!("https://{}.97:2380", lab.net)));
    let removed = all.ok(&["member", "remove", id]);
    assert!(removed.contains(&format!("Member {id:>16} removed from cluster")), "{removed}");
    assert!(!all.ok(&["member", "list"]).contains("unstarted"));
}

fn leadership_moves(lab: &Lab, all: &Ctl) {
    let before = wait_for("a leader", || leader(all));
    let (from, to, number) = {
        let json = all.json(&["member", "list"]);
        let members = json["members"].as_array().unwrap().clone();
        let other = members.iter().find(|member| member["ID"] != before).unwrap();
        let number = other["name"].as_str().unwrap()["server".len()..][..1].parse().unwrap();
        (format!("{before:x}"), format!("{:x}", other["ID"].as_u64().unwrap()), number)
    };
    let unknown = all.refused(&["move-leader", "1"]);
    assert!(unknown.contains("etcdserver: bad leader transferee"), "{unknown}");
    let follower = client(lab, &all.program, &[number]);
    let elsewhere = follower.refused(&["move-leader", &to]);
    assert!(elsewhere.contains("no leader endpoint given"), "{elsewhere}");
    let moved = all.ok(&["move-leader", &to]);
    assert_eq!(moved.trim_end(), format!("Leadership transferred from {from} to {to}"));
    let id = u64::from_str_radix(&to, 16).unwrap();
    wait_for("the new leader", || leader(all).filter(|leader| *leader == id));
}

fn leases_end(all: &Ctl) {
    let granted = all.ok(&["lease", "grant", "2"]);
    let id = granted.split(' ').nth(1).unwrap();
    all.ok(&["put", "short", "lived", &format!("--lease={id}")]);
    wait_for("the key is gone", || all.ok(&["get", "short"]).is_empty().then_some(()));
    assert_eq!(all.ok(&["lease", "timetolive", id]), format!("lease {id} already expired\n"));
}

fn snapshots_are_saved(lab: &Lab, program: &std::path::Path) {
    let one = client(lab, program, &[2]);
    let path = lab.dir.path().join("saved");
    let saved = one.ok(&["snapshot", "save", path.to_str().unwrap()]);
    assert!(saved.contains("Snapshot saved at"), "{saved}");
    // A database of etcd's with its hash; tests/moving.rs has etcd itself read one.
    let view = k3sup_rs::node::snapshots::inspect::inspect(&path).unwrap();
    assert_eq!((view.format, view.unhashed, view.problem), (SnapshotFormat::Etcd, false, None));
    assert!(view.revision > 1 && view.keys.is_some_and(|keys| keys > 0) && view.bytes % 512 == 32);
    std::fs::remove_file(&path).unwrap();
}

fn space_is_given_back(all: &Ctl) {
    let defragmented = all.ok(&["defrag", "--cluster"]);
    assert_eq!(defragmented.matches("Finished defragmenting etcd member").count(), 3);
    all.ok(&["put", "after", "it"]);
    assert_eq!(all.ok(&["get", "after", "--print-value-only"]), "it\n");
}

fn locks_and_elections_are_held(all: &Ctl) {
    assert_eq!(all.ok(&["lock", "mutex", "echo", "held"]), "held\n");
    let mut candidate = all
        .command(&["elect", "office", "somebody"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    wait_for("somebody is elected", || {
        let held = all.ok(&["get", "office/", "--prefix", "--print-value-only"]);
        (held == "somebody\n").then_some(())
    });
    candidate.kill().unwrap();
    candidate.wait().unwrap();
}

fn users_and_roles_come_and_go(all: &Ctl) {
    let told = all.refused(&["auth", "enable"]);
    assert!(told.contains("etcdserver: root user does not exist"), "{told}");
    assert_eq!(all.ok(&["user", "list"]), "");
    all.ok(&["role", "add", "reader"]);
    assert_eq!(all.ok(&["role", "list"]), "reader\n");
    let told = all.refused(&["role", "add", "reader"]);
    assert!(told.contains("etcdserver: role name already exists"), "{told}");
    all.ok(&["role", "delete", "reader"]);
    assert_eq!(all.ok(&["role", "list"]), "");
}

/// etcd's own opinion of a small cluster: 150 writes a second for a minute. It also has one on how
/// long the slowest took, which is shown only: it depends on what else this machine does. One that stands
/// still for seconds fails it altogether: then it is asked once more.
fn performance_is_checked(all: &Ctl) {
    let is_enough = || {
        let told = support::etcd::text(&all.run(&["check", "perf", "--load=s"]));
        let verdicts = told.rsplit('%').next().unwrap_or_default();
        eprintln!("check perf: {verdicts}");
        told.contains("PASS: Throughput is")
    };
    assert!(is_enough() || is_enough(), "less than 135 writes a second, twice");
}
