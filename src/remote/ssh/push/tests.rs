use std::path::Path;
use std::process::{Command, Output, Stdio};

use sha2::{Digest as _, Sha256};

use super::*;
use crate::remote::target::{Become, Method};

/// Runs a command line as a login shell would, with `home` as the home directory.
fn run(shell: &str, line: &str, home: &Path, input: &[u8]) -> Output {
    use std::io::Write as _;
    let mut child = Command::new(shell)
        .args(["-c", line])
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("HOME", home)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A script that ends early does not read it all.
    let _ = child.stdin.take().unwrap().write_all(input);
    child.wait_with_output().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// In the place of an executor: a script that shows its arguments.
const PROGRAM: &[u8] = b"#!/bin/sh\nprintf '<%s>' \"$@\"\n";

fn sha256() -> String {
    hex::encode(Sha256::digest(PROGRAM))
}

/// The line that takes an executor.
fn take(sha256: &str, nonce: &str, packing: &str) -> String {
    script(TAKE, &[sha256, beginning(sha256), nonce, packing])
}

fn cached(home: &Path) -> std::path::PathBuf {
    home.join(".cache/k3sup-rs").join(format!("k3sup-rs-{}", &sha256()[..16]))
}

fn shells() -> Vec<&'static str> {
    let all = ["/bin/sh", "/bin/bash", "/bin/dash", "/usr/bin/fish", "/bin/csh", "/bin/zsh"];
    all.into_iter().filter(|path| Path::new(path).exists()).collect()
}

#[test]
fn scripts_survive_any_login_shell() {
    for text in [PROBE, TAKE] {
        assert!(!text.contains(['\'', '\n']), "{text}");
        assert!(!text.replace("!=", "").contains('!'), "{text}");
    }
    assert_eq!(quoted("a'b"), "'a'\\''b'");
}

#[test]
fn a_host_without_it_asks_takes_it_and_then_starts_it() {
    for shell in shells() {
        let home = tempfile::tempdir().unwrap();
        let start = Start::new(Some(sha256()));
        let asked = stdout(&run(shell, &probe(&Way::Direct, &start), home.path(), b""));
        let answer = asked.trim().strip_prefix(&format!("k3sup-rs {} ", start.nonce)).unwrap();
        let asked = Asked::parse(answer).unwrap();
        assert_eq!(asked.machine, std::env::consts::ARCH);
        assert!(asked.is_here());

        let line = take(&sha256(), "n0nce", "raw");
        assert_eq!(stdout(&run(shell, &line, home.path(), PROGRAM)), "k3sup-rs n0nce pushed\n");
        assert_eq!(std::fs::read(cached(home.path())).unwrap(), PROGRAM);
        assert_eq!(std::fs::read_dir(cached(home.path()).parent().unwrap()).unwrap().count(), 2);

        let started = stdout(&run(shell, &probe(&Way::Direct, &start), home.path(), b""));
        let marker = start.marker();
        assert_eq!(started, format!("<host><--marker><{marker}><--sha256><{}>", sha256()));
    }
}

#[test]
fn who_is_that_user_already_needs_no_sudo() {
    let home = tempfile::tempdir().unwrap();
    let line = take(&sha256(), "n", "raw");
    run("/bin/sh", &line, home.path(), PROGRAM);
    let start = Start::new(Some(sha256()));
    let own = crate::host::user_name(rustix::process::geteuid().as_raw());
    let never = Some("never used".into());
    for escalation in [
        Become::new(own.as_str()),
        Become { password: never.clone(), ..Become::new(own.as_str()) },
        Become { password: never, method: Method::Doas, ..Become::new(own.as_str()) },
    ] {
        let way = Way::of(Some(&escalation)).unwrap();
        let started = stdout(&run("/bin/sh", &probe(&way, &start), home.path(), b""));
        assert!(started.starts_with("<host><--marker>"), "{started}");
        assert!(!probe(&way, &start).contains("never used"));
    }
}

#[test]
fn what_is_cut_or_damaged_leaves_nothing() {
    let home = tempfile::tempdir().unwrap();
    for length in [0, 1, PROGRAM.len() - 1] {
        let line = take(&sha256(), "n", "raw");
        let output = run("/bin/sh", &line, home.path(), &PROGRAM[..length]);
        assert_eq!(stdout(&output), "k3sup-rs n failed hash\n");
        let left = std::fs::read_dir(home.path().join(".cache/k3sup-rs")).unwrap().count();
        assert_eq!(left, 0, "{length} bytes");
    }
    let line = take(&sha256(), "n", "gzip");
    let output = run("/bin/sh", &line, home.path(), b"not gzip");
    assert!(stdout(&output).starts_with("k3sup-rs n failed"), "{output:?}");
}

#[test]
fn a_packed_one_is_unpacked() {
    use std::io::Write as _;
    let home = tempfile::tempdir().unwrap();
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(PROGRAM).unwrap();
    let packed = packed.finish().unwrap();
    let output = run("/bin/sh", &take(&sha256(), "n", "gzip"), home.path(), &packed);
    assert_eq!(stdout(&output), "k3sup-rs n pushed\n");
    assert_eq!(std::fs::read(cached(home.path())).unwrap(), PROGRAM);
}

#[test]
fn a_damaged_executor_is_not_started() {
    let home = tempfile::tempdir().unwrap();
    run("/bin/sh", &take(&sha256(), "n", "raw"), home.path(), PROGRAM);
    std::fs::write(cached(home.path()), b"#!/bin/sh\necho stolen\n").unwrap();
    let start = Start::new(Some(sha256()));
    let said = stdout(&run("/bin/sh", &probe(&Way::Direct, &start), home.path(), b""));
    assert!(said.contains(" push "), "{said}");
}

/// A directory with only these of the system's programs.
fn programs(names: &[&str]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for name in names {
        let found = ["/usr/bin", "/bin"].map(|place| Path::new(place).join(name));
        let found = found.iter().find(|path| path.exists()).unwrap();
        std::os::unix::fs::symlink(found, dir.path().join(name)).unwrap();
    }
    dir
}

/// What the probe says when the programs in `path` are all that there are.
fn probed(home: &Path, path: &Path) -> String {
    let line = probe(&Way::Direct, &Start::new(Some(sha256())));
    let output = Command::new("/bin/sh")
        .args(["-c", &line])
        .env_clear()
        .env("PATH", path)
        .env("HOME", home)
        .output();
    stdout(&output.unwrap())
}

#[test]
fn what_was_verified_in_this_boot_is_not_hashed_again() {
    let home = tempfile::tempdir().unwrap();
    run("/bin/sh", &take(&sha256(), "n", "raw"), home.path(), PROGRAM);
    // No program that hashes.
    let bare = programs(&["id", "stat", "uname", "tr"]);
    let starts = || probed(home.path(), bare.path()).starts_with("<host>");
    assert!(starts());
    let stamp = cached(home.path()).with_extension("ok");
    let good = std::fs::read_to_string(&stamp).unwrap();
    // As after another boot, which may have followed a power cut.
    let other = format!("{}{}", "0".repeat(36), &good[36..]);
    for stale in [other.as_str(), "", "\n", &good[..good.len() / 2]] {
        std::fs::write(&stamp, stale).unwrap();
        assert!(!starts(), "{stale:?}");
    }
    assert!(probed(home.path(), Path::new("/usr/bin")).starts_with("<host>"), "hashed");
    assert_eq!(std::fs::read_to_string(&stamp).unwrap(), good, "and known again");
    assert!(starts());
}

#[test]
fn whatever_is_done_to_the_file_is_noticed() {
    let home = tempfile::tempdir().unwrap();
    let bare = programs(&["id", "stat", "uname", "tr"]);
    let file = cached(home.path());
    let damages: [&dyn Fn(); 3] = [
        // The same length, and the same date.
        &|| {
            let date = std::fs::metadata(&file).unwrap().modified().unwrap();
            std::fs::write(&file, PROGRAM.to_ascii_uppercase()).unwrap();
            std::fs::File::open(&file).unwrap().set_modified(date).unwrap();
        },
        &|| {
            let copy = file.with_file_name("copy");
            std::fs::copy(&file, &copy).unwrap();
            std::fs::rename(&copy, &file).unwrap();
        },
        &|| std::fs::OpenOptions::new().write(true).open(&file).unwrap().set_len(3).unwrap(),
    ];
    for damage in damages {
        run("/bin/sh", &take(&sha256(), "n", "raw"), home.path(), PROGRAM);
        assert!(probed(home.path(), bare.path()).starts_with("<host>"));
        damage();
        assert!(!probed(home.path(), bare.path()).starts_with("<host>"));
    }
}

#[test]
fn a_directory_that_is_a_link_is_passed_over() {
    let (home, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    std::fs::create_dir(home.path().join(".cache")).unwrap();
    std::os::unix::fs::symlink(elsewhere.path(), home.path().join(".cache/k3sup-rs")).unwrap();
    // One of its own, as the next place is shared by all runs of this test.
    let program = format!("#!/bin/sh\n# {}\n", home.path().display());
    let hash = hex::encode(Sha256::digest(&program));
    let line = take(&hash, "n", "raw");
    let said = stdout(&run("/bin/sh", &line, home.path(), program.as_bytes()));
    assert_eq!(said, "k3sup-rs n pushed\n");
    assert_eq!(std::fs::read_dir(elsewhere.path()).unwrap().count(), 0);
    let own = rustix::process::geteuid().as_raw();
    let next = format!("/var/tmp/k3sup-rs-{own}/k3sup-rs-{}", &hash[..16]);
    assert_eq!(std::fs::read_to_string(&next).unwrap(), program);
    std::fs::remove_file(format!("{next}.ok")).unwrap();
    std::fs::remove_file(next).unwrap();
}

#[test]
fn answers_are_understood_or_refused() {
    let asked = Asked::parse("push x86_64 gzip musl b00t").unwrap();
    let (machine, boot) = ("x86_64".to_owned(), "b00t".to_owned());
    assert_eq!(asked, Asked { machine, library: Has::Musl, gzip: true, boot });
    assert!(!Asked::parse("push aarch64 raw - -").unwrap().gzip);
    for answer in
        ["", "push", "push a b", "push a b c d e", "push \x1b[2J gzip - -", "take x86_64 gzip - -"]
    {
        assert_eq!(Asked::parse(answer), None, "{answer:?}");
    }
}
