//! The same random history for this program and for a real etcd: every answer, every refusal, every
//! event and the hash of what is left must be equal.
//!
//! What is known to differ (docs/etcd-api.md) is not asked for.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test fails by panicking and tells by printing"
)]

mod random;
#[path = "../support/mod.rs"]
mod support;

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use k3sup_rs::rpc::client::{Client, TlsFiles, connect};
use k3sup_rs::rpc::pb::etcdserverpb as pb;
use random::{Answer, Op, Random, ask, events};
use support::BINARY;
use support::etcd::{Etcd, SLOW_ELECTIONS};

/// Requests in each half of a history.
const REQUESTS: usize = 2500;

/// How many histories there are, one after the other on the same two stores: `K3SUP_TEST_HISTORIES`, else
/// 2. With 20 there are 100,000 requests.
fn histories() -> u64 {
    let number = std::env::var("K3SUP_TEST_HISTORIES").unwrap_or_else(|_| "2".to_owned());
    number.parse().expect("K3SUP_TEST_HISTORIES is a number")
}

/// A directory in memory, if there is such a place: no disk is tried here, and answers come sooner.
fn memory() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

/// A server of a cluster of one; killed when dropped.
struct Server {
    child: Child,
    dir: tempfile::TempDir,
    address: String,
}

impl Server {
    fn start(address: &str) -> Self {
        let dir = memory();
        let config = dir.path().join("config.yaml");
        let text = format!("cluster-init: true\netcd-arg: {SLOW_ELECTIONS:?}\n");
        std::fs::write(&config, text).unwrap();
        let log = std::fs::File::create(dir.path().join("log")).unwrap();
        let child = Command::new(BINARY)
            .arg("server")
            .arg("--config")
            .arg(config)
            .args(["--node-name", "one", "--node-ip", address, "--bind-address", address])
            .arg("--data-dir")
            .arg(dir.path().join("data"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        Self { child, dir, address: address.to_owned() }
    }

    /// A client, once the certificates are there.
    fn client(&self) -> Option<Client> {
        let tls = self.dir.path().join("data/server/tls");
        let files = TlsFiles {
            ca: tls.join("server-ca.crt"),
            cert: tls.join("client-admin.crt"),
            key: tls.join("client-admin.key"),
        };
        connect(&[format!("https://{}:2379", self.address)], Some(&files)).ok()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
            eprintln!("--- server\n{log}");
        }
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits until a store answers.
async fn answering(make: impl Fn() -> Option<Client>) -> Client {
    for _ in 0..600 {
        if let Some(client) = make() {
            let range = pb::RangeRequest { key: "x".into(), ..Default::default() };
            let mut kv = client.kv.clone();
            let asked = kv.range(range);
            if matches!(tokio::time::timeout(Duration::from_secs(1), asked).await, Ok(Ok(_))) {
                return client;
            }
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("the store never answered");
}

/// Two stores that must be equal.
struct Pair {
    ours: Client,
    real: Client,
}

impl Pair {
    /// Asks both and compares. Gives the answer.
    async fn ask(&self, number: usize, op: &Op) -> Answer {
        let (ours, real) = tokio::join!(ask(&self.ours, op), ask(&self.real, op));
        assert_eq!(ours, real, "request {number}: ours, then etcd's, of {op:?}");
        ours
    }

    /// Compares the hash of all that is kept.
    async fn hash(&self, number: usize, revision: i64) {
        let answer = self.ask(number, &Op::Hash(pb::HashKvRequest { revision })).await;
        assert!(matches!(answer, Answer::Hash(_)), "{answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_history_is_answered_as_by_a_real_etcd() {
    // A call that one of the two alone gives up, on a machine that stands still, would be a difference.
    let Some(etcd) = Etcd::start_with(memory(), "127.79.4.1", &SLOW_ELECTIONS) else { return };
    let server = Server::start("127.79.4.2");
    let pair = Pair {
        ours: answering(|| server.client()).await,
        real: answering(|| Some(etcd.client())).await,
    };
    let mut head = 1;
    for seed in 1..=histories() {
        let start = head;
        let mut random = Random::new(seed);
        let (mut refused, mut number) = (0, 0);
        // Without compactions first: then the hash is that of all revisions.
        for compacts in [false, true] {
            for _ in 0..REQUESTS {
                number += 1;
                let op = random.op(head, compacts);
                let answer = pair.ask(number, &op).await;
                head = answer.revision().unwrap_or(head);
                refused += usize::from(answer.is_refusal());
            }
            if !compacts && start == 1 {
                pair.hash(number, 0).await;
                pair.hash(number, head / 2).await;
            }
        }
        eprintln!("seed {seed}: {number} requests, {refused} refused, revision {head}");
        assert!(refused > number / 50 && refused < number / 2, "{refused} of {number} refused");

        // All that watchers hear, from each of several starts.
        let end = pair.ask(number, &Op::put("end", "END")).await.revision().unwrap();
        for (index, request) in random.watches(start, end).into_iter().enumerate() {
            // Over connections of their own, which end with them.
            let (our, their) = (server.client().unwrap(), etcd.client());
            let ours = events(&our, request.clone(), end).await;
            let real = events(&their, request.clone(), end).await;
            assert_eq!(ours, real, "watch {index}: ours, then etcd's, of {request:?}");
        }
        pair.ask(number, &Op::compact(end)).await;
        pair.hash(number, 0).await;
        head = end;
    }
}
