//! The failure drill: it measures, loses nothing, puts back what it stopped, also when it is
//! interrupted or killed.

use crate::support;
use std::process::Stdio;

use crate::support::drill::verdict;
use crate::support::store::Store;
use crate::support::{Lab, shown, wait_for};
use rustix::process::{Pid, Signal};
use serde_json::Value as Json;

#[test]
fn the_drill_measures_loses_nothing_and_puts_all_back() {
    let lab = Lab::new("85.4", 3, 0);
    lab.up(&[]);
    let args = ["verify", "-i", lab.inventory_path(), "--seconds", "1"];
    let check = lab.run([&args[..], &["--check"]].concat());
    assert_eq!(check.status.code(), Some(7), "{}", shown(&check));
    // An election of its own may have made another one lead meanwhile.
    let drill = || verdict(&lab.ok([&args[..], &["--output", "json"]].concat()));
    let met_last = |told: &Json| told["failures"][5]["led"] == true;
    let told = (0..3).map(|_| drill()).find(met_last).expect("the leader is met last");
    let rows = told["failures"].as_array().unwrap();
    let kinds: Vec<&str> = rows.iter().map(|row| row["failure"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["stopped", "stopped", "stopped", "killed", "killed", "killed"], "{told:#}");
    assert!(
        rows.iter().all(|row| row["outage_ms"].is_u64() && row["back_ms"].is_u64()),
        "{told:#}"
    );
    assert!(rows.iter().all(|row| row["writes"].as_u64() > Some(0)), "{told:#}");
    assert!(told["acknowledged"].as_u64() > Some(0));
    assert_eq!(told["lost"], Json::Array(Vec::new()));
    lab.whole(3, 3);
    let store = Store::of(&lab, &[1, 2, 3]);
    let (_, pairs) = wait_for("a read", || store.all().ok());
    assert!(!pairs.keys().any(|key| key.starts_with("k3sup-verify/")), "markers are left");

    let told = verdict(&lab.ok([&args[..], &["--quorum-loss", "--output", "json"]].concat()));
    let row = &told["failures"][0];
    assert_eq!((&row["failure"], &row["during"]), (&"quorum-lost".into(), &0.into()), "{told:#}");
    assert!(row["retried"].as_u64() > Some(0), "{told:#}");
    assert_eq!(told["lost"], Json::Array(Vec::new()));
    lab.whole(3, 3);
    let text = lab.ok(["runs", "ls"]);
    assert!(text.contains("verify --quorum-loss") && text.contains("   verify   "), "{text}");

    // Interrupted: it puts back by itself. Killed: the next one does.
    for signal in [Signal::INT, Signal::KILL] {
        let args = ["verify", "-i", lab.inventory_path(), "--seconds", "60"];
        let child = lab.command(args).stdout(Stdio::piped()).spawn().unwrap();
        let down = || {
            lab.status().is_none_or(|status| {
                status["members"]
                    .as_array()
                    .is_some_and(|all| all.iter().any(|m| m["healthy"] == false))
            })
        };
        wait_for("a server to be stopped", || down().then_some(()));
        let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
        let ended = child.wait_with_output().unwrap();
        if signal == Signal::INT {
            assert_eq!(ended.status.code(), Some(130), "{}", shown(&ended));
            let text = String::from_utf8_lossy(&ended.stdout);
            assert!(text.contains(" acknowledged, 0 lost"), "{text}");
        } else {
            assert!(!ended.status.success());
            let args = ["verify", "-i", lab.inventory_path(), "--seconds", "1"];
            let text = lab.ok(args);
            assert!(text.contains(" acknowledged, 0 lost"), "{text}");
        }
        lab.whole(3, 3);
    }
    let again = lab.up(&[]);
    assert_eq!(again.matches("changed=0").count(), 3, "{again}");
}

#[test]
fn a_cluster_that_is_no_lab_is_not_drilled_without_asking() {
    let dir = tempfile::tempdir().unwrap();
    let inventory = dir.path().join("inventory.yaml");
    let ended = |vars: &str, more: &[&str]| {
        let text = format!(
            "all:\n  vars: {{cluster_name: prod{vars}}}\n  children:\n    servers:\n      \
             hosts:\n        s1: {{ansible_host: 127.85.5.1}}\n"
        );
        std::fs::write(&inventory, text).unwrap();
        let output = std::process::Command::new(support::BINARY)
            .args(["verify", "-i", inventory.to_str().unwrap()])
            .args(more)
            .envs(
                ["XDG_CONFIG_HOME", "XDG_STATE_HOME", "K3SUP_LAB_DIR"]
                    .map(|name| (name, dir.path())),
            )
            .stdin(Stdio::null())
            .output()
            .unwrap();
        output.status.code()
    };
    let (lab, plain) = (", ansible_connection: lab", ", ansible_connection: local");
    assert_eq!(ended(plain, &[]), Some(9));
    assert_eq!(ended(plain, &["--quorum-loss"]), Some(9));
    assert_eq!(ended(plain, &["--limit", "s1"]), Some(5));
    // Nobody is asked about a lab; this one has no server that runs.
    assert_eq!(ended(lab, &[]), Some(4));
}
