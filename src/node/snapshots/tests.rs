//! Tests of looking at files: good ones, and those that must be refused.

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use super::inspect::{glance, inspect};
use super::keeper::{Keeper, Wish};
use crate::cluster::snapshots::SnapshotFormat;
use crate::node::config::{S3Config, SnapshotConfig};
use crate::node::identity::DataDir;
use crate::node::records::{SETTINGS, Settings};
use crate::node::secrets;
use crate::node::wire::Sent;
use crate::raft::api::RaftStatus;
use crate::raft::snapfile;
use crate::secret::Secret;
use crate::store::state::State;
use crate::store::types::{Command, Put};

/// A state with `keys` keys and the settings of a cluster whose secret is `secret`.
fn state(keys: u32, secret: &str) -> Arc<State> {
    let state = Arc::new(State::new());
    let settings = Settings {
        server_secret: secrets::hash(&Secret::new(secret)).unwrap(),
        ..Settings::default()
    };
    let value = Some(Bytes::from(serde_json::to_vec(&settings).unwrap()));
    let begin = Command::SystemPut { key: SETTINGS.to_owned(), value, expect: None };
    state.apply(1, 1, begin).unwrap();
    for at in 0..keys {
        let put = Put {
            key: format!("key-{at:05}").into(),
            value: vec![b'v'; 100].into(),
            ..Put::default()
        };
        state.apply(u64::from(at) + 2, 1, Command::Put(put)).unwrap();
    }
    state
}

fn home() -> (tempfile::TempDir, PathBuf) {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("on-demand-s1-1700000000");
    (home, path)
}

fn zip(path: &Path, entries: &[(&str, &[u8])]) {
    let mut writer = zip::ZipWriter::new(std::fs::File::create(path).unwrap());
    for (name, content) in entries {
        writer.start_file(*name, zip::write::SimpleFileOptions::default()).unwrap();
        writer.write_all(content).unwrap();
    }
    writer.finish().unwrap();
}

/// Why the file is refused.
#[track_caller]
fn problem(path: &Path) -> String {
    let view = inspect(path).unwrap();
    assert_eq!(view.verified_unix_s, None, "{view:?}");
    view.problem.expect("it is refused")
}

#[test]
fn a_good_one_says_all_that_a_restore_asks() {
    let (home, path) = home();
    snapfile::write(&path, 0xC1, state(40, "hunter2").export()).unwrap();
    let view = inspect(&path).unwrap();
    assert_eq!(view.problem, None);
    assert_eq!((view.cluster_id.as_str(), view.revision, view.keys), ("c1", 41, Some(40)));
    let content = std::fs::read(&path).unwrap();
    assert_eq!(view.sha256, Some(hex::encode(Sha256::digest(&content))));
    assert!(view.verified_unix_s.is_some() && !view.compressed);
    let hash = view.token_hash.clone().unwrap();
    assert!(secrets::matches(&hash, &Secret::new("hunter2")));
    assert!(!secrets::matches(&hash, &Secret::new("hunter3")));
    let shown = glance(&path).unwrap();
    assert_eq!((shown.revision, shown.bytes, shown.sha256), (41, view.bytes, None));

    let zipped = home.path().join("on-demand-s1-1700000001.zip");
    zip(&zipped, &[("on-demand-s1-1700000001", &content)]);
    let zipped = inspect(&zipped).unwrap();
    assert_eq!((zipped.problem, zipped.revision, zipped.compressed), (None, 41, true));
    assert_eq!(zipped.token_hash, view.token_hash);
    assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), 2, "nothing is left behind");
}

#[test]
fn damage_anywhere_is_seen() {
    let (_home, path) = home();
    snapfile::write(&path, 0xC1, state(40, "x").export()).unwrap();
    let content = std::fs::read(&path).unwrap();
    for at in (0..content.len()).step_by(97) {
        let mut damaged = content.clone();
        damaged[at] ^= 1;
        std::fs::write(&path, &damaged).unwrap();
        problem(&path);
    }
    for length in [0, 1, 15, 16, 100, content.len() - 512, content.len() - 1] {
        std::fs::write(&path, &content[..length]).unwrap();
        problem(&path);
    }
}

#[test]
fn a_file_that_is_none_is_refused_by_what_it_is() {
    let (_home, path) = home();
    std::fs::write(&path, vec![b'x'; 5000]).unwrap();
    assert!(problem(&path).contains("is not a snapshot of k3sup-rs"));

    let mut etcd = vec![0; 8192];
    etcd[16..20].copy_from_slice(&0xED0C_DAED_u32.to_le_bytes());
    std::fs::write(&path, &etcd).unwrap();
    assert!(problem(&path).contains("neither meta page is right"));
    etcd.extend_from_slice(&Sha256::digest(&etcd));
    std::fs::write(&path, &etcd).unwrap();
    // A hash that is right makes no database of it.
    assert_eq!(inspect(&path).unwrap().format, SnapshotFormat::Etcd);
    assert!(problem(&path).contains("neither meta page is right"));
    etcd[5000] = 1;
    std::fs::write(&path, &etcd).unwrap();
    assert!(problem(&path).contains("it is damaged"));
}

#[test]
fn a_newer_format_is_named() {
    let (_home, path) = home();
    snapfile::write(&path, 0xC1, state(1, "x").export()).unwrap();
    let mut content = std::fs::read(&path).unwrap();
    content[8] = 9;
    let covered = content.len() - 32;
    let hash = Sha256::digest(&content[..covered]);
    content[covered..].copy_from_slice(&hash);
    std::fs::write(&path, &content).unwrap();
    let problem = problem(&path);
    assert!(problem.contains("has format 9, this version reads up to 1"), "{problem}");
}

#[test]
fn a_whole_file_with_records_that_contradict_each_other_is_refused() {
    let (_home, path) = home();
    let header = crate::store::snapshot::SnapshotHeader { revision: 5, ..Default::default() };
    let mut writer = crate::store::snapshot::SnapshotWriter::create(&path, header).unwrap();
    writer.record(b"\x01\0\0\0zjunk").unwrap();
    writer.finish().unwrap();
    assert!(problem(&path).contains("cannot be read"), "{}", problem(&path));
}

#[test]
fn an_archive_that_is_not_one_snapshot_is_refused() {
    let (home, _) = home();
    let path = home.path().join("a-s1-1.zip");
    zip(&path, &[("a", b"x"), ("b", b"y")]);
    assert!(problem(&path).contains("holds 2 files instead of one"));
    zip(&path, &[("a", b"x")]);
    assert!(problem(&path).contains("too short"));
    // Says that it holds an exabyte.
    let mut content = std::fs::read(&path).unwrap();
    let directory = content.windows(4).rposition(|four| four == b"PK\x01\x02").unwrap();
    content[directory + 24..directory + 28].copy_from_slice(&0xFFFF_FFF0_u32.to_le_bytes());
    std::fs::write(&path, &content).unwrap();
    let found = problem(&path);
    assert!(found.contains("has room for") || found.contains("damaged zip"), "{found}");
    content.truncate(content.len() / 2);
    std::fs::write(&path, &content).unwrap();
    assert!(problem(&path).contains("damaged zip"));
}

#[test]
fn a_pipe_or_a_link_in_its_place_holds_nobody_up() {
    let (home, path) = home();
    std::os::unix::fs::symlink("/dev/zero", &path).unwrap();
    inspect(&path).unwrap_err();
    inspect(home.path()).unwrap_err();
    let pipe = home.path().join("pipe-s1-1");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &pipe,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o600),
        0,
    )
    .unwrap();
    inspect(&pipe).unwrap_err();
}

/// A keeper over a state with a few keys, in a directory of its own.
fn keeper(home: &Path, config: SnapshotConfig) -> Keeper {
    Keeper::new("s1", 0xC1, state(20, "x"), &DataDir::new(home), config)
}

fn voter() -> RaftStatus {
    RaftStatus { id: 1, voters: vec![1], leader: Some(1), ..RaftStatus::default() }
}

fn wish(base: &str) -> Wish {
    Wish { base: Some(base.to_owned()), ..Wish::default() }
}

#[tokio::test]
async fn what_is_saved_is_private_verified_and_listed() {
    let home = tempfile::tempdir().unwrap();
    let keeper = keeper(home.path(), SnapshotConfig::default());
    assert_eq!(keeper.standing().last, None);
    let plain = keeper.save(&Wish::default(), &voter()).await.unwrap().created.remove(0);
    let zipped = Wish { compress: Some(true), ..wish("zipped") };
    let zipped = keeper.save(&zipped, &voter()).await.unwrap().created.remove(0);
    for view in [&plain, &zipped] {
        assert_eq!((view.revision, view.keys, &view.problem), (21, Some(20), &None));
        assert_eq!((view.node.as_str(), view.cluster_id.as_str()), ("s1", "c1"));
        let path = view.location.strip_prefix("file://").unwrap();
        let mode = std::fs::metadata(path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(path.contains("/server/db/snapshots/"), "{path}");
    }
    assert!(plain.name.starts_with("on-demand-s1-") && zipped.name.contains(".zip"));
    let (listed, problems) = keeper.list(&Wish::default()).await.unwrap();
    assert!(problems.is_empty());
    assert_eq!(listed.len(), 2);
    assert!(listed.iter().all(|view| view.verified_unix_s.is_some() && view.revision == 21));
    let left = std::fs::read_dir(home.path().join("server/db/snapshots")).unwrap().count();
    assert_eq!(left, 2, "no part of a file is left");
    // A server that is started again knows the newest one.
    let again = self::keeper(home.path(), SnapshotConfig::default());
    assert!(again.standing().last.is_some());
    assert!(!again.standing().overdue);
}

#[tokio::test]
async fn two_in_one_second_have_names_of_their_own() {
    let home = tempfile::tempdir().unwrap();
    let keeper = keeper(home.path(), SnapshotConfig::default());
    let mut names = std::collections::BTreeSet::new();
    for _ in 0..3 {
        names
            .insert(keeper.save(&Wish::default(), &voter()).await.unwrap().created[0].name.clone());
    }
    assert_eq!(names.len(), 3);
}

#[tokio::test]
async fn what_cannot_be_meant_is_refused_and_leaves_nothing() {
    let home = tempfile::tempdir().unwrap();
    let keeper = keeper(home.path(), SnapshotConfig::default());
    for base in ["", "../x", "a/b", ".x", "-x"] {
        keeper.save(&wish(base), &voter()).await.unwrap_err();
    }
    let learner = RaftStatus { id: 2, learners: vec![2], voters: vec![1], ..RaftStatus::default() };
    let refused = keeper.save(&Wish::default(), &learner).await.unwrap_err();
    assert!(refused.to_string().contains("not supported for learner"));
    let elsewhere = Wish { dir: Some("/nonexistent".into()), ..Wish::default() };
    assert!(keeper.save(&elsewhere, &voter()).await.unwrap_err().to_string().contains("directory"));
    for names in [vec![], vec!["../../etc/passwd".to_owned()], vec!["identity.json".to_owned()]] {
        keeper.delete(&names, &Wish::default()).await.unwrap_err();
    }
    assert!(keeper.list(&Wish::default()).await.unwrap().0.is_empty());
}

#[tokio::test]
async fn the_schedule_keeps_as_many_as_it_says_and_only_its_own() {
    let home = tempfile::tempdir().unwrap();
    let config = SnapshotConfig { retention: 2, ..SnapshotConfig::default() };
    let keeper = keeper(home.path(), config);
    keeper.save(&Wish::default(), &voter()).await.unwrap();
    keeper.save(&wish("etcd-snapshot-extra"), &voter()).await.unwrap();
    for _ in 0..4 {
        keeper.tick(&voter()).await.unwrap();
    }
    let (listed, _) = keeper.list(&Wish::default()).await.unwrap();
    let count = |base: &str| listed.iter().filter(|view| view.name.starts_with(base)).count();
    assert_eq!(count("etcd-snapshot-s1"), 2);
    assert_eq!((count("etcd-snapshot-extra"), count("on-demand")), (1, 1));
    let notes = std::fs::read_dir(home.path().join("server/db/.metadata")).unwrap().count();
    assert_eq!(notes, 4);
    let names: Vec<String> = listed.iter().map(|view| view.name.clone()).collect();
    let mut asked = names.clone();
    asked.push("on-demand-s1-1".to_owned());
    let outcome = keeper.delete(&asked, &Wish::default()).await.unwrap();
    assert_eq!(outcome.deleted, names);
    assert_eq!(outcome.problems, ["Snapshot on-demand-s1-1 not found."]);
}

#[tokio::test]
async fn without_s3_the_local_one_stands_and_the_failure_is_told() {
    let home = tempfile::tempdir().unwrap();
    let s3 = S3Config {
        // Nothing listens there.
        endpoint: "127.0.0.1:1".to_owned(),
        bucket: "b".to_owned(),
        access_key: "key".to_owned(),
        secret_key: Sent(Secret::new("hunter2")),
        insecure: true,
        timeout: std::time::Duration::from_secs(3),
        ..S3Config::default()
    };
    let config = SnapshotConfig { s3: Some(s3), ..SnapshotConfig::default() };
    let keeper = keeper(home.path(), config);
    let outcome = keeper.save(&Wish::default(), &voter()).await.unwrap();
    assert_eq!((outcome.created.len(), outcome.problems.len()), (1, 1));
    assert!(!outcome.problems[0].contains("hunter2"));
    let standing = keeper.standing();
    assert!(standing.last.is_some() && standing.problem.is_some());
    assert_eq!(keeper.failures(), 1);
    let (listed, problems) = keeper.list(&Wish::default()).await.unwrap();
    assert_eq!((listed.len(), problems.len()), (1, 1));
    let left_out = Wish { s3: Some(None), ..Wish::default() };
    assert!(keeper.save(&left_out, &voter()).await.unwrap().problems.is_empty());
}
