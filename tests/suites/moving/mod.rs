//! A cluster moves out to etcd and in from it: with etcd's own programs, `etcdctl snapshot save` of one
//! is what the other begins with, and all revisions, hashes, leases, users and roles are the same.

mod alone;
use crate::support;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use crate::support::etcd::{COMMAND_TIMEOUT, Ctl, Etcd, clients, text};
use crate::support::server::Server;
use crate::support::store::{Store, insist};
use crate::support::trio::Trio;
use crate::support::{BINARY, shown, wait_for};
use k3sup_rs::node::snapshots::inspect::inspect;

const OUT: &str = "98.1";
const REAL: &str = "127.98.2.1";
const SERVER: &str = "127.98.3.1";

/// The revision that is compacted.
const COMPACTED: i64 = 150;

/// The last `etcdctl` that was named, and the `etcdutl` beside it.
fn tools() -> Option<(PathBuf, PathBuf)> {
    let etcdctl = clients().pop()?;
    let etcdutl = etcdctl.with_file_name("etcdutl");
    if etcdutl.is_file() {
        return Some((etcdctl, etcdutl));
    }
    eprintln!("SKIPPED: no etcdutl beside {}", etcdctl.display());
    None
}

fn ctl(program: &Path, url: &str) -> Ctl {
    Ctl { program: program.to_owned(), endpoints: url.to_owned(), bundle: None }
}

fn utl(program: &Path, arguments: &[&str]) -> Output {
    let output = Command::new(program).env_clear().args(arguments).output().unwrap();
    assert!(output.status.success(), "etcdutl {arguments:?}: {}", shown(&output));
    output
}

/// Something of everything. Gives the lease.
fn fill(ctl: &Ctl, store: &Store) -> String {
    let granted = ctl.ok(&["lease", "grant", "5000"]);
    let lease = granted.split(' ').nth(1).unwrap().to_owned();
    for number in 0..300 {
        let (key, value) = (format!("k{:03}", number * 7 % 100), "x".repeat(number * 11));
        insist("a write", || store.put(&key, &value));
        if number % 10 == 0 {
            insist("a deletion", || store.delete(&format!("k{:03}", number % 100)));
        }
    }
    ctl.ok(&["put", "leased", "value", &format!("--lease={lease}")]);
    ctl.ok(&["put", "large", &"y".repeat(100_000)]);
    ctl.ok(&["compaction", &COMPACTED.to_string()]);
    insist("a write", || store.put("last", "one"));
    ctl.ok(&["user", "add", "root:secret"]);
    ctl.ok(&["user", "add", "reader:secret"]);
    ctl.ok(&["user", "add", "keyed", "--no-password"]);
    ctl.ok(&["role", "add", "some"]);
    ctl.ok(&["role", "grant-permission", "some", "readwrite", "k0", "k1"]);
    ctl.ok(&["user", "grant-role", "reader", "some"]);
    ctl.ok(&["user", "grant-role", "root", "root"]);
    lease
}

/// All that has to be the same on the other side.
struct Content {
    revision: i64,
    pairs: support::store::Pairs,
    hashes: Vec<u32>,
    users: String,
    role: String,
}

impl Content {
    /// Tells what differs, and not all of it.
    #[track_caller]
    fn assert_same(&self, other: &Self) {
        assert_eq!(self.revision, other.revision);
        assert_eq!((&self.users, &self.role), (&other.users, &other.role));
        let keys = |content: &Self| content.pairs.keys().cloned().collect::<Vec<_>>();
        assert_eq!(keys(self), keys(other));
        for (key, pair) in &self.pairs {
            assert!(other.pairs.get(key) == Some(pair), "{key}");
        }
        assert_eq!(self.hashes, other.hashes);
    }
}

fn content(ctl: &Ctl, store: &Store) -> Content {
    let (revision, pairs) = insist("a read", || store.all());
    let hash = |revision| insist("a hash", || store.hash(revision));
    // At the compacted revision itself etcd remembers the hash from before it compacted.
    let hashes = (COMPACTED + 1..=revision).map(hash).collect();
    let users = ctl.ok(&["user", "list"]);
    Content { revision, pairs, hashes, users, role: ctl.ok(&["role", "get", "some"]) }
}

/// The lease holds its key, users log in, what a role does not allow is denied, and it can be written.
fn works(ctl: &Ctl, store: &Store, lease: &str) {
    let kept = ctl.json(&["lease", "timetolive", lease, "--keys"]);
    assert_eq!(kept["granted-ttl"], 5000);
    assert_eq!(kept["keys"], serde_json::json!(["bGVhc2Vk"]));
    let refused = ctl.refused(&["get", "k000", &format!("--rev={}", COMPACTED - 1)]);
    assert!(refused.contains("has been compacted"), "{refused}");
    let next = store.put("after", "it").unwrap();
    ctl.ok(&["lease", "revoke", lease]);
    assert_eq!(ctl.ok(&["get", "leased"]), "");
    assert_eq!(store.revision().unwrap(), next + 1);
    ctl.ok(&["auth", "enable"]);
    assert_eq!(ctl.ok(&["--user=reader:secret", "put", "k01", "x"]), "OK\n");
    let refused = ctl.refused(&["--user=reader:secret", "put", "other", "x"]);
    assert!(refused.contains("permission denied"), "{refused}");
    ctl.ok(&["--user=root:secret", "auth", "disable"]);
}

#[test]
fn a_cluster_moves_out_to_etcd() {
    let Some((etcdctl, etcdutl)) = tools() else { return };
    let trio = Trio::new(OUT);
    let mut members = trio.begin(&[1], &[]);
    let (own, store) = (ctl(&etcdctl, &trio.url(1, 2379)), trio.store(&[1]));
    let lease = fill(&own, &store);
    let before = content(&own, &store);

    let home = tempfile::tempdir().unwrap();
    let saved = home.path().join("saved");
    own.ok(&["snapshot", "save", saved.to_str().unwrap()]);
    let ours = Command::new(BINARY)
        .args(["etcdctl", COMMAND_TIMEOUT, "--endpoints", &own.endpoints, "snapshot", "save"])
        .arg(home.path().join("ours"))
        .output()
        .unwrap();
    assert!(ours.status.success(), "{}", shown(&ours));
    members[0].kill();

    for name in ["saved", "ours"] {
        let path = home.path().join(name);
        let told = utl(&etcdutl, &["snapshot", "status", path.to_str().unwrap(), "-w", "json"]);
        let status: serde_json::Value = serde_json::from_slice(&told.stdout).unwrap();
        assert_eq!(status["revision"], before.revision);
        assert!(
            status["totalKey"].as_i64().unwrap() >= i64::try_from(before.pairs.len()).unwrap(),
            "{status}"
        );
        let view = inspect(&path).unwrap();
        assert_eq!((view.revision, view.keys), (before.revision, Some(before.pairs.len() as u64)));
    }

    let restored = tempfile::tempdir().unwrap();
    let (data, peer) = (restored.path().join("data"), format!("http://{REAL}:2380"));
    utl(
        &etcdutl,
        &[
            "snapshot",
            "restore",
            saved.to_str().unwrap(),
            "--data-dir",
            data.to_str().unwrap(),
            "--name=real",
            &format!("--initial-cluster=real={peer}"),
            &format!("--initial-advertise-peer-urls={peer}"),
        ],
    );
    let Some(etcd) = Etcd::start_in(restored, REAL) else { return };
    let (real, store) = (ctl(&etcdctl, &etcd.url), Store::plain(std::slice::from_ref(&etcd.url)));
    wait_for("etcd answers", || store.revision().ok());
    content(&real, &store).assert_same(&before);
    works(&real, &store, &lease);
    // It keeps house with what it was given.
    real.ok(&["compaction", &before.revision.to_string()]);
    real.ok(&["defrag"]);
    assert_eq!(store.all().unwrap().1.get("last").unwrap().0, "one");
}

/// A server of a cluster of its own.
fn server(data: &Path) -> Command {
    let mut command = Command::new(BINARY);
    let beside = |extension: &str| data.with_extension(extension);
    std::fs::write(beside("yaml"), "# nothing\n").unwrap();
    command
        .args(["server", "--node-name", "server1", "--token", "s3cret"])
        .args(["--bind-address", SERVER, "--node-ip", SERVER, "--data-dir"])
        .arg(data)
        .arg("--config")
        .arg(beside("yaml"))
        .arg("--write-kubeconfig")
        .arg(beside("bundle"))
        .stdin(Stdio::null());
    command
}

fn reset(data: &Path, from: &Path) -> Output {
    let mut command = server(data);
    command.args(["--cluster-reset", "--cluster-reset-restore-path"]).arg(from);
    command.output().unwrap()
}

/// A client of a server, with the files as it calls them in a directory of its own.
fn ctl_of(server: &Server, program: &Path, home: &Path) -> Ctl {
    let files = server.files();
    let bundle = home.join("client");
    std::fs::create_dir_all(&bundle).unwrap();
    for (from, to) in [(files.ca, "ca.crt"), (files.cert, "client.crt"), (files.key, "client.key")]
    {
        std::fs::copy(from, bundle.join(to)).unwrap();
    }
    let endpoints = format!("https://{SERVER}:2379");
    Ctl { program: program.to_owned(), endpoints, bundle: Some(bundle) }
}

#[test]
fn a_cluster_moves_in_from_etcd() {
    let Some((etcdctl, _)) = tools() else { return };
    let address = "127.98.4.1";
    let etcd_home = tempfile::tempdir().unwrap();
    let db = etcd_home.path().join("data/member/snap/db");
    let Some(etcd) = Etcd::start_in(etcd_home, address) else { return };
    let (real, store) = (ctl(&etcdctl, &etcd.url), Store::plain(std::slice::from_ref(&etcd.url)));
    wait_for("etcd answers", || store.revision().ok());
    let lease = fill(&real, &store);
    let before = content(&real, &store);

    let home = tempfile::tempdir().unwrap();
    let saved = home.path().join("saved");
    real.ok(&["snapshot", "save", saved.to_str().unwrap()]);
    // As K3s compresses them, and a copy of the database without a hash.
    let zipped = home.path().join("saved.zip");
    let mut archive = zip::ZipWriter::new(File::create(&zipped).unwrap());
    archive.start_file("saved", zip::write::SimpleFileOptions::default()).unwrap();
    std::io::copy(&mut File::open(&saved).unwrap(), &mut archive).unwrap();
    archive.finish().unwrap();
    // The database is written every so often.
    std::thread::sleep(std::time::Duration::from_secs(1));
    let copied = home.path().join("copied");
    std::fs::copy(&db, &copied).unwrap();
    drop(etcd);

    let bytes = std::fs::read(&saved).unwrap();
    let damaged = home.path().join("damaged");
    for length in [bytes.len() / 2, bytes.len() - 32 - 4096, bytes.len() - 1] {
        std::fs::write(&damaged, &bytes[..length]).unwrap();
        let output = reset(&home.path().join("none"), &damaged);
        assert!(!output.status.success(), "cut to {length}");
        let said = text(&output);
        assert!(said.contains("damage") || said.contains("cut off"), "{length}: {said}");
    }

    for (name, from) in [("one", &saved), ("two", &zipped), ("three", &copied)] {
        let data = home.path().join(name);
        let output = reset(&data, from);
        assert!(output.status.success(), "{name}: {}", shown(&output));
        let server = Server::start(server(&data), &data, SERVER);
        let store = server.ready();
        let ctl = ctl_of(&server, &etcdctl, home.path());
        content(&ctl, &store).assert_same(&before);
        let members = store.members().unwrap().1;
        assert_eq!(members.len(), 1);
        assert!(members[0].name.starts_with("server1-"), "{members:?}");
        works(&ctl, &store, &lease);
    }
}
