//! The load: so many clients, each sends one request after another and waits for the answer. What they
//! ask for is `work`'s.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use k3sup_rs::rpc::client::{Client, connect};
use k3sup_rs::rpc::pb::etcdserverpb::request_op::Request;
use k3sup_rs::rpc::pb::etcdserverpb::{PutRequest, RequestOp, StatusRequest, TxnRequest};

use super::cluster::Cluster;
use super::work::{Asker, Work, put};

/// Puts in one transaction while keys are filled in; etcd takes up to 128.
const FILL_PUTS: usize = 100;

/// Connections, at most; there are no more than clients.
const CONNECTIONS_MAX: usize = 32;

/// What a run measured.
pub(crate) struct Measured {
    pub(crate) count: usize,
    pub(crate) per_second: f64,
    pub(crate) p50: Duration,
    pub(crate) p99: Duration,
}

/// One run.
pub(crate) struct Load {
    pub(crate) work: Work,
    pub(crate) clients: usize,
    pub(crate) span: Duration,
}

impl Load {
    /// Requests from so many tasks for so long.
    pub(crate) async fn run(&self, cluster: &Cluster) -> Measured {
        let connections = connections(cluster, self.clients).await;
        let begin = |n| Asker::begin(self.work, n, connections[n % connections.len()].clone());
        let askers = futures::future::join_all((0..self.clients).map(begin)).await;
        let started = Instant::now();
        let until = started + self.span;
        let tasks: Vec<_> =
            askers.into_iter().map(|asker| tokio::spawn(client(asker, until))).collect();
        let mut latencies = Vec::new();
        for task in tasks {
            latencies.extend(task.await.expect("a client ends"));
        }
        Measured::of(latencies, started.elapsed())
    }
}

impl Measured {
    /// What `latencies` come to that were seen within `elapsed`.
    pub(crate) fn of(mut latencies: Vec<Duration>, elapsed: Duration) -> Self {
        latencies.sort_unstable();
        let at = |share: f64| latencies[((latencies.len() - 1) as f64 * share) as usize];
        Self {
            count: latencies.len(),
            per_second: latencies.len() as f64 / elapsed.as_secs_f64(),
            p50: at(0.50),
            p99: at(0.99),
        }
    }
}

async fn client(mut asker: Asker, until: Instant) -> Vec<Duration> {
    let mut latencies = Vec::new();
    while Instant::now() < until {
        let started = Instant::now();
        asker.ask().await;
        latencies.push(started.elapsed());
    }
    latencies
}

/// Exactly so many puts, of keys that are drawn from all.
pub(crate) async fn puts(cluster: &Cluster, clients: usize, puts: usize) {
    let connections = connections(cluster, clients).await;
    let begun = Arc::new(AtomicUsize::new(0));
    let tasks: Vec<_> = (0..clients)
        .map(|n| {
            let (connection, begun) = (connections[n % connections.len()].clone(), begun.clone());
            tokio::spawn(async move {
                let mut asker = Asker::begin(Work::Put, n, connection).await;
                while begun.fetch_add(1, Ordering::Relaxed) < puts {
                    asker.ask().await;
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.expect("a client ends");
    }
}

/// Writes the keys numbered `keys`, each once, in transactions of many.
pub(crate) async fn fill(cluster: &Cluster, clients: usize, keys: std::ops::Range<usize>) {
    let connections = connections(cluster, clients).await;
    let next = Arc::new(AtomicUsize::new(keys.start));
    let tasks: Vec<_> = (0..clients)
        .map(|n| {
            let (mut connection, next) = (connections[n % connections.len()].clone(), next.clone());
            tokio::spawn(async move {
                loop {
                    let first = next.fetch_add(FILL_PUTS, Ordering::Relaxed);
                    if first >= keys.end {
                        return;
                    }
                    let last = keys.end.min(first + FILL_PUTS);
                    let one = |put| RequestOp { request: Some(Request::RequestPut(put)) };
                    let success = (first..last).map(|key| one(put(key))).collect();
                    let request = TxnRequest { success, ..TxnRequest::default() };
                    connection.kv.txn(request).await.expect("keys are written");
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.expect("a client ends");
    }
}

/// Open connections, shared evenly by the endpoints, the first of which is the leader's.
pub(crate) async fn connections(cluster: &Cluster, clients: usize) -> Vec<Client> {
    let endpoints = &cluster.endpoints;
    let connections: Vec<Client> = (0..clients.min(CONNECTIONS_MAX))
        .map(|n| one(cluster, &endpoints[n % endpoints.len()]))
        .collect();
    for connection in &connections {
        warm_up(connection.clone()).await;
    }
    connections
}

pub(crate) fn one(cluster: &Cluster, endpoint: &str) -> Client {
    connect(&[endpoint.to_owned()], Some(&cluster.tls)).expect("a client")
}

/// Waits until every member takes writes, and puts the leader first.
pub(crate) async fn ready(cluster: &mut Cluster) {
    let mut leader = 0;
    for (n, endpoint) in cluster.endpoints.iter().enumerate() {
        let mut connection = one(cluster, endpoint);
        warm_up(connection.clone()).await;
        let status = connection.maintenance.status(StatusRequest::default()).await;
        let status = status.expect("its status").into_inner();
        if status.header.expect("a header").member_id == status.leader {
            leader = n;
        }
    }
    cluster.endpoints.rotate_left(leader);
}

/// Members that have just started may need a moment until they have a leader and vote.
pub(crate) async fn warm_up(mut connection: Client) {
    for _ in 0..600 {
        let request = PutRequest { key: "warm".into(), ..PutRequest::default() };
        if connection.kv.put(request).await.is_ok() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("the cluster takes no writes");
}
