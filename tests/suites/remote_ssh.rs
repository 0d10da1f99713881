//! Reaching a host over real SSH: a lab host's server on loopback, keys, host keys, the push of the
//! executor, lost links.

#![expect(
    clippy::unwrap_used,
    reason = "a test's helpers fail by panicking, and say what they skip"
)]

use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use k3sup_rs::host::protocol::{Change, CommandSpec, Done, FileContent, Observed, Read};
use k3sup_rs::lab::{LabHost, SSH_PORT};
use k3sup_rs::remote::hostkey::{HostKeyMode, HostKeys};
use k3sup_rs::remote::{
    ConnectOptions, Connection, Executor, Progress, RemoteError, Session, SshTarget, Target,
    connect,
};
use russh::keys::ssh_key::LineEnding;
use russh::keys::{Algorithm, EcdsaCurve, PrivateKey, PublicKey};
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};

/// A lab host in a directory of its own, ended with the test.
struct Host {
    dir: tempfile::TempDir,
    address: IpAddr,
    process: Option<Child>,
}

impl Host {
    /// `number` makes the loopback address: one per test.
    fn start(number: u8) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let address = IpAddr::from([127, 78, 1, number]);
        let mut host = Self { dir, address, process: None };
        for part in ["etc/ssh", "run", "var/log", "root", "tmp", "etc/systemd/system"] {
            let path = host.root().join(part);
            std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path).unwrap();
        }
        let lab = LabHost { lab: "test".to_owned(), name: "one".to_owned(), address: host.address };
        let definition = serde_json::to_vec(&lab).unwrap();
        std::fs::write(host.root().join("lab.json"), definition).unwrap();
        host.power_on();
        host
    }

    fn root(&self) -> PathBuf {
        self.dir.path().join("one")
    }

    fn power_on(&mut self) {
        let process = Command::new(env!("CARGO_BIN_EXE_k3sup-rs"))
            .arg("lab-host")
            .arg(self.root())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        self.process = Some(process);
        let until = Instant::now() + Duration::from_secs(120);
        while std::net::TcpStream::connect((self.address, SSH_PORT)).is_err() {
            assert!(Instant::now() < until, "the lab host does not come up");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn power_off(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    /// Gives the host another key and starts it again.
    fn change_key(&mut self, algorithm: Algorithm) {
        self.power_off();
        let key = PrivateKey::random(&mut rand::rng(), algorithm).unwrap();
        let path = self.root().join("etc/ssh/host_key");
        std::fs::write(&path, key.to_openssh(LineEnding::LF).unwrap().as_bytes()).unwrap();
        self.power_on();
    }

    fn public_key(&self) -> PublicKey {
        let text = std::fs::read_to_string(self.root().join("etc/ssh/host_key")).unwrap();
        PrivateKey::from_openssh(text).unwrap().public_key().clone()
    }

    /// The executors and left-overs in the login user's cache.
    fn cache(&self) -> Vec<String> {
        let Ok(entries) = std::fs::read_dir(self.root().join("root/.cache/k3sup-rs")) else {
            return Vec::new();
        };
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    /// One executor is in the cache, and the stamp that says when it was verified.
    fn has_one_executor(&self) {
        let mut names = self.cache();
        names.sort_unstable();
        let stamp = names.first().map(|executor| format!("{executor}.ok"));
        assert!(names.len() == 2 && names.last() == stamp.as_ref(), "{names:?}");
    }

    fn target(&self) -> SshTarget {
        SshTarget {
            port: SSH_PORT,
            keys: vec![self.dir.path().join("client_key")],
            identities_only: true,
            ..SshTarget::new(self.address.to_string(), "tester")
        }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.power_off();
    }
}

fn options(known_hosts: &Path, mode: HostKeyMode) -> ConnectOptions {
    let known = known_hosts.to_owned();
    ConnectOptions {
        host_keys: HostKeys {
            files: vec![known.clone()],
            learn_into: Some(known),
            hashed: false,
            mode,
        },
        executor: executor(),
        ..ConnectOptions::new()
    }
}

/// The product's binary, read once for all tests.
fn executor() -> Arc<Executor> {
    static EXECUTOR: std::sync::OnceLock<Arc<Executor>> = std::sync::OnceLock::new();
    Arc::clone(EXECUTOR.get_or_init(|| Executor::at(env!("CARGO_BIN_EXE_k3sup-rs"))))
}

/// Connects and gives what was told on the way.
async fn reach(
    target: &SshTarget,
    options: &ConnectOptions,
) -> (Result<Box<dyn Session>, RemoteError>, Vec<Progress>) {
    let told = Mutex::new(Vec::new());
    let target = Target {
        name: "one".to_owned(),
        connection: Connection::Ssh(target.clone()),
        escalation: None,
    };
    let session = connect(&target, options, &|progress| told.lock().unwrap().push(progress)).await;
    (session, told.into_inner().unwrap())
}

fn pushed(told: &[Progress]) -> bool {
    told.iter().any(|progress| matches!(progress, Progress::Pushing { .. }))
}

fn command(argv: &[&str]) -> CommandSpec {
    let argv = argv.iter().map(ToString::to_string).collect();
    CommandSpec { argv, timeout_ms: 20_000, ..CommandSpec::default() }
}

#[tokio::test]
async fn the_executor_is_pushed_once_and_then_found() {
    let host = Host::start(1);
    let known = host.dir.path().join("known");
    let options = options(&known, HostKeyMode::AcceptNew);
    let (session, told) = reach(&host.target(), &options).await;
    let mut session = session.unwrap();
    assert!(matches!(told.first(), Some(Progress::Connecting)));
    assert!(matches!(told.last(), Some(Progress::Ready)));
    assert!(told.iter().any(|progress| matches!(progress, Progress::Learned { .. })));
    assert!(pushed(&told));
    assert_eq!(session.round_trips(), 0);

    let answers = session.read(vec![Read::Facts, Read::Command(command(&["id"]))]).await.unwrap();
    let [Ok(Observed::Facts(facts)), Ok(Observed::Output(id))] = answers.as_slice() else {
        panic!("{answers:?}")
    };
    assert_eq!((facts.hostname.as_str(), facts.service_manager.as_str()), ("one", "lab"));
    assert_eq!(facts.addresses, [host.address.to_string()]);
    assert!(facts.executor_path.contains(".cache/k3sup-rs/k3sup-rs-"), "{facts:?}");
    assert_eq!(facts.executor_sha256.len(), 64);
    assert_eq!(id.status, 0);
    let path = host.root().join("etc/file").to_str().unwrap().to_owned();
    let put = Change::PutFile {
        path: path.clone(),
        content: FileContent::Bytes(vec![7; 3 << 20].into()),
        mode: 0o640,
        owner: None,
        group: None,
        backup: false,
        validate: Vec::new(),
    };
    assert_eq!(session.change(vec![put]).await.unwrap(), [Ok(Done::Ok)]);
    assert_eq!(std::fs::metadata(&path).unwrap().len(), 3 << 20);
    assert_eq!(session.round_trips(), 2);
    drop(session);

    let (session, told) = reach(&host.target(), &options).await;
    assert!(session.is_ok());
    assert!(!pushed(&told));
    assert!(!told.iter().any(|progress| matches!(progress, Progress::Learned { .. })));
    host.has_one_executor();
    let mode = std::fs::metadata(&known).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[tokio::test]
async fn a_changed_key_and_another_type_of_key_are_refused() {
    let mut host = Host::start(2);
    let known = host.dir.path().join("known");
    let options = options(&known, HostKeyMode::AcceptNew);
    reach(&host.target(), &options).await.0.unwrap();
    let before = std::fs::read(&known).unwrap();
    for algorithm in [Algorithm::Ed25519, Algorithm::Ecdsa { curve: EcdsaCurve::NistP256 }] {
        host.change_key(algorithm);
        let error = reach(&host.target(), &options).await.0.err().unwrap();
        let RemoteError::HostKey { message, hint } = &error else { panic!("{error:?}") };
        assert!(message.contains("CHANGED"), "{message}");
        assert!(message.contains(&format!("{}:1", known.display())), "{message}");
        assert_eq!(message.matches("SHA256:").count(), 2, "{message}");
        let name = format!("[{}]:{SSH_PORT}", host.address);
        let expected = format!("ssh-keygen -R '{name}' -f '{}'", known.display());
        assert!(hint.as_ref().unwrap().contains(&expected), "{hint:?}");
        assert_eq!(std::fs::read(&known).unwrap(), before);
    }
}

#[tokio::test]
async fn modes_are_kept() {
    let host = Host::start(3);
    let known = host.dir.path().join("known");
    let strict = options(&known, HostKeyMode::Yes);
    let error = reach(&host.target(), &strict).await.0.err().unwrap();
    assert!(matches!(error, RemoteError::HostKey { .. }), "{error:?}");
    assert!(!known.exists());
    let (session, told) = reach(&host.target(), &options(&known, HostKeyMode::Off)).await;
    assert!(session.is_ok() && !known.exists());
    assert!(told.iter().any(|progress| matches!(progress, Progress::Warning(_))), "{told:?}");
    let name = format!("[{}]:{SSH_PORT}", host.address);
    let line = format!("{name} {}\n", host.public_key().to_openssh().unwrap());
    std::fs::write(&known, &line).unwrap();
    assert!(reach(&host.target(), &strict).await.0.is_ok());
    std::fs::write(&known, format!("@revoked {line}{line}")).unwrap();
    let off = options(&known, HostKeyMode::Off);
    let error = reach(&host.target(), &off).await.0.err().unwrap();
    assert!(error.to_string().contains("REVOKED"), "{error}");
}

#[tokio::test]
async fn a_key_that_is_not_accepted_is_named() {
    let host = Host::start(4);
    let wrong = host.dir.path().join("wrong_key");
    let key = PrivateKey::random(&mut rand::rng(), Algorithm::Ed25519).unwrap();
    std::fs::write(&wrong, key.to_openssh(LineEnding::LF).unwrap().as_bytes()).unwrap();
    std::fs::set_permissions(&wrong, std::fs::Permissions::from_mode(0o600)).unwrap();
    let options = options(&host.dir.path().join("known"), HostKeyMode::AcceptNew);
    let target = SshTarget { keys: vec![wrong.clone()], ..host.target() };
    let error = reach(&target, &options).await.0.err().unwrap();
    assert!(matches!(error, RemoteError::Authentication { .. }), "{error:?}");
    assert!(error.to_string().contains(wrong.to_str().unwrap()), "{error}");
    // The right one after a wrong one is fine.
    let target = SshTarget { keys: vec![wrong, host.target().keys.remove(0)], ..host.target() };
    assert!(reach(&target, &options).await.0.is_ok());
}

#[tokio::test]
async fn nobody_there_is_said_within_the_limit() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = options(&dir.path().join("known"), HostKeyMode::AcceptNew);
    options.connect_timeout = Duration::from_secs(3);
    // Takes connections and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = SshTarget {
        port: silent.local_addr().unwrap().port(),
        ..SshTarget::new("127.0.0.1", "tester")
    };
    let error = reach(&target, &options).await.0.err().unwrap();
    assert!(
        matches!(&error, RemoteError::Unreachable { message, .. } if message.contains("handshake")),
        "{error:?}"
    );
    drop(silent);
    let error = reach(&target, &options).await.0.err().unwrap();
    assert!(error.to_string().contains("refused"), "{error}");
}

/// A link to `to` that is cut once so many bytes went there; 0 is never.
async fn link(to: SocketAddr, cut_after: Arc<AtomicU64>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            let cut_after = cut_after.load(Ordering::SeqCst);
            tokio::spawn(async move {
                let mut far = TcpStream::connect(to).await.unwrap();
                let (mut near_in, mut near_out) = near.split();
                let (mut far_in, mut far_out) = far.split();
                let there = async {
                    let mut buffer = vec![0; 16 * 1024];
                    let mut left = if cut_after == 0 { u64::MAX } else { cut_after };
                    loop {
                        let length = tokio::io::AsyncReadExt::read(&mut near_in, &mut buffer).await;
                        let length = length.unwrap_or(0);
                        left = left.saturating_sub(length as u64);
                        if length == 0
                            || left == 0
                            || far_out.write_all(buffer.get(..length).unwrap()).await.is_err()
                        {
                            return;
                        }
                    }
                };
                tokio::select! {
                    () = there => {}
                    _ = tokio::io::copy(&mut far_in, &mut near_out) => {}
                }
            });
        }
    });
    address
}

#[tokio::test]
async fn a_link_cut_while_pushing_leaves_nothing_behind() {
    let host = Host::start(5);
    let size = std::fs::metadata(env!("CARGO_BIN_EXE_k3sup-rs")).unwrap().len();
    let cut = Arc::new(AtomicU64::new(0));
    let address = link(SocketAddr::new(host.address, SSH_PORT), Arc::clone(&cut)).await;
    let options = options(&host.dir.path().join("known"), HostKeyMode::AcceptNew);
    let target =
        SshTarget { address: address.ip().to_string(), port: address.port(), ..host.target() };
    for percent in [1, 50, 99] {
        cut.store(size / 100 * percent, Ordering::SeqCst);
        // Below the two minutes that a chunk may take: noticed by the cut, not by the clock.
        let limit = Duration::from_secs(110);
        let reached = tokio::time::timeout(limit, reach(&target, &options)).await;
        let error = reached.expect("the cut is not noticed").0.err().unwrap();
        assert!(matches!(error, RemoteError::Unreachable { .. }), "{error:?}");
        assert!(error.to_string().contains("pushing"), "{error}");
        // The host notices the end of its input a moment later.
        let until = Instant::now() + Duration::from_secs(120);
        while !host.cache().is_empty() {
            assert!(Instant::now() < until, "left behind: {:?}", host.cache());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    cut.store(0, Ordering::SeqCst);
    assert!(reach(&target, &options).await.0.is_ok());
    host.has_one_executor();
}

#[tokio::test]
async fn a_link_cut_under_a_big_change_is_noticed_and_leaves_the_old_file() {
    let host = Host::start(9);
    let cut = Arc::new(AtomicU64::new(0));
    let address = link(SocketAddr::new(host.address, SSH_PORT), Arc::clone(&cut)).await;
    let mut options = options(&host.dir.path().join("known"), HostKeyMode::AcceptNew);
    reach(&host.target(), &options).await.0.unwrap();
    let path = host.root().join("etc/file").to_str().unwrap().to_owned();
    std::fs::write(&path, "old").unwrap();
    cut.store(6 << 20, Ordering::SeqCst);
    let target =
        SshTarget { address: address.ip().to_string(), port: address.port(), ..host.target() };
    options.connect_timeout = Duration::from_secs(120);
    let mut session = reach(&target, &options).await.0.unwrap();
    let put = Change::PutFile {
        path: path.clone(),
        content: FileContent::Bytes(vec![7; 12 << 20].into()),
        mode: 0o640,
        owner: None,
        group: None,
        backup: false,
        validate: Vec::new(),
    };
    // Below the limit for an answer: noticed by the cut, not by the clock.
    let made = tokio::time::timeout(Duration::from_secs(120), session.change(vec![put])).await;
    let error = made.expect("the cut is not noticed").unwrap_err();
    assert!(matches!(error, RemoteError::Unreachable { .. }), "{error:?}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "old");
}

#[tokio::test]
async fn a_lost_host_is_a_typed_loss_and_stays_lost() {
    let mut host = Host::start(6);
    let options = options(&host.dir.path().join("known"), HostKeyMode::AcceptNew);
    let mut session = reach(&host.target(), &options).await.0.unwrap();
    // It ends with the test's directory, long after the host is lost.
    let script = format!("while test -d {}; do sleep 0.1; done", host.dir.path().display());
    let waits = CommandSpec { timeout_ms: 120_000, ..command(&["sh", "-c", &script]) };
    let slow = tokio::spawn(async move {
        let first = session.read(vec![Read::Command(waits)]).await;
        (first, session.read(vec![Read::Facts]).await)
    });
    tokio::time::sleep(Duration::from_millis(500)).await;
    host.power_off();
    let (first, second) = slow.await.unwrap();
    let error = first.unwrap_err();
    assert!(matches!(error, RemoteError::Unreachable { .. }), "{error:?}");
    assert_eq!(second.unwrap_err(), error);
}

#[tokio::test]
async fn twenty_first_contacts_at_once_write_twenty_lines() {
    let host = Host::start(7);
    let known = host.dir.path().join("known");
    let options = options(&known, HostKeyMode::AcceptNew);
    // Pushed once, so that the twenty only connect.
    reach(&host.target(), &options).await.0.unwrap();
    let to = SocketAddr::new(host.address, SSH_PORT);
    let mut contacts = Vec::new();
    for _ in 0..20 {
        let address = link(to, Arc::new(AtomicU64::new(0))).await;
        let target =
            SshTarget { address: address.ip().to_string(), port: address.port(), ..host.target() };
        let options = options.clone();
        contacts.push(tokio::spawn(async move { reach(&target, &options).await.0.map(drop) }));
    }
    for contact in contacts {
        contact.await.unwrap().unwrap();
    }
    let text = std::fs::read_to_string(&known).unwrap();
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    lines.dedup();
    assert_eq!(lines.len(), 21, "{text}");
    assert!(lines.iter().all(|line| line.split(' ').count() == 3), "{text}");
}

#[tokio::test]
async fn a_binary_for_another_machine_is_refused_before_it_is_pushed() {
    let host = Host::start(8);
    let mut bytes = std::fs::read(env!("CARGO_BIN_EXE_k3sup-rs")).unwrap();
    // `e_machine` of elf(5): 21 is a 64-bit PowerPC, where no test runs.
    bytes[18..20].copy_from_slice(&21_u16.to_le_bytes());
    let other = host.dir.path().join("other");
    std::fs::write(&other, bytes).unwrap();
    let mut options = options(&host.dir.path().join("known"), HostKeyMode::AcceptNew);
    options.executor = Executor::at(other);
    let (session, told) = reach(&host.target(), &options).await;
    let error = session.err().unwrap();
    assert!(matches!(error, RemoteError::Executor { .. }), "{error:?}");
    assert!(error.to_string().contains("ppc64le"), "{error}");
    assert!(!pushed(&told) && host.cache().is_empty());
}
