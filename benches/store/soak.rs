//! A long time of everyday work: gets, puts, leases that end, watchers, and a compaction now and then. Told each
//! minute is what must not grow: memory, files, and how long a request takes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use k3sup_rs::rpc::client::Client;
use k3sup_rs::rpc::pb::etcdserverpb::{
    CompactionRequest, LeaseGrantRequest, PutRequest, RangeRequest,
};

use super::cluster::Cluster;
use super::fanout;
use super::load::{self, Measured, connections};
use super::work::{Asker, KEYS, Work};

/// Clients that ask all the time …
const CLIENTS: usize = 64;

/// … each after such a pause: a busy cluster, not one that is asked for all it has.
const PAUSE: Duration = Duration::from_millis(20);

/// Watchers of keys that leases end.
const WATCHERS: usize = 100;

/// A lease with a key is granted this often, and lives so many seconds.
const LEASE_EVERY: Duration = Duration::from_millis(100);
const LEASE_S: i64 = 5;

/// What is older than so many revisions is compacted, this often.
const KEPT_REVISIONS: i64 = 10_000;
const COMPACT_EVERY: Duration = Duration::from_secs(10);

/// How often it is told how things stand.
const TOLD_EVERY: Duration = Duration::from_secs(60);

/// Works for `span` on a cluster that has all keys, and prints a table.
pub(crate) async fn run(cluster: &Cluster, span: Duration) {
    load::fill(cluster, CLIENTS, 0..KEYS).await;
    let connections = connections(cluster, CLIENTS).await;
    let of = |n: usize| connections[n % connections.len()].clone();
    let mut tasks = tokio::task::JoinSet::new();
    let latencies = Arc::new(parking_lot::Mutex::new(Vec::new()));
    for n in 0..CLIENTS {
        tasks.spawn(client(n, of(n), latencies.clone()));
    }
    tasks.spawn(leases(of(0)));
    tasks.spawn(compactions(of(0)));
    let events = Arc::new(AtomicU64::new(0));
    for n in 0..connections.len() {
        let watchers = (WATCHERS - n.min(WATCHERS)).div_ceil(connections.len());
        let opened = fanout::open(of(n), watchers).await;
        tasks.spawn(count(opened, events.clone()));
    }
    println!("| minute | requests/s | p50 ms | p99 ms | events/s | MiB resident | MiB of files |");
    println!("|-------:|-----------:|-------:|-------:|---------:|-------------:|-------------:|");
    let begun = Instant::now();
    while begun.elapsed() < span {
        tokio::time::sleep(TOLD_EVERY).await;
        let measured = Measured::of(std::mem::take(&mut *latencies.lock()), TOLD_EVERY);
        println!(
            "| {:>6} | {:>10.0} | {:>6.2} | {:>6.2} | {:>8.0} | {:>12.0} | {:>12.0} |",
            begun.elapsed().as_secs() / 60,
            measured.per_second,
            measured.p50.as_secs_f64() * 1e3,
            measured.p99.as_secs_f64() * 1e3,
            events.swap(0, Ordering::Relaxed) as f64 / TOLD_EVERY.as_secs_f64(),
            cluster.rss_mib(),
            cluster.files_bytes() as f64 / f64::from(1 << 20),
        );
        if let Some(ended) = tasks.try_join_next() {
            ended.expect("a task goes on");
            panic!("a task ended early");
        }
    }
    tasks.abort_all();
}

async fn client(n: usize, connection: Client, latencies: Arc<parking_lot::Mutex<Vec<Duration>>>) {
    let mut asker = Asker::begin(Work::Mixed, n, connection).await;
    loop {
        let sent = Instant::now();
        asker.ask().await;
        latencies.lock().push(sent.elapsed());
        tokio::time::sleep(PAUSE).await;
    }
}

/// Keys whose leases end by themselves.
async fn leases(mut connection: Client) {
    for number in 0_u64.. {
        let request = LeaseGrantRequest { ttl: LEASE_S, id: 0 };
        let lease = connection.lease.lease_grant(request).await.expect("a lease").into_inner().id;
        let key = format!("{}{number}", fanout::PREFIX).into();
        let value = number.to_string().into();
        let request = PutRequest { key, value, lease, ..PutRequest::default() };
        connection.kv.put(request).await.expect("a put succeeds");
        tokio::time::sleep(LEASE_EVERY).await;
    }
}

async fn compactions(mut connection: Client) {
    loop {
        tokio::time::sleep(COMPACT_EVERY).await;
        let request = RangeRequest { key: "none".into(), ..RangeRequest::default() };
        let answer = connection.kv.range(request).await.expect("a get succeeds").into_inner();
        let revision = answer.header.expect("a header").revision - KEPT_REVISIONS;
        if revision > 0 {
            let request = CompactionRequest { revision, physical: false };
            connection.kv.compact(request).await.expect("it is compacted");
        }
    }
}

async fn count(opened: fanout::Opened, events: Arc<AtomicU64>) {
    let (mut answers, _open) = opened;
    while let Some(answer) = answers.message().await.expect("the stream is open") {
        assert!(!answer.canceled, "a watcher is canceled: {}", answer.cancel_reason);
        events.fetch_add(answer.events.len() as u64, Ordering::Relaxed);
    }
}
