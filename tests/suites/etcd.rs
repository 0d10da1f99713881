//! `k3sup-rs etcd`: stand-alone members under etcd's own flags, as scripts and unit files start them.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use crate::support::member::Member;
use crate::support::store::{Store, insist};
use crate::support::trio::Trio;
use crate::support::{BINARY, shown, wait_for};
use k3sup_rs::pki::{Authority, Leaf, Purpose};
use k3sup_rs::rpc::client::TlsFiles;
use k3sup_rs::rpc::pb::etcdserverpb as pb;

fn run(directory: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(BINARY);
    command.arg("etcd").args(arguments).env_clear().current_dir(directory);
    command.stdin(Stdio::null()).output().unwrap()
}

/// Waits until each of these members lists the new one, which asks any of them when it starts.
fn each_lists(trio: &Trio, members: &[usize], new: u64) {
    for member in members {
        let store = trio.store(&[*member]);
        wait_for("the new member in each list", || {
            let (_, listed) = store.members().ok()?;
            listed.iter().any(|member| member.id == new).then_some(())
        });
    }
}

/// Waits until each of these members has a key by itself: any two of three may have it alone.
fn each_has(trio: &Trio, members: &[usize], key: &str) {
    for member in members {
        let store = trio.store(&[*member]);
        wait_for("the key at each", || store.get(key, true).ok().flatten());
    }
}

#[test]
fn three_members_begin_survive_and_come_back() {
    let trio = Trio::new("95.1");
    let all = [1, 2, 3];
    let mut members: Vec<Member> =
        all.iter().map(|member| trio.start(*member, &all, &[])).collect();
    members.iter_mut().for_each(Member::ready);
    let store = trio.store(&all);
    for number in 0..50 {
        insist("a write", || store.put(&format!("k{number}"), "before"));
    }
    let (cluster, listed) = wait_for("the names of all", || {
        let known =
            |member: &pb::Member| !member.client_ur_ls.is_empty() && !member.name.is_empty();
        store.members().ok().filter(|(_, listed)| listed.iter().all(known))
    });
    assert_eq!(listed.len(), 3);

    // Killed, one after the other and all at once: what was acknowledged stays.
    for member in all {
        members[member - 1].kill();
        // A call that was on its way to the killed one, or was sent on to it, tells nothing.
        let others: Vec<usize> = all.into_iter().filter(|other| *other != member).collect();
        let (others, key) = (trio.store(&others), format!("without{member}"));
        wait_for("a write without one", || others.put(&key, "x").ok());
        members[member - 1] = trio.start(member, &all, &[]);
        members[member - 1].ready();
    }
    members.iter_mut().for_each(Member::kill);
    let mut members: Vec<Member> =
        all.iter().map(|member| trio.start(*member, &all, &[])).collect();
    members.iter_mut().for_each(Member::ready);
    let store = trio.store(&all);
    let (revision, pairs) = wait_for("a read", || store.all().ok());
    assert_eq!(pairs.len(), 53);
    assert_eq!(store.members().unwrap().0, cluster);
    let hash = |member: &usize| trio.store(&[*member]).hash(revision).ok();
    let hashes: Vec<u32> = all.iter().map(|member| wait_for("a hash", || hash(member))).collect();
    assert!(hashes.iter().all(|hash| *hash == hashes[0]), "{hashes:?}");

    // One that lost its data does not begin a cluster of its own beside the others.
    members[0].kill();
    std::fs::remove_dir_all(trio.directory.path().join("m1")).unwrap();
    let said = trio.start(1, &all, &[]).ended();
    assert!(said.contains("has already been bootstrapped"), "{said}");

    // It is replaced the way etcd's manual says.
    let others = trio.store(&[2, 3]);
    let (_, listed) = others.members().unwrap();
    let lost = listed.iter().find(|member| member.name == "m1").unwrap();
    others.member_remove(lost.id).unwrap();
    let added = others.member_add(&trio.url(1, 2380)).unwrap();
    assert_ne!(added, lost.id);
    each_lists(&trio, &[2, 3], added);
    members[0] = trio.start(1, &all, &["--initial-cluster-state=existing"]);
    members[0].ready();
    let own = trio.store(&[1]);
    assert_eq!(own.all().unwrap().1.len(), 53);
    assert_eq!(own.members().unwrap().0, cluster);
}

#[test]
fn one_member_grows_and_one_that_is_removed_ends() {
    let trio = Trio::new("95.2");
    let mut first = trio.start(1, &[1], &[]);
    first.ready();
    let store = trio.store(&[1]);
    insist("a write", || store.put("a", "1"));
    store.member_add(&trio.url(2, 2380)).unwrap();
    let mut second = trio.start(2, &[1, 2], &["--initial-cluster-state", "existing"]);
    second.ready();
    assert_eq!(trio.store(&[2]).get("a", false).unwrap().as_deref(), Some("1"));

    let id = wait_for("the second one's name", || {
        let (_, members) = store.members().ok()?;
        members.iter().find(|member| member.name == "m2").map(|member| member.id)
    });
    store.member_remove(id).unwrap();
    let said = second.ended();
    assert!(said.contains("permanently removed from the cluster"), "{said}");
    let said = trio.start(2, &[1, 2], &["--initial-cluster-state", "existing"]).ended();
    assert!(said.contains("permanently removed from the cluster"), "{said}");
    insist("a write", || store.put("b", "2"));
}

#[test]
fn the_last_of_three_is_forced_to_be_alone() {
    let trio = Trio::new("95.3");
    let all = [1, 2, 3];
    let mut members: Vec<Member> =
        all.iter().map(|member| trio.start(*member, &all, &[])).collect();
    members.iter_mut().for_each(Member::ready);
    let store = trio.store(&all);
    insist("a write", || store.put("kept", "yes"));
    each_has(&trio, &[2], "kept");
    drop(members);
    let mut alone = trio.start(2, &all, &["--force-new-cluster"]);
    alone.ready();
    let store = trio.store(&[2]);
    assert_eq!(store.get("kept", false).unwrap().as_deref(), Some("yes"));
    assert_eq!(store.members().unwrap().1.len(), 1);
    insist("a write", || store.put("and", "on"));
    alone.kill();
    let mut again = trio.start(2, &all, &[]);
    again.ready();
    assert_eq!(trio.store(&[2]).get("and", false).unwrap().as_deref(), Some("on"));
    // The old data is not lost.
    let names = std::fs::read_dir(trio.directory.path().join("m2")).unwrap();
    let kept = names.filter(|entry| {
        entry.as_ref().unwrap().file_name().to_string_lossy().starts_with("member.before-")
    });
    assert_eq!(kept.count(), 1);
}

/// What a member answers over JSON: the status, and the body.
fn ask(url: &str, headers: &[&str], body: Option<&str>) -> (u16, String) {
    let mut command = Command::new("curl");
    command.args(["-sS", "-w", "\n%{http_code}", "--max-time", "120"]);
    for header in headers {
        command.args(["-H", header]);
    }
    if let Some(body) = body {
        command.args(["-d", body]);
    }
    let output = command.arg(url).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let (said, status) = said.rsplit_once('\n').unwrap();
    (status.parse().unwrap(), said.to_owned())
}

/// What a member says of itself, and who it says leads: 0 is nobody.
fn standing(url: &str) -> (serde_json::Value, u64, u64) {
    let (_, said) = ask(&format!("{url}/v3/maintenance/status"), &[], Some("{}"));
    let said: serde_json::Value = serde_json::from_str(&said).unwrap_or_default();
    let number = |value: &serde_json::Value| value.as_str().and_then(|text| text.parse().ok());
    let (own, leader) = (number(&said["header"]["member_id"]), number(&said["leader"]));
    (said, own.unwrap_or(0), leader.unwrap_or(0))
}

/// The numbers of a family, without their labels.
fn numbers<'a>(metrics: &'a str, family: &str) -> Vec<&'a str> {
    let of = |line: &'a str| line.strip_prefix(family)?.strip_prefix('{')?.rsplit(' ').next();
    metrics.lines().filter_map(of).collect()
}

/// What holds of a member that lost its leader, or led and lost its quorum: all as with etcd.
fn names_no_leader(trio: &Trio, member: usize) {
    let url = trio.url(member, 2379);
    let strict = "Grpc-Metadata-Hasleader: true";
    // One that is open already ends by itself, also when it began while there was a leader.
    let create = r#"{"create_request":{"key":"YQ=="}}"#;
    let (_, ended) = ask(&format!("{url}/v3/watch"), &[strict], Some(create));
    assert!(ended.contains("etcdserver: no leader"), "{ended}");
    let said = wait_for("a member that knows that there is no leader", || {
        let (said, _, leader) = standing(&url);
        (leader == 0 && said["header"].is_object()).then_some(said)
    });
    assert_eq!(said["errors"], serde_json::json!(["etcdserver: no leader"]), "{said}");
    let (status, health) = ask(&format!("{url}/health"), &[], None);
    assert_eq!(status, 503);
    assert!(health.contains(r#"{"health":"false","reason":"RAFT NO LEADER"}"#), "{health}");
    let metrics = || ask(&format!("{url}/metrics"), &[], None).1;
    let said = metrics();
    for line in ["etcd_server_has_leader 0", "etcd_server_is_leader 0"] {
        assert!(said.lines().any(|other| other == line), "{line}:\n{said}");
    }
    wait_for("the halves of etcd's alert etcdMembersDown", || {
        let said = metrics();
        let failures = numbers(&said, "etcd_network_peer_sent_failures_total");
        let failed = failures.len() == 2 && !failures.contains(&"0");
        (failed && numbers(&said, "etcd_network_active_peers") == ["0", "0"]).then_some(())
    });
    let range = r#"{"key":"YQ==","serializable":true}"#;
    let (status, refused) = ask(&format!("{url}/v3/kv/range"), &[strict], Some(range));
    assert!(status == 503 && refused.contains("etcdserver: no leader"), "{status} {refused}");
    let (status, served) = ask(&format!("{url}/v3/kv/range"), &[], Some(range));
    assert!(status == 200 && served.contains("YmVmb3Jl"), "{status} {served}");
    let renewal = ask(&format!("{url}/v3/lease/keepalive"), &[], Some(r#"{"ID":"1"}"#)).1;
    assert!(renewal.contains("etcdserver: no leader"), "{renewal}");
    let added = trio.store(&[member]).member_add("http://127.95.8.9:2380").unwrap_err();
    assert_eq!(added.message(), "etcdserver: unhealthy cluster");
}

#[test]
fn without_a_quorum_nobody_is_named_as_leader() {
    let trio = Trio::new("95.8");
    let all = [1, 2, 3];
    let mut members = trio.begin(&all, &[]);
    let store = trio.store(&all);
    insist("a write", || store.put("a", "before"));
    each_has(&trio, &all, "a");
    let leader = || {
        wait_for("a leader that all name", || {
            let said = all.map(|member| standing(&trio.url(member, 2379)));
            let leader = said[0].2;
            let agreed = leader != 0 && said.iter().all(|(_, _, named)| *named == leader);
            all.into_iter().find(|member| agreed && said[member - 1].1 == leader)
        })
    };
    for survivor_leads in [false, true] {
        let leader = leader();
        let survivor = if survivor_leads { leader } else { leader % 3 + 1 };
        let lost: Vec<usize> = all.into_iter().filter(|member| *member != survivor).collect();
        for member in &lost {
            members[member - 1].kill();
        }
        names_no_leader(&trio, survivor);
        for member in lost {
            members[member - 1] = trio.start(member, &all, &[]);
        }
        for member in all {
            let url = trio.url(member, 2379);
            wait_for("a member that is well again", || {
                let (_, health) = ask(&format!("{url}/health"), &[], None);
                let (_, metrics) = ask(&format!("{url}/metrics"), &[], None);
                let strict = ["Grpc-Metadata-Hasleader: true"];
                let range = ask(&format!("{url}/v3/kv/range"), &strict, Some(r#"{"key":"YQ=="}"#));
                let connected = numbers(&metrics, "etcd_network_active_peers") == ["1", "1"];
                let pings = numbers(&metrics, "etcd_network_peer_round_trip_time_seconds_count");
                let well = health.contains(r#""health":"true""#)
                    && connected
                    && (pings.len() == 2 && !pings.contains(&"0"))
                    && metrics.contains("\netcd_server_has_leader 1\n")
                    && range.1.contains("YmVmb3Jl");
                well.then_some(())
            });
        }
    }
}

#[test]
fn a_binary_that_is_called_etcd_is_one() {
    let directory = tempfile::tempdir().unwrap();
    let etcd = directory.path().join("etcd");
    std::os::unix::fs::symlink(BINARY, &etcd).unwrap();
    let (client, peer) = ("http://127.95.4.1:2379", "http://127.95.4.1:2380");
    let variables = [
        ("ETCD_NAME", "solo"),
        ("ETCD_LISTEN_CLIENT_URLS", client),
        ("ETCD_ADVERTISE_CLIENT_URLS", client),
        ("ETCD_LISTEN_PEER_URLS", peer),
        ("ETCD_INITIAL_ADVERTISE_PEER_URLS", peer),
        ("ETCD_INITIAL_CLUSTER", "solo=http://127.95.4.1:2380"),
        ("ETCD_LISTEN_METRICS_URLS", "http://127.95.4.1:2381"),
        ("ETCD_AUTO_COMPACTION_RETENTION", "2s"),
    ];
    let mut member = Member::start(&etcd, directory.path(), &[], &variables);
    member.ready();
    assert!(directory.path().join("solo.etcd/member").is_dir());
    let store = Store::plain(&[client.to_owned()]);
    for _ in 0..5 {
        insist("a write", || store.put("a", "b"));
    }
    wait_for("auto compaction", || {
        member.log().contains("completed auto compaction").then_some(())
    });
    let get = |url: &str| {
        let output = Command::new("curl").args(["-sS", url]).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(get("http://127.95.4.1:2381/metrics").contains("etcd_server_has_leader 1"));
    assert!(get("http://127.95.4.1:2381/health").contains(r#""health":"true""#));

    let version = Command::new(&etcd).arg("--version").output().unwrap();
    assert!(shown(&version).contains("etcd Version: 3.5."), "{}", shown(&version));
}

#[test]
fn clients_and_peers_show_certificates() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let text = |name: &str| path(name).to_str().unwrap().to_owned();
    let ca = Authority::create("test").unwrap();
    std::fs::write(path("ca.crt"), ca.certificate()).unwrap();
    for (name, host) in [("one", "127.95.5.1"), ("two", "127.95.5.2"), ("client", "somebody")] {
        let pair = ca
            .issue(&Leaf {
                common_name: name.to_owned(),
                organization: None,
                sans: vec![host.to_owned()],
                purpose: Purpose::Peer,
            })
            .unwrap();
        std::fs::write(path(&format!("{name}.crt")), pair.certificate).unwrap();
        std::fs::write(path(&format!("{name}.key")), pair.key.expose()).unwrap();
    }
    let start = |name: &str, host: &str, allowed: &str| {
        let config = format!(
            "name: {name}\ndata-dir: {name}.data\n\
             listen-client-urls: https://{host}:2379\nadvertise-client-urls: https://{host}:2379\n\
             listen-peer-urls: https://{host}:2380\ninitial-advertise-peer-urls: https://{host}:2380\n\
             initial-cluster: one=https://127.95.5.1:2380,two=https://127.95.5.2:2380\n\
             client-transport-security:\n  cert-file: {name}.crt\n  key-file: {name}.key\n  \
             trusted-ca-file: ca.crt\n  client-cert-auth: true\n\
             peer-transport-security:\n  cert-file: {name}.crt\n  key-file: {name}.key\n  \
             trusted-ca-file: ca.crt\n  client-cert-auth: true\n  allowed-cn: {allowed}\n"
        );
        let file = path(&format!("{name}.yaml"));
        std::fs::write(&file, config).unwrap();
        let arguments = ["etcd", "--config-file", file.to_str().unwrap()];
        Member::start(BINARY.as_ref(), directory.path(), &arguments, &[])
    };
    let mut one = start("one", "127.95.5.1", "one,two");
    let mut two = start("two", "127.95.5.2", "one,two");
    one.ready();
    two.ready();
    let urls = ["https://127.95.5.1:2379".to_owned(), "https://127.95.5.2:2379".to_owned()];
    let files =
        |ca: &str| TlsFiles { ca: path(ca), cert: path("client.crt"), key: path("client.key") };
    let store = Store::with(&urls, &files("ca.crt"));
    insist("a write", || store.put("a", "1"));
    assert_eq!(store.members().unwrap().1.len(), 2);
    let curl = |more: &[&str]| {
        let mut command = Command::new("curl");
        command.args(["-sS", "--cacert", &text("ca.crt")]).args(more);
        command.arg("https://127.95.5.1:2379/version").output().unwrap()
    };
    assert!(!curl(&[]).status.success(), "somebody without a certificate gets in");
    let output = curl(&["--cert", &text("client.crt"), "--key", &text("client.key")]);
    assert!(output.status.success(), "{}", shown(&output));

    // A peer whose name is not allowed is refused, and so cannot vote.
    two.kill();
    let mut two = start("two", "127.95.5.2", "nobody");
    wait_for("a refusal", || two.log().contains("refused a peer").then_some(()));
    two.kill();
}

#[test]
fn certificates_are_made_when_there_are_none() {
    let directory = tempfile::tempdir().unwrap();
    let (client, peer) = ("https://127.95.6.1:2379", "https://127.95.6.1:2380");
    let arguments = [
        "etcd",
        "-name=auto",
        "-auto-tls",
        "-peer-auto-tls",
        "-listen-client-urls",
        client,
        "-advertise-client-urls",
        client,
        "-listen-peer-urls",
        peer,
        "-initial-advertise-peer-urls",
        peer,
        "-initial-cluster",
        "auto=https://127.95.6.1:2380",
    ];
    let mut member = Member::start(BINARY.as_ref(), directory.path(), &arguments, &[]);
    member.ready();
    let cert = directory.path().join("auto.etcd/fixtures/client/cert.pem");
    let output = Command::new("curl")
        .args(["-sS", "--cacert", cert.to_str().unwrap(), "https://127.95.6.1:2379/health"])
        .output()
        .unwrap();
    assert!(shown(&output).contains(r#""health":"true""#), "{}", shown(&output));
}

#[test]
fn what_is_wrong_is_said_before_anything_is_touched() {
    let directory = tempfile::tempdir().unwrap();
    let here = directory.path();
    let refused = |arguments: &[&str], wanted: &str| {
        let output = run(here, arguments);
        assert_eq!(output.status.code(), Some(5), "{}", shown(&output));
        assert!(shown(&output).contains(wanted), "{}", shown(&output));
    };
    refused(&["--nmae=x"], "did you mean --name?");
    refused(&["--initial-cluster=x=http://127.0.0.1:1"], "couldn't find local name");
    refused(&["grpc-proxy", "start"], "is not served");
    assert_eq!(std::fs::read_dir(here).unwrap().count(), 0);
    let help = run(here, &["--help"]);
    assert!(shown(&help).contains("--initial-cluster-token"), "{}", shown(&help));

    std::fs::create_dir_all(here.join("default.etcd/member/snap")).unwrap();
    std::fs::write(here.join("default.etcd/member/snap/db"), "bolt").unwrap();
    let output = run(
        here,
        &[
            "--listen-client-urls=http://127.95.7.1:2379",
            "--advertise-client-urls=http://127.95.7.1:2379",
            "--listen-peer-urls=http://127.95.7.1:2380",
        ],
    );
    assert_eq!(output.status.code(), Some(6), "{}", shown(&output));
    assert!(shown(&output).contains("holds data of etcd itself"), "{}", shown(&output));
}
