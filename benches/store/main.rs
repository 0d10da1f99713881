//! Puts per second, latency and memory of clusters of 1 and 3 members at 1, 64 and 512 clients,
//! beside etcd (Debian's `etcd-server`) on the same disk, driven by the same generator.
//!
//! `cargo bench --bench store [-- SECONDS]`; the recorded results are in docs/benchmarks.md.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a benchmark fails by panicking, tells by printing, and counts roughly"
)]

mod cluster;
mod load;

use std::time::Duration;

use cluster::Cluster;
use load::{Measured, puts};

#[tokio::main]
async fn main() {
    let seconds = std::env::args().skip(1).find_map(|word| word.parse().ok()).unwrap_or(10);
    let span = Duration::from_secs(seconds);
    println!("puts of 256 B values, {seconds} s each, mutual TLS; `×` is ours against etcd's");
    println!(
        "members clients |     puts/s  p50 ms  p99 ms  RSS MiB | etcd: puts/s  p50 ms  p99 ms  RSS MiB |     ×"
    );
    for members in [1, 3] {
        for clients in [1, 64, 512] {
            let ours = measure(&cluster::ours(members), clients, span).await;
            let theirs = match cluster::etcd(members) {
                Some(etcd) => Some(measure(&etcd, clients, span).await),
                None => None,
            };
            print_row(members, clients, &ours, theirs.as_ref());
        }
    }
}

async fn measure(cluster: &Cluster, clients: usize, span: Duration) -> (Measured, f64) {
    let measured = puts(&cluster.endpoints, &cluster.tls, clients, span).await;
    (measured, cluster.rss_mib())
}

fn print_row(
    members: usize,
    clients: usize,
    ours: &(Measured, f64),
    theirs: Option<&(Measured, f64)>,
) {
    let cells = |(measured, rss): &(Measured, f64)| {
        format!(
            "{:>10.0} {:>7.2} {:>7.2} {rss:>8.0}",
            measured.per_second,
            measured.p50.as_secs_f64() * 1e3,
            measured.p99.as_secs_f64() * 1e3,
        )
    };
    let (etcd, ratio) = match theirs {
        Some(theirs) => (cells(theirs), format!("{:.2}", ours.0.per_second / theirs.0.per_second)),
        None => ("not installed".to_owned(), "-".to_owned()),
    };
    println!("{members:>7} {clients:>7} | {} | {etcd:>35} | {ratio:>5}", cells(ours));
}
