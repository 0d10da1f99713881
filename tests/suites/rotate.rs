//! Certificates, the token and the CAs of a running cluster are replaced, with clients that call all
//! the while: one that keeps its connection, and one that makes a new one for every call.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::support::store::{PASSING_MAX, Store, is_passing};
use crate::support::{Lab, shown, wait_for};
use http::HeaderValue;
use k3sup_rs::node::http::{Connector, basic};
use k3sup_rs::pki::token::ca_hash;
use k3sup_rs::pki::{Token, tls};
use k3sup_rs::rpc::client::{Client, TlsFiles, connect};
use k3sup_rs::rpc::pb::etcdserverpb::PutRequest;
use serde_json::Value as Json;

/// Clients that call until they are asked how it went.
struct Callers {
    stop: Arc<AtomicBool>,
    calls: Arc<AtomicUsize>,
    threads: Vec<JoinHandle<Vec<String>>>,
    /// Where the second one finds its certificates: a link.
    bundle: PathBuf,
    dir: PathBuf,
}

fn client(bundle: &Path, endpoints: &[String]) -> Result<Client, String> {
    // The link is followed once, so that the three files belong together.
    let bundle = std::fs::canonicalize(bundle).unwrap();
    connect(endpoints, Some(&TlsFiles::in_bundle(&bundle))).map_err(|error| error.to_string())
}

async fn put(client: &Client, key: &str) -> Result<(), String> {
    let request =
        PutRequest { key: key.to_owned().into(), value: "x".into(), ..PutRequest::default() };
    let mut kv = client.kv.clone();
    let call = tokio::time::timeout(Duration::from_secs(60), kv.put(request)).await;
    let called = call.map_err(|_| "no answer".to_owned())?;
    called.map(drop).map_err(|status| format!("{status:?}"))
}

impl Callers {
    fn begin(lab: &Lab) -> Self {
        let dir = lab.dir.path().join("clients");
        std::fs::create_dir(&dir).unwrap();
        let bundle = dir.join("bundle");
        let callers =
            Self { stop: Arc::default(), calls: Arc::default(), threads: Vec::new(), bundle, dir };
        callers.take_bundle(lab, "first");
        let endpoints = lab.endpoints(&[1, 2, 3]);
        let threads = [false, true].map(|anew| {
            let (stop, calls) = (Arc::clone(&callers.stop), Arc::clone(&callers.calls));
            let (bundle, endpoints) = (callers.bundle.clone(), endpoints.clone());
            std::thread::spawn(move || call(anew, &bundle, &endpoints, &stop, &calls))
        });
        Self { threads: threads.into(), ..callers }
    }

    /// Gives the second client what the control machine has now, all at once.
    fn take_bundle(&self, lab: &Lab, name: &str) {
        let copy = self.dir.join(name);
        std::fs::create_dir(&copy).unwrap();
        for file in ["ca.crt", "client.crt", "client.key"] {
            std::fs::copy(lab.bundle().join(file), copy.join(file)).unwrap();
        }
        let link = self.dir.join("link.tmp");
        std::os::unix::fs::symlink(&copy, &link).unwrap();
        std::fs::rename(&link, &self.bundle).unwrap();
    }

    /// Some calls are made from now on.
    fn more(&self) {
        let before = self.calls.load(Ordering::Relaxed);
        wait_for("calls", || (self.calls.load(Ordering::Relaxed) > before + 20).then_some(()));
    }

    /// Stops them: no call may have failed for more than a [passing](is_passing) reason.
    fn end(self) {
        self.more();
        self.stop.store(true, Ordering::Relaxed);
        let failed: Vec<Vec<String>> =
            self.threads.into_iter().map(|thread| thread.join().unwrap()).collect();
        assert!(failed.iter().all(Vec::is_empty), "calls failed: {failed:#?}");
    }
}

/// Calls until `stop`; what failed.
fn call(
    anew: bool,
    bundle: &Path,
    endpoints: &[String],
    stop: &AtomicBool,
    calls: &AtomicUsize,
) -> Vec<String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (mut failed, mut passing) = (Vec::new(), 0);
        let mut kept = None;
        let mut number = 0_usize;
        while !stop.load(Ordering::Relaxed) {
            if anew || kept.is_none() {
                kept = Some(client(bundle, &[endpoints[number % endpoints.len()].clone()]));
            }
            let result = match kept.as_ref().unwrap() {
                Ok(client) => put(client, &format!("call-{anew}-{number}")).await,
                Err(error) => Err(error.clone()),
            };
            match result {
                Ok(()) => drop(calls.fetch_add(1, Ordering::Relaxed)),
                Err(error) if is_passing(&error) && passing < PASSING_MAX => passing += 1,
                Err(error) => failed.push(format!("call {number}, anew {anew}: {error}")),
            }
            number += 1;
        }
        failed
    })
}

/// The certificates of all nodes: file by host, with its issuer, and the file's content.
fn certificates(lab: &Lab) -> BTreeMap<(String, String), Json> {
    let args = ["certificate", "check", "-i", lab.inventory_path(), "--output", "json"];
    let found: Json = serde_json::from_str(&lab.ok(args)).unwrap();
    let rows = found["Certificates"].as_array().unwrap().clone();
    let text = |value: &Json| value.as_str().unwrap().to_owned();
    rows.into_iter().map(|row| ((text(&row["Host"]), text(&row["Filename"])), row)).collect()
}

fn content(lab: &Lab, host: &str, file: &str) -> String {
    std::fs::read_to_string(lab.host_dir(host).join("var/lib/k3sup").join(file)).unwrap()
}

/// All members hold the same.
fn same_everywhere(lab: &Lab) {
    let revision = wait_for("a revision", || Store::of(lab, &[1, 2, 3]).revision().ok());
    let hash = |number| wait_for("a hash", || Store::of(lab, &[number]).hash(revision).ok());
    let hashes: BTreeSet<u32> = (1..=3).map(hash).collect();
    assert_eq!(hashes.len(), 1, "{hashes:?}");
    let status = lab.known_status();
    assert_eq!(status["members"].as_array().unwrap().len(), 3, "{status:#}");
}

/// What a server's supervisor answers to the cluster's token.
fn answer(lab: &Lab, server: usize, secret: &str) -> u16 {
    ask(lab, server, &basic("server", &secret.into()), "GET", "/v1-k3sup/status", b"")
}

fn ask(
    lab: &Lab,
    server: usize,
    authorization: &HeaderValue,
    method: &str,
    path: &str,
    body: &[u8],
) -> u16 {
    let ca = std::fs::read_to_string(lab.bundle().join("ca.crt")).unwrap();
    let connector = Connector::tls(tls::client(&ca, None, &[]).unwrap(), Duration::from_secs(30));
    let authority = format!("{}:6443", lab.server_address(server));
    let asked = connector.ask(&authority, method, path, Some(authorization), body);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(asked).unwrap().status
}

fn token(lab: &Lab) -> Token {
    Token::parse(&lab.ok(["token", "show", "-i", lab.inventory_path()])).unwrap()
}

#[test]
fn certificates_and_the_token_are_replaced_and_no_call_fails() {
    let lab = Lab::new("85.2", 3, 1);
    lab.up(&[]);
    let callers = Callers::begin(&lab);
    let leaves = [
        ("server1", "server/tls/etcd/server-client.crt"),
        ("server2", "server/tls/etcd/peer-server-client.crt"),
        ("server3", "server/tls/client-admin.crt"),
        ("agent1", "agent/client.crt"),
    ];
    let before = certificates(&lab);
    assert!(before.values().all(|row| row["Status"] == "OK"), "{before:#?}");
    let old: Vec<String> = leaves.iter().map(|(host, file)| content(&lab, host, file)).collect();
    let ca = content(&lab, "server1", "server/tls/server-ca.crt");
    let check = lab.run(["certificate", "rotate", "-i", lab.inventory_path(), "--check"]);
    assert_eq!(check.status.code(), Some(7), "{}", shown(&check));
    lab.ok(["certificate", "rotate", "-i", lab.inventory_path()]);
    for ((host, file), old) in leaves.iter().zip(&old) {
        assert!(before.contains_key(&((*host).to_owned(), (*file).to_owned())), "{file}");
        assert_ne!(*old, content(&lab, host, file), "{host} {file}");
    }
    assert_eq!(ca, content(&lab, "server1", "server/tls/server-ca.crt"));
    callers.take_bundle(&lab, "rotated");
    callers.more();

    let first = token(&lab);
    let args = ["token", "rotate", "-i", lab.inventory_path(), "--yes"];
    // Killed at some moments, then run again.
    for delay in [30, 300, 900, 1500] {
        let mut child = lab.command(args).stdout(std::process::Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(delay));
        // It may be over already.
        let _ = child.kill();
        child.wait().unwrap();
        if lab.bundle().join("token.next").exists() {
            let up = lab.run(["up", "-i", lab.inventory_path(), "--yes"]);
            assert_eq!(up.status.code(), Some(6), "{}", shown(&up));
        }
    }
    let told = lab.ok(args);
    assert!(told.contains("Token rotated"), "{told}");
    let second = token(&lab);
    assert_ne!(first.password.expose(), second.password.expose());
    assert_eq!(first.ca_hash, second.ca_hash);
    assert!(!told.contains(second.password.expose()));
    for server in 1..=3 {
        assert_eq!(answer(&lab, server, second.password.expose()), 200);
        assert_eq!(answer(&lab, server, first.password.expose()), 401);
        let kept = content(&lab, &format!("server{server}"), "server/token");
        assert_eq!(kept.trim(), second.text().expose());
    }
    let kept = std::fs::read_to_string(lab.host_dir("agent1").join("etc/k3sup/token")).unwrap();
    assert_eq!(kept.trim(), second.text().expose());
    callers.end();
    // The agent that was not restarted registers with the new token, when it has to.
    let forget = br#"{"name":"agent1"}"#;
    let own = basic("server", &second.password);
    let created = || {
        let status = lab.status()?;
        let nodes = status["nodes"].as_array()?.clone();
        let agent =
            nodes.into_iter().find(|node| node["name"] == "agent1" && node["ready"] == true);
        agent?["created_unix_s"].as_u64()
    };
    let before = wait_for("the agent", created);
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(ask(&lab, 1, &own, "POST", "/v1-k3sup/node-delete", forget), 200);
    wait_for("the agent to be a new node", || created().filter(|now| *now > before));
    let again = lab.up(&[]);
    assert_eq!(again.matches("changed=0").count(), 4, "{again}");
    same_everywhere(&lab);
}

#[test]
fn agents_have_a_token_of_their_own_and_another_one_ends_it() {
    let lab = Lab::new("85.9", 2, 1);
    lab.say("    agent_token: only-for-agents\n");
    lab.up(&[]);
    let kept = || std::fs::read_to_string(lab.host_dir("agent1").join("etc/k3sup/token")).unwrap();
    assert!(kept().trim().ends_with("::node:only-for-agents"), "{}", kept());
    // It joins agents and reads nothing.
    let answers = |secret: &str| {
        let own = basic("node", &secret.into());
        [1, 2].map(|server| ask(&lab, server, &own, "GET", "/v1-k3sup/status", b""))
    };
    assert_eq!((answers("only-for-agents"), answers("another-for-agents")), ([403; 2], [401; 2]));
    lab.replace_in_inventory("only-for-agents", "another-for-agents");
    lab.up(&[]);
    assert!(kept().trim().ends_with("::node:another-for-agents"), "{}", kept());
    assert_eq!((answers("only-for-agents"), answers("another-for-agents")), ([401; 2], [403; 2]));
    // The cluster's own is as it was.
    assert_eq!(answer(&lab, 2, token(&lab).password.expose()), 200);
    let again = lab.up(&[]);
    assert_eq!(again.matches("changed=0").count(), 3, "{again}");
}

#[test]
fn the_cas_are_replaced_while_clients_call_and_the_old_ones_end() {
    let lab = Lab::new("85.3", 3, 1);
    lab.up(&[]);
    let callers = Callers::begin(&lab);
    let inventory = lab.inventory_path();
    let old = token(&lab);
    let until = |stage: &str| {
        lab.ok(["certificate", "rotate-ca", "-i", inventory, "--yes", "--until", stage])
    };
    until("trust");
    callers.take_bundle(&lab, "trusting");
    callers.more();
    // Told as often as one likes.
    until("trust");
    assert_eq!(token(&lab), old, "the old CA signs still");
    until("sign");
    callers.take_bundle(&lab, "signed");
    callers.more();
    let new = token(&lab);
    assert_ne!(new.ca_hash, old.ca_hash);
    assert_eq!(new.password.expose(), old.password.expose());

    // A kill in the last stage, and again.
    let args = ["certificate", "rotate-ca", "-i", inventory, "--yes"];
    let mut child = lab.command(args).stdout(std::process::Stdio::null()).spawn().unwrap();
    let previous =
        |n: usize| lab.host_dir(&format!("server{n}")).join("var/lib/k3sup/server/tls/previous");
    wait_for("one server to forget", || (!previous(1).exists()).then_some(()));
    child.kill().unwrap();
    child.wait().unwrap();
    lab.ok(args);
    callers.take_bundle(&lab, "dropped");
    callers.end();

    let ca = std::fs::read_to_string(lab.bundle().join("ca.crt")).unwrap();
    assert_eq!(ca.matches("BEGIN CERTIFICATE").count(), 1);
    let hash = ca_hash(&ca);
    assert_eq!(token(&lab).ca_hash.as_deref(), Some(hash.as_str()));
    for n in 1..=3 {
        assert!(!previous(n).exists());
        let host = format!("server{n}");
        assert_eq!(content(&lab, &host, "server/tls/server-ca.crt"), ca);
        let kept = content(&lab, &host, "server/token");
        assert!(kept.starts_with(&format!("K10{hash}::server:")), "{kept}");
    }
    assert_eq!(content(&lab, "agent1", "agent/server-ca.crt"), ca);
    // Who has only the old certificates is let in nowhere, and believes nobody.
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let dir = lab.dir.path().join("clients");
    let endpoints = lab.endpoints(&[1]);
    for (ca, pair) in [("first", "first"), ("dropped", "first"), ("first", "dropped")] {
        let tls = TlsFiles {
            ca: dir.join(ca).join("ca.crt"),
            cert: dir.join(pair).join("client.crt"),
            key: dir.join(pair).join("client.key"),
        };
        let client = runtime.block_on(async { connect(&endpoints, Some(&tls)) }).unwrap();
        let called = runtime.block_on(put(&client, "intruder"));
        assert!(called.is_err(), "CA of {ca}, certificate of {pair}");
    }
    // Nodes come back under the new CAs, and a lost server joins again.
    lab.lab("kill", "server2");
    std::fs::remove_dir_all(lab.host_dir("server2")).unwrap();
    lab.up(&[]);
    same_everywhere(&lab);
    let again = lab.up(&[]);
    assert_eq!(again.matches("changed=0").count(), 4, "{again}");
}
