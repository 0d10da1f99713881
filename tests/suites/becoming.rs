//! Becoming another user by the real sudo and doas over a real sshd. What is not installed, or needs
//! root, is skipped, and said.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test's helpers fail by panicking")]

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use crate::support::sshd::{Sshd, installed, is_for_tests, options, reach, status};
use k3sup_rs::host::protocol::{Change, CommandSpec, Done, FileContent, Observed, Read};
use k3sup_rs::remote::hostkey::HostKeyMode;
use k3sup_rs::remote::{Become, Method, RemoteError, Session, SshTarget};

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
        if !is_for_tests() {
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
