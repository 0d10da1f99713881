//! Whole clusters are restored, brought back and recovered, with real processes: all that can go wrong
//! before anything stops is refused, and a control machine that is killed anywhere is run again.

use crate::support;
use std::path::{Path, PathBuf};

use crate::support::cluster::{Writer, assert_one_cluster, cluster_on_disk};
use crate::support::seed::Random;
use crate::support::store::{Pairs, Store, insist};
use crate::support::{Lab, wait_for};

const ALL: [usize; 3] = [1, 2, 3];

/// How often the control machine is killed.
const KILLS: usize = 20;

/// A snapshot of the cluster in a file of the test's.
fn snapshot(lab: &Lab, name: &str) -> PathBuf {
    let path = lab.dir.path().join(name);
    let bytes = wait_for("a snapshot", || Store::of(lab, &ALL).snapshot().ok());
    std::fs::write(&path, bytes).unwrap();
    path
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Nobody is fenced, every server votes, and every node is ready; nobody else is there.
fn whole(lab: &Lab, nodes: usize) {
    for server in ["server1", "server2", "server3"] {
        let fence = lab.host_dir(server).join("var/lib/k3sup/server/fence.json");
        assert!(!fence.exists(), "{server} is fenced");
    }
    lab.whole(ALL.len(), nodes);
}

/// What is in the store.
fn pairs(lab: &Lab) -> Pairs {
    insist("a read", || Store::of(lab, &ALL).all()).1
}

#[test]
fn a_living_cluster_goes_to_a_snapshot_and_back_again() {
    let lab = Lab::new("97.1", 3, 1);
    lab.up(&[]);
    let writer = Writer::start(&lab, &ALL, "w");
    writer.wait_for_more(20);
    let file = snapshot(&lab, "snapshot");
    let revision = snapshot_revision(&file);
    writer.wait_for_more(20);
    let before = cluster_on_disk(&lab, "server1").unwrap();

    // What is refused is refused while the client writes on.
    let mut damaged = std::fs::read(&file).unwrap();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 1;
    let bad = lab.dir.path().join("damaged");
    std::fs::write(&bad, &damaged).unwrap();
    let said = lab.refused("restore", &["--snapshot", text(&bad)], 5);
    assert!(said.contains("nothing was stopped"), "{said}");
    std::fs::write(&bad, &damaged[..middle]).unwrap();
    lab.refused("restore", &["--snapshot", text(&bad)], 5);
    lab.refused("restore", &["--snapshot", "no-such-snapshot"], 5);
    let said = lab.refused("restore", &["--snapshot", text(&file), "-e", "token=another"], 5);
    assert!(said.contains("the token is not the one"), "{said}");
    lab.refused("restore", &["--snapshot", text(&file), "--leave-out", "server3"], 6);
    lab.refused("recover", &[], 6);
    lab.refused("restore", &["--rollback"], 5);
    let plan = lab.refused("restore", &["--snapshot", text(&file), "--check"], 7);
    assert!(plan.contains("server1: fence it"), "{plan}");
    writer.wait_for_more(10);
    assert_eq!(cluster_on_disk(&lab, "server1"), Some(before));

    let said = lab.ok(lab.args("restore", &["--snapshot", text(&file)]));
    eprintln!("{said}");
    assert!(said.contains("3 of 3 members hold the same: revision "), "{said}");
    assert!(said.contains("a snapshot of the present state is on server"), "{said}");
    let written = writer.stop();
    let after = assert_one_cluster(&lab, &ALL);
    assert_ne!(after, before);
    let restored = pairs(&lab);
    // What the client wrote into the new cluster has revisions of its own.
    for (key, made) in written.acknowledged.iter().filter(|(_, made)| **made <= revision) {
        let found = restored.get(key);
        assert_eq!(found, Some(&(key.clone(), *made)), "in the snapshot and lost: {key}");
    }
    whole(&lab, 4);
    let again = lab.up(&[]);
    assert_eq!(again.matches("changed=0").count(), 4, "{again}");

    lab.ok(lab.args("restore", &["--rollback"]));
    assert_eq!(assert_one_cluster(&lab, &ALL), before);
    whole(&lab, 4);
    let back = pairs(&lab);
    let first_lost = written.acknowledged.iter().find(|(key, _)| !back.contains_key(*key));
    // Only what was written into the cluster that was undone is not there.
    let count = back.keys().filter(|key| key.starts_with("w/")).count();
    assert!(count >= 50, "{count} of them, first lost {first_lost:?}");

    // A node that only the snapshot knows is forgotten. Each run left a journal with its steps.
    lab.lab("kill", "agent1");
    let inventory = std::fs::read_to_string(&lab.inventory).unwrap();
    let (servers, _) = inventory.split_once("    agents:\n").unwrap();
    std::fs::write(&lab.inventory, servers).unwrap();
    // The newest one that is meant is not the one of the state that was to be put right.
    lab.ok(["snapshot", "save", "-i", lab.inventory_path(), "--name", "mine"]);
    lab.ok(lab.args("restore", &["--snapshot", text(&file)]));
    let said = lab.ok(lab.args("restore", &["--snapshot", "latest"]));
    assert!(said.contains("snapshot mine-server"), "{said}");
    assert_one_cluster(&lab, &ALL);
    whole(&lab, 3);
    let runs = lab.ok(["runs", "ls", "--limit", "50"]);
    assert!(
        runs.contains("restore --rollback") && runs.contains("restore --snapshot latest"),
        "{runs}"
    );
    let runs: serde_json::Value =
        serde_json::from_str(&lab.ok(["runs", "ls", "--output", "json"])).unwrap();
    let mut runs = runs.as_array().unwrap().iter();
    let run = runs.find(|run| run["what"] == "restore --snapshot latest").unwrap();
    let story = lab.ok(["runs", "show", run["id"].as_str().unwrap()]);
    for step in ["server1: stop the node", "compare what the members hold", "forget node agent1"] {
        assert!(story.contains(step), "{step}: {story}");
    }
}

fn snapshot_revision(file: &Path) -> i64 {
    let view = k3sup_rs::node::snapshots::inspect::inspect(file).unwrap();
    assert_eq!(view.problem, None);
    view.revision
}

/// A snapshot of a single server that is gone becomes three servers; the quorum of these is lost and
/// recovered; who was away meanwhile does not come back with old data.
#[test]
fn one_server_becomes_three_and_a_lost_quorum_is_recovered() {
    let lab = Lab::new("97.2", 3, 0);
    lab.up(&["--limit", "server1", "--skip-preflight"]);
    let writer = Writer::start(&lab, &[1], "one");
    writer.wait_for_more(10);
    let written = writer.stop();
    let bytes = wait_for("a snapshot", || Store::of(&lab, &[1]).snapshot().ok());
    let file = lab.dir.path().join("single");
    std::fs::write(&file, bytes).unwrap();
    lab.lab("kill", "server1");
    std::fs::remove_dir_all(lab.host_dir("server1")).unwrap();

    lab.ok(lab.args("restore", &["--snapshot", text(&file)]));
    // The CA of the server that is gone is gone with it: the bundle is another one.
    let first = cluster_on_disk(&lab, "server1").unwrap();
    written.assert_all_in(&pairs(&lab));
    assert_eq!(assert_one_cluster(&lab, &ALL), first);
    let writer = Writer::start(&lab, &ALL, "three");
    writer.wait_for_more(20);
    let more = writer.stop();

    // Two of three lose their disks.
    for server in ["server2", "server3"] {
        lab.lab("kill", server);
        std::fs::remove_dir_all(lab.host_dir(server)).unwrap();
    }
    lab.ok(lab.args("recover", &[]));
    let second = assert_one_cluster(&lab, &ALL);
    assert_ne!(first, second);
    let recovered = pairs(&lab);
    written.assert_all_in(&recovered);
    more.assert_all_in(&recovered);
    whole(&lab, 3);
}

#[test]
fn killed_anywhere_and_run_again_it_ends_in_one_restored_cluster() {
    let mut random = Random::new();
    let lab = Lab::new("97.3", 3, 1);
    lab.up(&[]);
    let writer = Writer::start(&lab, &ALL, "k");
    writer.wait_for_more(20);
    let written = writer.stop();
    let file = snapshot(&lab, "snapshot");
    let revision = snapshot_revision(&file);
    let (mut kills, mut ends) = (0, 0);
    let mut resumed = false;
    while kills < KILLS {
        let lines = 1 + usize::try_from(random.below(6)).unwrap();
        let how = ["--snapshot", text(&file)];
        let how: &[&str] = if resumed { &["--resume"] } else { &how };
        if lab.killed_at_step(&lab.args("restore", how), lines) {
            kills += 1;
            resumed = is_fenced(&lab);
            continue;
        }
        ends += 1;
        resumed = false;
        check_restored(&lab, &written, revision);
    }
    let how = ["--snapshot", text(&file)];
    let how: &[&str] = if is_fenced(&lab) { &["--resume"] } else { &how };
    lab.ok(lab.args("restore", how));
    check_restored(&lab, &written, revision);
    eprintln!("{kills} kills, {} undisturbed ends", ends + 1);
}

fn check_restored(lab: &Lab, written: &support::cluster::Written, revision: i64) {
    assert_one_cluster(lab, &ALL);
    written.assert_state_of(revision, &pairs(lab));
    whole(lab, 4);
}

fn is_fenced(lab: &Lab) -> bool {
    let fence = |n: &usize| {
        lab.host_dir(&format!("server{n}")).join("var/lib/k3sup/server/fence.json").exists()
    };
    ALL.iter().any(fence)
}
