//! `up` is killed at random moments and run again: it always ends in the state that an undisturbed
//! run ends in.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Instant;

use crate::support::seed::Random;
use crate::support::{Lab, shown};
use serde_json::Value as Json;

/// How often `up` is killed in each of two labs.
const KILLS: usize = 25;

const SERVERS: usize = 3;
const AGENTS: usize = 1;
const NODES: usize = SERVERS + AGENTS;

fn hosts() -> Vec<String> {
    let servers = (1..=SERVERS).map(|number| format!("server{number}"));
    servers.chain((1..=AGENTS).map(|number| format!("agent{number}"))).collect()
}

/// The clusters that the servers' disks say they belong to.
fn clusters(lab: &Lab) -> BTreeSet<String> {
    let of = |host: String| {
        let file = lab.host_dir(&host).join("var/lib/k3sup/server/db/etcd/identity.json");
        let identity: Json = serde_json::from_slice(&std::fs::read(file).ok()?).ok()?;
        identity["cluster_id"].as_str().map(str::to_owned)
    };
    hosts().into_iter().filter_map(of).collect()
}

/// What differs from cluster to cluster and from join to join.
fn is_fresh_each_time(path: &str) -> bool {
    let volatile = ["/run/", "/var/log/", "/tmp/", "/db/etcd/"];
    volatile.iter().any(|part| path.contains(part))
}

/// All files of all hosts, with the contents of those that say how the node is set up.
fn files(lab: &Lab) -> BTreeMap<String, String> {
    fn walk(root: &Path, dir: &Path, found: &mut BTreeMap<String, String>) {
        for path in std::fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path())
        {
            let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
            if is_fresh_each_time(&format!("/{name}/")) {
                continue;
            }
            if path.is_dir() && !path.is_symlink() {
                walk(root, &path, found);
                continue;
            }
            let readable = ["yaml", "service"].iter().any(|kind| name.ends_with(kind));
            // What the node itself writes has the addresses of the moment in it.
            let told = readable && !name.ends_with("k3sup.yaml");
            let text = if told { std::fs::read_to_string(&path).unwrap() } else { String::new() };
            found.insert(name, text);
        }
    }
    let mut found = BTreeMap::new();
    let root = lab.host_dir("server1").parent().unwrap().to_owned();
    for host in hosts() {
        walk(&root, &root.join(host), &mut found);
    }
    found
}

/// The end state: what an undisturbed run leaves, and nothing left to change.
fn check(lab: &Lab, cluster: Option<&str>, expected: &BTreeMap<String, String>) {
    let again = lab.up(&[]);
    assert_eq!(again.matches("changed=0").count(), NODES, "{again}");
    let status = lab.whole(SERVERS, NODES);
    let id = status["cluster_id"].as_str().unwrap();
    assert_eq!(clusters(lab), BTreeSet::from([id.to_owned()]));
    assert!(cluster.is_none_or(|founded| founded == id), "{cluster:?} was founded, now {id}");

    let found = files(lab);
    let names = |files: &BTreeMap<String, String>| files.keys().cloned().collect::<BTreeSet<_>>();
    let (have, want) = (names(&found), names(expected));
    let more: Vec<_> = have.difference(&want).collect();
    let fewer: Vec<_> = want.difference(&have).collect();
    assert!(more.is_empty() && fewer.is_empty(), "left over: {more:?}; missing: {fewer:?}");
    for (name, text) in &found {
        assert_eq!(text, &expected[name], "{name}");
    }
}

#[test]
fn up_killed_anywhere_and_run_again_ends_as_if_undisturbed() {
    kill_and_run_again(&Lab::new("82.1", SERVERS, AGENTS));
}

/// Half of the kills, so that both halves run beside each other.
#[test]
fn up_killed_elsewhere_and_run_again_ends_as_if_undisturbed() {
    kill_and_run_again(&Lab::new("82.2", SERVERS, AGENTS));
}

fn kill_and_run_again(lab: &Lab) {
    let mut random = Random::new();
    let started = Instant::now();
    lab.up(&[]);
    let whole_run = started.elapsed();
    let expected = files(lab);
    check(lab, None, &expected);
    lab.ok(["lab", "rm", "--yes"]);

    let mut cluster: Option<String> = None;
    let (mut kills, mut checks) = (0, 0);
    while kills < KILLS {
        // Later moments are reached too: each run goes on where the one before was killed.
        if !lab.killed_after(&["up"], random.upto(whole_run / 2)) {
            kills += 1;
            let founded = clusters(lab);
            assert!(founded.len() < 2, "{founded:?}");
            if let (Some(known), Some(founded)) = (&cluster, founded.first()) {
                assert_eq!(known, founded);
            }
            cluster = cluster.or_else(|| founded.first().cloned());
            continue;
        }
        check(lab, cluster.as_deref(), &expected);
        checks += 1;
        // From an empty lab again, or with a server that lost its disk, or with one that is down.
        let victim = format!("server{}", 1 + random.below(SERVERS as u64));
        match random.below(4) {
            0 => {
                lab.lab("kill", &victim);
                std::fs::remove_dir_all(lab.host_dir(&victim)).unwrap();
            }
            1 => drop(lab.lab("kill", &victim)),
            _ => {
                lab.ok(["lab", "rm", "--yes"]);
                cluster = None;
            }
        }
    }
    let last = lab.run(["up", "-i", lab.inventory_path(), "--yes"]);
    assert!(last.status.success(), "{}", shown(&last));
    check(lab, cluster.as_deref(), &expected);
    eprintln!("{kills} kills, {} undisturbed ends", checks + 1);
}
