//! The load: so many clients, each puts one value after another and waits for the answer.

use std::time::{Duration, Instant};

use k3sup_rs::rpc::client::{Client, TlsFiles, connect};
use k3sup_rs::rpc::pb::etcdserverpb::PutRequest;
use rand::RngExt;

/// Bytes of each value.
const VALUE_BYTES: usize = 256;

/// Number of different keys.
const KEYS: u32 = 100_000;

/// What a run measured.
pub(crate) struct Measured {
    pub(crate) per_second: f64,
    pub(crate) p50: Duration,
    pub(crate) p99: Duration,
}

/// Puts from `clients` tasks for `span`, over as many connections as there are clients, at most 32.
/// Every connection goes to one endpoint; the endpoints share them evenly.
pub(crate) async fn puts(
    endpoints: &[String],
    tls: &TlsFiles,
    clients: usize,
    span: Duration,
) -> Measured {
    let connections: Vec<Client> = (0..clients.min(32))
        .map(|n| connect(&[endpoints[n % endpoints.len()].clone()], Some(tls)).expect("a client"))
        .collect();
    // Connect and warm up before the clock starts.
    for connection in &connections {
        warm_up(connection.clone()).await;
    }
    let started = Instant::now();
    let tasks: Vec<_> = (0..clients)
        .map(|n| tokio::spawn(client(connections[n % connections.len()].clone(), started + span)))
        .collect();
    let mut latencies = Vec::new();
    for task in tasks {
        latencies.extend(task.await.expect("a client ends"));
    }
    let elapsed = started.elapsed();
    latencies.sort_unstable();
    let at = |share: f64| latencies[((latencies.len() - 1) as f64 * share) as usize];
    Measured {
        per_second: latencies.len() as f64 / elapsed.as_secs_f64(),
        p50: at(0.50),
        p99: at(0.99),
    }
}

async fn client(mut connection: Client, until: Instant) -> Vec<Duration> {
    let mut latencies = Vec::new();
    while Instant::now() < until {
        let started = Instant::now();
        put(&mut connection).await;
        latencies.push(started.elapsed());
    }
    latencies
}

/// Members that have just started may need a moment until they have a leader.
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

async fn put(connection: &mut Client) {
    let key = format!("bench/{:08}", rand::rng().random_range(0..KEYS));
    let request = PutRequest {
        key: key.into(),
        value: vec![b'x'; VALUE_BYTES].into(),
        ..PutRequest::default()
    };
    connection.kv.put(request).await.expect("a put succeeds");
}
