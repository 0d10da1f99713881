//! Files of older formats: the directory of a real server, recorded when a format was new, is read by
//! the present program; one of a newer format is refused, and says why.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::support::BINARY;
use crate::support::server::Server;
use crate::support::store::insist;

const ADDRESS: &str = "127.93.1.11";

/// How many keys the recorded server wrote; every third was deleted again.
const KEYS: usize = 60;

fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/server-format-1.zip")
}

fn command(data: &Path) -> Command {
    let mut command = Command::new(BINARY);
    command
        .args(["server", "--cluster-init", "--node-name", "server1"])
        .args(["--bind-address", ADDRESS, "--node-ip", ADDRESS])
        .arg("--data-dir")
        .arg(data)
        .arg("--config")
        .arg(data.with_extension("yaml"))
        .arg("--write-kubeconfig")
        .arg(data.with_extension("bundle"))
        .stdin(Stdio::null());
    command
}

fn home() -> (tempfile::TempDir, PathBuf) {
    let home = tempfile::tempdir().unwrap();
    let data = home.path().join("data");
    std::fs::write(data.with_extension("yaml"), "# nothing\n").unwrap();
    (home, data)
}

/// Unpacks the recorded directory as private as it was.
fn unpack(to: &Path) {
    let mut archive = zip::ZipArchive::new(File::open(fixture()).unwrap()).unwrap();
    for at in 0..archive.len() {
        let mut entry = archive.by_index(at).unwrap();
        let path = to.join(entry.enclosed_name().unwrap());
        let parent = path.parent().unwrap();
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(parent).unwrap();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        let mut options = std::fs::OpenOptions::new();
        let mut file = options.write(true).create_new(true).mode(0o600).open(&path).unwrap();
        file.write_all(&bytes).unwrap();
    }
}

fn key(number: usize) -> String {
    format!("recorded/{number:03}")
}

#[test]
fn a_directory_of_the_first_format_is_read() {
    let (_home, data) = home();
    unpack(&data);
    let mut server = Server::start(command(&data), &data, ADDRESS);
    let store = server.ready();
    let (revision, pairs) = insist("a read", || store.all());
    assert!(revision >= i64::try_from(KEYS + KEYS / 3).unwrap());
    for number in 0..KEYS {
        let expected = (number % 3 != 0).then(|| "x".repeat(number * 10));
        let found = pairs.get(&key(number)).map(|(value, _)| value.clone());
        assert_eq!(found, expected, "{}", key(number));
    }
    // It goes on from there, and what it writes now it reads again.
    let next = insist("a write", || store.put("after", "here"));
    assert!(next > revision);
    server.stop();
    let again = Server::start(command(&data), &data, ADDRESS);
    let store = again.ready();
    let found = insist("a read", || store.get("after", false));
    assert_eq!(found.as_deref(), Some("here"));
}

#[test]
fn a_directory_of_a_newer_format_is_refused_by_name() {
    let (_home, data) = home();
    unpack(&data);
    let path = data.join("server/db/etcd/identity.json");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replacen('{', "{\"format\": 2,", 1)).unwrap();
    let output = command(&data).output().unwrap();
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("identity.json: has format 2, this version reads up to 1"), "{said}");
}

/// Records the fixture anew: only for a format that is new, under a new name.
#[test]
#[ignore = "writes tests/fixtures"]
fn record() {
    let (_home, data) = home();
    let mut server = Server::start(command(&data), &data, ADDRESS);
    let store = server.ready();
    for number in 0..KEYS {
        store.put(&key(number), &"x".repeat(number * 10)).unwrap();
    }
    for number in (0..KEYS).step_by(3) {
        store.delete(&key(number)).unwrap();
    }
    server.stop();
    std::fs::create_dir_all(fixture().parent().unwrap()).unwrap();
    let mut archive = zip::ZipWriter::new(File::create(fixture()).unwrap());
    let options = zip::write::SimpleFileOptions::default()
        .compression_method(zip::CompressionMethod::Deflated)
        .compression_level(Some(9));
    let mut left = vec![data.clone()];
    while let Some(dir) = left.pop() {
        for path in std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                left.push(path);
                continue;
            }
            let name = path.strip_prefix(&data).unwrap().to_str().unwrap();
            archive.start_file(name, options).unwrap();
            archive.write_all(&std::fs::read(&path).unwrap()).unwrap();
        }
    }
    archive.finish().unwrap();
}
