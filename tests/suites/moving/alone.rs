//! Stand-alone members begin with a snapshot of etcd's: `k3sup-rs etcdctl snapshot status|restore` beside
//! `etcdutl`.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use super::{COMPACTED, content, ctl, fill, tools, utl, works};
use crate::support::etcd::{Ctl, Etcd, text};
use crate::support::member::Member;
use crate::support::store::Store;
use crate::support::trio::Trio;
use crate::support::{BINARY, shown, wait_for};

const REAL: &str = "127.98.5.1";
const REAL_AGAIN: &str = "127.98.5.2";
const TRIO: &str = "98.6";
const BUMPED: &str = "98.7";
const BUMP: i64 = 1_000_000;

fn own(arguments: &[&str]) -> Output {
    let mut command = Command::new(BINARY);
    command.env_clear().args(["etcdctl", "snapshot"]).args(arguments);
    command.output().expect("it runs")
}

/// Restores one of three members.
fn restore(trio: &Trio, member: usize, members: &[usize], from: &Path, more: &[&str]) -> Output {
    let (name, url) = (format!("m{member}"), trio.url(member, 2380));
    let data = trio.directory.path().join(&name);
    let initial = trio.initial(members);
    let mut arguments = vec!["restore", from.to_str().unwrap(), "--name", &name];
    arguments.extend(["--data-dir", data.to_str().unwrap(), "--initial-cluster", &initial]);
    arguments.extend(["--initial-advertise-peer-urls", &url]);
    arguments.extend(more);
    own(&arguments)
}

fn same_status(etcdutl: &Path, file: &Path) {
    let file = file.to_str().unwrap();
    for shape in ["simple", "json", "table"] {
        let theirs = utl(etcdutl, &["snapshot", "status", file, "-w", shape]);
        let ours = own(&["status", file, "-w", shape]);
        assert!(ours.status.success(), "{}", shown(&ours));
        assert_eq!(text(&ours), text(&theirs));
    }
}

/// A real etcd that is filled, a snapshot of it and a copy of its database.
fn filled(etcdctl: &Path, home: &Path) -> Option<(String, super::Content, PathBuf, PathBuf)> {
    let dir = tempfile::tempdir().unwrap();
    let db = dir.path().join("data/member/snap/db");
    let etcd = Etcd::start_in(dir, REAL)?;
    let (real, store) = (ctl(etcdctl, &etcd.url), Store::plain(std::slice::from_ref(&etcd.url)));
    wait_for("etcd answers", || store.revision().ok());
    let lease = fill(&real, &store);
    let before = content(&real, &store);
    let (saved, copied) = (home.join("saved"), home.join("copied"));
    real.ok(&["snapshot", "save", saved.to_str().unwrap()]);
    // Its database is written every 100 ms.
    std::thread::sleep(std::time::Duration::from_secs(1));
    std::fs::copy(db, &copied).unwrap();
    Some((lease, before, saved, copied))
}

#[test]
fn members_begin_with_a_snapshot_of_etcds() {
    let Some((etcdctl, etcdutl)) = tools() else { return };
    let home = tempfile::tempdir().unwrap();
    let Some((lease, before, saved, copied)) = filled(&etcdctl, home.path()) else { return };
    same_status(&etcdutl, &saved);

    let trio = Trio::new(TRIO);
    let all = [1, 2, 3];
    let refused = restore(&trio, 1, &all, &copied, &[]);
    assert!(text(&refused).contains("it has no hash at its end"), "{}", shown(&refused));
    // What a restore left that was cut off is in nobody's way.
    std::fs::create_dir_all(trio.directory.path().join("m1/member.part/snap")).unwrap();
    for member in all {
        let from = if member == 3 { &copied } else { &saved };
        let done = restore(&trio, member, &all, from, &["--skip-hash-check"]);
        assert!(done.status.success(), "{}", shown(&done));
    }
    let again = restore(&trio, 1, &all, &saved, &[]);
    assert!(text(&again).contains("not empty"), "{}", shown(&again));

    let mut members = trio.begin(&all, &[]);
    let (own, store) = (ctl(&etcdctl, &trio.url(1, 2379)), trio.store(&all));
    wait_for("the members answer", || store.revision().ok());
    content(&own, &store).assert_same(&before);
    assert_eq!(store.members().unwrap().1.len(), 3);
    works(&own, &store, &lease);

    // Without a minority, and with all again.
    let pairs = store.all().unwrap().1;
    members[0].kill();
    let two = trio.store(&[2, 3]);
    wait_for("two of three answer", || two.put("two", "members").ok());
    members[0] = trio.start(1, &all, &[]);
    Member::ready(&mut members[0]);
    let one = trio.store(&[1]);
    let found = wait_for("the first one answers", || one.all().ok()).1;
    assert_eq!(found.len(), pairs.len() + 1);
    let saved = home.path().join("saved-of-ours");
    own.ok(&["snapshot", "save", saved.to_str().unwrap()]);
    same_status(&etcdutl, &saved);
}

#[test]
fn revisions_go_on_further_as_in_etcd() {
    let Some((etcdctl, etcdutl)) = tools() else { return };
    let trio = Trio::new(BUMPED);
    let home = tempfile::tempdir().unwrap();
    let saved = home.path().join("saved");
    {
        let _members = trio.begin(&[1], &[]);
        fill(&ctl(&etcdctl, &trio.url(1, 2379)), &trio.store(&[1]));
        ctl(&etcdctl, &trio.url(1, 2379)).ok(&["snapshot", "save", saved.to_str().unwrap()]);
    }
    let bump = BUMP.to_string();
    let further = ["--bump-revision", &bump, "--mark-compacted"];
    let done = restore(&trio, 2, &[2], &saved, &further);
    assert!(done.status.success(), "{}", shown(&done));
    let alone = restore(&trio, 3, &[3], &saved, &further[..2]);
    assert_eq!(alone.status.code(), Some(5), "{}", shown(&alone));
    let _member = trio.begin(&[2], &[]);

    let restored = tempfile::tempdir().unwrap();
    let (data, peer) = (restored.path().join("data"), format!("http://{REAL_AGAIN}:2380"));
    let initial = format!("real={peer}");
    let mut arguments = vec!["snapshot", "restore", saved.to_str().unwrap()];
    arguments.extend(["--data-dir", data.to_str().unwrap(), "--name=real"]);
    arguments.extend(["--initial-cluster", &initial, "--initial-advertise-peer-urls", &peer]);
    arguments.extend(further);
    utl(&etcdutl, &arguments);
    let Some(etcd) = Etcd::start_in(restored, REAL_AGAIN) else { return };
    let (theirs, ours) = (Store::plain(std::slice::from_ref(&etcd.url)), trio.store(&[2]));
    wait_for("etcd answers", || theirs.revision().ok());

    let (revision, pairs) = ours.all().unwrap();
    assert_eq!((revision, &pairs), (theirs.all().unwrap().0, &theirs.all().unwrap().1));
    assert!(revision > BUMP && !pairs.is_empty());
    let refused = |ctl: Ctl| ctl.refused(&["get", "large", &format!("--rev={}", COMPACTED + 1)]);
    let words = refused(ctl(&etcdctl, &trio.url(2, 2379)));
    assert!(words.contains("has been compacted"), "{words}");
    wait_for("etcd has compacted", || {
        refused(ctl(&etcdctl, &etcd.url)).contains("has been compacted").then_some(())
    });
    assert_eq!(ours.put("next", "one").unwrap(), theirs.put("next", "one").unwrap());
}
