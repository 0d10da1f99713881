//! A restore of 100,000 keys to three members: a whole `k3sup-rs restore`, and what etcd's manual says.

use std::time::{Duration, Instant};

use k3sup_rs::rpc::client::TlsFiles;
use k3sup_rs::rpc::pb::etcdserverpb::PutRequest;

use super::support::Lab;
use super::support::store::Store;
use super::{PATIENCE, clients, cluster, print};

/// Keys in the snapshot, each with a value of [`VALUE_BYTES`].
const KEYS: usize = 100_000;

/// Bytes of each value.
const VALUE_BYTES: usize = 256;

/// Puts that are on their way at once while the keys are written.
const WRITERS: usize = 64;

pub(crate) fn run(rounds: usize) {
    print("restore 100k keys to 3", "ours", (0..rounds).map(|_| ours()).collect());
    let etcd: Option<Vec<_>> = (0..rounds).map(|_| etcd()).collect();
    if let Some(spans) = etcd {
        print("restore 100k keys to 3", "etcd", spans);
    }
}

/// From the command's start until it has ended (it compares all members itself) and a client writes.
fn ours() -> Duration {
    let lab = Lab::new("76.5", 3, 0);
    lab.up(&[]);
    let (tls, endpoints) = (lab.tls(), lab.endpoints(&[1, 2, 3]));
    fill(&endpoints, &tls);
    lab.ok(["snapshot", "save", "-i", lab.inventory_path()]);
    let begun = Instant::now();
    let inventory = lab.inventory_path();
    lab.ok(["restore", "-i", inventory, "--snapshot", "latest", "--yes"]);
    written(&endpoints, &tls);
    begun.elapsed()
}

/// From the first member's stop until every member has all keys and a client writes.
fn etcd() -> Option<Duration> {
    let mut cluster = cluster::etcd(3)?;
    let (endpoints, tls) = (cluster.endpoints.clone(), cluster.tls.clone());
    fill(&endpoints, &tls);
    let snapshot = cluster.dir().join("snapshot.db");
    let bytes = Store::with(&endpoints[..1], &tls).snapshot().expect("a snapshot");
    std::fs::write(&snapshot, bytes).expect("written");
    let begun = Instant::now();
    cluster.restore_etcd(&snapshot);
    written(&endpoints, &tls);
    Some(begun.elapsed())
}

fn fill(endpoints: &[String], tls: &TlsFiles) {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let clients = clients(endpoints, tls);
        let write = |writer: usize| {
            let mut kv = clients[writer % clients.len()].kv.clone();
            async move {
                for key in (writer..KEYS).step_by(WRITERS) {
                    let request = PutRequest {
                        key: format!("bench/{key:08}").into(),
                        value: vec![b'x'; VALUE_BYTES].into(),
                        ..PutRequest::default()
                    };
                    // A member that only begins may not be there yet.
                    while kv.put(request.clone()).await.is_err() {
                        tokio::time::sleep(PATIENCE).await;
                    }
                }
            }
        };
        futures::future::join_all((0..WRITERS).map(write)).await;
    });
}

/// Waits until each member says by itself that it has all keys, and one acknowledges a write.
fn written(endpoints: &[String], tls: &TlsFiles) {
    for endpoint in endpoints {
        let store = Store::with(std::slice::from_ref(endpoint), tls);
        let last = format!("bench/{:08}", KEYS - 1);
        while !matches!(store.get(&last, true), Ok(Some(_))) {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let clients = clients(endpoints, tls);
        for client in clients.iter().cycle() {
            let request =
                PutRequest { key: "after".into(), value: "x".into(), ..PutRequest::default() };
            let mut kv = client.kv.clone();
            if matches!(tokio::time::timeout(PATIENCE, kv.put(request)).await, Ok(Ok(_))) {
                return;
            }
        }
    });
}
