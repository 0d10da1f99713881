//! Servers die, lose their disks, freeze and come back, with real processes: what the cluster
//! promises holds all the while.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::support::store::Store;
use crate::support::{Lab, wait_for};
use k3sup_rs::node::http::Connector;
use k3sup_rs::pki::tls;
use rustix::process::Signal;
use serde_json::Value as Json;
use tonic::{Code, Status};

/// Every server's number but `away`.
fn others(away: &[usize]) -> Vec<usize> {
    (1..=3).filter(|number| !away.contains(number)).collect()
}

fn name(number: usize) -> String {
    format!("server{number}")
}

/// A number in hex from the status.
fn text(value: &Json) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// The member ids by the servers' names.
fn members(status: &Json) -> BTreeMap<String, String> {
    let members = status["members"].as_array().unwrap().iter();
    let named = |member: &Json| {
        let name = text(&member["name"]);
        (
            name.rsplit_once('-').map_or(name.clone(), |(node, _)| node.to_owned()),
            text(&member["id"]),
        )
    };
    members.map(named).collect()
}

/// The number of the server that leads.
fn leader(lab: &Lab) -> usize {
    wait_for("a leader", || {
        let status = lab.status()?;
        let leader = text(&status["leader_id"]);
        let (name, _) = members(&status).into_iter().find(|(_, id)| *id == leader)?;
        name.strip_prefix("server")?.parse().ok()
    })
}

/// Puts again and again until it is acknowledged.
fn put(store: &Store, key: &str, value: &str) -> i64 {
    wait_for("a write to be acknowledged", || store.put(key, value).ok())
}

/// The refusal of a call that nobody can answer, once it is the server's own: on a machine that stood still
/// the client may have given up first. The call must never go well.
fn timed_out<T: std::fmt::Debug>(call: impl Fn() -> Result<T, Status>) -> Status {
    let own = |refused: &Status| {
        !matches!(refused.code(), Code::DeadlineExceeded | Code::Cancelled)
            && !refused.message().contains("deadline has elapsed")
    };
    let refused = wait_for("a call that the server gives up", || {
        Some(call().expect_err("there is no quorum")).filter(own)
    });
    assert!(refused.message().starts_with("etcdserver: request timed out"), "{refused:?}");
    assert_eq!(refused.code(), Code::Unavailable, "{refused:?}");
    refused
}

/// All servers hold the same at the same revision.
fn same_everywhere(lab: &Lab) {
    let revision = wait_for("a revision", || Store::of(lab, &[1, 2, 3]).revision().ok());
    let hash = |number| wait_for("a hash", || Store::of(lab, &[number]).hash(revision).ok());
    let hashes: Vec<u32> = (1..=3).map(hash).collect();
    assert_eq!(hashes.iter().collect::<BTreeSet<_>>().len(), 1, "{hashes:?} at {revision}");
}

/// The agents' local endpoints lead to a live server: supervisor, and store.
fn endpoints_answer(lab: &Lab) {
    let ca = std::fs::read_to_string(lab.bundle().join("ca.crt")).unwrap();
    let config = tls::client(&ca, None, &[]).unwrap();
    let connector = Connector::tls(config, Duration::from_secs(10));
    let runtime = tokio::runtime::Runtime::new().unwrap();
    for agent in 1..=2 {
        let address = format!("{}.{}", lab.net, 20 + agent);
        let supervisor = format!("{address}:6444");
        let ready = wait_for("a ready supervisor behind the agent", || {
            let asked = connector.ask(&supervisor, "GET", "/readyz", None, b"");
            runtime.block_on(asked).ok().filter(|answer| answer.status == 200)
        });
        assert_eq!(ready.text(), "ok");
        let store = Store::at(lab, &[format!("https://{address}:2379")]);
        let key = format!("through-{agent}");
        put(&store, &key, "here");
        assert_eq!(wait_for("a read", || store.get(&key, false).ok()).as_deref(), Some("here"));
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// Waits until each agent was heard of after `since`; until then none may be not ready.
fn agents_stay_ready(lab: &Lab, since: u64) {
    wait_for("heartbeats of the agents", || {
        let status = lab.status()?;
        let nodes = status["nodes"].as_array()?;
        let agents: Vec<_> =
            nodes.iter().filter(|node| text(&node["name"]).starts_with("agent")).collect();
        assert_eq!(agents.len(), 2, "{status:#}");
        assert!(agents.iter().all(|node| node["ready"] == true), "{status:#}");
        let heard = |node: &&Json| node["heartbeat_unix_s"].as_u64().is_some_and(|at| at > since);
        agents.iter().all(heard).then_some(())
    });
}

/// The process of a server's node.
fn process(lab: &Lab, number: usize) -> rustix::process::Pid {
    let file = lab.host_dir(&name(number)).join("run/k3sup.pid");
    let text = std::fs::read_to_string(file).unwrap();
    let pid = text.split_whitespace().next().unwrap().parse().unwrap();
    rustix::process::Pid::from_raw(pid).unwrap()
}

#[test]
fn one_killed_server_is_not_missed() {
    let lab = Lab::new("80.1", 3, 2);
    lab.up(&[]);
    endpoints_answer(&lab);
    // The leader, and then one that does not lead.
    for round in ["leader", "other"] {
        let leads = leader(&lab);
        let victim = if round == "leader" { leads } else { others(&[leads])[0] };
        put(&Store::of(&lab, &[1, 2, 3]), "before", round);
        let killed_at = now();
        lab.lab("kill", &name(victim));
        let rest = Store::of(&lab, &others(&[victim]));
        put(&rest, "meanwhile", round);
        let value = wait_for("a read", || rest.get("before", false).ok());
        assert_eq!(value.as_deref(), Some(round));
        endpoints_answer(&lab);
        agents_stay_ready(&lab, killed_at + 1);
        lab.lab("start", &name(victim));
        lab.whole(3, 5);
        let back = Store::of(&lab, &[victim]);
        let value = wait_for("a read", || back.get("meanwhile", false).ok());
        assert_eq!(value.as_deref(), Some(round));
        same_everywhere(&lab);
    }
}

#[test]
fn without_a_quorum_nothing_is_written_and_nothing_lost() {
    let lab = Lab::new("80.2", 3, 0);
    lab.up(&[]);
    // Once a follower is left over, once the leader.
    for round in ["follower", "leader"] {
        let leads = leader(&lab);
        let left = if round == "leader" { leads } else { others(&[leads])[0] };
        let all = Store::of(&lab, &[1, 2, 3]);
        let acknowledged = put(&all, "kept", round);
        let survivor = Store::of(&lab, &[left]);
        wait_for("the survivor to have it", || {
            (survivor.get("kept", true).ok().flatten().as_deref() == Some(round)).then_some(())
        });
        for number in others(&[left]) {
            lab.lab("kill", &name(number));
        }

        timed_out(|| survivor.put("unsure", round));
        let refused = timed_out(|| survivor.get("kept", false));
        assert_eq!(refused.message(), "etcdserver: request timed out");
        let kept = wait_for("a local read", || survivor.get("kept", true).ok());
        assert_eq!(kept.as_deref(), Some(round));

        for number in others(&[left]) {
            lab.lab("start", &name(number));
        }
        lab.whole(3, 3);
        let (revision, pairs) = wait_for("a read", || all.all().ok());
        assert!(revision >= acknowledged);
        assert_eq!(pairs["kept"], (round.to_owned(), acknowledged));
        put(&all, "after", round);
        same_everywhere(&lab);
    }
}

#[test]
fn a_server_that_lost_its_disk_comes_back_as_a_new_member() {
    let lab = Lab::new("80.3", 3, 0);
    lab.up(&[]);
    let store = Store::of(&lab, &[1, 2, 3]);
    // Under a running host, after a power cut, and not only the first of the inventory.
    for (victim, power_cut) in [(1, false), (1, true), (3, true)] {
        let key = format!("before-{victim}-{power_cut}");
        let revision = put(&store, &key, "kept");
        let before = lab.whole(3, 3);
        if power_cut {
            lab.lab("kill", &name(victim));
        }
        std::fs::remove_dir_all(lab.host_dir(&name(victim))).unwrap();
        let report = lab.up(&[]);
        let after = lab.whole(3, 3);
        assert_eq!(after["cluster_id"], before["cluster_id"], "{report}");
        assert_eq!(after["ca_hash"], before["ca_hash"], "{report}");
        let (old, new) = (members(&before), members(&after));
        for number in 1..=3 {
            let name = name(number);
            assert_eq!(old[&name] == new[&name], number != victim, "{old:?} {new:?}");
        }
        let (_, pairs) = wait_for("a read", || Store::of(&lab, &[victim]).all().ok());
        assert_eq!(pairs[&key], ("kept".to_owned(), revision));
        same_everywhere(&lab);
    }
    let again = lab.up(&[]);
    assert_eq!(again.matches("changed=0").count(), 3, "{again}");
}

#[test]
fn servers_that_are_all_down_are_started_together() {
    let lab = Lab::new("80.4", 3, 0);
    lab.up(&[]);
    let store = Store::of(&lab, &[1, 2, 3]);
    for (verb, enabled) in [("stop", false), ("kill", false), ("kill", true)] {
        let revision = put(&store, "kept", verb);
        let before = lab.whole(3, 3);
        lab.ok(["lab", verb]);
        assert!(lab.status().is_none());
        if !enabled {
            // The hosts come up without their nodes: it is `up` that starts them.
            for number in 1..=3 {
                let units = lab.host_dir(&name(number)).join("etc/systemd/system");
                std::fs::remove_dir_all(units.join("multi-user.target.wants")).unwrap();
            }
        }
        lab.up(&[]);
        let after = lab.whole(3, 3);
        assert_eq!(after["cluster_id"], before["cluster_id"]);
        assert_eq!(members(&after), members(&before));
        let (_, pairs) = wait_for("a read", || store.all().ok());
        assert_eq!(pairs["kept"], (verb.to_owned(), revision));
        same_everywhere(&lab);
    }
}

#[test]
fn a_frozen_leader_neither_loses_writes_nor_splits_the_cluster() {
    let lab = Lab::new("80.5", 3, 2);
    lab.up(&[]);
    let frozen = leader(&lab);
    let all = Store::of(&lab, &[1, 2, 3]);
    let before = put(&all, "before", "kept");
    let pid = process(&lab, frozen);
    rustix::process::kill_process(pid, Signal::STOP).unwrap();
    let frozen_at = now();
    // A client that only knows the frozen member waits until it thaws: its write is made in the new
    // term, or refused; never acknowledged and lost.
    let waiting = std::thread::scope(|scope| {
        let late = scope.spawn(|| Store::of(&lab, &[frozen]).put("late", "from the frozen one"));
        let rest = Store::of(&lab, &others(&[frozen]));
        let meanwhile = put(&rest, "meanwhile", "kept");
        assert!(meanwhile > before);
        endpoints_answer(&lab);
        agents_stay_ready(&lab, frozen_at + 1);
        rustix::process::kill_process(pid, Signal::CONT).unwrap();
        late.join().unwrap()
    });
    let status = lab.whole(3, 5);
    let thawed = Store::of(&lab, &[frozen]);
    let (revision, pairs) = wait_for("a read", || thawed.all().ok());
    assert_eq!(pairs["before"], ("kept".to_owned(), before), "{status:#}");
    assert_eq!(pairs["meanwhile"].0, "kept");
    if let Ok(made) = waiting {
        assert_eq!(pairs["late"], ("from the frozen one".to_owned(), made));
        assert!(made <= revision);
    }
    same_everywhere(&lab);
}
