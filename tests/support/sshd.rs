//! A real `sshd` on loopback with keys of its own, ended with the test.

use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use k3sup_rs::remote::hostkey::{HostKeyMode, HostKeys};
use k3sup_rs::remote::ssh::keys::KeyRing;
use k3sup_rs::remote::{
    Become, ConnectOptions, Connection, Executor, RemoteError, Session, SshTarget, Target, connect,
};
use russh::keys::ssh_key::LineEnding;
use russh::keys::{Algorithm, PrivateKey};

pub fn key(algorithm: Algorithm) -> PrivateKey {
    PrivateKey::random(&mut rand::rng(), algorithm).unwrap()
}

/// The public half as a line of `known_hosts` has it.
pub fn public(key: &PrivateKey) -> String {
    let text = key.public_key().to_openssh().unwrap();
    text.split(' ').take(2).collect::<Vec<_>>().join(" ")
}

/// Writes both halves.
pub fn save(key: &PrivateKey, path: &Path) {
    std::fs::write(path, key.to_openssh(LineEnding::LF).unwrap().as_bytes()).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
    let mut half = path.as_os_str().to_owned();
    half.push(".pub");
    std::fs::write(half, public(key)).unwrap();
}

/// Where a program is; says that the test is skipped when it is nowhere.
pub fn installed(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let more = ["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from);
    let found = std::env::split_paths(&path).chain(more).find(|dir| dir.join(program).is_file());
    if found.is_none() {
        eprintln!("SKIPPED: {program} is not installed");
    }
    found.map(|dir| dir.join(program))
}

/// A server that lets `client_key` in.
pub struct Sshd {
    pub dir: tempfile::TempDir,
    process: Child,
    pub port: u16,
}

impl Sshd {
    /// Listens on 127.0.0.1; `more` is added to its configuration, with `DIR` for its directory.
    pub fn start(more: &str) -> Option<Self> {
        let client = key(Algorithm::Ed25519);
        Self::with(more, "127.0.0.1", &client, |_| {})
    }

    /// Listens on `address` and lets `client` in; `prepare` is given its directory with the host
    /// key in it.
    pub fn with(
        more: &str,
        address: &str,
        client: &PrivateKey,
        prepare: impl FnOnce(&Path),
    ) -> Option<Self> {
        let program = installed("sshd")?;
        let dir = tempfile::tempdir().unwrap();
        // sshd asks that nobody else may write on the way to its files.
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        // Its own place for privilege separation, which root needs.
        if program.starts_with("/usr") && rustix::process::geteuid().is_root() {
            std::fs::create_dir_all("/run/sshd").unwrap();
        }
        let free = std::net::TcpListener::bind((address, 0)).ok();
        let Some(free) = free else {
            eprintln!("SKIPPED: this machine has no address {address}");
            return None;
        };
        let port = free.local_addr().unwrap().port();
        drop(free);
        save(&key(Algorithm::Ed25519), &dir.path().join("host_key"));
        save(client, &dir.path().join("client_key"));
        std::fs::write(dir.path().join("authorized"), public(client)).unwrap();
        prepare(dir.path());
        let at = dir.path().display().to_string();
        let config = format!(
            "Port {port}\nListenAddress {address}\nHostKey {at}/host_key\nPidFile none\n\
             AuthorizedKeysFile {at}/authorized\nStrictModes no\nUsePAM no\n\
             PasswordAuthentication no\nPermitRootLogin yes\n{}\n",
            more.replace("DIR", &at)
        );
        std::fs::write(dir.path().join("config"), config).unwrap();
        let log = std::fs::File::create(dir.path().join("log")).unwrap();
        let process = Command::new(program)
            .args(["-D", "-e", "-f"])
            .arg(dir.path().join("config"))
            .stdin(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut sshd = Self { dir, process, port };
        let until = Instant::now() + Duration::from_secs(120);
        let listens = SocketAddr::new(address.parse().unwrap(), port);
        while TcpStream::connect(listens).is_err() {
            if sshd.process.try_wait().unwrap().is_some() {
                eprintln!("SKIPPED: sshd does not run here: {}", sshd.log());
                return None;
            }
            assert!(Instant::now() < until, "sshd does not come up");
            std::thread::sleep(Duration::from_millis(20));
        }
        Some(sshd)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.path("log")).unwrap()
    }

    /// The public half of its host key.
    pub fn host_key(&self) -> String {
        std::fs::read_to_string(self.path("host_key.pub")).unwrap()
    }

    /// The present user, with the key that is let in.
    pub fn target(&self) -> SshTarget {
        SshTarget {
            port: self.port,
            keys: vec![self.path("client_key")],
            identities_only: true,
            ..SshTarget::new("127.0.0.1", user())
        }
    }
}

/// Who runs the test.
pub fn user() -> String {
    let output = Command::new("id").arg("-un").output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

impl Drop for Sshd {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

pub fn options(known: &Path, mode: HostKeyMode, executor: &str) -> ConnectOptions {
    let known = known.to_owned();
    let files = vec![known.clone()];
    ConnectOptions {
        host_keys: HostKeys { files, learn_into: Some(known), hashed: false, mode },
        keys: Arc::new(KeyRing::new(PathBuf::from("/nonexistent"))),
        executor: Executor::at(executor),
        ..ConnectOptions::new()
    }
}

pub async fn reach(
    ssh: SshTarget,
    escalation: Option<Become>,
    options: &ConnectOptions,
) -> Result<Box<dyn Session>, RemoteError> {
    let connection = Connection::Ssh(ssh);
    let target = Target { name: "host".to_owned(), connection, escalation };
    connect(&target, options, &|_| {}).await
}

/// Whether tests may change this machine: as root, and where that is said.
pub fn is_for_tests() -> bool {
    let said = ["CI", "K3SUP_TEST_ROOT"]
        .iter()
        .any(|name| std::env::var(name).is_ok_and(|value| !value.is_empty() && value != "0"));
    let allowed = said && rustix::process::geteuid().is_root();
    if !allowed {
        eprintln!("SKIPPED: changes the machine: set K3SUP_TEST_ROOT=1 as root on one for tests");
    }
    allowed
}

/// `k3sup-rs status` on a host `web` that only `~/.ssh/config` knows; gives what it says.
pub fn status(home: &Path, config: &str, variables: &str, more: &[&str], input: &str) -> String {
    std::fs::create_dir_all(home.join(".ssh")).unwrap();
    let file = home.join(".ssh/config");
    std::fs::write(&file, config).unwrap();
    std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let inventory = home.join("inventory.yaml");
    let text = format!("servers:\n  hosts:\n    one:\n      ansible_host: web\n{variables}");
    std::fs::write(&inventory, text).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_k3sup-rs"));
    command.args(["status", "-i"]).arg(&inventory).args(more);
    for name in ["XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_CACHE_HOME", "SSH_AUTH_SOCK"] {
        command.env_remove(name);
    }
    command.env("HOME", home).env("NO_COLOR", "1").stdin(Stdio::piped());
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // It may end without reading all of it.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(4), "no node runs there");
    String::from_utf8_lossy(&output.stderr).into_owned()
}
