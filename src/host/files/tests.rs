use std::os::unix::fs::symlink;

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use super::*;
use crate::host::protocol::{Change, FileContent, PathKind, SecretText};

fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

fn put_of(path: &Path, content: FileContent, mode: u32) -> Change {
    let path = text(path);
    let (owner, group, validate) = (None, None, Vec::new());
    Change::PutFile { path, content, mode, owner, group, backup: false, validate }
}

fn bytes(content: &str) -> FileContent {
    FileContent::Bytes(Bytes::copy_from_slice(content.as_bytes()))
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().mode() & MODE_BITS
}

fn names_in(path: &Path) -> Vec<String> {
    names(&text(path)).unwrap().unwrap()
}

/// Puts a file that did not grow before.
async fn put(change: Change) -> HostResult<()> {
    super::put(change, &mut None).await
}

#[tokio::test]
async fn a_file_is_put_with_its_mode_and_nothing_is_left_beside_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.yaml");
    put(put_of(&path, bytes("a: 1\n"), 0o640)).await.unwrap();
    assert_eq!((fs::read_to_string(&path).unwrap().as_str(), mode(&path)), ("a: 1\n", 0o640));
    put(put_of(&path, FileContent::Secret(SecretText("s3cret".into())), 0o600)).await.unwrap();
    assert_eq!((fs::read_to_string(&path).unwrap().as_str(), mode(&path)), ("s3cret", 0o600));
    assert_eq!(names_in(dir.path()), ["config.yaml"]);
}

#[tokio::test]
async fn a_running_program_can_be_replaced_and_the_old_file_kept() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("binary");
    fs::write(&path, "old").unwrap();
    let open = File::open(&path).unwrap();
    let mut change = put_of(&path, bytes("new"), 0o755);
    if let Change::PutFile { backup, .. } = &mut change {
        *backup = true;
    }
    put(change.clone()).await.unwrap();
    put(change).await.unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "new");
    assert_eq!(io::read_to_string(open).unwrap(), "old");
    let kept = names_in(dir.path());
    assert_eq!(kept.len(), 3, "{kept:?}");
    assert!(kept.iter().filter(|name| name.ends_with('~')).count() == 2, "{kept:?}");
}

#[tokio::test]
async fn a_file_that_its_reader_refuses_does_not_replace_the_old_one() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("haproxy.cfg");
    fs::write(&path, "old").unwrap();
    let ask = |content: &str, command: &[&str]| {
        let mut change = put_of(&path, bytes(content), 0o644);
        if let Change::PutFile { validate, .. } = &mut change {
            *validate = command.iter().map(ToString::to_string).collect();
        }
        put(change)
    };
    let error = ask("bad", &["grep", "good", "%s"]).await.unwrap_err();
    assert!(error.message.contains("`grep good ") && error.hint.is_some(), "{error}");
    let error = ask("bad", &["ls", "--", "/no/such/file", "%s"]).await.unwrap_err();
    assert!(error.message.contains("/no/such/file"), "{error}");
    assert!(!error.message.contains(".k3sup-"), "{error}");
    assert_eq!(fs::read_to_string(&path).unwrap(), "old");
    ask("good", &["grep", "good", "%s"]).await.unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "good");
    assert_eq!(names_in(dir.path()), ["haproxy.cfg"]);
}

#[tokio::test]
async fn a_copy_is_verified_and_a_wrong_one_leaves_the_old_file() {
    let dir = tempfile::tempdir().unwrap();
    let (from, to) = (dir.path().join("from"), dir.path().join("to"));
    fs::write(&from, "content").unwrap();
    fs::write(&to, "old").unwrap();
    let copy = |sha256: String| FileContent::CopyOf { path: text(&from), sha256 };
    let error = put(put_of(&to, copy("00".repeat(32)), 0o755)).await.unwrap_err();
    assert!(error.message.contains("SHA-256"), "{error}");
    assert_eq!(fs::read_to_string(&to).unwrap(), "old");
    put(put_of(&to, copy(hex::encode(Sha256::digest("content"))), 0o755)).await.unwrap();
    assert_eq!(fs::read_to_string(&to).unwrap(), "content");
    assert_eq!(names_in(dir.path()), ["from", "to"]);
}

#[tokio::test]
async fn what_cannot_be_put_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("no/such/dir/file");
    let error = put(put_of(&missing, bytes("x"), 0o600)).await.unwrap_err();
    assert_eq!(error.kind, HostErrorKind::NotFound);
    assert!(error.message.contains("no/such/dir") && error.hint.is_some(), "{error}");
    let error = put(put_of(dir.path(), bytes("x"), 0o600)).await.unwrap_err();
    assert!(error.message.contains("is a directory"), "{error}");
    for path in ["relative", "/a/../b", "/nul\0"] {
        let error = put(put_of(Path::new(path), bytes("x"), 0o600)).await.unwrap_err();
        assert!(error.message.contains("absolute path"), "{error}");
    }
    // /proc takes no files, whoever asks.
    let error = put(put_of(Path::new("/proc/k3sup-test"), bytes("x"), 0o600)).await.unwrap_err();
    assert!(error.message.contains("/proc/k3sup-test"), "{error}");
}

/// A small file system of our own; needs root and mounts. Its own test says when it cannot.
struct Mount(tempfile::TempDir);

impl Mount {
    fn new(options: &str) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let status = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", options, "tmpfs"])
            .arg(dir.path())
            .stderr(std::process::Stdio::null())
            .status();
        if status.is_ok_and(|status| status.success()) {
            return Some(Self(dir));
        }
        eprintln!("SKIPPED: no file system can be mounted here (needs root)");
        None
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg(self.0.path()).status();
    }
}

#[tokio::test]
async fn a_full_disk_is_named_and_the_old_file_stays() {
    let Some(mount) = Mount::new("size=64k") else { return };
    let path = mount.0.path().join("file");
    put(put_of(&path, bytes("old"), 0o600)).await.unwrap();
    let big = FileContent::Bytes(Bytes::from(vec![7; 1 << 20]));
    let error = put(put_of(&path, big, 0o600)).await.unwrap_err();
    assert_eq!(error.kind, HostErrorKind::DiskFull);
    assert!(error.message.contains(&text(&path)), "{error}");
    assert_eq!(fs::read_to_string(&path).unwrap(), "old");
    assert_eq!(names_in(mount.0.path()), ["file"]);
}

#[tokio::test]
async fn a_read_only_file_system_is_named() {
    let Some(mount) = Mount::new("ro") else { return };
    let path = mount.0.path().join("file");
    let error = put(put_of(&path, bytes("x"), 0o600)).await.unwrap_err();
    assert_eq!(error.kind, HostErrorKind::ReadOnly);
    let error = make_directory(&text(&path), 0o755, Owner::default()).unwrap_err();
    assert_eq!(error.kind, HostErrorKind::ReadOnly);
}

async fn grow(so_far: Option<Grown>, part: &str, offset: u64, bytes: &str) -> HostResult<Grown> {
    let length = u32::try_from(bytes.len()).unwrap();
    let mut input = bytes.as_bytes();
    let grown = receive(Grown::at(so_far, part.to_owned(), offset).await, &mut input, length).await;
    assert!(input.is_empty(), "what was sent is taken off, whatever becomes of it");
    grown
}

#[tokio::test]
async fn a_part_that_belongs_elsewhere_is_refused_and_taken_off() {
    let dir = tempfile::tempdir().unwrap();
    let part = format!("{}{PART_ENDING}", text(&dir.path().join("long")));
    let refused = |grown: HostResult<Grown>| grown.err().unwrap().to_string();
    assert!(refused(grow(None, &part, 3, "two").await).contains("has not grown to 3 bytes"));
    let other = grow(None, &format!("{part}x"), 0, "one").await.unwrap();
    assert!(refused(grow(Some(other), &part, 3, "two").await).contains("has not grown"));
    let nowhere = format!("{}/no/such{PART_ENDING}", text(dir.path()));
    assert!(grow(None, &nowhere, 0, "one").await.is_err());
}

#[tokio::test]
async fn a_file_that_grew_beside_its_place_takes_it_without_a_copy() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("long");
    let part = format!("{}{PART_ENDING}", text(&path));
    let sha256 = hex::encode(Sha256::digest("onetwo"));
    let grown = || FileContent::CopyOf { path: part.clone(), sha256: sha256.clone() };
    let mut so_far = Some(grow(None, &part, 0, "one").await.unwrap());
    so_far = Some(grow(so_far, &part, 3, "two").await.unwrap());
    let inode = fs::metadata(&part).unwrap().ino();
    super::put(put_of(&path, grown(), 0o640), &mut so_far).await.unwrap();
    assert!(so_far.is_none());
    assert_eq!(fs::metadata(&path).unwrap().ino(), inode);
    assert_eq!((fs::read_to_string(&path).unwrap().as_str(), mode(&path)), ("onetwo", 0o640));
    assert_eq!(names_in(dir.path()), ["long"]);

    // Damaged, or not ours: what is there stays, and nothing else is left.
    let mut so_far = Some(grow(None, &part, 0, "other").await.unwrap());
    assert!(super::put(put_of(&path, grown(), 0o640), &mut so_far).await.is_err());
    fs::write(dir.path().join("elsewhere"), "onetwo").unwrap();
    let elsewhere = || dir.path().join("elsewhere");
    let exchanges: [&dyn Fn(); 3] = [
        &|| symlink(elsewhere(), &part).unwrap(),
        &|| fs::hard_link(elsewhere(), &part).unwrap(),
        &|| fs::write(&part, "onetwo").unwrap(),
    ];
    for exchange in exchanges {
        so_far = Some(grow(None, &part, 0, "onetwo").await.unwrap());
        fs::remove_file(&part).unwrap();
        exchange();
        assert!(super::put(put_of(&path, grown(), 0o640), &mut so_far).await.is_err());
        exchange();
        assert!(put(put_of(&path, grown(), 0o640)).await.is_err(), "by another session");
    }
    assert_eq!(fs::read_to_string(&path).unwrap(), "onetwo");
    assert_eq!(names_in(dir.path()), ["elsewhere", "long"]);
}

#[test]
fn directories_are_made_and_corrected() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a/b/c");
    make_directory(&text(&path), 0o700, Owner::default()).unwrap();
    assert_eq!((mode(&path), mode(&dir.path().join("a"))), (0o700, 0o700));
    make_directory(&text(&path), 0o750, Owner::default()).unwrap();
    assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o750, 0o700));
    fs::write(dir.path().join("file"), "").unwrap();
    assert!(make_directory(&text(&dir.path().join("file")), 0o700, Owner::default()).is_err());
}

#[test]
fn parents_that_are_made_have_the_same_owner() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let owner = Owner { user: Some(1234), group: Some(4321) };
    make_directory(&text(&dir.path().join("a/b")), 0o750, owner).unwrap();
    for path in ["a", "a/b"] {
        let found = fs::metadata(dir.path().join(path)).unwrap();
        assert_eq!(
            (found.uid(), found.gid(), found.mode() & 0o7777),
            (1234, 4321, 0o750),
            "{path}"
        );
    }
    assert_ne!(fs::metadata(dir.path()).unwrap().uid(), 1234);
}

#[test]
fn links_replace_links_only() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("link");
    link(&text(&path), "/one").unwrap();
    link(&text(&path), "/two").unwrap();
    assert_eq!(fs::read_link(&path).unwrap(), Path::new("/two"));
    assert!(set_attributes(&text(&path), Some(0o600), Owner::default()).is_err());
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    assert!(link(&text(&file), "/x").is_err());
    set_attributes(&text(&file), Some(0o604), Owner::default()).unwrap();
    assert_eq!(mode(&file), 0o604);
}

#[test]
fn removal_takes_all_below_but_follows_no_link_and_spares_the_system() {
    let dir = tempfile::tempdir().unwrap();
    let (tree, outside) = (dir.path().join("tree"), dir.path().join("outside"));
    fs::create_dir_all(tree.join("deep")).unwrap();
    fs::write(&outside, "kept").unwrap();
    symlink(&outside, tree.join("deep/link")).unwrap();
    remove(&text(&tree)).unwrap();
    remove(&text(&tree)).unwrap();
    assert_eq!(names_in(dir.path()), ["outside"]);
    for path in ["/", "/etc", "/etc/"] {
        assert!(remove(path).is_err(), "{path}");
    }
}

#[test]
fn a_move_never_replaces() {
    let dir = tempfile::tempdir().unwrap();
    let (from, to) = (dir.path().join("from"), dir.path().join("to"));
    fs::write(&from, "x").unwrap();
    fs::write(&to, "kept").unwrap();
    let error = rename(&text(&from), &text(&to)).unwrap_err();
    assert!(error.message.contains("is there"), "{error}");
    fs::remove_file(&to).unwrap();
    rename(&text(&from), &text(&to)).unwrap();
    assert_eq!(names_in(dir.path()), ["to"]);
    assert_eq!(rename(&text(&from), &text(&to)).unwrap_err().kind, HostErrorKind::NotFound);
}

#[test]
fn looking_tells_kind_mode_hash_and_target() {
    let dir = tempfile::tempdir().unwrap();
    let (file, link_path) = (dir.path().join("file"), dir.path().join("link"));
    fs::write(&file, "content").unwrap();
    symlink("file", &link_path).unwrap();
    let found = stat(&text(&file), false, true).unwrap().unwrap();
    assert_eq!((found.kind, found.size), (PathKind::File, 7));
    assert_eq!(found.sha256, Some(hex::encode(Sha256::digest("content"))));
    let found = stat(&text(&link_path), false, true).unwrap().unwrap();
    assert_eq!((found.kind, found.target.as_deref()), (PathKind::Link, Some("file")));
    assert_eq!(stat(&text(&link_path), true, false).unwrap().unwrap().kind, PathKind::File);
    assert_eq!(stat(&text(&file.join("below")), false, false).unwrap(), None);
    assert_eq!(names("/no/such/dir").unwrap(), None);
}

#[test]
fn reading_stops_at_the_limit() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "12345").unwrap();
    assert_eq!(content(&text(&file), 5).unwrap().unwrap(), "12345");
    assert_eq!(content(&text(&file), 4).unwrap_err().kind, HostErrorKind::TooLarge);
    assert_eq!(content("/dev/zero", 4).unwrap_err().kind, HostErrorKind::Other);
    assert_eq!(content(&text(&dir.path().join("none")), 4).unwrap(), None);
    let below = dir.path().join("not/yet/there");
    assert!(matches!(
        space(&text(&below)).unwrap(),
        crate::host::protocol::Observed::Space { total_bytes: 1.., .. }
    ));
}
