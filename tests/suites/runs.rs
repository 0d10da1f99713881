//! The journal of runs, and two operators at once, with real processes.

use std::process::{Child, Stdio};

use crate::support::{Lab, shown, wait_for};
use serde_json::Value as Json;

/// A playbook that changes something, and then takes its time.
const SLOW: &str = "\
- hosts: servers
  tasks:
    - name: Mark
      command: {argv: ['true']}
    - name: Take a while
      pause: {seconds: 600}
";

/// A process that is killed when the test is over.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        // It may be over already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn runs(lab: &Lab) -> Vec<Json> {
    serde_json::from_str(&lab.ok(["runs", "ls", "--output", "json"])).unwrap()
}

#[test]
fn the_second_operator_is_told_who_works_and_what_died_is_seen() {
    let lab = Lab::new("85.1", 1, 0);
    assert!(runs(&lab).is_empty());
    lab.up(&[]);
    let made = runs(&lab);
    assert_eq!(made.len(), 1, "{made:#?}");
    assert_eq!((&made[0]["what"], &made[0]["outcome"]), (&"up".into(), &"ok".into()));
    assert_eq!(made[0]["inventory"], lab.inventory_path());
    assert_eq!(made[0]["cluster"], lab.name.as_str());
    assert!(made[0]["by"].as_str().unwrap().contains(" pid "));

    let slow = lab.dir.path().join("slow.yml");
    std::fs::write(&slow, SLOW).unwrap();
    let first = lab
        .command(["play", slow.to_str().unwrap(), "-i", lab.inventory_path()])
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let pid = first.id();
    let mut first = Killed(first);
    let lock = lab.host_dir("server1").join("run/k3sup-rs/lock");
    wait_for("the first operator to take the lock", || lock.exists().then_some(()));

    let save = lab.run(["snapshot", "save", "-i", lab.inventory_path()]);
    assert_eq!(save.status.code(), Some(8), "{}", shown(&save));
    assert!(String::from_utf8_lossy(&save.stderr).contains("--break-lock"), "{}", shown(&save));
    assert_eq!(
        (&runs(&lab)[0]["what"], &runs(&lab)[0]["exit"]),
        (&"snapshot save".into(), &8.into())
    );

    let second = lab.run(["reset", "-i", lab.inventory_path(), "--yes"]);
    assert_eq!(second.status.code(), Some(8), "{}", shown(&second));
    let told = String::from_utf8_lossy(&second.stderr).into_owned();
    for part in [&format!("pid {pid} for `play slow.yml` since 2"), "ago)", "--break-lock"] {
        assert!(told.contains(part), "{part}: {told}");
    }
    let made = runs(&lab);
    assert_eq!(made[0]["what"], "reset");
    assert_eq!((&made[0]["outcome"], &made[0]["exit"]), (&"failed".into(), &8.into()));
    assert!(made[0]["message"].as_str().unwrap().contains("is held by"), "{made:#?}");
    assert_eq!(
        (&made[2]["what"], &made[2]["outcome"]),
        (&"play slow.yml".into(), &"running".into())
    );

    first.0.kill().unwrap();
    first.0.wait().unwrap();
    let made = runs(&lab);
    assert_eq!(made[2]["outcome"], "died");
    let id = made[2]["id"].as_str().unwrap();
    let story = lab.ok(["runs", "show", id]);
    for part in
        ["result     died", "TASK [Mark]", "changed: [server1]", "k3sup-rs play slow.yml -i"]
    {
        assert!(story.contains(part), "{part}: {story}");
    }
    // Its lock is of a process that is gone: nobody waits for it.
    lab.up(&[]);
    assert_eq!(runs(&lab)[0]["outcome"], "ok");
    let table = lab.ok(["runs", "ls", "--limit", "2"]);
    assert_eq!(table.lines().count(), 3, "{table}");
    let story: Json =
        serde_json::from_str(&lab.ok(["runs", "show", "last", "--output", "json"])).unwrap();
    assert_eq!(story["what"], "up");
    assert!(story["events"].as_array().unwrap().len() > 3);
    let unknown = lab.run(["runs", "show", "nothing"]);
    assert_eq!(unknown.status.code(), Some(5), "{}", shown(&unknown));
}
