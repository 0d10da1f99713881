//! Ways to a host over a real sshd: jump hosts, host certificates, IPv6, the person's configuration, and
//! links that are cut. What is not installed, or needs root, is skipped, and said.

#![expect(
    clippy::unwrap_used,
    reason = "a test's helpers fail by panicking, and say what they skip"
)]

use crate::support::sshd;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::support::sshd::{Sshd, installed, is_for_tests, key, options, public, reach, status};
use k3sup_rs::host::protocol::{Change, CommandSpec, Observed, Read};
use k3sup_rs::remote::hostkey::HostKeyMode;
use k3sup_rs::remote::{ConnectOptions, RemoteError, SshTarget};
use russh::keys::Algorithm;

/// Whether the host lets us in, with a program that is no executor; else the refusal.
async fn let_in(ssh: SshTarget, options: &ConnectOptions) -> Result<(), RemoteError> {
    match reach(ssh, None, options).await.err().unwrap() {
        RemoteError::Executor { .. } => Ok(()),
        other => Err(other),
    }
}

const NO_EXECUTOR: &str = "/bin/true";

fn through(outer: &Sshd, inner: &Sshd) -> SshTarget {
    SshTarget { via: Some(Box::new(outer.target())), ..inner.target() }
}

#[tokio::test]
async fn each_jump_host_is_checked_under_its_own_name() {
    let (Some(outer), Some(inner)) = (Sshd::start(""), Sshd::start("")) else { return };
    let known = outer.path("known");
    let first = options(&known, HostKeyMode::AcceptNew, NO_EXECUTOR);
    let_in(through(&outer, &inner), &first).await.unwrap();
    let line = |sshd: &Sshd| format!("[127.0.0.1]:{} {}\n", sshd.port, sshd.host_key());
    let learned = std::fs::read_to_string(&known).unwrap();
    assert_eq!(learned, line(&outer) + &line(&inner));
    // Twice more, at the same time: the jump host is not logged into again.
    let again = || let_in(through(&outer, &inner), &first);
    let (one, two) = tokio::join!(again(), again());
    one.and(two).unwrap();
    assert_eq!(outer.log().matches("Accepted publickey").count(), 1, "{}", outer.log());
    assert_eq!(inner.log().matches("Accepted publickey").count(), 3, "{}", inner.log());
    assert!(!(outer.log() + &inner.log()).contains("auth-agent"));

    let other = public(&key(Algorithm::Ed25519));
    for (changed, blamed) in [(&inner, "the key of"), (&outer, "jump host 127.0.0.1: the key of")] {
        let name = format!("[127.0.0.1]:{} ", changed.port);
        let kept = learned.lines().filter(|line| !line.starts_with(&name));
        let text: String =
            kept.chain([format!("{name}{other}").as_str()]).collect::<Vec<_>>().join("\n");
        std::fs::write(&known, text).unwrap();
        let strict = options(&known, HostKeyMode::Yes, NO_EXECUTOR);
        let error = let_in(through(&outer, &inner), &strict).await.unwrap_err();
        let RemoteError::HostKey { message, .. } = &error else { panic!("{error:?}") };
        assert!(message.starts_with(blamed) && message.contains("CHANGED"), "{message}");
    }
}

#[tokio::test]
async fn a_jump_host_that_does_not_forward_is_named() {
    let (Some(outer), Some(inner)) = (Sshd::start("AllowTcpForwarding no"), Sshd::start("")) else {
        return;
    };
    let options = options(&outer.path("known"), HostKeyMode::AcceptNew, NO_EXECUTOR);
    let error = let_in(through(&outer, &inner), &options).await.unwrap_err();
    assert!(matches!(error, RemoteError::Unreachable { .. }), "{error:?}");
    assert!(error.to_string().contains("through jump host 127.0.0.1"), "{error}");
}

#[tokio::test]
async fn a_host_has_an_ipv6_address() {
    let client = key(Algorithm::Ed25519);
    let Some(sshd) = Sshd::with("", "::1", &client, |_| {}) else { return };
    let options = options(&sshd.path("known"), HostKeyMode::AcceptNew, NO_EXECUTOR);
    let target = SshTarget { address: "::1".to_owned(), ..sshd.target() };
    let_in(target, &options).await.unwrap();
    let learned = std::fs::read_to_string(sshd.path("known")).unwrap();
    assert!(learned.starts_with(&format!("[::1]:{} ssh-ed25519 ", sshd.port)), "{learned}");
}

#[tokio::test]
async fn names_are_written_hashed_where_that_is_wanted() {
    let Some(sshd) = Sshd::start("") else { return };
    let mut options = options(&sshd.path("known"), HostKeyMode::AcceptNew, NO_EXECUTOR);
    options.host_keys.hashed = true;
    for _ in 0..2 {
        let_in(sshd.target(), &options).await.unwrap();
    }
    let learned = std::fs::read_to_string(sshd.path("known")).unwrap();
    assert!(learned.starts_with("|1|") && learned.lines().count() == 1, "{learned}");
    if installed("ssh-keygen").is_some() {
        let name = format!("[127.0.0.1]:{}", sshd.port);
        let mut find = Command::new("ssh-keygen");
        find.args(["-F", &name, "-f"]).arg(sshd.path("known"));
        assert!(find.stdout(Stdio::null()).status().unwrap().success());
    }
}

/// Whether `ssh` accepts the host's key.
fn openssh_accepts(sshd: &Sshd, mode: &str) -> bool {
    let output = Command::new("ssh")
        .args(["-F", "/dev/null", "-p", &sshd.port.to_string(), "-l", "nobody"])
        .args(["-o", "BatchMode=yes", "-o", "GlobalKnownHostsFile=/dev/null"])
        .args(["-o", "IdentityFile=/dev/null", "-o", "IdentityAgent=none"])
        .args(["-o", &format!("StrictHostKeyChecking={mode}"), "-o"])
        .arg(format!("UserKnownHostsFile={}", sshd.path("known").display()))
        .args(["127.0.0.1", "true"])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    let (accepted, refused) =
        (said.contains("Permission denied"), said.contains("Host key verification failed"));
    assert!(accepted != refused, "{said}");
    accepted
}

/// How a certificate is signed (`ssh-keygen` arguments), what is known, and who accepts that: we in
/// the mode `yes`. `<HOST>` is the name with its port, `<CA>` the authority, `<OWN>` the host's key.
const CERTIFICATES: &[(&str, &[&str], &str, bool)] = &[
    ("for this name", &["-n", "127.0.0.1"], "@cert-authority <HOST> <CA>\n", true),
    ("for all names", &[], "@cert-authority <HOST> <CA>\n", true),
    ("without the port", &["-n", "127.0.0.1"], "@cert-authority 127.0.0.1 <CA>\n", true),
    ("pattern", &["-n", "a,127.0.0.1"], "@cert-authority [127.0.0.*]:* <CA>\n", true),
    ("for another name", &["-n", "other"], "@cert-authority <HOST> <CA>\n", false),
    ("expired", &["-n", "127.0.0.1", "-V", "-2d:-1d"], "@cert-authority <HOST> <CA>\n", false),
    ("not yet", &["-n", "127.0.0.1", "-V", "+1d:+2d"], "@cert-authority <HOST> <CA>\n", false),
    ("another authority", &["-n", "127.0.0.1"], "@cert-authority <HOST> <OTHER>\n", false),
    ("for other hosts", &["-n", "127.0.0.1"], "@cert-authority *.lan <CA>\n", false),
    ("revoked", &[], "@revoked * <CA>\n@cert-authority <HOST> <CA>\n", false),
    ("own key revoked", &[], "@revoked * <OWN>\n@cert-authority <HOST> <CA>\n", false),
    ("expired, key known", &["-V", "-2d:-1d"], "@cert-authority <HOST> <CA>\n<HOST> <OWN>\n", true),
    ("only the key known", &[], "<HOST> <OWN>\n", true),
];

#[tokio::test]
async fn host_certificates_are_judged_as_openssh_does() {
    let (Some(keygen), Some(_)) = (installed("ssh-keygen"), installed("ssh")) else { return };
    let (authority, client) = (key(Algorithm::Ed25519), key(Algorithm::Ed25519));
    let other = public(&key(Algorithm::Ed25519));
    for (row, arguments, known, good) in CERTIFICATES {
        let sign = |dir: &Path| {
            sshd::save(&authority, &dir.join("ca"));
            let mut command = Command::new(&keygen);
            command.arg("-s").arg(dir.join("ca")).args(["-h", "-I", "test", "-q"]).args(*arguments);
            assert!(command.arg(dir.join("host_key.pub")).status().unwrap().success());
        };
        let more = "HostCertificate DIR/host_key-cert.pub";
        let Some(sshd) = Sshd::with(more, "127.0.0.1", &client, sign) else { return };
        let known = known
            .replace("<HOST>", &format!("[127.0.0.1]:{}", sshd.port))
            .replace("<OWN>", &sshd.host_key())
            .replace("<OTHER>", &other)
            .replace("<CA>", &public(&authority));
        std::fs::write(sshd.path("known"), known).unwrap();
        let options = options(&sshd.path("known"), HostKeyMode::Yes, NO_EXECUTOR);
        let ours = match let_in(sshd.target(), &options).await {
            Ok(()) => true,
            Err(RemoteError::HostKey { .. }) => false,
            Err(other) => panic!("{row}: {other:?}"),
        };
        assert_eq!((ours, openssh_accepts(&sshd, "yes")), (*good, *good), "{row}");
    }
}

/// Links to `port`, through the returned one; those that are open are cut by a message.
async fn links(port: u16) -> (u16, tokio::sync::broadcast::Sender<()>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let own = listener.local_addr().unwrap().port();
    let (cut, _) = tokio::sync::broadcast::channel(1);
    let cuts = cut.clone();
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            let mut cut = cuts.subscribe();
            tokio::spawn(async move {
                let mut far = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
                tokio::select! {
                    _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
                    _ = cut.recv() => {}
                }
            });
        }
    });
    (own, cut)
}

#[tokio::test]
async fn what_a_cut_link_leaves_under_way_is_waited_for() {
    let Some(sshd) = Sshd::start("") else { return };
    let executor = env!("CARGO_BIN_EXE_k3sup-rs");
    let options = options(&sshd.path("known"), HostKeyMode::AcceptNew, executor);
    let (port, cut) = links(sshd.port).await;
    let mut session = reach(SshTarget { port, ..sshd.target() }, None, &options).await.unwrap();
    let (begun, go, ended) = (sshd.path("begun"), sshd.path("go"), sshd.path("ended"));
    // It ends with the test's directory, too.
    let script = format!(
        "touch {0}; while [ -e {0} ] && [ ! -e {1} ]; do sleep 0.1; done; touch {2}",
        begun.display(),
        go.display(),
        ended.display()
    );
    let argv = ["sh", "-c", &script].map(str::to_owned).to_vec();
    let run = Change::Run(CommandSpec { argv, timeout_ms: 120_000, ..CommandSpec::default() });
    let change = tokio::spawn(async move { session.change(vec![run]).await });
    while !begun.exists() {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    cut.send(()).unwrap();
    let error = change.await.unwrap().unwrap_err();
    assert!(matches!(error, RemoteError::Unreachable { .. }), "{error:?}");
    let mut session = reach(sshd.target(), None, &options).await.unwrap();
    let answers = session.read(vec![Read::Idle { timeout_ms: 0 }]).await.unwrap();
    assert_eq!(answers, [Ok(Observed::Idle(false))], "it is under way");
    std::fs::write(go, "").unwrap();
    let answers = session.read(vec![Read::Idle { timeout_ms: 120_000 }]).await.unwrap();
    assert_eq!(answers, [Ok(Observed::Idle(true))]);
    assert!(ended.exists());
}

#[test]
fn the_command_line_follows_the_configuration() {
    let (Some(gate), Some(sshd)) = (Sshd::start(""), Sshd::start("")) else { return };
    let home = tempfile::tempdir().unwrap();
    let config = format!(
        "Host web\n  HostName 127.0.0.1\n  Port {}\n  IdentityFile {}\n  ProxyJump gate\n\
         Host gate\n  HostName 127.0.0.1\n  Port {}\n  IdentityFile {}\nHost *\n  User {}\n  \
         UserKnownHostsFile ~/known\n  StrictHostKeyChecking yes\n  HashKnownHosts no\n",
        sshd.port,
        sshd.path("client_key").display(),
        gate.port,
        gate.path("client_key").display(),
        sshd::user(),
    );
    let line = |sshd: &Sshd| format!("[127.0.0.1]:{} {}\n", sshd.port, sshd.host_key());
    std::fs::write(home.path().join("known"), line(&gate)).unwrap();
    let said = status(home.path(), &config, "", &[], "");
    assert!(said.contains("is not known") && !said.contains("jump host"), "{said}");
    // The inventory counts before the file.
    let lax = "      ansible_host_key_checking: accept-new\n";
    let said = status(home.path(), &config, lax, &[], "");
    assert!(said.contains("one: no node answers"), "{said}");
    let known = std::fs::read_to_string(home.path().join("known")).unwrap();
    assert_eq!(known, line(&gate) + &line(&sshd));
    let said = status(home.path(), &config, "      ansible_port: 1\n", &[], "");
    assert!(said.contains("127.0.0.1:1"), "{said}");
    let direct = "      ansible_ssh_common_args: -o ProxyJump=none\n";
    let before = gate.log().matches("Accepted").count();
    let said = status(home.path(), &config, direct, &[], "");
    assert!(said.contains("one: no node answers"), "{said}");
    assert_eq!(gate.log().matches("Accepted").count(), before);
}

#[tokio::test]
async fn a_run_goes_on_after_its_link_was_cut() {
    let Some(sshd) = Sshd::start("") else { return };
    if !is_for_tests() {
        return;
    }
    let (port, cut) = links(sshd.port).await;
    let home = tempfile::tempdir().unwrap();
    let at = |name: &str| home.path().join(name);
    let inventory = format!(
        "web:\n  hosts:\n    one: {{ansible_host: 127.0.0.1, ansible_port: {port}, \
         ansible_ssh_private_key_file: {}, ansible_ssh_common_args: -F none}}\n",
        sshd.path("client_key").display(),
    );
    let play = format!(
        "- hosts: web\n  tasks:\n    - copy: {{dest: {0}/first, content: x}}\n    - wait_for: \
         {{path: {0}/go, timeout: 120}}\n    - copy: {{dest: {0}/last, content: y}}\n",
        home.path().display()
    );
    std::fs::write(at("inventory.yaml"), inventory).unwrap();
    std::fs::write(at("play.yml"), play).unwrap();
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_k3sup-rs"));
    command.arg("play").arg("-i").arg(at("inventory.yaml")).arg(at("play.yml"));
    for name in ["XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_CACHE_HOME", "SSH_AUTH_SOCK"] {
        command.env_remove(name);
    }
    command.env("HOME", home.path()).env("NO_COLOR", "1").stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let run = tokio::spawn(command.spawn().unwrap().wait_with_output());
    while !at("first").exists() {
        assert!(!run.is_finished(), "{:?}", run.await);
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    // The answer to the first task may be on its way; then that one is looked at anew.
    cut.send(()).unwrap();
    std::fs::write(at("go"), "").unwrap();
    let output = run.await.unwrap().unwrap();
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("connecting again"), "{said}");
    assert_eq!(std::fs::read_to_string(at("last")).unwrap(), "y");
}
