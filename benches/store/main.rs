//! Puts and gets per second, latency, CPU time and memory of clusters of 1 and 3 members at 1, 64
//! and 512 clients, beside etcd (Debian's `etcd-server`) on the same disk, driven by the same
//! generator, with the same TLS.
//!
//! `cargo bench --bench store [-- SECONDS] [rounds=5] [members=1,3] [clients=1,64,512]
//! [work=put,get,local] [memory=200000] [etcd=no]`; the recorded results are in docs/benchmarks.md.
//!
//! Both clusters run at the same time and are loaded in turn, round after round, so that whatever
//! else the machine does hits both alike. What is printed is the median of the rounds; the ratio is
//! the median of the ratios of neighbouring rounds.

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
mod table;

use std::time::Duration;

use cluster::Cluster;
use load::{Load, Work};
use table::Round;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Puts of one round of the memory table, so that both clusters are given exactly as many.
const MEMORY_CLIENTS: usize = 64;

/// What to measure.
struct Options {
    span: Duration,
    rounds: usize,
    members: Vec<usize>,
    clients: Vec<usize>,
    work: Vec<Work>,
    memory: usize,
    etcd: bool,
}

impl Options {
    fn parse(words: impl Iterator<Item = String>) -> Self {
        let mut options = Self {
            span: Duration::from_secs(3),
            rounds: 5,
            members: vec![1, 3],
            clients: vec![1, 64, 512],
            work: vec![Work::Put, Work::Get, Work::Local],
            memory: 200_000,
            etcd: true,
        };
        for word in words {
            let numbers =
                |list: &str| list.split(',').map(|n| n.parse().expect("a number")).collect();
            match word.split_once('=') {
                Some(("rounds", n)) => options.rounds = n.parse().expect("a number"),
                Some(("members", list)) => options.members = numbers(list),
                Some(("clients", list)) => options.clients = numbers(list),
                Some(("work", list)) => options.work = list.split(',').map(Work::parse).collect(),
                Some(("memory", n)) => options.memory = n.parse().expect("a number"),
                Some(("etcd", answer)) => options.etcd = answer != "no",
                Some(_) => panic!("unknown option {word}"),
                None => match word.parse() {
                    Ok(seconds) => options.span = Duration::from_secs_f64(seconds),
                    // `cargo bench` adds `--bench`.
                    Err(_) => assert_eq!(word, "--bench", "unknown option"),
                },
            }
        }
        options
    }
}

#[tokio::main]
async fn main() {
    let options = Options::parse(std::env::args().skip(1));
    let (rounds, span) = (options.rounds, options.span.as_secs_f64());
    println!(
        "Values of 256 B, {rounds} rounds of {span} s each, mutual TLS; `×` is ours to etcd's.\n"
    );
    table::head();
    for &members in &options.members {
        for &clients in &options.clients {
            let (ours, etcd) = start(&options, members).await;
            for &work in &options.work {
                let mut measured = (Vec::new(), Vec::new());
                for round in 0..options.rounds {
                    let load = Load { work, clients, span: options.span };
                    let etcd_first = round % 2 == 1;
                    if let Some(etcd) = etcd.as_ref().filter(|_| etcd_first) {
                        measured.1.push(run(etcd, &load).await);
                    }
                    measured.0.push(run(&ours, &load).await);
                    if let Some(etcd) = etcd.as_ref().filter(|_| !etcd_first) {
                        measured.1.push(run(etcd, &load).await);
                    }
                }
                table::row(work, members, clients, &measured.0, &measured.1);
            }
        }
    }
    if options.memory > 0 {
        memory(&options).await;
    }
}

/// Both clusters, ready to be used.
async fn start(options: &Options, members: usize) -> (Cluster, Option<Cluster>) {
    let mut ours = cluster::ours(members);
    load::ready(&mut ours).await;
    let mut etcd = if options.etcd { cluster::etcd(members) } else { None };
    if let Some(etcd) = &mut etcd {
        load::ready(etcd).await;
    }
    (ours, etcd)
}

async fn run(cluster: &Cluster, load: &Load) -> Round {
    let before = cluster.cpu();
    let measured = load.run(cluster).await;
    Round { measured, cpu: cluster.cpu().saturating_sub(before), rss_mib: cluster.rss_mib() }
}

/// Memory after the same number of puts.
async fn memory(options: &Options) {
    let puts = options.memory;
    println!("\nMemory of all members together, MiB resident, fresh and after {puts} puts:\n");
    println!("| members | ours fresh | ours after | etcd fresh | etcd after |     × |");
    println!("|--------:|-----------:|-----------:|-----------:|-----------:|------:|");
    for &members in &options.members {
        let (ours, etcd) = start(options, members).await;
        let mut cells = Vec::new();
        for cluster in [Some(&ours), etcd.as_ref()].into_iter().flatten() {
            let fresh = cluster.rss_mib();
            load::fill(cluster, MEMORY_CLIENTS, puts).await;
            cells.push((fresh, cluster.rss_mib()));
        }
        let (fresh, after) = cells[0];
        let (etcd_fresh, etcd_after) = cells.get(1).copied().unwrap_or((f64::NAN, f64::NAN));
        println!(
            "| {members:>7} | {fresh:>10.0} | {after:>10.0} | {etcd_fresh:>10.0} | {etcd_after:>10.0} | {:>5.2} |",
            after / etcd_after
        );
    }
}
