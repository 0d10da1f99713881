//! What must hold of a cluster on hosts after whatever was done to it.

use std::collections::BTreeSet;

use serde_json::Value as Json;

use crate::fleet::Fleet;
use crate::support::cluster::{Seen, Writer, assert_one};
use crate::support::{is_whole, wait_for};

/// Runs a test in a thread of its own: one that enters the machines' network never leaves it.
pub fn in_a_thread(test: fn()) {
    if let Err(panic) = std::thread::spawn(test).join() {
        std::panic::resume_unwind(panic);
    }
}

/// The servers of the inventory.
pub fn servers(fleet: &Fleet) -> Vec<&str> {
    fleet.groups["servers"].iter().map(String::as_str).collect()
}

/// The status once it [is whole](is_whole), with all servers and agents of the inventory.
#[track_caller]
pub fn whole(fleet: &Fleet) -> Json {
    let count = |group: &str| fleet.groups.get(group).map_or(0, Vec::len);
    let (servers, nodes) = (count("servers"), count("servers") + count("agents"));
    wait_for("healthy voters and ready nodes", || {
        fleet.status().filter(|status| is_whole(status, servers, nodes))
    })
}

/// A client that writes through the load balancer.
pub fn writer(fleet: &Fleet, prefix: &str) -> Writer {
    let writer = Writer::over(fleet.store(&["lb1"]), prefix);
    writer.wait_for_more(20);
    writer
}

/// One cluster of the inventory's servers, all of which hold the same; no fence; and the balancers send
/// to these servers and no other. Gives the cluster's number.
#[track_caller]
pub fn assert_agreed(fleet: &Fleet) -> u64 {
    whole(fleet);
    let see = |name: &&str| Seen {
        name: (*name).to_owned(),
        store: fleet.store(&[name]),
        data: fleet.data(name),
    };
    let servers = servers(fleet);
    let cluster = assert_one(&servers.iter().map(see).collect::<Vec<_>>());
    for server in &servers {
        assert!(!fleet.data(server).join("server/fence.json").exists(), "{server} is fenced");
    }
    for balancer in fleet.groups.get("loadbalancers").into_iter().flatten() {
        let config = fleet.on(balancer, "cat /etc/haproxy/haproxy.cfg");
        let lines = config.lines().filter_map(|line| line.trim().strip_prefix("server "));
        let named: BTreeSet<&str> = lines.filter_map(|line| line.split(' ').next()).collect();
        assert_eq!(named, servers.iter().copied().collect(), "{config}");
    }
    cluster
}

/// All that was acknowledged is there, on one cluster, and `up` changes nothing.
#[track_caller]
pub fn assert_good(fleet: &Fleet, writer: Writer) {
    writer.wait_for_more(20);
    let written = writer.stop();
    assert_agreed(fleet);
    let (_, pairs) = wait_for("a read", || fleet.store(&servers(fleet)).all().ok());
    written.assert_all_in(&pairs);
    assert_up_changes_nothing(fleet);
}

/// `up` finds nothing to do on any host.
#[track_caller]
pub fn assert_up_changes_nothing(fleet: &Fleet) {
    let hosts: usize = fleet.groups.values().map(Vec::len).sum();
    let again = fleet.ok("up", &["--yes"]);
    assert_eq!(again.matches("changed=0 ").count(), hosts, "{again}");
}
