//! Snapshots of a whole cluster, with real processes, a client that writes all the time, and a real S3
//! server.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::support::cluster::{Writer, assert_one_cluster};
use crate::support::s3::S3;
use crate::support::store::Store;
use crate::support::{Lab, shown, wait_for};
use k3sup_rs::node::http::Connector;
use k3sup_rs::pki::{KeyPairPem, tls};
use serde_json::Value as Json;

/// How long a server may take for its counters.
const LIMIT: Duration = Duration::from_secs(30);

fn snapshots_dir(lab: &Lab, server: &str) -> PathBuf {
    lab.host_dir(server).join("var/lib/k3sup/server/db/snapshots")
}

/// `snapshot ls` as JSON.
fn listed(lab: &Lab) -> Vec<Json> {
    let output = lab.run(["snapshot", "ls", "-i", lab.inventory_path(), "--output", "json"]);
    let list: Option<Json> = serde_json::from_slice(&output.stdout).ok();
    assert!(list.is_some(), "no list: {}", shown(&output));
    let list = list.unwrap();
    list["snapshots"].as_array().unwrap().clone()
}

fn of<'a>(list: &'a [Json], place: &str) -> Vec<&'a Json> {
    list.iter().filter(|found| found["where"] == place).collect()
}

fn snapshot(lab: &Lab, args: &[&str]) -> std::process::Output {
    let (verb, rest) = args.split_first().unwrap();
    lab.run([&["snapshot", verb, "-i", lab.inventory_path()], rest].concat())
}

#[track_caller]
fn snapshot_ok(lab: &Lab, args: &[&str]) -> String {
    let output = snapshot(lab, args);
    assert!(output.status.success(), "{args:?}: {}", shown(&output));
    String::from_utf8(output.stdout).unwrap()
}

fn name_of(found: &Json) -> String {
    found["name"].as_str().unwrap().to_owned()
}

fn damage(path: &Path) {
    let mut content = std::fs::read(path).unwrap();
    let middle = content.len() / 2;
    content[middle] ^= 1;
    std::fs::write(path, content).unwrap();
}

#[test]
fn they_are_taken_while_a_client_writes_and_are_seen_in_one_table() {
    let lab = Lab::new("84.1", 3, 0);
    lab.up(&[]);
    let writer = Writer::start(&lab, &[1, 2, 3], "w");
    writer.wait_for_more(20);
    snapshot_ok(&lab, &["save", "--all", "--name", "mine"]);
    writer.wait_for_more(20);
    let written = writer.stop();
    let store = Store::of(&lab, &[1, 2, 3]);
    written.assert_all_in(&wait_for("a read", || store.all().ok()).1);
    let cluster = assert_one_cluster(&lab, &[1, 2, 3]);

    let list = listed(&lab);
    assert_eq!(list.len(), 3, "{list:#?}");
    for (number, found) in (1..=3).zip(["server1", "server2", "server3"]) {
        let found = of(&list, found)[0];
        assert!(name_of(found).starts_with(&format!("mine-server{number}-")));
        assert_eq!(found["cluster_id"], format!("{cluster:x}"));
        assert!(found["verified_unix_s"].as_u64().is_some() && found["problem"].is_null());
        let revision = found["revision"].as_i64().unwrap();
        assert!(revision > 1 && written.acknowledged.values().any(|made| *made >= revision));
    }
    snapshot_ok(&lab, &["verify", "--all"]);

    // A damaged file is found out, and no other is blamed for it.
    let victim = name_of(of(&list, "server2")[0]);
    damage(&snapshots_dir(&lab, "server2").join(&victim));
    let output = snapshot(&lab, &["verify", "--all"]);
    assert_eq!(output.status.code(), Some(1), "{}", shown(&output));
    let text = shown(&output);
    assert!(text.contains(&format!("not right: {victim}")), "{text}");
    let refused = snapshot(&lab, &["fetch", &victim, "-o", "x.snap", "--plain"]);
    assert_eq!(refused.status.code(), Some(6), "{}", shown(&refused));
    assert!(!lab.dir.path().join("x.snap").exists());

    // Removing asks, shows first, and takes only what it was told.
    let check = snapshot(&lab, &["rm", &victim, "--check"]);
    assert_eq!(check.status.code(), Some(7), "{}", shown(&check));
    assert_eq!(snapshot(&lab, &["rm", &victim]).status.code(), Some(9));
    let told = snapshot_ok(&lab, &["rm", &victim, "--yes", "--output", "json"]);
    let told: Json = serde_json::from_str(&told).unwrap();
    assert_eq!(
        (&told["removed"][0]["name"], &told["problems"]),
        (&victim.into(), &Json::Array(vec![]))
    );
    assert_eq!(listed(&lab).len(), 2);

    // Each left a journal, what was refused as well as what was done; looking leaves none.
    let runs: Json = serde_json::from_str(&lab.ok(["runs", "ls", "--output", "json"])).unwrap();
    let runs: Vec<(&str, &str)> = runs
        .as_array()
        .unwrap()
        .iter()
        .map(|run| (run["what"].as_str().unwrap(), run["outcome"].as_str().unwrap()))
        .collect();
    let done = ["snapshot rm", "snapshot fetch", "snapshot save", "up"];
    assert_eq!(runs, done.into_iter().zip(["ok", "failed", "ok", "ok"]).collect::<Vec<_>>());
    let story = lab.ok(["runs", "show", "last"]);
    assert!(story.contains("TASK [remove mine-server2-"), "{story}");
}

#[test]
fn a_bundle_brings_a_snapshot_to_another_server_with_its_token() {
    let lab = Lab::new("84.2", 1, 0);
    lab.up(&[]);
    wait_for("a write", || Store::of(&lab, &[1]).put("kept", "value").ok());
    snapshot_ok(&lab, &["save"]);
    let passphrase = lab.dir.path().join("passphrase");
    std::fs::write(&passphrase, "correct horse battery staple\n").unwrap();
    let passphrase = passphrase.to_str().unwrap();
    let key = ["--passphrase-file", passphrase];
    snapshot_ok(&lab, &[&["fetch", "latest", "-o", "backup.age"], &key[..]].concat());
    let bundle = std::fs::read(lab.dir.path().join("backup.age")).unwrap();
    let token = lab.ok(["token", "show", "-i", lab.inventory_path()]);
    let secret = token.trim().rsplit(':').next().unwrap();
    assert!(bundle.starts_with(b"age-encryption.org/"));
    assert!(!bundle.windows(secret.len()).any(|part| part == secret.as_bytes()));
    let again = snapshot(&lab, &[&["fetch", "latest", "-o", "backup.age"], &key[..]].concat());
    assert_eq!(again.status.code(), Some(5), "never overwrites: {}", shown(&again));

    let list = listed(&lab);
    let name = name_of(&list[0]);
    snapshot_ok(&lab, &["rm", &name, "--yes"]);
    assert!(listed(&lab).is_empty());
    std::fs::remove_file(lab.bundle().join("token")).unwrap();
    let pushed = snapshot_ok(&lab, &[&["push", "backup.age"], &key[..]].concat());
    assert!(pushed.contains("verified") && pushed.contains("token is now in"), "{pushed}");
    assert_eq!(name_of(&listed(&lab)[0]), name);
    assert_eq!(lab.ok(["token", "show", "-i", lab.inventory_path()]), token);
    let path = snapshots_dir(&lab, "server1").join(&name);
    let mode = std::os::unix::fs::PermissionsExt::mode(&path.metadata().unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    snapshot_ok(&lab, &["verify"]);

    // Cut off, and opened with another passphrase: refused, and nothing is there.
    std::fs::write(lab.dir.path().join("cut.age"), &bundle[..bundle.len() - 100]).unwrap();
    let refused = snapshot(&lab, &[&["push", "cut.age"], &key[..]].concat());
    assert_eq!(refused.status.code(), Some(5), "{}", shown(&refused));
    let wrong = lab.dir.path().join("wrong");
    std::fs::write(&wrong, "tr0ub4dor").unwrap();
    let wrong = ["push", "backup.age", "--passphrase-file", wrong.to_str().unwrap()];
    assert_eq!(snapshot(&lab, &wrong).status.code(), Some(5));
    assert_eq!(listed(&lab).len(), 1);
}

#[test]
fn s3_holds_copies_and_its_failures_harm_nothing() {
    let Some(mut s3) = S3::start("127.84.3.200") else { return };
    let lab = Lab::new("84.3", 2, 0);
    let snapshot_vars = format!(
        "    snapshot:\n      schedule: '0 3 1 1 *'\n      retention: 2\n      s3:\n        endpoint: \
         {}\n        bucket: {}\n        folder: lab\n        insecure: true\n        access_key: key\n        \
         secret_key: s3cr3tkey\n        timeout: 15s\n",
        s3.endpoint(),
        s3.bucket
    );
    lab.say(&snapshot_vars);
    let said = lab.up(&["--diff"]);
    assert!(!said.contains("s3cr3tkey"), "{said}");
    let config = |server: &str| lab.host_dir(server).join("etc/k3sup");
    let first = std::fs::read_to_string(config("server1").join("config.yaml")).unwrap();
    let second = std::fs::read_to_string(config("server2").join("config.yaml")).unwrap();
    assert!(first.contains("\"0 3 1 1 *\"") && second.contains("\"10 3 1 1 *\""), "{second}");
    assert!(!first.contains("s3cr3tkey"));
    assert!(lab.up(&[]).contains("changed=0"));

    snapshot_ok(&lab, &["save", "--all"]);
    let list = listed(&lab);
    assert_eq!((of(&list, "s3").len(), list.len()), (2, 4), "{list:#?}");
    assert!(of(&list, "s3").iter().all(|found| found["revision"].as_i64().unwrap() > 0));
    snapshot_ok(&lab, &["verify", "--all"]);

    // Each server's retention is its own: the newer ones of one do not push out the other's.
    for _ in 0..3 {
        snapshot_ok(&lab, &["save", "--on", "server1", "--name", "etcd-snapshot"]);
    }
    snapshot_ok(&lab, &["save", "--on", "server2", "--name", "etcd-snapshot"]);
    snapshot_ok(&lab, &["prune", "--yes"]);
    let list = listed(&lab);
    let scheduled = |place: &str, server: &str| {
        let base = format!("etcd-snapshot-{server}-");
        of(&list, place).iter().filter(|found| name_of(found).starts_with(&base)).count()
    };
    assert_eq!((scheduled("s3", "server1"), scheduled("s3", "server2")), (2, 1), "{list:#?}");
    assert_eq!((scheduled("server1", "server1"), scheduled("server2", "server2")), (2, 1));
    let left = of(&list, "s3").iter().map(|found| name_of(found)).next_back().unwrap();
    snapshot_ok(&lab, &["fetch", &left, "--from", "s3", "-o", "from-s3.snap", "--plain"]);
    // A restore takes it from there by itself: by its URL, and when no server has it any more by name.
    let restore =
        |what: &str| lab.ok(["restore", "-i", lab.inventory_path(), "--yes", "--snapshot", what]);
    let said = restore(&format!("s3://{}/lab/{left}", s3.bucket));
    assert!(said.contains("2 of 2 members hold the same"), "{said}");
    for server in ["server1", "server2"] {
        std::fs::remove_dir_all(snapshots_dir(&lab, server)).unwrap();
    }
    let said = restore("latest");
    assert!(said.contains(&format!("snapshot {left}: ")), "{said}");
    assert_one_cluster(&lab, &[1, 2]);
    assert!(s3.objects().iter().all(|key| key.starts_with("lab/")));

    // S3 is gone: the local one is taken all the same, and the failure is told.
    s3.stop();
    let output = snapshot(&lab, &["save", "--on", "server1", "--name", "without"]);
    let text = shown(&output);
    assert!(output.status.success() && text.contains("warning: server1: S3"), "{text}");
    assert!(!text.contains("s3cr3tkey"));
    let output = snapshot(&lab, &["ls"]);
    assert_eq!(output.status.code(), Some(4), "{}", shown(&output));
    let list = listed(&lab);
    assert!(list.iter().any(|found| name_of(found).starts_with("without-server1-")));
    wait_for("the problem in the status", || {
        let status = lab.status()?;
        let standing = status["snapshots"].as_array()?;
        standing.iter().any(|server| server["problem"].is_string()).then_some(())
    });
}

/// What a server's counters say.
fn counter(lab: &Lab, server: usize, name: &str) -> Option<f64> {
    let bundle = lab.bundle();
    let read = |name: &str| std::fs::read_to_string(bundle.join(name)).ok();
    let pair = KeyPairPem { certificate: read("client.crt")?, key: read("client.key")?.into() };
    let connector = Connector::tls(tls::client(&read("ca.crt")?, Some(&pair), &[]).ok()?, LIMIT);
    let authority = format!("{}:2379", lab.server_address(server));
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let answer = runtime.block_on(connector.ask(&authority, "GET", "/metrics", None, b"")).ok()?;
    let text = answer.text();
    let line = text.lines().find(|line| line.starts_with(&format!("{name} ")))?;
    line.rsplit_once(' ')?.1.parse().ok()
}

#[test]
fn a_schedule_fires_and_what_fails_is_seen_in_status_and_metrics() {
    let lab = Lab::new("84.8", 1, 0);
    lab.say("    snapshot: {schedule: '* * * * *', retention: 2}\n");
    lab.up(&[]);
    let good = "k3sup_snapshot_last_success_timestamp_seconds";
    assert!(counter(&lab, 1, "k3sup_snapshot_overdue").is_some_and(|overdue| overdue < 0.5));
    wait_for("a scheduled snapshot", || counter(&lab, 1, good).filter(|when| *when > 0.0));
    let standing = || lab.status().map(|status| status["snapshots"][0].clone());
    // The next one may be taken between the two looks.
    wait_for("the newest one in the status", || {
        let list = listed(&lab);
        assert!(name_of(&list[0]).starts_with("etcd-snapshot-server1-"), "{list:#?}");
        (standing()?["last"] == list.last()?["name"]).then_some(())
    });
    // Where nothing can be written the next one fails, and is not silent about it.
    let dir = snapshots_dir(&lab, "server1");
    std::fs::remove_dir_all(&dir).unwrap();
    std::fs::write(&dir, "no directory").unwrap();
    wait_for("a failed snapshot", || {
        counter(&lab, 1, "k3sup_snapshot_failures_total").filter(|failures| *failures > 0.0)
    });
    wait_for("the problem in the status", || standing()?["problem"].is_string().then_some(()));
    let said = shown(&lab.run(["status", "-i", lab.inventory_path()]));
    assert!(said.contains("server1: the last snapshot failed: "), "{said}");
}

#[test]
fn the_commands_of_k3s_work_on_a_servers_host() {
    let lab = Lab::new("84.4", 1, 0);
    lab.up(&[]);
    let data = lab.host_dir("server1").join("var/lib/k3sup");
    let server = format!("https://{}:6443", lab.server_address(1));
    let run = |args: &[&str]| {
        let own = ["--data-dir", data.to_str().unwrap(), "--etcd-server", &server];
        lab.run([&["etcd-snapshot"], args, &own[..]].concat())
    };
    let ok = |args: &[&str]| {
        let output = run(args);
        assert!(output.status.success(), "{args:?}: {}", shown(&output));
        String::from_utf8(output.stdout).unwrap()
    };
    let saved = ok(&["save", "--snapshot-compress"]);
    let name = saved.strip_prefix("Snapshot ").unwrap().strip_suffix(" saved.\n").unwrap();
    assert!(name.starts_with("on-demand-server1-") && name.contains(".zip"), "{name}");
    let table = ok(&["ls"]);
    let mut lines = table.lines();
    let header: Vec<&str> = lines.next().unwrap().split_whitespace().collect();
    assert_eq!(header, ["Name", "Location", "Size", "Created"]);
    let row: Vec<&str> = lines.next().unwrap().split_whitespace().collect();
    assert_eq!(row[0], name);
    assert!(row[1].starts_with("file:///") && row[3].ends_with('Z'), "{row:?}");
    let json: Json = serde_json::from_str(&ok(&["list", "-o", "json"])).unwrap();
    assert_eq!(json["items"][0]["spec"]["snapshotName"], name);
    for _ in 0..3 {
        ok(&["save", "--name", "many"]);
    }
    assert_eq!(ok(&["prune", "--name", "many", "--snapshot-retention", "1"]).lines().count(), 2);
    assert_eq!(ok(&["delete", name]), format!("Snapshot {name} deleted.\n"));
    let missing = run(&["delete", name]);
    assert_eq!(missing.status.code(), Some(1));
    assert!(shown(&missing).contains(&format!("Snapshot {name} not found.")));
    let token = lab.ok(["token", "show", "-i", lab.inventory_path()]);
    let file = lab.dir.path().join("token");
    std::fs::write(&file, token).unwrap();
    let by_token = lab.run([
        "etcd-snapshot",
        "save",
        "--etcd-server",
        &server,
        "--etcd-token-file",
        file.to_str().unwrap(),
    ]);
    assert!(by_token.status.success(), "{}", shown(&by_token));
    std::fs::write(&file, format!("K10{}::server:wrong", "0".repeat(64))).unwrap();
    let refused = lab.run([
        "etcd-snapshot",
        "save",
        "--etcd-server",
        &server,
        "--etcd-token-file",
        file.to_str().unwrap(),
    ]);
    assert!(shown(&refused).contains("token CA hash does not match"), "{}", shown(&refused));
}

#[test]
fn snapshots_of_k3s_are_taken_by_k3s_and_shown_in_one_table() {
    if std::process::Command::new("python3").arg("--version").output().is_err() {
        eprintln!("SKIPPED: the script that plays K3s needs python3");
        return;
    }
    let lab = Lab::new("84.5", 3, 0);
    let fake = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/k3s/fake-k3s");
    lab.say(&format!(
        "    distribution: k3s\n    k3s_binary: {fake}\n    snapshot: {{schedule: '30 2 * * *', \
             retention: 3}}\n"
    ));
    lab.up(&[]);
    let config = |server: &str| {
        let file = lab.host_dir(server).join("etc/rancher/k3s/config.yaml");
        std::fs::read_to_string(file).unwrap()
    };
    for (server, schedule) in [("server1", "30 2 * * *"), ("server3", "50 2 * * *")] {
        let text = config(server);
        assert!(text.contains(&format!("etcd-snapshot-schedule-cron: {schedule}")), "{text}");
        assert!(text.contains("etcd-snapshot-retention: 3"), "{text}");
    }
    snapshot_ok(&lab, &["save", "--all", "--name", "mine"]);
    let list = listed(&lab);
    assert_eq!(list.len(), 3, "{list:#?}");
    assert!(list.iter().all(|found| found["format"] == "etcd"));
    snapshot_ok(&lab, &["verify", "--all"]);
    let victim = name_of(of(&list, "server2")[0]);
    let path =
        lab.host_dir("server2").join("var/lib/rancher/k3s/server/db/snapshots").join(&victim);
    damage(&path);
    let output = snapshot(&lab, &["verify", "--all"]);
    assert_eq!(output.status.code(), Some(1), "{}", shown(&output));
    snapshot_ok(&lab, &["rm", &victim, "--yes"]);
    assert!(!path.exists());
    // It is not one of the embedded node's, and the other way round.
    snapshot_ok(&lab, &["fetch", "latest", "-o", "k3s.snap", "--plain"]);
    let text = std::fs::read_to_string(&lab.inventory).unwrap();
    let embedded = lab.dir.path().join("embedded.yaml");
    std::fs::write(&embedded, text.replace("distribution: k3s", "distribution: embedded")).unwrap();
    let refused = lab.run([
        "snapshot",
        "push",
        "k3s.snap",
        "--as",
        "mine-s1-1",
        "-i",
        embedded.to_str().unwrap(),
    ]);
    assert_eq!(refused.status.code(), Some(6), "{}", shown(&refused));
    assert!(shown(&refused).contains("it is a snapshot of etcd or K3s"), "{}", shown(&refused));
}

#[test]
fn settings_that_cannot_be_meant_are_refused_with_their_line_and_without_secrets() {
    let cases = [
        ("{schedule: 'often'}", "`often` is not a schedule"),
        ("{schedules: '0 3 * * *'}", "unknown field `schedules`"),
        ("{retention: many}", "retention"),
        ("{s3: {bucket: b, access_key: a}}", "access-key and secret-key go together"),
        ("{s3: {secret_key: hunter2, access_key: a}}", "bucket is required"),
        ("{s3: {bucket: b, secret_key: [hunter2]}}", "s3.secret_key"),
        ("{name: '../x'}", "the name `../x`"),
    ];
    for (text, expected) in cases {
        let lab = Lab::new("84.6", 1, 0);
        lab.say(&format!("    snapshot: {text}\n"));
        for args in [["up", "--check"], ["snapshot", "ls"]] {
            let output = lab.run([&args[..], &["-i", lab.inventory_path()]].concat());
            let said = shown(&output);
            assert_eq!(output.status.code(), Some(5), "{text}: {said}");
            assert!(said.contains(expected) && said.contains("inventory.yaml:"), "{text}: {said}");
            assert!(!said.contains("hunter2"), "{text}: {said}");
        }
    }
}
