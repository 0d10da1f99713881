//! Ways to a host beside OpenSSH's own: jump hosts, host certificates, IPv6, and becoming another
//! user by the real sudo and doas. What is not installed, or needs root, is skipped, and said.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test's helpers fail by panicking, and say what they skip"
)]

#[path = "support/sshd.rs"]
mod sshd;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use k3sup_rs::host::protocol::{Change, CommandSpec, Done, FileContent, Observed, Read};
use k3sup_rs::remote::hostkey::{HostKeyMode, HostKeys};
use k3sup_rs::remote::ssh::keys::KeyRing;
use k3sup_rs::remote::{
    Become, ConnectOptions, Connection, Executor, Method, RemoteError, Session, SshTarget, Target,
    connect,
};
use russh::keys::Algorithm;
use sshd::{Sshd, installed, key, public};

fn options(known: &Path, mode: HostKeyMode, executor: &str) -> ConnectOptions {
    let known = known.to_owned();
    let files = vec![known.clone()];
    ConnectOptions {
        host_keys: HostKeys { files, learn_into: Some(known), hashed: false, mode },
        keys: Arc::new(KeyRing::new(PathBuf::from("/nonexistent"))),
        executor: Executor::at(executor),
        ..ConnectOptions::new()
    }
}

async fn reach(
    ssh: SshTarget,
    escalation: Option<Become>,
    options: &ConnectOptions,
) -> Result<Box<dyn Session>, RemoteError> {
    let connection = Connection::Ssh(ssh);
    let target = Target { name: "host".to_owned(), connection, escalation };
    connect(&target, options, &|_| {}).await
}

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

/// So that each has a name of its own.
static PEOPLE: AtomicU32 = AtomicU32::new(0);

/// A user of this machine with a password, and what sudo and doas let it do; gone with the test.
struct Person {
    name: String,
}

impl Person {
    const PASSWORD: &str = "cAnary-5417 pass'word";

    /// `None`, and said, where this test must not make users.
    fn new() -> Option<Self> {
        let allowed = ["CI", "K3SUP_TEST_ROOT"]
            .iter()
            .any(|name| std::env::var(name).is_ok_and(|value| !value.is_empty() && value != "0"));
        if !rustix::process::geteuid().is_root() || !allowed {
            eprintln!(
                "SKIPPED: makes a user: set K3SUP_TEST_ROOT=1 as root on a machine for tests"
            );
            return None;
        }
        let number = PEOPLE.fetch_add(1, Ordering::Relaxed);
        let name = format!("k3sup-test-{}-{number}", std::process::id());
        let made = Command::new("useradd").args(["-m", "-s", "/bin/sh", &name]).status().unwrap();
        assert!(made.success());
        let person = Self { name };
        let mut chpasswd = Command::new("chpasswd").stdin(Stdio::piped()).spawn().unwrap();
        let line = format!("{}:{}\n", person.name, Self::PASSWORD);
        chpasswd.stdin.take().unwrap().write_all(line.as_bytes()).unwrap();
        assert!(chpasswd.wait().unwrap().success());
        Some(person)
    }

    fn sudoers(&self) -> PathBuf {
        Path::new("/etc/sudoers.d").join(&self.name)
    }

    /// `WHO` is the user.
    fn may(&self, rules: &str) {
        let rules = rules.replace("WHO", &self.name) + "\n";
        std::fs::write(self.sudoers(), rules).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o440);
        std::fs::set_permissions(self.sudoers(), mode).unwrap();
    }
}

impl Drop for Person {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(self.sudoers());
        let _ =
            Command::new("userdel").args(["-r", "-f", &self.name]).stderr(Stdio::null()).status();
    }
}

/// Looks for the password where no secret may be, all the time.
struct Watch {
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<Vec<String>>>,
}

impl Watch {
    fn start() -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut found = Vec::new();
            while !stopped.load(Ordering::Relaxed) {
                for entry in std::fs::read_dir("/proc").unwrap().flatten() {
                    for file in ["cmdline", "environ"] {
                        let text = std::fs::read(entry.path().join(file)).unwrap_or_default();
                        if String::from_utf8_lossy(&text).contains("cAnary-5417") {
                            found.push(format!("{}/{file}", entry.path().display()));
                        }
                    }
                }
                std::thread::sleep(std::time::Duration::from_millis(2));
            }
            found
        });
        Self { stop, thread: Some(thread) }
    }

    fn found(mut self) -> Vec<String> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap()
    }
}

/// The executor answers as root, and every byte gets through.
async fn works(session: Result<Box<dyn Session>, RemoteError>, about: &str) {
    let mut session = session.unwrap_or_else(|error| panic!("{about}: {error:?}"));
    let argv = ["id", "-u"].map(str::to_owned).to_vec();
    let spec = CommandSpec { argv, timeout_ms: 20_000, ..CommandSpec::default() };
    let answers = session.read(vec![Read::Command(spec)]).await.unwrap();
    let [Ok(Observed::Output(output))] = answers.as_slice() else { panic!("{about}: {answers:?}") };
    assert_eq!(&output.stdout[..], b"0\n", "{about}");
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    let bytes: Vec<u8> = (0..=255).cycle().take(1 << 20).collect();
    let put = Change::PutFile {
        path: path.to_str().unwrap().to_owned(),
        content: FileContent::Bytes(bytes.clone().into()),
        mode: 0o600,
        owner: None,
        group: None,
        backup: false,
        validate: Vec::new(),
    };
    assert_eq!(session.change(vec![put]).await.unwrap(), [Ok(Done::Ok)], "{about}");
    assert!(std::fs::read(&path).unwrap() == bytes, "{about}: the bytes are other ones");
}

/// A refusal of sudo: its words and its hint.
fn refused(session: Result<Box<dyn Session>, RemoteError>, about: &str) -> String {
    match session.err().unwrap() {
        RemoteError::Become { message, hint } => format!("{message} ({})", hint.unwrap()),
        other => panic!("{about}: {other:?}"),
    }
}

fn root(method: Method, password: Option<&str>) -> Become {
    Become { password: password.map(Into::into), method, ..Become::new("root") }
}

#[tokio::test]
async fn sudo_is_asked_in_every_way_it_wants() {
    if installed("sudo").is_none() {
        return;
    }
    let (Some(sshd), Some(person)) = (Sshd::start(""), Person::new()) else { return };
    let executor = env!("CARGO_BIN_EXE_k3sup-rs");
    let options = options(&sshd.path("known"), HostKeyMode::AcceptNew, executor);
    let ask = async |password: Option<&str>| {
        let target = SshTarget { user: person.name.clone(), ..sshd.target() };
        reach(target, Some(root(Method::Sudo, password)), &options).await
    };
    let watch = Watch::start();
    let right = Some(Person::PASSWORD);
    let mut said = Vec::new();
    let all = "WHO ALL=(ALL) ALL\nDefaults:WHO timestamp_timeout=0";
    for more in ["!requiretty", "requiretty", "use_pty", "requiretty, use_pty", "passwd_tries=1"] {
        person.may(&format!("WHO ALL=(ALL) NOPASSWD: ALL\nDefaults:WHO {more}"));
        works(ask(None).await, more).await;
        works(ask(right).await, more).await;
        person.may(&format!("{all}\nDefaults:WHO {more}"));
        works(ask(right).await, more).await;
        let wrong = refused(ask(Some("guess")).await, more);
        assert!(wrong.contains("does not accept the password"), "{more}: {wrong}");
        let none = refused(ask(None).await, more);
        assert!(none.contains("-K"), "{more}: {none}");
        said.extend([wrong, none]);
    }
    person.may("");
    let stranger = refused(ask(right).await, "not in sudoers");
    assert!(!stranger.contains("does not accept") && stranger.contains("sudo"), "{stranger}");
    assert_eq!(watch.found(), Vec::<String>::new());
    let said = said.concat() + &stranger + &sshd.log();
    assert!(!said.contains("cAnary-5417"), "{said}");
}

#[tokio::test]
async fn a_host_without_sudo_says_so() {
    let Some(person) = Person::new() else { return };
    let bin = tempfile::tempdir().unwrap();
    std::fs::set_permissions(bin.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .unwrap();
    for program in
        ["sh", "sha256sum", "id", "uname", "gzip", "mkdir", "chmod", "mv", "find", "rm", "cat"]
    {
        std::os::unix::fs::symlink(installed(program).unwrap(), bin.path().join(program)).unwrap();
    }
    let path = format!("SetEnv PATH={}", bin.path().display());
    let Some(sshd) = Sshd::start(&path) else { return };
    let executor = env!("CARGO_BIN_EXE_k3sup-rs");
    let options = options(&sshd.path("known"), HostKeyMode::AcceptNew, executor);
    let target = SshTarget { user: person.name.clone(), ..sshd.target() };
    let error = reach(target, Some(root(Method::Sudo, None)), &options).await;
    let said = refused(error, "no sudo");
    assert!(said.contains("not found") && said.contains("install sudo"), "{said}");
}

/// `doas.conf`, gone with the test.
struct Rules<'a>(&'a Path);

impl Drop for Rules<'_> {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(self.0);
    }
}

#[tokio::test]
async fn doas_is_asked_with_and_without_a_password() {
    let rules = Path::new("/etc/doas.conf");
    if installed("doas").is_none() {
        return;
    }
    if rules.exists() {
        eprintln!("SKIPPED: there is a doas.conf on this machine");
        return;
    }
    let (Some(sshd), Some(person)) = (Sshd::start(""), Person::new()) else { return };
    let rules = Rules(rules);
    let executor = env!("CARGO_BIN_EXE_k3sup-rs");
    let options = options(&sshd.path("known"), HostKeyMode::AcceptNew, executor);
    let ask = async |password: Option<&str>| {
        let target = SshTarget { user: person.name.clone(), ..sshd.target() };
        reach(target, Some(root(Method::Doas, password)), &options).await
    };
    let watch = Watch::start();
    std::fs::write(rules.0, format!("permit nopass {} as root\n", person.name)).unwrap();
    works(ask(None).await, "nopass").await;
    works(ask(Some(Person::PASSWORD)).await, "nopass with a password").await;
    std::fs::write(rules.0, format!("permit {} as root\n", person.name)).unwrap();
    works(ask(Some(Person::PASSWORD)).await, "password").await;
    let wrong = refused(ask(Some("guess")).await, "wrong");
    assert!(wrong.contains("does not accept the password"), "{wrong}");
    let none = refused(ask(None).await, "none");
    assert!(none.contains("-K"), "{none}");
    assert_eq!(watch.found(), Vec::<String>::new());
}

/// A link to `port` that is cut when what is returned is dropped.
async fn link(port: u16) -> (u16, tokio_util::task::AbortOnDropHandle<()>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let own = listener.local_addr().unwrap().port();
    let task = tokio::spawn(async move {
        let (mut near, _) = listener.accept().await.unwrap();
        let mut far = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
    });
    (own, tokio_util::task::AbortOnDropHandle::new(task))
}

#[tokio::test]
async fn what_a_cut_link_leaves_under_way_is_waited_for() {
    let Some(sshd) = Sshd::start("") else { return };
    let executor = env!("CARGO_BIN_EXE_k3sup-rs");
    let options = options(&sshd.path("known"), HostKeyMode::AcceptNew, executor);
    let (port, link) = link(sshd.port).await;
    let mut session = reach(SshTarget { port, ..sshd.target() }, None, &options).await.unwrap();
    let (begun, ended) = (sshd.path("begun"), sshd.path("ended"));
    let script = format!("touch {}; sleep 3; touch {}", begun.display(), ended.display());
    let argv = ["sh", "-c", &script].map(str::to_owned).to_vec();
    let run = Change::Run(CommandSpec { argv, timeout_ms: 60_000, ..CommandSpec::default() });
    let change = tokio::spawn(async move { session.change(vec![run]).await });
    while !begun.exists() {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    drop(link);
    let error = change.await.unwrap().unwrap_err();
    assert!(matches!(error, RemoteError::Unreachable { .. }), "{error:?}");
    let mut session = reach(sshd.target(), None, &options).await.unwrap();
    let answers = session.read(vec![Read::Idle { timeout_ms: 120_000 }]).await.unwrap();
    assert_eq!(answers, [Ok(Observed::Idle(true))]);
    assert!(ended.exists());
}

/// `k3sup-rs status` on a host `web` that only `~/.ssh/config` knows; gives what it says.
fn status(home: &Path, config: &str, variables: &str, more: &[&str], input: &str) -> String {
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

#[test]
fn passwords_are_asked_for_on_the_command_line() {
    if installed("sudo").is_none() {
        return;
    }
    let (Some(sshd), Some(person)) = (Sshd::start(""), Person::new()) else { return };
    person.may("WHO ALL=(ALL) ALL\nDefaults:WHO timestamp_timeout=0");
    let home = tempfile::tempdir().unwrap();
    let config = format!(
        "Host web\n  HostName 127.0.0.1\n  Port {}\n  IdentityFile {}\n  User {}\n  \
         UserKnownHostsFile ~/known\n",
        sshd.port,
        sshd.path("client_key").display(),
        person.name
    );
    let become_ = "      ansible_become: true\n";
    let watch = Watch::start();
    let ask = |input: &str| status(home.path(), &config, become_, &["-K"], input);
    let right = ask(&format!("{}\n", Person::PASSWORD));
    assert!(right.contains("one: no node answers"), "{right}");
    let wrong = ask("guess\n");
    assert!(wrong.contains("does not accept the password to become root"), "{wrong}");

    let none = status(home.path(), &config, become_, &[], "");
    assert!(none.contains("cannot become root"), "{none}");
    assert_eq!(watch.found(), Vec::<String>::new());
}
