//! The life of a K3s cluster on lab hosts, with the script of `tests/k3s` in K3s's place: restart,
//! upgrade, replace, remove.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use crate::support::k3s::{FAKE, lab, state};
use crate::support::{Lab, shown, wait_for};
use serde_json::Value as Json;

/// The script as another version of K3s.
fn release(lab: &Lab, version: &str) -> PathBuf {
    let text = std::fs::read_to_string(FAKE).unwrap().replace("v1.36.3+k3s1", version);
    let path = lab.dir.path().join(format!("k3s-{version}"));
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

/// The only cluster that was ever founded, as the script keeps it.
fn cluster(lab: &Lab) -> Json {
    let state = state(lab);
    assert_eq!(state["founded"], 1, "{state:#}");
    state["clusters"].as_object().unwrap().values().next().unwrap().clone()
}

/// Waits for `servers` members and `nodes` ready nodes; gives the nodes' versions.
#[track_caller]
fn versions(lab: &Lab, servers: usize, nodes: usize) -> Vec<String> {
    wait_for("members and ready nodes", || {
        let status = lab.status()?;
        let seen = status["nodes"].as_array()?;
        let right = status["members"].as_array()?.len() == servers
            && seen.len() == nodes
            && seen.iter().all(|node| node["ready"] == true);
        let version = |node: &Json| node["version"].as_str().unwrap_or_default().to_owned();
        right.then(|| seen.iter().map(version).collect())
    })
}

#[track_caller]
fn assert_up_changes_nothing(lab: &Lab, hosts: usize) {
    let again = lab.up(&[]);
    assert_eq!(again.matches("changed=0").count(), hosts, "{again}");
}

#[test]
fn jobs_that_watch_the_snapshots_come_and_go_with_the_setting() {
    let setting = "    snapshot: {monitor: {image: registry.example.com/busybox}}\n";
    let Some(lab) = lab("89.3", 2, 0, setting) else { return };
    let manifest = |server: &str| {
        let name = "var/lib/rancher/k3s/server/manifests/k3sup-snapshot-monitor.yaml";
        lab.host_dir(server).join(name)
    };
    lab.up(&[]);
    let text = std::fs::read_to_string(manifest("server1")).unwrap();
    assert_eq!(text.matches("kind: CronJob").count(), 2, "{text}");
    assert!(text.contains("registry.example.com/busybox"), "{text}");
    // Whichever server leads, K3s applies the same.
    assert_eq!(text, std::fs::read_to_string(manifest("server2")).unwrap());
    let printed = lab.ok(["render", "snapshot-monitor", "-i", lab.inventory_path()]);
    assert_eq!(printed.matches("kind: CronJob").count(), 2, "{printed}");
    assert_up_changes_nothing(&lab, 2);
    assert!(cluster(&lab)["deleted"].is_null());

    lab.replace_in_inventory(setting, "    snapshot: {}\n");
    lab.up(&[]);
    assert!(!manifest("server1").exists() && !manifest("server2").exists());
    let deleted = cluster(&lab)["deleted"].to_string();
    assert!(deleted.contains("app.kubernetes.io/name=snapshot-monitor"), "{deleted}");
    assert!(deleted.contains("\"addons.k3s.cattle.io\",\"k3sup-snapshot-monitor\""), "{deleted}");
    assert_up_changes_nothing(&lab, 2);
    for (wrong, why) in [
        ("{monitor: {imag: x}}", "unknown field `imag`"),
        ("{monitor: true, disabled: true}", "there are no snapshots to watch"),
        ("{monitor: {schedule: hourly}}", "is not a schedule"),
    ] {
        let wrong = format!("    snapshot: {wrong}\n");
        lab.replace_in_inventory("    snapshot: {}\n", &wrong);
        let output = lab.verb(&["up"]);
        assert_eq!(output.status.code(), Some(5), "{wrong}: {}", shown(&output));
        assert!(shown(&output).contains(why), "{wrong}: {}", shown(&output));
        lab.replace_in_inventory(&wrong, "    snapshot: {}\n");
    }
}

#[test]
fn a_cluster_is_restarted_upgraded_and_changes_its_members() {
    let Some(lab) = lab("94.1", 3, 1, "") else { return };
    lab.up(&[]);
    versions(&lab, 3, 4);
    lab.verb_ok(&["restart"]);
    versions(&lab, 3, 4);
    assert_up_changes_nothing(&lab, 4);

    let next = release(&lab, "v1.37.0+k3s1");
    let to = next.to_str().unwrap();
    let far = release(&lab, "v1.38.0+k3s1");
    let refused = lab.verb(&["upgrade", "--to", far.to_str().unwrap()]);
    assert_eq!(refused.status.code(), Some(6), "{}", shown(&refused));
    let unknown = lab.verb(&["upgrade", "--to", "newest"]);
    assert_eq!(unknown.status.code(), Some(5), "{}", shown(&unknown));
    let said = lab.verb_ok(&["upgrade", "--to", to]);
    assert!(said.contains("Say so in the inventory, too"), "{said}");
    assert_eq!(versions(&lab, 3, 4), vec!["v1.37.0+k3s1"; 4]);
    let state = cluster(&lab);
    assert_eq!(state["drained"], serde_json::json!(["agent1"]), "servers are not drained");
    assert_eq!(state["nodes"]["agent1"]["spec"]["unschedulable"], false);
    let bin = |file: &str| lab.host_dir("server1").join("usr/local/bin").join(file);
    let same = |file: &str, other: &Path| {
        assert_eq!(std::fs::read(bin(file)).unwrap(), std::fs::read(other).unwrap(), "{file}");
    };
    same("k3s", &next);
    same("k3s.previous", Path::new(FAKE));
    assert!(!bin("k3s.upgrading").exists());
    lab.replace_in_inventory(FAKE, to);
    assert_up_changes_nothing(&lab, 4);

    lab.verb_ok(&["replace", "server2"]);
    versions(&lab, 3, 4);
    lab.verb_ok(&["replace", "agent1"]);
    versions(&lab, 3, 4);
    assert_up_changes_nothing(&lab, 4);
    lab.lab("kill", "server3");
    let said = lab.verb_ok(&["remove", "server3"]);
    assert!(said.contains("server3: {ansible_host"), "{said}");
    versions(&lab, 2, 3);
    let state = cluster(&lab);
    assert!(state["nodes"]["server3"].is_null() && state["passwords"]["server3"].is_null());
}
