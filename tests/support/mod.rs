//! A lab of its own for each test: directories, addresses and the real binary.

#![allow(
    dead_code,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stderr,
    clippy::unwrap_used,
    missing_docs,
    unreachable_pub,
    reason = "each test binary uses a part of it; a test fails by panicking and tells by printing"
)]

pub mod build;
pub mod cluster;
pub mod drill;
pub mod etcd;
pub mod k3s;
pub mod member;
pub mod namespace;
pub mod s3;
pub mod seed;
pub mod server;
pub mod sshd;
pub mod store;
pub mod trio;

use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use k3sup_rs::rpc::client::TlsFiles;
use serde_json::Value as Json;

/// The binary under test.
pub const BINARY: &str = env!("CARGO_BIN_EXE_k3sup-rs");

/// A lab with its own state directories and its own loopback network; removed when dropped.
pub struct Lab {
    /// Holds every file of the test.
    pub dir: tempfile::TempDir,
    /// First three octets of all addresses.
    pub net: String,
    /// Name of the cluster and of the lab.
    pub name: String,
    /// The inventory.
    pub inventory: PathBuf,
}

impl Lab {
    /// A lab with `servers` and `agents` on `127.<net>.0/24`. Tests that run at the same time need
    /// different `net`s.
    pub fn new(net: &str, servers: usize, agents: usize) -> Self {
        let dir = tempfile::tempdir().expect("temporary directory");
        let name = format!("lab{}", net.replace('.', "-"));
        let net = format!("127.{net}");
        let inventory = dir.path().join("inventory.yaml");
        std::fs::write(&inventory, inventory_text(&name, &net, servers, agents))
            .expect("inventory");
        Self { dir, net, name, inventory }
    }

    /// Starts a verb and kills it after `delay`; true when it was over before that, and well. Only the verb
    /// itself is killed: what it started on hosts is on its own, as on real ones.
    #[track_caller]
    pub fn killed_after(&self, args: &[&str], delay: Duration) -> bool {
        let said = self.dir.path().join("killed.log");
        let log = std::fs::File::create(&said).expect("a log");
        let args = [args, &["-i", self.inventory_path(), "--yes"]].concat();
        let mut command = self.command(args);
        let command = command.stdout(log.try_clone().expect("a log")).stderr(log);
        let mut child = command.spawn().expect("it starts");
        let until = Instant::now() + delay;
        while Instant::now() < until {
            if let Some(status) = child.try_wait().expect("its state") {
                let said = std::fs::read_to_string(&said).expect("what it said");
                assert!(status.success(), "{status} after an earlier kill: {said}");
                return true;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        child.kill().expect("it is killed");
        child.wait().expect("it is gone");
        false
    }

    /// Starts a verb and kills it when it has begun so many steps; true unless it was over before that, and
    /// well.
    #[track_caller]
    pub fn killed_at_step(&self, args: &[&str], steps: usize) -> bool {
        let mut command = self.command(args);
        let command = command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("it starts");
        let out = BufReader::new(child.stdout.take().expect("its output"));
        let (mut seen, mut said) = (0, String::new());
        for line in out.lines() {
            let line = line.expect("a line");
            // Its own steps, and those of the playbooks in it.
            seen += usize::from(line.starts_with("* ") || line.contains("changed"));
            said.push_str(&line);
            said.push('\n');
            if seen >= steps {
                child.kill().expect("it is killed");
                child.wait().expect("it is gone");
                return true;
            }
        }
        let output = child.wait_with_output().expect("it ends");
        assert!(output.status.success(), "after an earlier kill: {said}\n{}", shown(&output));
        false
    }

    /// Adds variables of all hosts to the inventory.
    pub fn say(&self, vars: &str) {
        self.replace_in_inventory("  vars:\n", &format!("  vars:\n{vars}"));
    }

    /// Changes what the inventory has, which it must have.
    #[track_caller]
    pub fn replace_in_inventory(&self, from: &str, to: &str) {
        let text = std::fs::read_to_string(&self.inventory).expect("the inventory");
        assert!(text.contains(from), "{text}");
        std::fs::write(&self.inventory, text.replace(from, to)).expect("the inventory");
    }

    /// The binary with this lab's directories in its environment. It runs in the lab's own directory,
    /// where no playbook on disk takes the place of a built-in one.
    pub fn command<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Command {
        let mut command = Command::new(BINARY);
        command
            .args(args)
            .current_dir(self.dir.path())
            .env("K3SUP_LAB_DIR", self.dir.path().join("labs"))
            .env("XDG_CONFIG_HOME", self.dir.path().join("config"))
            .env("XDG_STATE_HOME", self.dir.path().join("state"))
            .env("XDG_CACHE_HOME", self.dir.path().join("cache"))
            .env("NO_COLOR", "1")
            .stdin(Stdio::null());
        command
    }

    /// Runs it to its end.
    pub fn run<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Output {
        self.command(args).output().expect("the binary runs")
    }

    /// Runs it, shows its output when it fails, and gives its standard output.
    #[track_caller]
    pub fn ok<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> String {
        let output = self.run(args);
        assert!(output.status.success(), "{}", shown(&output));
        String::from_utf8(output.stdout).expect("UTF-8")
    }

    /// `VERB -i INVENTORY --yes …`.
    pub fn args<'a>(&'a self, verb: &'a str, more: &[&'a str]) -> Vec<&'a str> {
        [&[verb, "-i", self.inventory_path(), "--yes"], more].concat()
    }

    /// Runs a verb that must be refused with this code; gives what it said.
    #[track_caller]
    pub fn refused(&self, verb: &str, more: &[&str], code: i32) -> String {
        let output = self.run(self.args(verb, more));
        assert_eq!(output.status.code(), Some(code), "{}", shown(&output));
        shown(&output)
    }

    /// Runs a verb, and what comes with it, on this lab's inventory.
    pub fn verb(&self, args: &[&str]) -> Output {
        self.run([args, &["-i", self.inventory_path(), "--yes"]].concat())
    }

    /// The same; it must go well. Gives its standard output.
    #[track_caller]
    pub fn verb_ok(&self, args: &[&str]) -> String {
        self.ok([args, &["-i", self.inventory_path(), "--yes"]].concat())
    }

    /// `up` with this lab's inventory and more arguments.
    #[track_caller]
    pub fn up(&self, more: &[&str]) -> String {
        self.ok(self.args("up", more))
    }

    /// The inventory's path as text.
    pub fn inventory_path(&self) -> &str {
        self.inventory.to_str().expect("UTF-8 path")
    }

    /// `lab VERB NAME`.
    #[track_caller]
    pub fn lab(&self, verb: &str, host: &str) -> String {
        self.ok(["lab", verb, host])
    }

    /// `status --output json`; `None` when no server answers.
    pub fn status(&self) -> Option<Json> {
        let output = self.run(["status", "-i", self.inventory_path(), "--output", "json"]);
        serde_json::from_slice(&output.stdout).ok()
    }

    /// The same, once a server answers.
    #[track_caller]
    pub fn known_status(&self) -> Json {
        wait_for("a server to answer", || self.status())
    }

    /// The status once it [is whole](is_whole).
    #[track_caller]
    pub fn whole(&self, servers: usize, nodes: usize) -> Json {
        wait_for("healthy voters and ready nodes", || {
            self.status().filter(|status| is_whole(status, servers, nodes))
        })
    }

    /// Address of a server by its number, from 1.
    pub fn server_address(&self, number: usize) -> String {
        format!("{}.{}", self.net, 10 + number)
    }

    /// Where `up` puts the client bundle.
    pub fn bundle(&self) -> PathBuf {
        self.dir.path().join("config/k3sup-rs/clusters").join(&self.name)
    }

    /// What a client of the cluster needs to be believed.
    pub fn tls(&self) -> TlsFiles {
        TlsFiles::in_bundle(&self.bundle())
    }

    /// Where clients ask the servers of these numbers.
    pub fn endpoints(&self, servers: &[usize]) -> Vec<String> {
        servers.iter().map(|n| format!("https://{}:2379", self.server_address(*n))).collect()
    }

    /// A lab host's own directory.
    pub fn host_dir(&self, host: &str) -> PathBuf {
        self.dir.path().join("labs").join(&self.name).join(host)
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.show_logs();
        }
        // Best effort: the test has its result already.
        let _ = self.run(["lab", "rm", "--yes"]);
    }
}

impl Lab {
    /// The last lines of every service's log, for a failed test's output.
    fn show_logs(&self) {
        for log in find_logs(&self.dir.path().join("labs")) {
            let text = std::fs::read_to_string(&log).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            let tail = lines.get(lines.len().saturating_sub(15)..).unwrap_or_default();
            eprintln!("--- {}\n{}", log.display(), tail.join("\n"));
        }
    }
}

fn find_logs(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(dir) else { return Vec::new() };
    let mut logs = Vec::new();
    for path in entries.flatten().map(|entry| entry.path()) {
        if path.is_dir() && !path.is_symlink() {
            logs.extend(find_logs(&path));
        } else if path.extension().is_some_and(|extension| extension == "log") {
            logs.push(path);
        }
    }
    logs
}

fn inventory_text(name: &str, net: &str, servers: usize, agents: usize) -> String {
    let hosts = |kind: &str, base: usize, count: usize| {
        let host = |n| format!("        {kind}{n}: {{ansible_host: {net}.{}}}\n", base + n);
        (1..=count).map(host).collect::<Vec<_>>().concat()
    };
    let servers = hosts("server", 10, servers);
    let agents = match agents {
        0 => String::new(),
        count => format!("    agents:\n      hosts:\n{}", hosts("agent", 20, count)),
    };
    format!(
        "all:\n  vars:\n    cluster_name: {name}\n    ansible_connection: lab\n  children:\n    \
         servers:\n      hosts:\n{servers}{agents}"
    )
}

/// Whether a status tells of `servers` healthy voters, one of whom leads, and of `nodes` ready nodes; and
/// of nobody else.
pub fn is_whole(status: &Json, servers: usize, nodes: usize) -> bool {
    let list = |what: &str| status[what].as_array().cloned().unwrap_or_default();
    let (members, seen) = (list("members"), list("nodes"));
    members.len() == servers
        && members.iter().all(|member| member["voter"] == true && member["healthy"] == true)
        && members.iter().any(|member| member["id"] == status["leader_id"])
        && seen.len() == nodes
        && seen.iter().all(|node| node["ready"] == true)
}

/// The host of the member that leads, by a status that is whole.
#[track_caller]
pub fn leader(status: &Json) -> String {
    let members = status["members"].as_array().expect("members");
    let leads = members.iter().find(|member| member["id"] == status["leader_id"]);
    let name = leads.and_then(|member| member["name"].as_str()).expect("a leader");
    name.rsplit_once('-').map_or(name, |(host, _)| host).to_owned()
}

/// A finished command's output for an assertion's message.
pub fn shown(output: &Output) -> String {
    format!(
        "{}\n--- stdout\n{}\n--- stderr\n{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// Waits until `condition` gives something, and fails with `what` when it takes absurdly long. The
/// limit only ends a hopeless wait; nothing is measured.
#[track_caller]
pub fn wait_for<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(started.elapsed() < Duration::from_secs(300), "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(100));
    }
}
