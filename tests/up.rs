//! From an inventory to a running cluster and through its failures, with real processes over real
//! SSH.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod support;

use support::{Lab, shown};

/// Every node of the lab is ready.
fn all_ready(lab: &Lab, nodes: usize) -> bool {
    let Some(status) = lab.status() else { return false };
    let ready = status["nodes"].as_array().unwrap().iter().filter(|node| node["ready"] == true);
    ready.count() == nodes
}

#[test]
fn one_command_makes_a_cluster_and_a_second_one_changes_nothing() {
    let lab = Lab::new("78.1", 3, 2);
    let first = lab.up(&[]);
    assert!(first.contains("RECAP"), "{first}");
    assert!(all_ready(&lab, 5), "{:?}", lab.status());
    let nodes = lab.ok(["nodes", "-i", lab.inventory_path()]);
    assert_eq!(nodes.matches(" Ready ").count(), 5, "{nodes}");
    assert_eq!(nodes.matches("control-plane,etcd").count(), 3, "{nodes}");

    let second = lab.up(&["-v"]);
    assert_eq!(second.matches("changed=0").count(), 5, "{second}");
    let trips = second.lines().filter_map(|line| {
        line.split_whitespace().find_map(|word| word.strip_prefix("round_trips="))
    });
    let trips: Vec<u64> = trips.map(|count| count.parse().unwrap()).collect();
    assert_eq!(trips.len(), 5, "{second}");
    assert!(trips.iter().all(|count| *count <= 2), "{second}");
    let check = lab.run(["up", "-i", lab.inventory_path(), "--check"]);
    assert_eq!(check.status.code(), Some(0), "{}", shown(&check));
}

#[test]
fn a_check_touches_nothing() {
    let lab = Lab::new("78.4", 1, 0);
    let output = lab.run(["up", "-i", lab.inventory_path(), "--check", "--diff"]);
    assert_eq!(output.status.code(), Some(7), "{}", shown(&output));
    assert!(lab.status().is_none());
    assert!(!lab.host_dir("server1").join("usr/local/bin/k3sup-rs").exists());
    assert!(!lab.host_dir("server1").join("etc/k3sup").exists());
}

#[test]
fn servers_that_listen_elsewhere_are_found_there() {
    let lab = Lab::new("78.8", 1, 1);
    let text = std::fs::read_to_string(&lab.inventory).unwrap();
    let servers = "    servers:\n";
    assert!(text.contains(servers), "{text}");
    let moved = format!("{servers}      vars: {{config: {{https-listen-port: 7443}}}}\n");
    std::fs::write(&lab.inventory, text.replace(servers, &moved)).unwrap();

    let first = lab.up(&[]);
    assert!(first.contains("The cluster is up"), "{first}");
    assert!(all_ready(&lab, 2), "{:?}", lab.status());
}

#[test]
fn one_server_of_fresh_ones_can_be_brought_up_first() {
    let lab = Lab::new("78.9", 3, 0);
    lab.up(&["--limit", "server1"]);
    assert!(all_ready(&lab, 1), "{:?}", lab.status());
    lab.up(&[]);
    assert!(all_ready(&lab, 3), "{:?}", lab.status());
}
