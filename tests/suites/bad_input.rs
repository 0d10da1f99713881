//! Broken and hostile input ends in a clear error: what a person reads, the exit code as documented
//! in docs/exit-codes.md, and nothing changed.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use crate::support::{BINARY, Lab, shown};

/// A directory to work in, which is also home.
struct Desk(tempfile::TempDir);

impl Desk {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.0.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    fn run(&self, args: &[&str]) -> Output {
        let home = self.0.path();
        Command::new(BINARY)
            .args(args)
            .current_dir(home)
            .env("HOME", home)
            .env("USER", "tester")
            .env_remove("SSH_AUTH_SOCK")
            .env("K3SUP_LAB_DIR", home.join("labs"))
            .env("XDG_CONFIG_HOME", home.join("config"))
            .env("XDG_STATE_HOME", home.join("state"))
            .env("XDG_CACHE_HOME", home.join("cache"))
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    /// Runs it, wants this exit code and these lines on standard error, and nothing made or changed.
    #[track_caller]
    fn refuses(&self, args: &[&str], code: i32, lines: &[&str]) {
        let before = listing(self.0.path());
        let output = self.run(args);
        assert_eq!(output.status.code(), Some(code), "{}", shown(&output));
        let said = String::from_utf8_lossy(&output.stderr);
        for line in lines {
            assert!(said.contains(line), "{line:?} is missing\n{}", shown(&output));
        }
        assert_eq!(listing(self.0.path()), before, "{}", shown(&output));
    }
}

/// All paths below `dir`, in order.
fn listing(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut waiting = vec![dir.to_owned()];
    while let Some(next) = waiting.pop() {
        let Ok(entries) = std::fs::read_dir(&next) else { continue };
        for path in entries.map(|entry| entry.unwrap().path()) {
            if path.is_dir() && !path.is_symlink() {
                waiting.push(path.clone());
            }
            found.push(path);
        }
    }
    found.sort();
    found
}

const UP: &[&str] = &["up", "-i", "inv.yaml", "--yes"];

/// An inventory with these lines of variables and groups.
fn inventory(vars: &str, groups: &str) -> String {
    format!("all:\n  vars: {{cluster_name: x, ansible_connection: lab{vars}}}\n{groups}")
}

const SERVERS: &str = "  children:\n    servers:\n      hosts:\n";

#[test]
fn broken_inventories_are_refused_with_file_line_and_column() {
    let one = "        server1: {ansible_host: 127.78.90.11}\n";
    let cases = [
        (
            inventory("", &format!("{SERVERS}{one}{one}")),
            "inv.yaml:7:9: duplicate key `server1`, first given on line 6",
        ),
        (
            inventory(", cluster_name: y", &format!("{SERVERS}{one}")),
            "inv.yaml:2:52: duplicate key `cluster_name`",
        ),
        (
            inventory(", distribution: k4s", &format!("{SERVERS}{one}")),
            "inv.yaml:2:52: unknown distribution `k4s`",
        ),
        (
            inventory("", &format!("{SERVERS}{one}    agents:\n      hosts:\n        server1:\n")),
            "inv.yaml:6:9: host `server1` is in two roles: servers and agents",
        ),
        (
            inventory("", &format!("{SERVERS}        {{}}\n")),
            "inv.yaml:4:5: the group of servers has no hosts",
        ),
        (
            inventory(
                "",
                "  children:\n    agents:\n      hosts:\n        agent1: {ansible_host: 127.78.90.21}\n",
            ),
            "inv.yaml:6:9: no host is in the group `servers`",
        ),
        (
            inventory("", &format!("{SERVERS}        server[3:1]:\n")),
            "inv.yaml:6:15: bad range in `server[3:1]`",
        ),
        (
            inventory(
                "",
                &format!("{SERVERS}{one}        server2: {{ansible_host: 127.78.90.11}}\n"),
            ),
            "inv.yaml:7:19: host `server2` has the address and port 127.78.90.11 of `server1` on line 6",
        ),
        (String::new(), "the inventory has no hosts"),
        ("all: {\n  vars: [\n : :\n".to_owned(), "inv.yaml:4:1: "),
        ("\u{7f}ELF".to_owned(), "inv.yaml:1:1: "),
    ];
    for (text, line) in cases {
        let desk = Desk::new();
        desk.write("inv.yaml", &text);
        desk.refuses(UP, 5, &[line]);
    }
    Desk::new().refuses(
        UP,
        5,
        &["inv.yaml:1:1: cannot be read: No such file", "-i inventories/lab.yaml"],
    );
}

#[test]
fn all_that_is_wrong_with_an_inventory_is_said_at_once() {
    let desk = Desk::new();
    let hosts = "        server1: {ansible_host: 127.78.90.11}\n        server1: {ansible_host: 127.78.90.12}\n        server[3:1]:\n";
    desk.write("inv.yaml", &inventory(", distribution: k4s", &format!("{SERVERS}{hosts}")));
    let lines = ["2:52: unknown distribution", "7:9: duplicate key `server1`", "8:15: bad range"];
    desk.refuses(UP, 5, &lines);
}

#[test]
fn broken_playbooks_are_refused_with_file_line_and_column_all_at_once() {
    let desk = Desk::new();
    let one = "        server1: {ansible_host: 127.78.90.11}\n";
    desk.write("inv.yaml", &inventory("", &format!("{SERVERS}{one}")));
    desk.write(
        "pb/site.yml",
        "- name: a\n  hosts: servers\n  tsks: []\n  tasks:\n    - comand: ls\n    - file: {path: /x, mod: '1'}\n    \
         - debug:\n        msg: \"{{ 1 + }}\"\n    - debug: {msg: x}\n      when: a and\n    \
         - name: b\n      name: c\n      debug:\n",
    );
    let lines = [
        "site.yml:3:3: unknown keyword of a play `tsks` (did you mean `tasks`?)",
        "site.yml:5:7: unknown module or keyword `comand` (did you mean `command`?)",
        "site.yml:6:24: unknown argument of file `mod` (did you mean `mode`?)",
        "site.yml:8:14: bad template: syntax error",
        "site.yml:10:13: bad condition: syntax error",
        "site.yml:12:7: duplicate key `name`, first given on line 11",
    ];
    let args = [UP, &["--playbook-dir", "pb"]].concat();
    desk.refuses(&args, 5, &lines);

    desk.write(
        "pb/site.yml",
        "- name: a\n  hosts: nosuch\n  tasks:\n    - template: {src: no.j2, dest: /x}\n",
    );
    let lines = [
        "site.yml:2:10: no host or group matches `nosuch`",
        "site.yml:4:7: there is no templates/no.j2",
    ];
    desk.refuses(&args, 5, &lines);
    desk.refuses(
        &[UP, &["--limit", "nobody"]].concat(),
        5,
        &["--limit: no host or group matches `nobody`"],
    );
}

#[test]
fn a_nodes_broken_configuration_is_refused_by_name() {
    let desk = Desk::new();
    desk.write("c.yaml", "cluster-init: true\nnode-nam: x\nflannel-backend: none\n");
    let server = ["server", "--data-dir", "data", "--config", "c.yaml"];
    let lines = [
        "c.yaml:2:1: unknown key `node-nam` (did you mean `node-name`?)",
        "c.yaml:3:1: --flannel-backend is a K3s flag that this node does not have",
    ];
    desk.refuses(&server, 5, &lines);
    desk.write("c.yaml", "cluster-init: true\nhttps-listen-port: many\n");
    desk.refuses(&server, 5, &["https-listen-port"]);
    desk.write("c.yaml", "a: [\n");
    desk.refuses(&server, 5, &["c.yaml:2:1: "]);
    desk.refuses(
        &["server", "--data-dir", "data", "--config", "none.yaml"],
        5,
        &["none.yaml:1:1: cannot be read"],
    );
}

#[test]
fn a_host_where_nothing_answers_is_unreachable() {
    let desk = Desk::new();
    let text = "all:\n  vars: {cluster_name: x}\n  children:\n    servers:\n      hosts:\n        \
                server1: {ansible_host: 127.78.90.31, ansible_port: 9}\n";
    desk.write("inv.yaml", text);
    let output = desk.run(UP);
    assert_eq!(output.status.code(), Some(4), "{}", shown(&output));
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("cannot connect to 127.78.90.31:9"), "{}", shown(&output));

    // Takes connections and says nothing, as behind a firewall that swallows.
    let silent = TcpListener::bind("127.78.90.32:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    let text = format!(
        "all:\n  vars: {{cluster_name: x, ansible_ssh_timeout: 1}}\n  children:\n    servers:\n      hosts:\n        \
         server1: {{ansible_host: 127.78.90.32, ansible_port: {port}}}\n"
    );
    desk.write("inv.yaml", &text);
    let output = desk.run(UP);
    assert_eq!(output.status.code(), Some(4), "{}", shown(&output));
}

/// Nothing of a node is on any host of the lab.
#[track_caller]
fn untouched(lab: &Lab, hosts: &[&str]) {
    for host in hosts {
        for path in ["etc/k3sup", "var/lib/k3sup", "usr/local/bin/k3sup-rs"] {
            assert!(!lab.host_dir(host).join(path).exists(), "{host}: {path}");
        }
    }
}

#[test]
fn a_taken_port_is_named_before_any_host_is_changed() {
    let lab = Lab::new("78.91", 3, 1);
    let taken = TcpListener::bind((lab.server_address(2), 2380)).unwrap();
    let output = lab.run(["up", "-i", lab.inventory_path(), "--yes"]);
    assert_eq!(output.status.code(), Some(2), "{}", shown(&output));
    let said = String::from_utf8_lossy(&output.stderr);
    let who = format!("(pid {})", std::process::id());
    let line = said.lines().find(|line| line.starts_with("error: server2: port 2380 is taken by "));
    assert!(line.is_some_and(|line| line.ends_with(&who)), "{}", shown(&output));
    untouched(&lab, &["server1", "server2", "server3", "agent1"]);
    drop(taken);
}

/// A small file system over a directory, unmounted with the test.
struct Mount(PathBuf);

impl Mount {
    /// `None` when this user may not mount.
    fn over(dir: &Path, options: &str) -> Option<Self> {
        std::fs::create_dir_all(dir).unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", options, "tmpfs"])
            .arg(dir)
            .stderr(Stdio::null())
            .status();
        mounted.is_ok_and(|status| status.success()).then(|| Self(dir.to_owned()))
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // Lazily: a lab host that is on its way down may still have files open.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_full_and_a_read_only_disk_are_named_before_any_host_is_changed() {
    let lab = Lab::new("78.92", 3, 0);
    let small = Mount::over(&lab.host_dir("server1").join("var/lib"), "size=8m");
    let locked = Mount::over(&lab.host_dir("server3").join("etc/k3sup"), "size=8m,ro");
    if small.is_none() || locked.is_none() {
        println!("SKIPPED: only root may mount");
        return;
    }
    let output = lab.run(["up", "-i", lab.inventory_path(), "--yes"]);
    assert_eq!(output.status.code(), Some(2), "{}", shown(&output));
    let said = String::from_utf8_lossy(&output.stderr);
    let full = "var/lib/k3sup needs 128 MiB of space, 8 MiB are free";
    assert!(said.contains("server1: ") && said.contains(full), "{}", shown(&output));
    assert!(said.contains("is on a read-only file system"), "{}", shown(&output));
    assert!(!said.contains("server2"), "{}", shown(&output));
    untouched(&lab, &["server2"]);
    assert!(!lab.host_dir("server1").join("etc/k3sup").exists());
}
