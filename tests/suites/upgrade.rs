//! Another version on every host, with real processes and a client that writes all the time: versions
//! side by side work, a binary that does not come up is taken back, and a killed run goes on.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::support::cluster::{Writer, assert_one_cluster};
use crate::support::seed::Random;
use crate::support::store::Store;
use crate::support::{BINARY, Lab, build, shown, wait_for};
use serde_json::Value as Json;

/// How often an upgrade's control machine is killed.
const KILLS: usize = 20;

/// This very program as a build of another version.
fn build(lab: &Lab, version: &str) -> PathBuf {
    let path = lab.dir.path().join(format!("k3sup-rs-{version}"));
    build::of_version(Path::new(BINARY), version, &path);
    path
}

/// A program that says its version and does nothing else.
fn broken(lab: &Lab) -> PathBuf {
    let script = "#!/bin/sh\n# k3sup-rs build 0.2.0;\n[ \"$1\" = version ] && exit 0\nexit 1\n";
    write(&lab.dir.path().join("broken"), script.as_bytes())
}

fn write(path: &Path, bytes: &[u8]) -> PathBuf {
    std::fs::write(path, bytes).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path.to_owned()
}

fn upgrade(lab: &Lab, to: &Path, more: &[&str]) -> std::process::Output {
    let to = to.to_str().unwrap();
    lab.run([&["upgrade", "-i", lab.inventory_path(), "--yes", "--to", to], more].concat())
}

#[track_caller]
fn upgraded(lab: &Lab, to: &Path, more: &[&str]) -> String {
    let output = upgrade(lab, to, more);
    assert!(output.status.success(), "{}", shown(&output));
    String::from_utf8(output.stdout).unwrap()
}

/// The versions of the nodes once all are ready and all members vote and answer.
#[track_caller]
fn versions(lab: &Lab, servers: usize, nodes: usize) -> Vec<(String, String)> {
    let status = lab.whole(servers, nodes);
    let text = |value: &Json| value.as_str().unwrap_or_default().to_owned();
    let nodes = status["nodes"].as_array().unwrap().iter();
    nodes.map(|node| (text(&node["name"]), text(&node["version"]))).collect()
}

/// Waits until all nodes say that they run `version`.
#[track_caller]
fn all_run(lab: &Lab, servers: usize, nodes: usize, version: &str) {
    wait_for("all nodes to say their version", || {
        let seen = versions(lab, servers, nodes);
        seen.iter().all(|(_, runs)| runs == version).then_some(())
    });
}

#[track_caller]
fn assert_good(lab: &Lab, writer: Writer) {
    writer.wait_for_more(5);
    let written = writer.stop();
    assert_one_cluster(lab, &[1, 2, 3]);
    let (_, pairs) = wait_for("a read", || Store::of(lab, &[1, 2, 3]).all().ok());
    written.assert_all_in(&pairs);
}

fn binary(lab: &Lab, host: &str, suffix: &str) -> PathBuf {
    lab.host_dir(host).join(format!("usr/local/bin/k3sup-rs{suffix}"))
}

#[test]
fn versions_live_side_by_side_and_one_follows_the_other() {
    let lab = Lab::new("92.1", 3, 1);
    lab.up(&[]);
    versions(&lab, 3, 4);
    let writer = Writer::start(&lab, &[1, 2, 3], "during-upgrade");
    writer.wait_for_more(5);
    let next = build(&lab, "0.2.0");

    let check = upgrade(&lab, &next, &["--check"]);
    assert_eq!(check.status.code(), Some(7), "{}", shown(&check));
    // One of them first: both versions serve one cluster, and each takes over from the other.
    upgraded(&lab, &next, &["--limit", "server2"]);
    let both = BTreeSet::from(["v0.1.0".to_owned(), "v0.2.0".to_owned()]);
    // A node says its version when it registers, a moment after it is ready.
    wait_for("both versions", || {
        let seen = versions(&lab, 3, 4).into_iter().map(|(_, version)| version);
        (seen.collect::<BTreeSet<_>>() == both).then_some(())
    });
    writer.wait_for_more(20);
    assert_one_cluster(&lab, &[1, 2, 3]);
    let restarted = lab.run(["restart", "-i", lab.inventory_path(), "--yes"]);
    assert!(restarted.status.success(), "{}", shown(&restarted));
    writer.wait_for_more(20);

    let said = upgraded(&lab, &next, &[]);
    assert!(said.contains("The nodes run 0.2.0 now, and this program is 0.1.0"), "{said}");
    all_run(&lab, 3, 4, "v0.2.0");
    for host in ["server1", "server2", "server3", "agent1"] {
        let previous = std::fs::read(binary(&lab, host, ".previous")).unwrap();
        assert_eq!(previous, std::fs::read(BINARY).unwrap(), "{host}");
        assert!(!binary(&lab, host, ".upgrading").exists());
    }
    let again = upgraded(&lab, &next, &[]);
    assert_eq!(again.matches("changed=0").count(), 4, "{again}");
    // An older control machine does not take the newer binary away.
    let up = lab.up(&[]);
    assert_eq!(up.matches("changed=0").count(), 4, "{up}");

    let back = lab.run(["upgrade", "-i", lab.inventory_path(), "--yes"]);
    assert_eq!(back.status.code(), Some(6), "{}", shown(&back));
    let far = upgrade(&lab, &build(&lab, "0.4.0"), &[]);
    assert_eq!(far.status.code(), Some(6), "{}", shown(&far));
    let why = String::from_utf8_lossy(&far.stderr).into_owned();
    assert!(why.contains("more than one minor ahead") && why.contains("0.3 first"), "{why}");
    let stranger = upgrade(&lab, Path::new("/bin/sh"), &[]);
    assert_eq!(stranger.status.code(), Some(5), "{}", shown(&stranger));
    assert_good(&lab, writer);
}

#[test]
fn a_binary_that_does_not_come_up_is_taken_back() {
    let lab = Lab::new("92.2", 3, 0);
    lab.up(&[]);
    versions(&lab, 3, 3);
    let writer = Writer::start(&lab, &[1, 2, 3], "during-failure");
    let output = upgrade(&lab, &broken(&lab), &["-e", "upgrade_timeout=5"]);
    assert_eq!(output.status.code(), Some(2), "{}", shown(&output));
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.contains("does not come up with the new binary"), "{said}");
    all_run(&lab, 3, 3, "v0.1.0");
    let own = std::fs::read(BINARY).unwrap();
    for host in ["server1", "server2", "server3"] {
        assert_eq!(std::fs::read(binary(&lab, host, "")).unwrap(), own, "{host}");
        assert!(!binary(&lab, host, ".upgrading").exists());
    }
    let up = lab.up(&[]);
    assert_eq!(up.matches("changed=0").count(), 3, "{up}");
    assert_good(&lab, writer);
}

#[test]
fn an_upgrade_killed_anywhere_and_run_again_ends_as_if_undisturbed() {
    let mut random = Random::new();
    let lab = Lab::new("92.3", 3, 0);
    lab.up(&[]);
    versions(&lab, 3, 3);
    let writer = Writer::start(&lab, &[1, 2, 3], "during-kills");
    // Two builds of one version: each round goes to the other one.
    let builds = [build(&lab, "0.2.0"), {
        let mut bytes = std::fs::read(build(&lab, "0.2.0")).unwrap();
        bytes.extend_from_slice(b"another build");
        write(&lab.dir.path().join("k3sup-rs-another"), &bytes)
    }];
    let started = Instant::now();
    upgraded(&lab, &builds[0], &[]);
    let whole_run = started.elapsed();
    let (mut kills, mut round) = (0, 0);
    while kills < KILLS {
        round += 1;
        let to = &builds[round % 2];
        let mut over = false;
        while kills < KILLS && !over {
            over = lab.killed_after(
                &["upgrade", "--to", to.to_str().unwrap()],
                random.upto(whole_run / 2),
            );
            kills += usize::from(!over);
        }
        if !over {
            upgraded(&lab, to, &[]);
        }
        all_run(&lab, 3, 3, "v0.2.0");
        for host in ["server1", "server2", "server3"] {
            let runs = std::fs::read(binary(&lab, host, "")).unwrap();
            assert!(runs == std::fs::read(to).unwrap(), "{host} has another binary");
            assert!(!binary(&lab, host, ".upgrading").exists());
        }
    }
    assert_good(&lab, writer);
}
