//! From an inventory to a running cluster and through its failures, with real processes over real
//! SSH.

use crate::support::{Lab, shown, wait_for};

/// What `up` waited for: all are there, and vote if they should. Whether they answer in time just now is
/// another matter.
#[track_caller]
fn assert_joined(lab: &Lab, servers: usize, nodes: usize) {
    let status = lab.known_status();
    let members = status["members"].as_array().unwrap();
    assert_eq!(members.len(), servers, "{status:#}");
    assert!(members.iter().all(|member| member["voter"] == true), "{status:#}");
    assert_eq!(status["nodes"].as_array().unwrap().len(), nodes, "{status:#}");
    lab.whole(servers, nodes);
}

#[test]
fn one_command_makes_a_cluster_and_a_second_one_changes_nothing() {
    let lab = Lab::new("78.1", 3, 2);
    let first = lab.up(&[]);
    assert!(first.contains("RECAP"), "{first}");
    assert_joined(&lab, 3, 5);
    let nodes = wait_for("five nodes to be shown as ready", || {
        let nodes = lab.ok(["nodes", "-i", lab.inventory_path()]);
        (nodes.matches(" Ready ").count() == 5).then_some(nodes)
    });
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
    assert_joined(&lab, 1, 2);
}

#[test]
fn one_server_of_fresh_ones_can_be_brought_up_first() {
    let lab = Lab::new("78.9", 3, 0);
    lab.up(&["--limit", "server1"]);
    assert_joined(&lab, 1, 1);
    lab.up(&[]);
    assert_joined(&lab, 3, 3);
}
