//! A real `sshd` on loopback with keys of its own, ended with the test.

#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::print_stderr,
    unreachable_pub,
    missing_docs,
    reason = "each test binary uses a part of it; a test fails by panicking and tells by printing"
)]

use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use k3sup_rs::remote::SshTarget;
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
        let until = Instant::now() + Duration::from_secs(60);
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
