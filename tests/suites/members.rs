//! Nodes are restarted, removed and replaced, and a single server becomes three, with real processes and
//! a client that writes all the time: nothing acknowledged is lost, and there is one cluster.

use std::time::Instant;

use crate::support::cluster::{Writer, assert_one_cluster};
use crate::support::seed::Random;
use crate::support::store::Store;
use crate::support::{Lab, leader, shown, wait_for};
use serde_json::Value as Json;

/// How often a replacement's control machine is killed.
const KILLS: usize = 20;

fn member_id(status: &Json, node: &str) -> String {
    let members = status["members"].as_array().unwrap();
    let own = members.iter().find(|member| {
        member["name"].as_str().is_some_and(|name| name.starts_with(&format!("{node}-")))
    });
    own.unwrap()["id"].as_str().unwrap().to_owned()
}

/// The line that names `host` goes out of the inventory.
fn without(lab: &Lab, host: &str) {
    let text = std::fs::read_to_string(&lab.inventory).unwrap();
    let rest: Vec<&str> =
        text.lines().filter(|line| !line.contains(&format!(" {host}:"))).collect();
    std::fs::write(&lab.inventory, rest.join("\n") + "\n").unwrap();
}

/// The process of a host's node.
fn pid(lab: &Lab, host: &str, service: &str) -> String {
    let file = lab.host_dir(host).join(format!("run/{service}.pid"));
    let text = std::fs::read_to_string(file).unwrap();
    text.split_whitespace().next().unwrap().to_owned()
}

/// All that was acknowledged is there, and the servers are one cluster; a run of `up` changes nothing.
#[track_caller]
fn assert_good(lab: &Lab, writer: Writer, servers: &[usize]) {
    writer.wait_for_more(5);
    let written = writer.stop();
    assert_one_cluster(lab, servers);
    let (_, pairs) = wait_for("a read", || Store::of(lab, servers).all().ok());
    written.assert_all_in(&pairs);
}

#[track_caller]
fn assert_up_changes_nothing(lab: &Lab, hosts: usize) {
    let again = lab.up(&[]);
    assert_eq!(again.matches("changed=0").count(), hosts, "{again}");
}

#[test]
fn a_restart_is_one_server_at_a_time_and_the_leader_last() {
    let lab = Lab::new("91.1", 3, 2);
    lab.up(&[]);
    lab.whole(3, 5);
    let before: Vec<String> = (1..=3).map(|n| pid(&lab, &format!("server{n}"), "k3sup")).collect();
    let agent_before = pid(&lab, "agent1", "k3sup-agent");

    wait_for("a check that puts the leader last", || {
        let leads = leader(&lab.whole(3, 5));
        let check = lab.verb(&["restart", "--check"]);
        // There was an election in between: this time there is no leader, or another one.
        if shown(&check).contains("has no leader that a quorum follows") {
            return None;
        }
        assert_eq!(check.status.code(), Some(7), "{}", shown(&check));
        if leader(&lab.whole(3, 5)) != leads {
            return None;
        }
        let text = String::from_utf8_lossy(&check.stdout).into_owned();
        let plays: Vec<&str> =
            text.lines().filter(|line| line.contains("the leader last")).collect();
        assert_eq!(plays.len(), 3, "{text}");
        assert!(plays[2].contains(&format!("last: {leads}")), "{leads} leads: {text}");
        Some(())
    });
    assert_eq!(pid(&lab, "server1", "k3sup"), before[0], "a check restarts nothing");

    let writer = Writer::start(&lab, &[1, 2, 3], "during-restart");
    writer.wait_for_more(5);
    let hands_over = || {
        let leads = leader(&lab.whole(3, 5));
        lab.verb_ok(&["restart"]);
        // An election of its own may have given the lead back to it.
        leader(&lab.whole(3, 5)) != leads
    };
    assert!((0..3).any(|_| hands_over()), "who led comes back as a follower");
    for (at, old) in before.iter().enumerate() {
        assert_ne!(pid(&lab, &format!("server{}", at + 1), "k3sup"), *old);
    }
    assert_ne!(pid(&lab, "agent1", "k3sup-agent"), agent_before);
    assert_good(&lab, writer, &[1, 2, 3]);
    assert_up_changes_nothing(&lab, 5);
}

#[test]
fn who_is_removed_is_gone_from_everywhere_and_the_last_server_stays() {
    let lab = Lab::new("91.2", 3, 2);
    lab.up(&[]);
    lab.whole(3, 5);
    let writer = Writer::start(&lab, &[1, 2], "during-remove");
    let said = lab.verb_ok(&["remove", "agent2"]);
    assert!(said.contains("inventory.yaml:") && said.contains("agent2: {ansible_host"), "{said}");
    lab.whole(3, 4);
    assert!(!lab.host_dir("agent2").join("var/lib/k3sup").exists());
    without(&lab, "agent2");

    // A dead one: its host is not there to be cleared.
    lab.lab("kill", "server3");
    let status = lab.known_status();
    let refused = lab.verb(&["remove", "server1"]);
    assert_eq!(refused.status.code(), Some(6), "{}", shown(&refused));
    let why = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(why.contains("1 of 2 voters are left and 2 are needed: server3 is down"), "{why}");
    lab.verb_ok(&["remove", "server3"]);
    without(&lab, "server3");
    let status_after = lab.whole(2, 3);
    assert_eq!(status["cluster_id"], status_after["cluster_id"]);
    // `server:` of the others names a server that is there.
    for host in ["server1", "server2"] {
        let file = lab.host_dir(host).join("etc/k3sup/config.yaml.d/bootstrap.yaml");
        let text = std::fs::read_to_string(file).unwrap();
        assert!(!text.contains(&lab.server_address(3)), "{text}");
    }
    assert_good(&lab, writer, &[1, 2]);

    lab.verb_ok(&["remove", "server2"]);
    without(&lab, "server2");
    lab.whole(1, 2);
    let last = lab.verb(&["remove", "server1"]);
    assert_eq!(last.status.code(), Some(6), "{}", shown(&last));
    let why = String::from_utf8_lossy(&last.stderr).into_owned();
    assert!(why.contains("server1 is the only server") && why.contains("reset"), "{why}");
    let unknown = lab.verb(&["remove", "server9"]);
    assert_eq!(unknown.status.code(), Some(5), "{}", shown(&unknown));
}

#[test]
fn a_server_is_replaced_by_itself_at_a_new_address_and_by_another() {
    let lab = Lab::new("91.3", 3, 1);
    lab.up(&[]);
    let first = lab.whole(3, 4);
    let writer = Writer::start(&lab, &[1], "during-replace");

    // The same host, whose node works; and with an empty disk.
    lab.verb_ok(&["replace", "server2"]);
    let second = lab.whole(3, 4);
    assert_ne!(member_id(&first, "server2"), member_id(&second, "server2"));
    lab.lab("kill", "server2");
    std::fs::remove_dir_all(lab.host_dir("server2").join("var/lib/k3sup")).unwrap();
    lab.lab("start", "server2");
    lab.verb_ok(&["replace", "server2"]);
    let third = lab.whole(3, 4);
    assert_ne!(member_id(&second, "server2"), member_id(&third, "server2"));
    assert_up_changes_nothing(&lab, 4);

    // The same name on a new host.
    lab.lab("kill", "server3");
    std::fs::remove_dir_all(lab.host_dir("server3")).unwrap();
    let gone = lab.verb(&["replace", "server3"]);
    assert_eq!(gone.status.code(), Some(4), "{}", shown(&gone));
    let address = format!("{}.33", lab.net);
    let said = lab.verb_ok(&["replace", "server3", "--with", &address]);
    assert!(said.contains(&format!("server3 is at {address} now")), "{said}");
    let fourth = lab.whole(3, 4);
    assert_ne!(member_id(&third, "server3"), member_id(&fourth, "server3"));
    let text = std::fs::read_to_string(&lab.inventory).unwrap();
    let edited = text.replace(
        &format!("server3: {{ansible_host: {}.13}}", lab.net),
        &format!("server3: {{ansible_host: {address}}}"),
    );
    assert_ne!(text, edited);
    std::fs::write(&lab.inventory, &edited).unwrap();
    assert_up_changes_nothing(&lab, 4);

    // A new name on a new host, while the old one works.
    let missing = lab.verb(&["replace", "server3", "--with", "server4"]);
    assert_eq!(missing.status.code(), Some(5), "{}", shown(&missing));
    let with_four = edited.replace(
        "        server3:",
        &format!("        server4: {{ansible_host: {}.14}}\n        server3:", lab.net),
    );
    std::fs::write(&lab.inventory, &with_four).unwrap();
    let said = lab.verb_ok(&["replace", "server3", "--with", "server4"]);
    assert!(said.contains("server4 has taken the place of server3"), "{said}");
    let fifth = lab.whole(3, 4);
    assert!(!member_id(&fifth, "server4").is_empty());
    without(&lab, "server3");
    assert_up_changes_nothing(&lab, 4);
    assert_eq!(first["cluster_id"], fifth["cluster_id"]);
    assert_good(&lab, writer, &[1, 2, 4]);

    // An agent, too.
    lab.verb_ok(&["replace", "agent1"]);
    lab.whole(3, 4);
}

#[test]
fn a_replacement_killed_anywhere_and_run_again_ends_as_if_undisturbed() {
    let mut random = Random::new();
    let lab = Lab::new("91.4", 3, 0);
    lab.up(&[]);
    let cluster = lab.whole(3, 3)["cluster_id"].clone();
    let started = Instant::now();
    lab.verb_ok(&["replace", "server3"]);
    let whole_run = started.elapsed();
    lab.whole(3, 3);
    let writer = Writer::start(&lab, &[1, 2, 3], "during-kills");
    let mut kills = 0;
    while kills < KILLS {
        let status = lab.whole(3, 3);
        // Of the servers the one that leads, or another: it does not matter which is replaced.
        let victim = format!("server{}", 1 + random.below(3));
        eprintln!("replace {victim}, {} leads", leader(&status));
        let mut over = false;
        while kills < KILLS && !over {
            over = lab.killed_after(&["replace", &victim], random.upto(whole_run));
            kills += usize::from(!over);
        }
        if !over {
            lab.verb_ok(&["replace", &victim]);
        }
        let status = lab.whole(3, 3);
        assert_eq!(status["cluster_id"], cluster, "{status:#}");
    }
    assert_up_changes_nothing(&lab, 3);
    assert_good(&lab, writer, &[1, 2, 3]);
}

#[test]
fn a_single_server_becomes_the_first_of_three_with_its_data() {
    let lab = Lab::new("91.5", 1, 0);
    lab.up(&[]);
    // As somebody would have started it by hand: without `cluster-init`.
    let bootstrap = lab.host_dir("server1").join("etc/k3sup/config.yaml.d/bootstrap.yaml");
    std::fs::write(&bootstrap, "# nothing\n").unwrap();
    lab.verb_ok(&["restart"]);
    let cluster = lab.whole(1, 1)["cluster_id"].clone();
    let writer = Writer::start(&lab, &[1], "from-one-to-three");
    writer.wait_for_more(20);
    let text = std::fs::read_to_string(&lab.inventory).unwrap();
    let more = format!(
        "        server2: {{ansible_host: {net}.12}}\n        server3: {{ansible_host: {net}.13}}\n",
        net = lab.net
    );
    std::fs::write(&lab.inventory, text + &more).unwrap();
    let said = lab.up(&[]);
    assert!(said.contains("failed=0"), "{said}");
    let status = lab.whole(3, 3);
    assert_eq!(status["cluster_id"], cluster);
    assert_good(&lab, writer, &[1, 2, 3]);
    assert_up_changes_nothing(&lab, 3);
}
