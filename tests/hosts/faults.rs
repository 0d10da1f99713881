//! What goes wrong on real hosts: refused by name, nothing half done, and mended by the next run.

use std::process::Output;

use crate::fleet::{Fleet, Wanted};
use crate::machines::Login;
use crate::support::{shown, wait_for};

const HOSTS: [Wanted; 2] = [("server1", 11, Login::Root), ("agent1", 21, Login::Password)];

/// Where `agent1` keeps what is pushed to it.
const CACHE: &str = "home/ops/.cache/k3sup-rs";

fn up(fleet: &Fleet, more: &[&str]) -> Output {
    fleet.run(&[&["up", "-i", &fleet.inventory(), "--yes"], more].concat())
}

/// `up` must end with `code` and say all of `words`.
#[track_caller]
fn refused(output: &Output, code: i32, words: &[&str]) {
    assert_eq!(output.status.code(), Some(code), "{}", shown(output));
    let text = shown(output);
    for word in words {
        assert!(text.contains(word), "no {word:?} in {text}");
    }
}

#[test]
fn what_goes_wrong_is_named_and_mended() {
    let Some(mut fleet) = Fleet::boot(&HOSTS) else { return };
    fleet.groups.insert("servers", vec!["server1".to_owned()]);
    fleet.groups.insert("agents", vec!["agent1".to_owned()]);
    wrong_machines(&fleet);
    wrong_password(&mut fleet);
    full_disks(&fleet);
    taken_port(&fleet);
    pulled_cable(&fleet);
    changed_key(&fleet);
    let last = fleet.ok("up", &["--yes"]);
    assert_eq!(last.matches("changed=0 ").count(), 2, "{last}");
}

/// A host of another machine type, and one with an old C library, get nothing pushed.
fn wrong_machines(fleet: &Fleet) {
    let pretend = |program: &str, says: &str| {
        let path = format!("/usr/local/bin/{program}");
        fleet.on(
            "agent1",
            &format!("printf '#!/bin/sh\\necho {says}\\n' > {path}; chmod 755 {path}"),
        );
        let output = up(fleet, &["--limit", "agent1"]);
        fleet.on("agent1", &format!("rm {path}"));
        output
    };
    refused(&pretend("uname", "riscv64"), 4, &["agent1 is riscv64", ".ci/dist riscv64"]);
    refused(&pretend("getconf", "glibc 2.5"), 4, &["agent1 is", "with glibc 2.5", "needs glibc"]);
    assert!(!fleet.machine("agent1").root.join(CACHE).exists(), "something was pushed");
}

/// sudo is asked once, and nothing is changed.
fn wrong_password(fleet: &mut Fleet) {
    let right = std::mem::replace(&mut fleet.network.password, "not this one".to_owned());
    let output = up(fleet, &["--limit", "agent1"]);
    fleet.network.password = right;
    refused(&output, 2, &["sudo does not accept the password"]);
    let count = "journalctl --sync && journalctl -q -o cat | grep -c 'authentication failure'";
    let asked = fleet.on("agent1", count);
    assert_eq!(asked, "1");
    assert!(!fleet.machine("agent1").root.join("etc/k3sup").exists());
}

/// No room for the executor, then none for the node's binary.
fn full_disks(fleet: &Fleet) {
    let cache = format!("/{CACHE}");
    fleet.on(
        "agent1",
        &format!("rm -rf {cache} && mkdir {cache} && mount -t tmpfs -o size=1m,mode=700,uid=$(id -u ops) tmpfs {cache}"),
    );
    let output = up(fleet, &["--limit", "agent1"]);
    fleet.on("agent1", &format!("umount {cache}"));
    refused(&output, 4, &["no space left on the host"]);
    fleet.on("server1", "mount -t tmpfs -o size=1m tmpfs /usr/local/bin");
    let output = up(fleet, &["--limit", "server1"]);
    assert_eq!(fleet.on("server1", "ls -A /usr/local/bin"), "", "a part of it is left");
    fleet.on("server1", "umount /usr/local/bin");
    refused(&output, 2, &["server1", "/usr/local/bin/k3sup-rs", "of space"]);
}

/// Another program has the port.
fn taken_port(fleet: &Fleet) {
    fleet.on("server1", "systemd-run -q --unit=thief systemd-socket-activate --accept -l 2379 cat");
    let output = up(fleet, &[]);
    fleet.on("server1", "systemctl stop thief");
    refused(&output, 2, &["server1: port 2379 is taken by"]);
    fleet.ok("up", &["--yes"]);
    fleet.wait_ready(2);
}

/// A host whose cable is pulled is unreachable, the other one is looked at all the same.
fn pulled_cable(fleet: &Fleet) {
    let agent = fleet.machine("agent1");
    fleet.network.cable(agent, false);
    let output = up(fleet, &[]);
    fleet.network.cable(agent, true);
    refused(&output, 4, &["agent1", "ok: [server1]"]);
    wait_for("agent1 to be reached again", || {
        fleet.network.on(agent, "true").status.success().then_some(())
    });
    fleet.wait_ready(2);
}

/// A host with another key than before is refused; the other host is looked at all the same.
fn changed_key(fleet: &Fleet) {
    fleet.on(
        "agent1",
        "cd /etc/ssh && mkdir was && mv ssh_host_* was/ && ssh-keygen -q -t ed25519 -N '' -f ssh_host_ed25519_key && systemctl restart ssh",
    );
    let output = up(fleet, &[]);
    fleet.on(
        "agent1",
        "cd /etc/ssh && rm ssh_host_* && mv was/* . && rmdir was && systemctl restart ssh",
    );
    refused(&output, 4, &["agent1", "key", "SHA256:", "ok: [server1]"]);
}
