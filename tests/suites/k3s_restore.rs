//! `restore` and `recover` with `distribution: k3s` on lab hosts, with the script of `tests/k3s` in K3s's
//! place: K3s's own cluster-reset, a fence that the service manager keeps, the way back, and a control
//! machine that is killed anywhere.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::k3s::{lab, state};
use crate::support::s3::S3;
use crate::support::seed::Random;
use crate::support::{Lab, shown, wait_for};
use k3sup_rs::node::config::S3Config;
use k3sup_rs::node::snapshots::inspect::inspect;
use k3sup_rs::node::snapshots::s3::Bucket;
use k3sup_rs::node::wire::Sent;
use k3sup_rs::secret::Secret;

const SERVERS: [&str; 3] = ["server1", "server2", "server3"];

/// How often the control machine is killed.
const KILLS: usize = 12;

fn kubectl(lab: &Lab, host: &str, words: &[&str]) -> String {
    let root = lab.host_dir(host);
    let output = Command::new(root.join("usr/local/bin/k3s"))
        .args(["kubectl", "--cache-dir=/dev/null", "--kubeconfig"])
        .arg(root.join("etc/rancher/k3s/k3s.yaml"))
        .args(words)
        .env("K3SUP_LAB_ROOT", &root)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", shown(&output));
    String::from_utf8(output.stdout).unwrap()
}

fn configmaps(lab: &Lab) -> String {
    kubectl(lab, "server1", &["get", "configmaps"]).trim().to_owned()
}

fn data(lab: &Lab, host: &str) -> PathBuf {
    lab.host_dir(host).join("var/lib/rancher/k3s")
}

/// Three members, all nodes ready, nobody fenced; no old data ever ran, and no server while one was reset.
#[track_caller]
fn whole(lab: &Lab, nodes: usize) {
    wait_for("members and ready nodes", || {
        let status = lab.status()?;
        let ready = status["nodes"].as_array()?.iter().filter(|node| node["ready"] == true);
        let right = ready.count() == nodes && status["members"].as_array()?.len() == 3;
        right.then_some(())
    });
    for server in SERVERS {
        assert!(!data(lab, server).join("server/fence.json").exists(), "{server} is fenced");
        let unit = lab.host_dir(server).join("etc/systemd/system/k3s.service.d");
        assert!(!unit.exists(), "{server}'s unit is fenced");
        let settings = lab.host_dir(server).join("etc/rancher/k3s/config.yaml.d/bootstrap.yaml");
        let settings = std::fs::read_to_string(settings).unwrap();
        assert!(settings.contains("server: https://"), "{server} would found: {settings}");
    }
    let state = state(lab);
    assert!(state["revived"].is_null(), "old data was started: {}", state["revived"]);
    assert!(state["disturbed"].is_null(), "a server ran during a reset");
}

fn lose(lab: &Lab, host: &str) {
    lab.lab("kill", host);
    std::fs::remove_dir_all(lab.host_dir(host)).unwrap();
}

fn take_aside(lab: &Lab, host: &str) -> usize {
    let entries = std::fs::read_dir(data(lab, host).join("server/db")).unwrap().flatten();
    let names = entries.map(|entry| entry.file_name().into_string().unwrap());
    names.filter(|name| name.starts_with("etcd-old-") && !name.ends_with("-k3s")).count()
}

#[test]
fn a_lost_quorum_is_recovered_and_that_is_undone() {
    let Some(lab) = lab("89.4", 3, 1, "") else { return };
    lab.up(&[]);
    kubectl(&lab, "server1", &["create", "configmap", "both"]);
    lab.refused("recover", &[], 6);

    // Two of three lose their disks.
    lose(&lab, "server1");
    kubectl(&lab, "server2", &["create", "configmap", "late"]);
    lose(&lab, "server3");
    let said = lab.refused("recover", &["--check"], 7);
    assert!(said.contains("server2: its log ends with entry 12 of term 2"), "{said}");
    let said = lab.ok(lab.args("recover", &[]));
    assert!(said.contains("with its own data"), "{said}");
    whole(&lab, 4);
    assert_eq!(configmaps(&lab), "both\nlate");
    assert_eq!(state(&lab)["resets"], 1);
    assert_eq!(take_aside(&lab, "server2"), 1, "what it had is kept");
    let again = lab.up(&[]);
    assert_eq!(again.matches("changed=0").count(), 4, "{again}");
}

/// Takes a snapshot on a server, into a file of the test's.
fn snapshot(lab: &Lab, name: &str) -> PathBuf {
    let said = lab.ok(["snapshot", "save", "-i", lab.inventory_path(), "--name", name]);
    let name = said.split_whitespace().find(|word| word.starts_with(name)).unwrap();
    let file = lab.dir.path().join(name);
    let from = data(lab, "server1").join("server/db/snapshots").join(name);
    std::fs::copy(from, &file).unwrap();
    file
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// The snapshot as K3s packs it.
fn zipped(file: &Path) -> PathBuf {
    let packed = PathBuf::from(format!("{}.zip", text(file)));
    let code = "import sys, zipfile, os; z = zipfile.ZipFile(sys.argv[2], 'w', zipfile.ZIP_DEFLATED); \
                z.write(sys.argv[1], os.path.basename(sys.argv[1])); z.close()";
    let status = Command::new("python3").args(["-c", code]).args([file, &packed]).status();
    assert!(status.unwrap().success());
    packed
}

#[test]
fn a_living_cluster_goes_to_a_snapshot_and_back_again() {
    let Some(lab) = lab("89.5", 3, 1, "") else { return };
    lab.up(&[]);
    kubectl(&lab, "server1", &["create", "configmap", "saved"]);
    let file = snapshot(&lab, "mine");
    kubectl(&lab, "server1", &["create", "configmap", "later"]);

    // What is refused is refused while everything runs on.
    let mut damaged = std::fs::read(&file).unwrap();
    damaged[9000] ^= 1;
    let bad = lab.dir.path().join("damaged-server1-1790000000");
    std::fs::write(&bad, &damaged).unwrap();
    let said = lab.refused("restore", &["--snapshot", text(&bad)], 5);
    assert!(said.contains("damaged") && said.contains("nothing was stopped"), "{said}");
    std::fs::write(&bad, &damaged[..damaged.len() / 2]).unwrap();
    lab.refused("restore", &["--snapshot", text(&bad)], 5);
    let said = lab.refused("restore", &["--snapshot", text(&file), "-e", "token=another"], 5);
    assert!(said.contains("the token is not the one"), "{said}");
    lab.refused("restore", &["--snapshot", "no-such-snapshot"], 5);
    lab.refused("restore", &["--snapshot", text(&file), "--leave-out", "server3"], 6);
    let endpoint = "datastore_endpoint=postgres://k3s@db.example.com:5432/k3s";
    let said = lab.refused("restore", &["--snapshot", text(&file), "-e", endpoint], 6);
    assert!(said.contains("external datastore"), "{said}");
    lab.refused("restore", &["--rollback"], 5);
    let plan = lab.refused("restore", &["--snapshot", "latest", "--check"], 7);
    assert!(plan.contains("server1: fence it") && plan.contains("revision 3, 2 keys"), "{plan}");
    assert_eq!(configmaps(&lab), "saved\nlater");
    assert!(state(&lab)["resets"].is_null());

    let said = lab.ok(lab.args("restore", &["--snapshot", text(&file)]));
    assert!(said.contains("a snapshot of the present state is on server"), "{said}");
    whole(&lab, 4);
    assert_eq!(configmaps(&lab), "saved");
    let again = lab.up(&[]);
    assert_eq!(again.matches("changed=0").count(), 4, "{again}");

    lab.ok(lab.args("restore", &["--rollback"]));
    whole(&lab, 4);
    assert_eq!(configmaps(&lab), "saved\nlater");
    assert_eq!(take_aside(&lab, "server1"), 0, "it was brought back");
}

/// As K3s puts it there: in its folder, by its name, and nothing beside it.
fn upload(s3: &S3, file: &Path) {
    let view = inspect(file).unwrap();
    let config = S3Config {
        endpoint: s3.endpoint(),
        bucket: s3.bucket.to_owned(),
        folder: "k3s".to_owned(),
        access_key: "key".to_owned(),
        secret_key: Sent(Secret::new("hunter2")),
        insecure: true,
        ..S3Config::default()
    };
    let bucket = Bucket::open(&config).unwrap();
    tokio::runtime::Runtime::new().unwrap().block_on(bucket.upload(file, &view)).unwrap();
}

#[test]
fn a_snapshot_in_s3_is_fetched_and_restored() {
    let Some(s3) = S3::start("127.89.7.100") else { return };
    let vars = format!(
        "    snapshot: {{s3: {{endpoint: '{}', bucket: {}, folder: k3s, insecure: true, access_key: key, \
         secret_key: hunter2}}}}\n",
        s3.endpoint(),
        s3.bucket
    );
    let Some(lab) = lab("89.7", 3, 0, &vars) else { return };
    lab.up(&[]);
    kubectl(&lab, "server1", &["create", "configmap", "saved"]);
    let file = snapshot(&lab, "mine");
    upload(&s3, &file);
    let name = file.file_name().unwrap().to_str().unwrap();
    for url in [format!("s3://{}/k3s/{name}", s3.bucket), name.to_owned()] {
        for server in SERVERS {
            // Only the first has some.
            let _ = std::fs::remove_dir_all(data(&lab, server).join("server/db/snapshots"));
        }
        kubectl(&lab, "server1", &["create", "configmap", "later"]);
        assert_eq!(configmaps(&lab), "saved\nlater");
        let said = lab.ok(lab.args("restore", &["--snapshot", &url]));
        assert!(!said.contains("hunter2"), "{said}");
        whole(&lab, 3);
        assert_eq!(configmaps(&lab), "saved");
    }
    let missing = format!("s3://{}/k3s/no-such-snapshot", s3.bucket);
    lab.refused("restore", &["--snapshot", &missing], 5);
}

#[test]
fn a_snapshot_of_one_server_becomes_three_on_fresh_hosts() {
    let Some(lab) = lab("89.6", 3, 0, "") else { return };
    lab.up(&["--limit", "server1", "--skip-preflight"]);
    kubectl(&lab, "server1", &["create", "configmap", "one"]);
    let file = zipped(&snapshot(&lab, "single"));
    lose(&lab, "server1");
    let said = lab.ok(lab.args("restore", &["--snapshot", text(&file)]));
    assert!(said.contains("done; the old data"), "{said}");
    whole(&lab, 3);
    assert_eq!(configmaps(&lab), "one");
    let state = state(&lab);
    assert_eq!((&state["founded"], &state["resets"]), (&1.into(), &1.into()), "{state:#}");
}

#[test]
fn killed_anywhere_and_run_again_it_ends_in_one_restored_cluster() {
    let mut random = Random::new();
    let Some(lab) = lab("95.4", 3, 1, "") else { return };
    lab.up(&[]);
    kubectl(&lab, "server1", &["create", "configmap", "saved"]);
    let file = snapshot(&lab, "mine");
    let how = ["--snapshot", text(&file)];
    let (mut kills, mut ends) = (0, 0);
    while kills < KILLS {
        let lines = 1 + usize::try_from(random.below(8)).unwrap();
        let how: &[&str] = if is_fenced(&lab) { &["--resume"] } else { &how };
        if lab.killed_at_step(&lab.args("restore", how), lines) {
            kills += 1;
            // Whoever starts a server that is not done starts nothing.
            for server in SERVERS.iter().filter(|_| random.below(3) == 0) {
                lab.lab("kill", server);
                lab.lab("start", server);
            }
            continue;
        }
        ends += 1;
        whole(&lab, 4);
        assert_eq!(configmaps(&lab), "saved");
        kubectl(&lab, "server1", &["create", "configmap", "later"]);
    }
    let how: &[&str] = if is_fenced(&lab) { &["--resume"] } else { &how };
    lab.ok(lab.args("restore", how));
    whole(&lab, 4);
    assert_eq!(configmaps(&lab), "saved");
    eprintln!("{kills} kills, {} undisturbed ends", ends + 1);
}

fn is_fenced(lab: &Lab) -> bool {
    SERVERS.iter().any(|server| data(lab, server).join("server/fence.json").exists())
}
