//! What a client sees of a cluster's life: the longest time without an acknowledged write while the
//! leader is killed (beside etcd), while all servers are restarted one by one, and while a server is
//! replaced; how long `replace` takes until the new member votes; and how long a restore of 100,000 keys
//! takes until all three members have them and a client writes again (beside etcd).
//!
//! `cargo bench --bench life [-- ROUNDS]`; the recorded results are in docs/benchmarks.md.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    reason = "a benchmark fails by panicking and tells by printing"
)]

#[path = "../store/cluster.rs"]
mod cluster;
mod restore;
#[path = "../../tests/support/mod.rs"]
mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use k3sup_rs::rpc::client::{Client, TlsFiles, connect};
use k3sup_rs::rpc::pb::etcdserverpb::{PutRequest, StatusRequest};
use support::Lab;

/// How long the client waits for one server before it asks the next.
pub(crate) const PATIENCE: Duration = Duration::from_millis(250);

/// How long it is watched before and after what is done.
const AROUND: Duration = Duration::from_secs(3);

/// A client that writes all the time, to one server after the other until one answers.
struct Watcher {
    stop: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<Duration>,
}

impl Watcher {
    fn start(endpoints: &[String], tls: &TlsFiles) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let (endpoints, tls) = (endpoints.to_vec(), tls.clone());
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Runtime::new().expect("a runtime");
            runtime.block_on(async {
                let clients = clients(&endpoints, &tls);
                let (mut at, mut longest) = (0, Duration::ZERO);
                let mut last: Option<Instant> = None;
                while !stopped.load(Ordering::Relaxed) {
                    let request = PutRequest {
                        key: "outage".into(),
                        value: "x".into(),
                        ..PutRequest::default()
                    };
                    let mut kv = clients[at % clients.len()].kv.clone();
                    match tokio::time::timeout(PATIENCE, kv.put(request)).await {
                        Ok(Ok(_)) => {
                            longest = longest.max(last.map_or(Duration::ZERO, |at| at.elapsed()));
                            last = Some(Instant::now());
                        }
                        Ok(Err(_)) => {
                            at += 1;
                            tokio::time::sleep(Duration::from_millis(5)).await;
                        }
                        Err(_) => at += 1,
                    }
                }
                longest
            })
        });
        std::thread::sleep(AROUND);
        Self { stop, thread }
    }

    /// The longest time without an acknowledged write.
    fn end(self) -> Duration {
        std::thread::sleep(AROUND);
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("the client ends")
    }
}

/// A client for each endpoint.
pub(crate) fn clients(endpoints: &[String], tls: &TlsFiles) -> Vec<Client> {
    let one = |url: &String| connect(std::slice::from_ref(url), Some(tls)).expect("a client");
    endpoints.iter().map(one).collect()
}

/// The place of the member that leads.
fn leader(cluster: &cluster::Cluster) -> usize {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        for _ in 0..600 {
            for (at, client) in clients(&cluster.endpoints, &cluster.tls).into_iter().enumerate() {
                let mut maintenance = client.maintenance;
                let asked = maintenance.status(StatusRequest {});
                let Ok(Ok(answer)) = tokio::time::timeout(PATIENCE, asked).await else { continue };
                let answer = answer.into_inner();
                let own = answer.header.map(|header| header.member_id).unwrap_or_default();
                if own == answer.leader && own != 0 {
                    return at;
                }
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("no member leads");
    })
}

fn leader_kill(mut cluster: cluster::Cluster) -> Duration {
    let at = leader(&cluster);
    let watcher = Watcher::start(&cluster.endpoints, &cluster.tls);
    cluster.kill(at);
    watcher.end()
}

pub(crate) fn print(name: &str, who: &str, mut spans: Vec<Duration>) {
    spans.sort_unstable();
    let seconds = |at: usize| spans[at].as_secs_f64();
    let last = spans.len() - 1;
    println!(
        "| {name:<28} | {who:<4} | {:>6} | {:>8.2} | {:>5.2} | {:>5.2} |",
        last + 1,
        seconds(last / 2),
        seconds(0),
        seconds(last)
    );
}

fn main() {
    let rounds = std::env::args().skip(1).find_map(|word| word.parse().ok()).unwrap_or(5);
    println!("| what                         | who  | rounds | median s | min s | max s |");
    println!("|:-----------------------------|:-----|-------:|---------:|------:|------:|");
    let ours = (0..rounds).map(|_| leader_kill(cluster::ours(3))).collect();
    print("leader kill: outage", "ours", ours);
    let etcd: Option<Vec<_>> = (0..rounds).map(|_| Some(leader_kill(cluster::etcd(3)?))).collect();
    match etcd {
        Some(spans) => print("leader kill: outage", "etcd", spans),
        None => println!("no etcd here to compare with"),
    }
    let lab = Lab::new("76.4", 3, 0);
    lab.up(&[]);
    let (tls, endpoints) = (lab.tls(), lab.endpoints(&[1, 2, 3]));
    let (mut restart, mut replace, mut joined) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..rounds {
        let watcher = Watcher::start(&endpoints, &tls);
        lab.ok(["restart", "-i", lab.inventory_path(), "--yes"]);
        restart.push(watcher.end());
        let node = format!("server{}", 1 + round % 3);
        let watcher = Watcher::start(&endpoints, &tls);
        let begun = Instant::now();
        lab.ok(["replace", &node, "-i", lab.inventory_path(), "--yes"]);
        joined.push(begun.elapsed());
        replace.push(watcher.end());
    }
    print("rolling restart: outage", "ours", restart);
    print("replace a server: outage", "ours", replace);
    print("replace a server: whole run", "ours", joined);
    drop(lab);
    restore::run(rounds);
}
