//! The load: so many clients, each sends one request after another and waits for the answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use k3sup_rs::rpc::client::{Client, connect};
use k3sup_rs::rpc::pb::etcdserverpb::{PutRequest, RangeRequest, StatusRequest};
use rand::RngExt;

use super::cluster::Cluster;

/// Bytes of each value.
const VALUE_BYTES: usize = 256;

/// Every value.
static VALUE: [u8; VALUE_BYTES] = [b'x'; VALUE_BYTES];

/// Number of different keys.
const KEYS: u32 = 100_000;

/// Connections, at most; there are no more than clients.
const CONNECTIONS_MAX: usize = 32;

/// What a client asks for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Work {
    /// Put a value.
    Put,
    /// A linearizable get of one key.
    Get,
    /// A serializable get of one key, which any member answers alone.
    Local,
}

impl Work {
    pub(crate) fn parse(name: &str) -> Self {
        let all = [Self::Put, Self::Get, Self::Local];
        all.into_iter().find(|work| work.name() == name).expect("put, get or local")
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Put => "put",
            Self::Get => "get",
            Self::Local => "local",
        }
    }

    async fn ask(self, connection: &mut Client) {
        let key = format!("bench/{:08}", rand::rng().random_range(0..KEYS)).into();
        if self == Self::Put {
            let value = Bytes::from_static(&VALUE);
            let request = PutRequest { key, value, ..PutRequest::default() };
            connection.kv.put(request).await.expect("a put succeeds");
        } else {
            let serializable = self == Self::Local;
            let request = RangeRequest { key, serializable, ..RangeRequest::default() };
            connection.kv.range(request).await.expect("a get succeeds");
        }
    }
}

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
        let started = Instant::now();
        let until = started + self.span;
        let tasks: Vec<_> = (0..self.clients)
            .map(|n| {
                tokio::spawn(client(connections[n % connections.len()].clone(), self.work, until))
            })
            .collect();
        let mut latencies = Vec::new();
        for task in tasks {
            latencies.extend(task.await.expect("a client ends"));
        }
        let elapsed = started.elapsed();
        latencies.sort_unstable();
        let at = |share: f64| latencies[((latencies.len() - 1) as f64 * share) as usize];
        Measured {
            count: latencies.len(),
            per_second: latencies.len() as f64 / elapsed.as_secs_f64(),
            p50: at(0.50),
            p99: at(0.99),
        }
    }
}

async fn client(mut connection: Client, work: Work, until: Instant) -> Vec<Duration> {
    let mut latencies = Vec::new();
    while Instant::now() < until {
        let started = Instant::now();
        work.ask(&mut connection).await;
        latencies.push(started.elapsed());
    }
    latencies
}

/// Exactly so many puts.
pub(crate) async fn fill(cluster: &Cluster, clients: usize, puts: usize) {
    let connections = connections(cluster, clients).await;
    let begun = Arc::new(AtomicUsize::new(0));
    let tasks: Vec<_> = (0..clients)
        .map(|n| {
            let (mut connection, begun) =
                (connections[n % connections.len()].clone(), begun.clone());
            tokio::spawn(async move {
                while begun.fetch_add(1, Ordering::Relaxed) < puts {
                    Work::Put.ask(&mut connection).await;
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.expect("a client ends");
    }
}

/// Open connections, shared evenly by the endpoints, the first of which is the leader's.
async fn connections(cluster: &Cluster, clients: usize) -> Vec<Client> {
    let endpoints = &cluster.endpoints;
    let connections: Vec<Client> = (0..clients.min(CONNECTIONS_MAX))
        .map(|n| one(cluster, &endpoints[n % endpoints.len()]))
        .collect();
    for connection in &connections {
        warm_up(connection.clone()).await;
    }
    connections
}

fn one(cluster: &Cluster, endpoint: &str) -> Client {
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
async fn warm_up(mut connection: Client) {
    for _ in 0..600 {
        let request = PutRequest { key: "warm".into(), ..PutRequest::default() };
        if connection.kv.put(request).await.is_ok() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("the cluster takes no writes");
}
