//! etcd's own client on a cluster that `up` made: all that an operator does with it, and word for
//! word what it prints beside a real etcd.

mod transcript;

use crate::support;
use std::path::PathBuf;
use std::process::Stdio;

use k3sup_rs::cluster::snapshots::SnapshotFormat;
use serde_json::Value;

use crate::support::etcd::{Ctl, Etcd, clients, text};
use crate::support::member::Alone;
use crate::support::{Lab, wait_for};

const SCRIPT: &str = include_str!("transcript.txt");

/// What the client of our own does of it.
const OWN: &str = include_str!("own.txt");

/// The client of our own, under the name by which it is one.
fn own(directory: &tempfile::TempDir) -> PathBuf {
    let own = directory.path().join("etcdctl");
    std::os::unix::fs::symlink(support::BINARY, &own).unwrap();
    own
}

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
            let none = || one.tried(&["lease", "list"])?.starts_with("found 0 ").then_some(());
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
    let of = |program, alone: &Alone| Ctl { program, endpoints: alone.url.clone(), bundle: None };
    let wanted = transcript::play(&of(program, &etcds), OWN);
    let got = transcript::play(&of(own(&directory), &ours), OWN);
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

/// Bytes that both clients print of what one member answers.
#[test]
fn the_client_of_our_own_prints_the_messages_of_the_api() {
    let Some(program) = clients().pop() else { return };
    let alone = Alone::start("127.79.4.3");
    let directory = tempfile::tempdir().unwrap();
    let of = |program| Ctl { program, endpoints: alone.url.clone(), bundle: None };
    let ours = of(own(&directory));
    let etcds = of(program);
    for line in ["put a b", "role add r", "role grant-permission r readwrite a b", "user add u:x"] {
        etcds.ok(&line.split(' ').collect::<Vec<_>>());
    }
    etcds.ok(&["user", "grant-role", "u", "r"]);
    for line in [
        "get a",
        "get z --prefix",
        "del z",
        "member list",
        "alarm list",
        "role list",
        "role get r",
        "user list",
        "user get u",
        "user get u --detail",
        "auth status",
    ] {
        let words: Vec<&str> = line.split(' ').chain(["-w", "protobuf"]).collect();
        let wanted = etcds.run(&words);
        let got = ours.run(&words);
        assert!(wanted.status.success() && got.status.success(), "{line}");
        assert_eq!(wanted.stdout, got.stdout, "{line}");
    }
}

/// What was printed; of a command that failed what the store said and that it failed, for etcd's client
/// words and numbers its ends in several ways. Without what that says of its next release, and logs of
/// refusals that it does something about.
fn essence(printed: &str) -> String {
    if printed.ends_with("\n-> Some(0)") || !printed.contains("\n-> ") {
        let is_aside = |line: &&str| {
            line.starts_with("In etcd v3.6, ") || line.starts_with("rpc error: code = ")
        };
        let lines = printed.lines().filter(|line| !is_aside(line));
        return lines.collect::<Vec<_>>().join("\n");
    }
    let said = printed.find("etcdserver: ").or_else(|| printed.find("auth: "));
    let said = said.map_or(printed, |at| &printed[at..]);
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

#[test]
fn it_mirrors_and_fills_a_member() {
    let clients = clients();
    if clients.is_empty() {
        return;
    }
    let (source, copy) = (Alone::start("127.79.4.4"), Alone::start("127.79.4.5"));
    for program in clients {
        let of = |alone: &Alone| Ctl {
            program: program.clone(),
            endpoints: alone.url.clone(),
            bundle: None,
        };
        a_prefix_is_mirrored(&of(&source), &of(&copy));
        many_keys_come_and_go(&of(&copy));
    }
}

/// `make-mirror` copies what is there, follows what is changed, and ends with whoever started it.
fn a_prefix_is_mirrored(source: &Ctl, copy: &Ctl) {
    let copied = || copy.tried(&["get", "copy/", "--prefix"]);
    source.ok(&["put", "m/before", "1"]);
    source.ok(&["put", "other", "not copied"]);
    let mut mirror = source
        .command(&["make-mirror", "--prefix=m/", "--dest-prefix=copy/", &copy.endpoints])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let shows = |wanted: &str| (copied()? == wanted).then_some(());
    wait_for("what was there", || shows("copy/before\n1\n"));
    source.ok(&["put", "m/later", "2"]);
    wait_for("what came later", || shows("copy/before\n1\ncopy/later\n2\n"));
    source.ok(&["del", "m/before"]);
    wait_for("what is gone", || shows("copy/later\n2\n"));
    mirror.kill().unwrap();
    mirror.wait().unwrap();
    source.ok(&["del", "m/", "--prefix"]);
    copy.ok(&["del", "copy/", "--prefix"]);
}

/// etcd's own opinion of 10,000 keys: it reads from `/metrics` what they take, and clears up.
fn many_keys_come_and_go(one: &Ctl) {
    let told = one.ok(&["check", "datascale", "--load=s"]);
    assert!(told.contains("PASS: Approximate system memory used"), "{told}");
    assert_eq!(one.ok(&["get", "--prefix", "--keys-only", "/etcdctl-check-datascale/"]), "");
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

/// Who leads, and in which term, by a member's status.
fn leader_of(status: &Value) -> Option<(u64, u64)> {
    Some((status["leader"].as_u64()?, status["raftTerm"].as_u64()?))
}

/// `endpoint status` of all, as JSON, when they agree on that.
fn statuses(all: &Ctl) -> Option<Vec<Value>> {
    let json = all.tried_json(&["endpoint", "status", "--cluster"])?;
    let statuses: Vec<Value> = json.as_array()?.iter().map(|one| one["Status"].clone()).collect();
    let first = leader_of(statuses.first()?)?;
    let agreed = statuses.iter().all(|status| leader_of(status) == Some(first));
    agreed.then_some(statuses)
}

/// Who leads, and in which term, when all agree.
fn leader(all: &Ctl) -> Option<(u64, u64)> {
    statuses(all)?.first().and_then(leader_of)
}

fn members_tell_how_they_stand(all: &Ctl) {
    wait_for("all to be healthy", || {
        let health = all.tried(&["endpoint", "health", "--cluster"])?;
        let healthy = health.matches("is healthy: successfully committed proposal").count();
        (healthy == 3).then_some(())
    });
    wait_for("a write", || all.tried(&["put", "how", "large"]));
    let statuses = wait_for("a leader that all name", || statuses(all));
    assert_eq!(statuses.len(), 3);
    for status in &statuses {
        assert_eq!(status["version"], "3.5.30");
        let (size, used) = (status["dbSize"].as_u64().unwrap(), status["dbSizeInUse"].as_u64());
        assert!(size < 64 * 1024 * 1024 && used.unwrap() > 0 && used.unwrap() <= size, "{status}");
        let (index, applied) = (&status["raftIndex"], &status["raftAppliedIndex"]);
        assert!(applied.as_u64().unwrap() > 0 && index.as_u64() >= applied.as_u64(), "{status}");
    }
    let leads = |status: &&Value| status["header"]["member_id"] == status["leader"];
    assert_eq!(statuses.iter().filter(leads).count(), 1);
    let table = wait_for("a table with one leader", || {
        let table = all.tried(&["endpoint", "status", "--cluster", "-w", "table"])?;
        (table.matches(" true |").count() == 1).then_some(table)
    });
    assert_eq!(table.matches("https://").count(), 3, "{table}");

    let revision = statuses[0]["header"]["revision"].as_i64().unwrap().to_string();
    // It is of the future for one that is behind.
    let hashes = wait_for("that revision at all", || {
        all.tried_json(&["endpoint", "hashkv", "--cluster", "--rev", &revision])
    });
    let hash = |one: &Value| one["HashKV"]["hash"].as_u64().unwrap();
    let hashes: Vec<u64> = hashes.as_array().unwrap().iter().map(hash).collect();
    assert!(hashes.len() == 3 && hashes.iter().all(|hash| *hash == hashes[0]), "{hashes:?}");
    assert_eq!(all.ok(&["alarm", "list"]), "");
}

/// Waits until `is_so` of every server's list of members: the list that etcdctl 3.4 gets is the asked one's
/// own, which may hear of a change a moment later.
fn lists_become(lab: &Lab, all: &Ctl, what: &str, is_so: impl Fn(&str) -> bool) {
    for number in 1..=3 {
        let one = client(lab, &all.program, &[number]);
        wait_for(what, || one.tried(&["member", "list"]).filter(|list| is_so(list)));
    }
}

fn members_come_and_go(lab: &Lab, all: &Ctl) {
    let (voter, _) = wait_for("a leader", || leader(all));
    let voter = format!("{voter:x}");
    let url = |number: usize| format!("--peer-urls=https://{}.{number}:2380", lab.net);
    let added = all.ok(&["member", "add", "new", "--learner", &url(99)]);
    assert!(added.contains("ETCD_NAME=\"new\""), "{added}");
    assert!(added.contains("ETCD_INITIAL_CLUSTER_STATE=\"existing\""), "{added}");
    let unstarted = format!("https://{}.99:2380, , true", lab.net);
    lists_become(lab, all, "a new member", |list| list.contains(&unstarted));
    let listed = all.ok(&["member", "list"]);
    let line = listed.lines().find(|line| line.contains(", unstarted, ")).unwrap();
    assert!(line.ends_with(&unstarted), "{listed}");
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
    let there = format!("https://{}.97:2380", lab.net);
    lists_become(lab, all, "the new member's new address", |list| list.contains(&there));
    let removed = all.ok(&["member", "remove", id]);
    assert!(removed.contains(&format!("Member {id:>16} removed from cluster")), "{removed}");
    lists_become(lab, all, "no new member", |list| !list.contains("unstarted"));
}

fn leadership_moves(lab: &Lab, all: &Ctl) {
    let is_moved = |_| leadership_is_moved(lab, all).is_some();
    assert!((0..5).any(is_moved), "leadership is moved");
}

/// Moves leadership. `None` when there was an election meanwhile, so that it was another's to move.
fn leadership_is_moved(lab: &Lab, all: &Ctl) -> Option<()> {
    let before = leader(all)?;
    let json = all.tried_json(&["member", "list"])?;
    let other = json["members"].as_array()?.iter().find(|member| member["ID"] != before.0)?;
    let number = other["name"].as_str()?["server".len()..][..1].parse().unwrap();
    let to = other["ID"].as_u64()?;
    let (from_hex, to_hex) = (format!("{:x}", before.0), format!("{to:x}"));
    let unknown = all.refused(&["move-leader", "1"]);
    let follower = client(lab, &all.program, &[number]);
    let elsewhere = text(&follower.run(&["move-leader", &to_hex]));
    if leader(all)? != before {
        return None;
    }
    assert!(unknown.contains("etcdserver: bad leader transferee"), "{unknown}");
    assert!(elsewhere.contains("no leader endpoint given"), "{elsewhere}");
    let moved = text(&all.run(&["move-leader", &to_hex]));
    eprint!("{moved}");
    let (after, _) = wait_for("a leader", || leader(all));
    let wanted = format!("Leadership transferred from {from_hex} to {to_hex}");
    (moved.trim_end() == wanted && after == to).then_some(())
}

fn leases_end(all: &Ctl) {
    // One that ends before its key is put is granted again.
    let id = wait_for("a key with a lease", || {
        let granted = all.tried(&["lease", "grant", "2"])?;
        let id = granted.split(' ').nth(1)?;
        all.tried(&["put", "short", "lived", &format!("--lease={id}")]).map(|_| id.to_owned())
    });
    wait_for("the key is gone", || all.tried(&["get", "short"])?.is_empty().then_some(()));
    assert_eq!(all.ok(&["lease", "timetolive", &id]), format!("lease {id} already expired\n"));
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
        let held = all.tried(&["get", "office/", "--prefix", "--print-value-only"])?;
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

/// etcd's own opinion of a small cluster: it writes for a minute, 150 a second at most, and clears up. Whether it
/// calls that enough is shown only: it depends on what else this machine does (docs/benchmarks.md has it).
fn performance_is_checked(all: &Ctl) {
    let told = text(&all.run(&["check", "perf", "--load=s"]));
    let verdicts = told.rsplit('%').next().unwrap_or_default();
    eprintln!("check perf: {verdicts}");
    let before = verdicts.split_once(" writes/s").expect("a verdict").0;
    let writes: u32 = before.rsplit(' ').next().unwrap().parse().unwrap();
    assert!(writes > 0, "{told}");
    assert_eq!(all.ok(&["get", "--prefix", "--keys-only", "/etcdctl-check-perf/"]), "");
}
