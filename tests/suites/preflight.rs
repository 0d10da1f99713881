//! `preflight` and `doctor` with the real binary on lab hosts: what is fine is found fine, and what is
//! wrong is named, with its cause and the right exit code.

use std::net::TcpListener;
use std::path::Path;
use std::process::Output;

use crate::support::store::Store;
use crate::support::{Lab, shown, wait_for};
use serde_json::Value as Json;

fn run(lab: &Lab, verb: &str, more: &[&str]) -> Output {
    lab.run([&[verb, "-i", lab.inventory_path()], more].concat())
}

/// What `verb --output json` finds, and its exit code.
#[track_caller]
fn findings(lab: &Lab, verb: &str) -> (Vec<Json>, Option<i32>) {
    let output = run(lab, verb, &["--output", "json"]);
    let report: Option<Json> = serde_json::from_slice(&output.stdout).ok();
    assert!(report.is_some(), "no JSON: {}", shown(&output));
    let report = report.unwrap();
    (report["findings"].as_array().expect("findings").clone(), output.status.code())
}

/// The findings of `check` on `host` (an empty name is the cluster).
fn of<'a>(findings: &'a [Json], check: &str, host: &str) -> Vec<&'a Json> {
    let here =
        |found: &&Json| found["check"] == check && found["host"].as_str().unwrap_or("") == host;
    findings.iter().filter(here).collect()
}

/// Those that are worse than unknown, without what says something of this machine and not of the
/// cluster: its disk may be slow, it may be busy, have little room, and have stood still, so that another
/// leader was elected.
fn wrong(findings: &[Json]) -> Vec<&Json> {
    const MACHINE: [&str; 5] = ["fsync", "cpus", "memory", "disk", "rtt"];
    let counts = |found: &&Json| {
        (found["severity"] == "bad" || found["severity"] == "warning")
            && !MACHINE.iter().any(|check| found["check"] == *check)
            && !tells_of_elections(found)
    };
    findings.iter().filter(counts).collect()
}

fn tells_of_elections(found: &Json) -> bool {
    found["check"] == "leader"
        && found["value"].as_str().is_some_and(|value| value.contains(" changes in "))
}

/// What the doctor finds. It ends with 1 when anything is bad, and a warning is no failure.
#[track_caller]
fn diagnosed(lab: &Lab) -> Vec<Json> {
    let (found, code) = findings(lab, "doctor");
    let is_bad = found.iter().any(|found| found["severity"] == "bad");
    assert_eq!(code, Some(i32::from(is_bad)), "{found:#?}");
    found
}

/// Gives all servers variables.
fn with_servers_var(lab: &Lab, var: &str) {
    let text = std::fs::read_to_string(&lab.inventory).unwrap();
    let group = "    servers:\n";
    let changed = text.replacen(group, &format!("{group}      vars: {{{var}}}\n"), 1);
    assert_ne!(text, changed);
    std::fs::write(&lab.inventory, changed).unwrap();
}

/// Gives a server variables of its own.
fn with_host_var(lab: &Lab, host: &str, var: &str) {
    let text = std::fs::read_to_string(&lab.inventory).unwrap();
    let changed = text.replacen(&format!("{host}: {{"), &format!("{host}: {{{var}, "), 1);
    assert_ne!(text, changed);
    std::fs::write(&lab.inventory, changed).unwrap();
}

#[test]
fn fresh_hosts_are_found_fit_and_left_as_they_were() {
    let lab = Lab::new("79.31", 3, 1);
    let (found, code) = findings(&lab, "preflight");
    assert_eq!(code, Some(0), "{found:#?}");
    assert_eq!(wrong(&found), Vec::<&Json>::new());
    for host in ["server1", "server2", "server3", "agent1"] {
        // Six ways lead from each to the servers.
        assert_eq!(of(&found, "network", host)[0]["value"], "6/6", "{found:#?}");
        assert_eq!(of(&found, "identity", host)[0]["value"], "unique");
    }
    let speed = of(&found, "fsync", "server2");
    assert!(speed[0]["value"].as_str().unwrap().starts_with("p99 "), "{speed:?}");
    assert!(of(&found, "fsync", "agent1").is_empty(), "an agent has no log");
    assert_eq!(of(&found, "data", "server1")[0]["value"], "none");
    for part in ["var/lib", "etc/k3sup", "usr/local/bin/k3sup-rs"] {
        assert!(!lab.host_dir("server1").join(part).exists(), "{part} was made");
    }
    let left = std::fs::read_dir(lab.host_dir("server1")).unwrap().flatten();
    let left: Vec<_> =
        left.filter(|entry| entry.file_name().to_string_lossy().contains("speed")).collect();
    assert!(left.is_empty(), "{left:?}");

    // A pipe gets lines.
    let text = run(&lab, "preflight", &[]);
    let text = String::from_utf8(text.stdout).unwrap();
    assert!(text.lines().any(|line| line.starts_with("ok       server1    clock")), "{text}");

    let text = run(&lab, "preflight", &["--limit", "server2,agent1"]);
    assert_eq!(text.status.code(), Some(0), "{}", shown(&text));
    let text = String::from_utf8(text.stdout).unwrap();
    let hosts: std::collections::BTreeSet<&str> =
        text.lines().filter_map(|line| line.split_whitespace().nth(1)).collect();
    assert!(hosts.contains("server2") && hosts.contains("agent1"), "{text}");
    assert!(!hosts.contains("server1") && !hosts.contains("server3"), "{text}");
    let none = run(&lab, "doctor", &["--limit", "server9"]);
    assert_eq!(none.status.code(), Some(5), "{}", shown(&none));

    // The ports are free again: the cluster comes up on them.
    lab.up(&[]);
}

#[test]
fn what_would_stop_a_cluster_is_named_with_its_exit_code() {
    let lab = Lab::new("79.32", 2, 0);
    let taken = TcpListener::bind((lab.server_address(2), 2380)).unwrap();
    let (found, code) = findings(&lab, "preflight");
    assert_eq!(code, Some(2), "{found:#?}");
    let port = of(&found, "ports", "server2")[0]["message"].as_str().unwrap().to_owned();
    assert!(port.starts_with("port 2380 is taken by "), "{port}");
    assert_eq!(of(&found, "servers", "")[0]["value"], "even-servers");
    // Who has the port answers, so the way to it is open.
    assert_eq!(of(&found, "network", "server1")[0]["value"], "3/3");
    let text = run(&lab, "preflight", &["--force"]);
    assert_eq!(text.status.code(), Some(2), "a taken port cannot be forced: {}", shown(&text));
    drop(taken);
    assert_eq!(findings(&lab, "preflight").1, Some(0));

    with_host_var(&lab, "server1", "config: {etcd-arg: [heartbeat-interval=200]}");
    let (found, code) = findings(&lab, "preflight");
    assert_eq!(code, Some(5), "{found:#?}");
    let settings = of(&found, "settings", "")[0]["message"].as_str().unwrap().to_owned();
    assert_eq!(
        settings,
        "`etcd-arg=heartbeat-interval` must be equal on all servers: 100 on server2; 200 on server1"
    );
    let up = run(&lab, "up", &["--yes"]);
    assert_eq!(up.status.code(), Some(5), "{}", shown(&up));
    assert!(shown(&up).contains("nothing was changed on any host"), "{}", shown(&up));
    assert!(!lab.host_dir("server1").join("etc/k3sup").exists());
}

/// A certificate that ends in `days` from now, in the place of the server's own.
fn let_certificate_end(lab: &Lab, host: &str, days: i64) {
    let path = lab.host_dir(host).join("var/lib/k3sup/server/tls/etcd/server-client.crt");
    assert!(path.exists());
    write_certificate(&path, days);
}

fn write_certificate(path: &Path, days: i64) {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(vec!["x".to_owned()]).unwrap();
    params.distinguished_name.push(rcgen::DnType::CommonName, "short");
    params.not_after = time::OffsetDateTime::now_utc() + time::Duration::hours(days * 24 + 1);
    let issuer_key = rcgen::KeyPair::generate().unwrap();
    let mut issuer = rcgen::CertificateParams::new(Vec::new()).unwrap();
    issuer.distinguished_name.push(rcgen::DnType::CommonName, "issuer");
    let issuer = rcgen::Issuer::new(issuer, issuer_key);
    std::fs::write(path, params.signed_by(&key, &issuer).unwrap().pem()).unwrap();
}

#[test]
fn a_doctor_finds_a_living_cluster_well_and_then_what_is_wrong_with_it() {
    let lab = Lab::new("79.33", 3, 1);
    with_servers_var(&lab, "config: {etcd-arg: [quota-backend-bytes=1048576]}");
    lab.up(&[]);
    let found = wait_for("a healthy cluster", || {
        Some(diagnosed(&lab)).filter(|found| wrong(found).is_empty())
    });
    assert_eq!(of(&found, "quorum", "")[0]["value"], "3/3");
    for host in ["server1", "server2", "server3"] {
        assert_eq!(of(&found, "members", host)[0]["value"], "healthy");
        assert_eq!(of(&found, "certificates", host)[0]["severity"], "good");
        let quota = of(&found, "quota", host)[0]["value"].as_str().unwrap().to_owned();
        assert!(quota.ends_with("of 1 MiB"), "the counters are read: {quota}");
    }
    assert_eq!(of(&found, "node", "agent1")[0]["value"], "ready");
    assert!(of(&found, "leader", "").into_iter().any(tells_of_elections));

    let_certificate_end(&lab, "server2", 5);
    // Of a server that is silent for a second worse is said.
    let found = wait_for("nothing worse than warnings", || {
        let found = diagnosed(&lab);
        let only_warned = wrong(&found).iter().all(|found| found["severity"] == "warning");
        only_warned.then_some(found)
    });
    let message = of(&found, "certificates", "server2")[0]["message"].as_str().unwrap().to_owned();
    assert!(message.ends_with("etcd/server-client.crt ends in 5 days"), "{message}");
    assert_eq!(of(&found, "certificates", "server2")[0]["severity"], "warning");
    let_certificate_end(&lab, "server2", -3);
    let found = diagnosed(&lab);
    assert_eq!(of(&found, "certificates", "server2")[0]["severity"], "bad");

    full_store(&lab);
    lost_servers(&lab);
}

/// Writes until the store is at its quota.
fn full_store(lab: &Lab) {
    let store = Store::of(lab, &[1, 3]);
    let value = "x".repeat(64 * 1024);
    wait_for("the store to be full", || {
        let refused = store.put(&format!("key{}", rand::random::<u32>()), &value).err()?;
        refused.message().contains("database space exceeded").then_some(())
    });
    let (found, code) = findings(lab, "doctor");
    assert_eq!(code, Some(1));
    let alarms = of(&found, "alarms", "");
    assert!(alarms[0]["value"].as_str().unwrap().starts_with("NOSPACE on member "), "{alarms:?}");
    assert!(alarms[0]["action"].as_str().unwrap().contains("etcdctl alarm disarm"));
    assert!(!alarms[0]["why"].as_str().unwrap().is_empty());
}

/// One server away, then two.
fn lost_servers(lab: &Lab) {
    lab.lab("kill", "server3");
    let found = wait_for("the loss of a member to be seen", || {
        let (found, code) = findings(lab, "doctor");
        let down = of(&found, "members", "server3").iter().any(|found| found["value"] == "down");
        (code == Some(1) && down).then_some(found)
    });
    assert_eq!(of(&found, "reach", "server3")[0]["severity"], "bad");
    let down = of(&found, "members", "server3")[0]["message"].as_str().unwrap().to_owned();
    assert!(
        down.contains("is down: its host cannot be reached: lab host server3 is down"),
        "{down}"
    );
    assert_eq!(of(&found, "quorum", "")[0]["severity"], "warning");
    lab.lab("kill", "server2");
    wait_for("the loss of the quorum to be seen", || {
        let (found, _) = findings(lab, "doctor");
        let quorum = of(&found, "quorum", "");
        quorum
            .iter()
            .any(|found| found["severity"] == "bad" && found["value"] == "1/3")
            .then_some(())
    });
    let text = run(lab, "doctor", &[]);
    assert_eq!(text.status.code(), Some(1));
    let text = String::from_utf8(text.stdout).unwrap();
    assert!(
        text.contains("bad: the quorum is lost: 1 of 3 voters are healthy, 2 are needed"),
        "{text}"
    );
    assert!(text.contains("now: "), "{text}");
}
