//! Beside OpenSSH: the same host keys and `known_hosts` files judged by `ssh` and by us, and the
//! executor over a real `sshd`. What is not installed is skipped, and said.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test's helpers fail by panicking, and say what they skip"
)]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::support::sshd::{Sshd, installed, key, public, save};
use k3sup_rs::host::protocol::{CommandSpec, Observed, Read};
use k3sup_rs::remote::hostkey::{HostKeyMode, HostKeys};
use k3sup_rs::remote::ssh::keys::KeyRing;
use k3sup_rs::remote::{
    ConnectOptions, Connection, Executor, RemoteError, Session, SshTarget, Target, connect,
};
use russh::keys::{Algorithm, EcdsaCurve, PrivateKey};
use russh::server::{Auth, Config, Handler};
use tokio::net::TcpListener;

const ECDSA: Algorithm = Algorithm::Ecdsa { curve: EcdsaCurve::NistP256 };

/// A server with these keys that takes this password, from nobody else anything.
#[derive(Clone)]
struct Door {
    password: Option<&'static str>,
    /// Ask for it by keyboard-interactive.
    asks: bool,
}

impl Handler for Door {
    type Error = russh::Error;

    async fn auth_password(&mut self, _: &str, password: &str) -> Result<Auth, Self::Error> {
        let right = !self.asks && self.password == Some(password);
        Ok(if right { Auth::Accept } else { Auth::reject() })
    }

    async fn auth_keyboard_interactive<'a>(
        &'a mut self,
        _: &str,
        _: &str,
        response: Option<russh::server::Response<'a>>,
    ) -> Result<Auth, Self::Error> {
        let Some(mut response) = response else {
            let prompts = vec![("Password: ".into(), false)];
            return Ok(Auth::Partial {
                name: "".into(),
                instructions: "".into(),
                prompts: prompts.into(),
            });
        };
        let right =
            response.next().is_some_and(|r| Some(&r[..]) == self.password.map(str::as_bytes));
        Ok(if right { Auth::Accept } else { Auth::reject() })
    }
}

async fn server(keys: Vec<PrivateKey>, methods: &[russh::MethodKind], door: Door) -> u16 {
    let config = Arc::new(Config {
        keys,
        methods: methods.into(),
        auth_rejection_time: Duration::ZERO,
        ..Config::default()
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let session = russh::server::run_stream(Arc::clone(&config), stream, door.clone());
            tokio::spawn(async move {
                if let Ok(session) = session.await {
                    let _ = session.await;
                }
            });
        }
    });
    port
}

fn options(dir: &Path, mode: HostKeyMode) -> ConnectOptions {
    let known = dir.join("known_hosts");
    ConnectOptions {
        host_keys: HostKeys {
            files: vec![known.clone()],
            learn_into: Some(known),
            hashed: false,
            mode,
        },
        keys: Arc::new(KeyRing::new(dir.join("no-such-dir"))),
        executor: Executor::at(env!("CARGO_BIN_EXE_k3sup-rs")),
        ..ConnectOptions::new()
    }
}

async fn reach(ssh: SshTarget, options: &ConnectOptions) -> Result<Box<dyn Session>, RemoteError> {
    let connection = Connection::Ssh(ssh);
    let target = Target { name: "host".to_owned(), connection, escalation: None };
    connect(&target, options, &|_| {}).await
}

/// Whether we take the server's key: then only the login fails.
async fn we_accept(dir: &Path, host: &str, port: u16, mode: HostKeyMode) -> bool {
    let target = SshTarget { port, ..SshTarget::new(host, "nobody") };
    match reach(target, &options(dir, mode)).await.err().unwrap() {
        RemoteError::Authentication { .. } => true,
        RemoteError::HostKey { .. } => false,
        other => panic!("{other:?}"),
    }
}

/// Whether `ssh` does.
async fn openssh_accepts(dir: &Path, host: &str, port: u16, mode: &str) -> bool {
    let output = tokio::process::Command::new("ssh")
        .args(["-F", "/dev/null", "-p", &port.to_string(), "-l", "nobody"])
        .args(["-o", "BatchMode=yes", "-o", "GlobalKnownHostsFile=/dev/null"])
        .args([
            "-o",
            "IdentityFile=/dev/null",
            "-o",
            "IdentityAgent=none",
            "-o",
            "HashKnownHosts=no",
        ])
        .args(["-o", &format!("StrictHostKeyChecking={mode}")])
        .arg("-o")
        .arg(format!("UserKnownHostsFile={}", dir.join("known_hosts").display()))
        .args([host, "true"])
        .stdin(Stdio::null())
        .output()
        .await
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    let (accepted, refused) =
        (said.contains("Permission denied"), said.contains("Host key verification failed"));
    assert!(accepted != refused, "{said}");
    accepted
}

/// Rows of `known_hosts` text: `HOST` is the name with its port, `OWN` the server's key, `OTHER`
/// and `THIRD` two more of its type, `ECDSA` one of another type.
const ROWS: &[(&str, &str)] = &[
    ("nothing is known", ""),
    ("the key is known", "HOST OWN\n"),
    ("another key is known", "HOST OTHER\n"),
    ("another type of key is known", "HOST ECDSA\n"),
    ("another type and the right one", "HOST ECDSA\nHOST OWN\n"),
    ("one of several", "HOST OTHER\nHOST OWN\n"),
    ("revoked and plain", "@revoked * OWN\nHOST OWN\n"),
    ("plain and revoked", "HOST OWN\n@revoked HOST OWN\n"),
    ("another is revoked", "@revoked * OTHER\nHOST OWN\n"),
    ("a pattern with another key", "[127.0.0.*]:* OTHER\n"),
    ("a pattern with the right key", "[127.0.0.?]:* OWN\n"),
    ("negated: the line does not count", "*,!HOST OTHER\n"),
    ("negation of somebody else", "*,!somebody OTHER\n"),
    ("tabs", "HOST\tOTHER\n"),
    ("indented", "   HOST OTHER\n"),
    ("a comment is no key", "# HOST OTHER\n"),
    ("several names on a line", "a,HOST,b OTHER\n"),
    ("without the port", "127.0.0.1 OWN\n"),
    ("another key without the port", "127.0.0.1 OTHER\n"),
    ("another port", "[127.0.0.1]:1 OTHER\n"),
    ("damaged lines", "HOST\nHOST ssh-ed25519 AAAA\n@unknown HOST OTHER\n"),
    ("no end of line", "HOST OTHER"),
    ("authority and plain", "@cert-authority HOST THIRD\nHOST OWN\n"),
];

#[tokio::test]
async fn host_keys_are_judged_as_openssh_does() {
    if installed("ssh").is_none() {
        return;
    }
    let (own, other, third, ecdsa) =
        (key(Algorithm::Ed25519), key(Algorithm::Ed25519), key(Algorithm::Ed25519), key(ECDSA));
    let door = Door { password: None, asks: false };
    let port = server(vec![own.clone()], &[russh::MethodKind::PublicKey], door).await;
    let mut differences = Vec::new();
    for (row, text) in ROWS {
        let text = text
            .replace("HOST", &format!("[127.0.0.1]:{port}"))
            .replace("OWN", &public(&own))
            .replace("OTHER", &public(&other))
            .replace("THIRD", &public(&third))
            .replace("ECDSA", &public(&ecdsa));
        for (mode, theirs) in [
            (HostKeyMode::Yes, "yes"),
            (HostKeyMode::AcceptNew, "accept-new"),
            (HostKeyMode::Off, "no"),
        ] {
            let (ours_dir, theirs_dir) =
                (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
            for dir in [&ours_dir, &theirs_dir] {
                std::fs::write(dir.path().join("known_hosts"), &text).unwrap();
            }
            let us = we_accept(ours_dir.path(), "127.0.0.1", port, mode).await;
            let them = openssh_accepts(theirs_dir.path(), "127.0.0.1", port, theirs).await;
            // A revoked key is refused even where checking is off: there we are stricter.
            let stricter = row.contains("revoked and") || row.contains("and revoked");
            if us != them && !(stricter && mode == HostKeyMode::Off && !us) {
                differences.push(format!("{row}, {theirs}: we {us}, ssh {them}"));
            }
        }
    }
    assert_eq!(differences, Vec::<String>::new());
}

#[tokio::test]
async fn a_name_in_capitals_and_a_hashed_name_are_the_same_host() {
    if installed("ssh-keygen").is_none() || installed("ssh").is_none() {
        return;
    }
    let (own, other) = (key(Algorithm::Ed25519), key(Algorithm::Ed25519));
    let door = Door { password: None, asks: false };
    let port = server(vec![own.clone()], &[russh::MethodKind::PublicKey], door).await;
    for (known, right) in [(&own, true), (&other, false)] {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("known_hosts");
        for hashed in [false, true] {
            std::fs::write(&file, format!("[localhost]:{port} {}\n", public(known))).unwrap();
            if hashed {
                let hash = Command::new("ssh-keygen")
                    .args(["-H", "-f"])
                    .arg(&file)
                    .stdout(Stdio::null())
                    .stderr(Stdio::null())
                    .status();
                assert!(hash.unwrap().success());
                assert!(std::fs::read_to_string(&file).unwrap().starts_with("|1|"));
            }
            for host in ["localhost", "LOCALHOST"] {
                let us = we_accept(dir.path(), host, port, HostKeyMode::Yes).await;
                let them = openssh_accepts(dir.path(), host, port, "yes").await;
                assert_eq!((us, them), (right, right), "{host}, hashed: {hashed}");
            }
        }
    }
}

#[tokio::test]
async fn a_server_with_several_keys_is_asked_for_the_known_one() {
    let (ed25519, ecdsa) = (key(Algorithm::Ed25519), key(ECDSA));
    let keys = vec![ed25519.clone(), ecdsa.clone()];
    let door = Door { password: None, asks: false };
    let port = server(keys, &[russh::MethodKind::PublicKey], door).await;
    for known in [&ed25519, &ecdsa] {
        let dir = tempfile::tempdir().unwrap();
        let line = format!("[127.0.0.1]:{port} {}\n", public(known));
        std::fs::write(dir.path().join("known_hosts"), line).unwrap();
        assert!(we_accept(dir.path(), "127.0.0.1", port, HostKeyMode::Yes).await);
    }
}

#[tokio::test]
async fn a_file_that_cannot_be_read_is_refused_where_ssh_goes_on() {
    let door = Door { password: None, asks: false };
    let port = server(vec![key(Algorithm::Ed25519)], &[russh::MethodKind::PublicKey], door).await;
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("known_hosts")).unwrap();
    assert!(!we_accept(dir.path(), "127.0.0.1", port, HostKeyMode::AcceptNew).await);
}

#[tokio::test]
async fn a_password_is_tried_by_either_method_and_once() {
    use russh::MethodKind::{KeyboardInteractive, Password};
    for (method, asks) in [(Password, false), (KeyboardInteractive, true)] {
        let door = Door { password: Some("s3cret"), asks };
        let port = server(vec![key(Algorithm::Ed25519)], &[method], door).await;
        let dir = tempfile::tempdir().unwrap();
        let options = options(dir.path(), HostKeyMode::AcceptNew);
        let target = |password: &str| SshTarget {
            port,
            password: Some(password.into()),
            ..SshTarget::new("127.0.0.1", "nobody")
        };
        let error = reach(target("guess"), &options).await.err().unwrap();
        assert!(matches!(error, RemoteError::Authentication { .. }), "{error:?}");
        assert!(!format!("{error:?}").contains("guess"), "{error:?}");
        // Let in, and only then refused: this server opens no channel.
        let error = reach(target("s3cret"), &options).await.err().unwrap();
        assert!(matches!(error, RemoteError::Unreachable { .. }), "{error:?}");
        assert!(error.to_string().contains("channel"), "{error}");
    }
}

#[tokio::test]
async fn the_executor_runs_over_a_real_sshd_and_ends_with_the_session() {
    let Some(sshd) = Sshd::start("") else { return };
    let options = options(sshd.dir.path(), HostKeyMode::AcceptNew);
    let mut session = reach(sshd.target(), &options).await.unwrap();
    let argv = ["sh", "-c", "echo $PPID"].map(str::to_owned).to_vec();
    let spec = CommandSpec { argv, timeout_ms: 20_000, ..CommandSpec::default() };
    let answers = session.read(vec![Read::Command(spec), Read::Facts]).await.unwrap();
    let [Ok(Observed::Output(output)), Ok(Observed::Facts(facts))] = answers.as_slice() else {
        panic!("{answers:?}")
    };
    assert!(facts.lab_root.is_none());
    let executor = format!("/proc/{}", String::from_utf8_lossy(&output.stdout).trim());
    assert!(Path::new(&executor).exists());
    drop(session);
    let until = Instant::now() + Duration::from_secs(120);
    while Path::new(&executor).exists() {
        assert!(Instant::now() < until, "the executor outlives its session");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(!sshd.log().contains("auth-agent"), "{}", sshd.log());
    // What this test put into the cache of whoever runs it.
    std::fs::remove_file(&facts.executor_path).unwrap();
}

#[tokio::test]
async fn a_key_can_stay_in_the_agent() {
    let Some(sshd) = Sshd::start("") else { return };
    let (Some(agent), Some(add)) = (installed("ssh-agent"), installed("ssh-add")) else { return };
    let socket = sshd.dir.path().join("agent");
    let mut agent = Command::new(agent)
        .arg("-D")
        .arg("-a")
        .arg(&socket)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    while !socket.exists() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let others: Vec<PathBuf> = (0..7).map(|n| sshd.dir.path().join(format!("key{n}"))).collect();
    for path in &others {
        save(&key(Algorithm::Ed25519), path);
    }
    let client = sshd.dir.path().join("client_key");
    let added = Command::new(add)
        .env("SSH_AUTH_SOCK", &socket)
        .args(&others)
        .arg(&client)
        .stderr(Stdio::null())
        .status();
    assert!(added.unwrap().success());
    // The private half is gone from the disk: only the agent has it.
    std::fs::write(&client, "").unwrap();
    let ring = KeyRing::new(sshd.dir.path().join("none")).with_agent(Some(socket));
    let options = ConnectOptions {
        keys: Arc::new(ring),
        executor: Executor::at("/bin/true"),
        ..options(sshd.dir.path(), HostKeyMode::AcceptNew)
    };
    // Named by the inventory, it is found among eight; the server would stop at six.
    let named = reach(sshd.target(), &options).await.err().unwrap();
    let unnamed = SshTarget { keys: Vec::new(), identities_only: false, ..sshd.target() };
    let unnamed = reach(unnamed, &options).await.err().unwrap();
    agent.kill().unwrap();
    agent.wait().unwrap();
    // Let in: what is pushed is no executor.
    assert!(matches!(named, RemoteError::Executor { .. }), "{named:?}");
    assert!(matches!(unnamed, RemoteError::Authentication { .. }), "{unnamed:?}");
}

#[tokio::test]
async fn a_server_with_weak_algorithms_only_is_refused() {
    for weak in ["Ciphers aes128-cbc,3des-cbc", "MACs hmac-sha1\nCiphers aes128-ctr"] {
        let Some(sshd) = Sshd::start(weak) else { return };
        let options = options(sshd.dir.path(), HostKeyMode::AcceptNew);
        let error = reach(sshd.target(), &options).await.err().unwrap();
        assert!(matches!(error, RemoteError::Unreachable { .. }), "{error:?}");
        assert!(error.to_string().contains("in common that is safe"), "{error}");
    }
}

#[tokio::test]
async fn a_refusal_names_the_line_that_ssh_names() {
    if installed("ssh").is_none() {
        return;
    }
    let (own, other) = (key(Algorithm::Ed25519), key(Algorithm::Ed25519));
    let door = Door { password: None, asks: false };
    let port = server(vec![own], &[russh::MethodKind::PublicKey], door).await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("known_hosts");
    let text = format!("# one\n\nother {0}\n\t[127.0.0.1]:{port} {0}\n", public(&other));
    std::fs::write(&file, text).unwrap();
    let target = SshTarget { port, ..SshTarget::new("127.0.0.1", "nobody") };
    let error = reach(target, &options(dir.path(), HostKeyMode::Yes)).await.err().unwrap();
    let line = format!("{}:4", file.display());
    assert!(error.to_string().contains(&line), "{error}");
    let output = tokio::process::Command::new("ssh")
        .args(["-F", "/dev/null", "-p", &port.to_string(), "-o", "BatchMode=yes", "-o"])
        .arg(format!("UserKnownHostsFile={}", file.display()))
        .args(["-o", "GlobalKnownHostsFile=/dev/null", "127.0.0.1", "true"])
        .output()
        .await
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("Offending") && said.contains(&line), "{said}");
}
