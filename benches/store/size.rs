//! What a cluster takes: memory after so many keys or puts, bytes on disk, and how long a start takes.

use std::time::{Duration, Instant};

use k3sup_rs::rpc::pb::etcdserverpb::RangeRequest;

use super::cluster::Cluster;
use super::load;

/// From the last put until memory is measured: what was left to do in the background is done.
pub(crate) const SETTLE: Duration = Duration::from_secs(8);
/// Clients of a fill.
const CLIENTS: usize = 64;

/// What one cluster takes.
#[derive(Clone, Copy, Default)]
pub(crate) struct Size {
    /// Resident memory of all members, MiB: fresh, at its most, and when the work was done.
    pub(crate) fresh_mib: f64,
    pub(crate) peak_mib: f64,
    pub(crate) after_mib: f64,
    /// Bytes that all members had written to the disk, per key.
    pub(crate) written_per_key: f64,
    /// Bytes of all members' files, per key.
    pub(crate) files_per_key: f64,
    /// From the start of all members until a linearizable get is answered.
    pub(crate) start: Duration,
    /// Resident memory of all members some seconds after that start, MiB.
    pub(crate) started_mib: f64,
}

/// Memory of a fresh cluster, after so many puts of keys that are drawn from all, and at its most, MiB.
pub(crate) async fn after_puts(cluster: &Cluster, puts: usize) -> (f64, f64, f64) {
    let fresh = cluster.rss_mib();
    load::puts(cluster, CLIENTS, puts).await;
    tokio::time::sleep(SETTLE).await;
    (fresh, cluster.rss_mib(), cluster.peak_mib())
}

/// Fills `keys` different keys into a fresh cluster, stops it by SIGTERM and starts it again.
pub(crate) async fn at_keys(cluster: &mut Cluster, keys: usize) -> Size {
    let mut size = Size { fresh_mib: cluster.rss_mib(), ..Size::default() };
    let before = cluster.written();
    load::fill(cluster, CLIENTS, 0..keys).await;
    tokio::time::sleep(SETTLE).await;
    size.after_mib = cluster.rss_mib();
    size.peak_mib = cluster.peak_mib();
    size.written_per_key = (cluster.written() - before) as f64 / keys as f64;
    size.files_per_key = cluster.files_bytes() as f64 / keys as f64;
    cluster.stop();
    let started = Instant::now();
    cluster.start();
    load::ready(cluster).await;
    let mut client = load::one(cluster, &cluster.endpoints[0]);
    let last = format!("bench/{:08}", keys - 1);
    let request = RangeRequest { key: last.into(), ..RangeRequest::default() };
    let found = client.kv.range(request).await.expect("a get").into_inner();
    size.start = started.elapsed();
    assert_eq!(found.kvs.len(), 1, "the last key is there");
    tokio::time::sleep(SETTLE).await;
    size.started_mib = cluster.rss_mib();
    size
}

/// Prints the table of what clusters take at so many keys.
pub(crate) fn table(rows: &[(usize, usize, Size, Option<Size>)]) {
    println!(
        "| keys | members | who | fresh MiB | peak MiB | filled MiB | started MiB | written B/key | files B/key | start s | filled × | started × |"
    );
    println!(
        "|-----:|--------:|:----|----------:|---------:|-----------:|------------:|--------------:|------------:|--------:|---------:|----------:|"
    );
    for (keys, members, ours, etcd) in rows {
        let etcd = etcd.unwrap_or_default();
        for (who, size) in [("ours", ours), ("etcd", &etcd)] {
            let ratio = |of: fn(&Size) -> f64| match who {
                "ours" => format!("{:.2}", of(ours) / of(&etcd)),
                _ => String::new(),
            };
            println!(
                "| {keys:>7} | {members} | {who} | {:.0} | {:.0} | {:.0} | {:.0} | {:.0} | {:.0} | {:.2} | {} | {} |",
                size.fresh_mib,
                size.peak_mib,
                size.after_mib,
                size.started_mib,
                size.written_per_key,
                size.files_per_key,
                size.start.as_secs_f64(),
                ratio(|size| size.after_mib),
                ratio(|size| size.started_mib),
            );
        }
    }
}
