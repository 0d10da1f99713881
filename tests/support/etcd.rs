//! etcd's own programs, as far as this machine has them: `etcdctl` in several versions, and a real
//! `etcd` to compare with.

use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use k3sup_rs::rpc::client::{Client, connect};

use super::wait_for;

/// The flag of every `etcdctl` here: a machine that stands still for seconds is no failure. The variable
/// of this name counts for few of etcd's commands.
pub const COMMAND_TIMEOUT: &str = "--command-timeout=120s";

/// Flags of a member, etcd's or ours, that gives up a call after 25 s, not 7: after 5 and twice the time of an
/// election. For one that is alone, with but its first election to wait for.
pub const SLOW_ELECTIONS: [&str; 2] = ["--election-timeout=10000", "--heartbeat-interval=1000"];

/// Every `etcdctl` to try: those of `K3SUP_TEST_ETCDCTL` (paths with colons between them), else the
/// one in `PATH`. Says that the test is skipped when there is none.
pub fn clients() -> Vec<PathBuf> {
    let given =
        std::env::var_os("K3SUP_TEST_ETCDCTL").map(|list| std::env::split_paths(&list).collect());
    let clients: Vec<PathBuf> = given.unwrap_or_else(|| program("etcdctl").into_iter().collect());
    if clients.is_empty() {
        eprintln!("SKIPPED: no etcdctl in PATH, and K3SUP_TEST_ETCDCTL names none");
    }
    clients
}

/// The real `etcd` to compare with: that beside the last one of `K3SUP_TEST_ETCDCTL`, else the one in
/// `PATH`.
pub fn server() -> Option<PathBuf> {
    let list = std::env::var_os("K3SUP_TEST_ETCDCTL").unwrap_or_default();
    let beside = std::env::split_paths(&list).last().map(|client| client.with_file_name("etcd"));
    beside.filter(|etcd| etcd.is_file()).or_else(|| program("etcd"))
}

/// Where a program is.
fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(name)).find(|file| file.is_file())
}

/// A real etcd with one member, without TLS; ended when dropped.
pub struct Etcd {
    child: Child,
    _dir: tempfile::TempDir,
    /// Where clients reach it.
    pub url: String,
}

impl Etcd {
    /// Starts one on a loopback address. `None`, and a word about it, when there is no etcd here.
    pub fn start(address: &str) -> Option<Self> {
        Self::start_in(tempfile::tempdir().expect("temporary directory"), address)
    }

    /// As [`Self::start`], with its data in `dir`.
    pub fn start_in(dir: tempfile::TempDir, address: &str) -> Option<Self> {
        Self::start_with(dir, address, &[])
    }

    /// As [`Self::start_in`], with further flags.
    pub fn start_with(dir: tempfile::TempDir, address: &str, flags: &[&str]) -> Option<Self> {
        let Some(etcd) = server() else {
            eprintln!("SKIPPED: no etcd here to compare with");
            return None;
        };
        let (url, peer) = (format!("http://{address}:2379"), format!("http://{address}:2380"));
        let log = std::fs::File::create(dir.path().join("log")).expect("log file");
        let child = Command::new(etcd)
            .env_clear()
            .args(["--name", "real", "--initial-cluster", &format!("real={peer}")])
            .args(["--listen-client-urls", &url, "--advertise-client-urls", &url])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .arg("--data-dir")
            .arg(dir.path().join("data"))
            .args(flags)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("log file"))
            .stderr(log)
            .spawn()
            .expect("etcd starts");
        let mut etcd = Self { child, _dir: dir, url };
        wait_for("etcd listens", || {
            assert!(etcd.child.try_wait().expect("etcd's state").is_none(), "etcd ended");
            // Its port is not tried by taking it: it could not have it itself then.
            TcpStream::connect(format!("{address}:2379")).ok()
        });
        Some(etcd)
    }

    /// A client of it.
    pub fn client(&self) -> Client {
        connect(std::slice::from_ref(&self.url), None).expect("a client")
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An `etcdctl` and whom it talks to.
pub struct Ctl {
    /// The program.
    pub program: PathBuf,
    /// Endpoints with commas between them.
    pub endpoints: String,
    /// Directory with `ca.crt`, `client.crt` and `client.key`.
    pub bundle: Option<PathBuf>,
}

impl Ctl {
    /// The client with an environment of its own.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.env_clear().env("ETCDCTL_API", "3").env("ETCDCTL_ENDPOINTS", &self.endpoints);
        // As long as `COMMAND_TIMEOUT`: log-ins count as dialling.
        command.envs([("ETCDCTL_DIAL_TIMEOUT", "120s"), ("ETCDCTL_KEEPALIVE_TIMEOUT", "120s")]);
        // `watch` and `lock` run programs.
        command.envs(std::env::var_os("PATH").map(|path| ("PATH", path)));
        if let Some(bundle) = &self.bundle {
            let file = |name: &str| Path::new(bundle).join(name);
            command
                .env("ETCDCTL_CACERT", file("ca.crt"))
                .env("ETCDCTL_CERT", file("client.crt"))
                .env("ETCDCTL_KEY", file("client.key"));
        }
        command.arg(COMMAND_TIMEOUT).args(args).stdin(Stdio::null());
        command
    }

    /// Runs it to its end.
    pub fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().expect("etcdctl runs")
    }

    /// Runs it, fails when it does, and gives all that it printed.
    #[track_caller]
    pub fn ok(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert!(output.status.success(), "etcdctl {args:?}: {}", super::shown(&output));
        text(&output)
    }

    /// As [`Self::ok`], of what it printed as JSON.
    #[track_caller]
    pub fn json(&self, args: &[&str]) -> serde_json::Value {
        let output = self.run(&[args, &["-w", "json"]].concat());
        assert!(output.status.success(), "etcdctl {args:?}: {}", super::shown(&output));
        serde_json::from_slice(&output.stdout).expect("JSON")
    }

    /// As [`Self::ok`], for what is waited for: `None` when it fails.
    pub fn tried(&self, args: &[&str]) -> Option<String> {
        let output = self.run(args);
        output.status.success().then(|| text(&output))
    }

    /// As [`Self::json`], for what is waited for: `None` when it fails.
    pub fn tried_json(&self, args: &[&str]) -> Option<serde_json::Value> {
        let output = self.run(&[args, &["-w", "json"]].concat());
        serde_json::from_slice(&output.stdout).ok().filter(|_| output.status.success())
    }

    /// Runs it, fails unless it fails, and gives all that it printed.
    #[track_caller]
    pub fn refused(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert!(!output.status.success(), "etcdctl {args:?}: {}", super::shown(&output));
        text(&output)
    }
}

/// Standard output, then standard error.
pub fn text(output: &Output) -> String {
    String::from_utf8_lossy(&[&*output.stdout, &*output.stderr].concat()).into_owned()
}
