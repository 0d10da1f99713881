//! Requests per second, latency, CPU time and bytes written of clusters of 1 and 3 members at 1 to 1000
//! clients; the latency of watch events; memory, files and the time of a start: beside etcd (the one that
//! is found in PATH) on the same disk, driven by the same generator, with the same TLS.
//!
//! `cargo bench --bench store [-- SECONDS] [rounds=5] [members=1,3] [clients=1,64,512,1000]
//! [work=put,get,local,range,txn,mixed,keep] [watchers=1,100,1000] [puts=200000] [keys=100000,1000000]
//! [etcd=no]`; an empty list leaves a part out. `soak=30` alone works for so many minutes on three members.
//! The recorded results are in docs/benchmarks.md.
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
mod fanout;
mod load;
mod size;
mod soak;
mod table;
mod work;

use std::time::Duration;

use cluster::Cluster;
use load::{Load, Measured};
use table::Round;
use work::{KEYS, Work};

#[global_allocator]
static ALLOCATOR: k3sup_rs_allocator::Allocator = k3sup_rs_allocator::Allocator;

/// Clients that fill a cluster in before it is asked for keys.
const FILL_CLIENTS: usize = 64;

/// What to measure.
struct Options {
    span: Duration,
    rounds: usize,
    members: Vec<usize>,
    clients: Vec<usize>,
    work: Vec<Work>,
    watchers: Vec<usize>,
    puts: usize,
    keys: Vec<usize>,
    soak: Duration,
    etcd: bool,
}

impl Options {
    fn parse(words: impl Iterator<Item = String>) -> Self {
        let mut options = Self {
            span: Duration::from_secs(3),
            rounds: 5,
            members: vec![1, 3],
            clients: vec![1, 64, 512, 1000],
            work: Work::ALL.to_vec(),
            watchers: vec![1, 100, 1000],
            puts: 200_000,
            keys: vec![100_000, 1_000_000],
            soak: Duration::ZERO,
            etcd: true,
        };
        for word in words {
            match word.split_once('=') {
                Some(("rounds", n)) => options.rounds = n.parse().expect("a number"),
                Some(("members", list)) => options.members = numbers(list),
                Some(("clients", list)) => options.clients = numbers(list),
                Some(("work", list)) => options.work = words_of(list).map(Work::parse).collect(),
                Some(("watchers", list)) => options.watchers = numbers(list),
                Some(("puts", n)) => options.puts = n.parse().expect("a number"),
                Some(("keys", list)) => options.keys = numbers(list),
                Some(("soak", minutes)) => {
                    let minutes: f64 = minutes.parse().expect("a number");
                    options.soak = Duration::from_secs_f64(minutes * 60.0);
                }
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

fn words_of(list: &str) -> impl Iterator<Item = &str> {
    list.split(',').filter(|word| !word.is_empty())
}

fn numbers(list: &str) -> Vec<usize> {
    words_of(list).map(|word| word.parse().expect("a number")).collect()
}

#[tokio::main]
async fn main() {
    let options = Options::parse(std::env::args().skip(1));
    if !options.soak.is_zero() {
        let mut cluster = cluster::ours(3);
        load::ready(&mut cluster).await;
        return soak::run(&cluster, options.soak).await;
    }
    let (rounds, span) = (options.rounds, options.span.as_secs_f64());
    println!(
        "Values of 256 B, {rounds} rounds of {span} s each, mutual TLS; `×` is ours to etcd's.\n"
    );
    table::head();
    for &members in &options.members {
        if !options.work.is_empty() {
            requests(&options, members).await;
        }
        if !options.watchers.is_empty() {
            watches(&options, members).await;
        }
    }
    if options.puts > 0 {
        memory(&options).await;
    }
    if !options.keys.is_empty() {
        sizes(&options).await;
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

/// Each kind of work with each number of clients, on clusters that have all keys.
async fn requests(options: &Options, members: usize) {
    for &clients in &options.clients {
        let (ours, etcd) = start(options, members).await;
        for cluster in [Some(&ours), etcd.as_ref()].into_iter().flatten() {
            load::fill(cluster, FILL_CLIENTS, 0..KEYS).await;
        }
        for &work in &options.work {
            let load = Load { work, clients, span: options.span };
            let both = (&ours, etcd.as_ref());
            let (ours, etcd) =
                in_turn(options.rounds, both, async |cluster| load.run(cluster).await).await;
            table::row(work.name(), members, clients, &ours, &etcd);
        }
    }
}

/// Events to each number of watchers.
async fn watches(options: &Options, members: usize) {
    for &watchers in &options.watchers {
        let (ours, etcd) = start(options, members).await;
        let run = async |cluster: &Cluster| fanout::run(cluster, watchers, options.span).await;
        let (ours, etcd) = in_turn(options.rounds, (&ours, etcd.as_ref()), run).await;
        table::row("watch", members, watchers, &ours, &etcd);
    }
}

/// So many rounds on each, ours first in every other.
async fn in_turn(
    rounds: usize,
    (ours, etcd): (&Cluster, Option<&Cluster>),
    run: impl AsyncFn(&Cluster) -> Measured,
) -> (Vec<Round>, Vec<Round>) {
    let mut measured = (Vec::new(), Vec::new());
    for round in 0..rounds {
        let etcd_first = round % 2 == 1;
        if let Some(etcd) = etcd.filter(|_| etcd_first) {
            measured.1.push(watched(etcd, &run).await);
        }
        measured.0.push(watched(ours, &run).await);
        if let Some(etcd) = etcd.filter(|_| !etcd_first) {
            measured.1.push(watched(etcd, &run).await);
        }
    }
    measured
}

/// One round, and what it took.
async fn watched(cluster: &Cluster, run: &impl AsyncFn(&Cluster) -> Measured) -> Round {
    let (cpu, written) = (cluster.cpu(), cluster.written());
    let measured = run(cluster).await;
    Round {
        measured,
        cpu: cluster.cpu().saturating_sub(cpu),
        written: cluster.written().saturating_sub(written),
    }
}

/// Memory after the same number of puts.
async fn memory(options: &Options) {
    let puts = options.puts;
    println!(
        "\nMemory of all members together, MiB resident: fresh, {} s after {puts} puts, and at its most:\n",
        size::SETTLE.as_secs()
    );
    println!(
        "| members | ours fresh | ours after | ours peak | etcd fresh | etcd after | etcd peak | after × | peak × |"
    );
    println!(
        "|--------:|-----------:|-----------:|----------:|-----------:|-----------:|----------:|--------:|-------:|"
    );
    for &members in &options.members {
        let (ours, etcd) = start(options, members).await;
        let (fresh, after, peak) = size::after_puts(&ours, puts).await;
        let (etcd_fresh, etcd_after, etcd_peak) = match &etcd {
            Some(etcd) => size::after_puts(etcd, puts).await,
            None => (f64::NAN, f64::NAN, f64::NAN),
        };
        println!(
            "| {members:>7} | {fresh:>10.0} | {after:>10.0} | {peak:>9.0} | {etcd_fresh:>10.0} | {etcd_after:>10.0} | {etcd_peak:>9.0} | {:>7.2} | {:>6.2} |",
            after / etcd_after,
            peak / etcd_peak
        );
    }
}

/// What clusters take that have so many keys.
async fn sizes(options: &Options) {
    println!("\nAt so many keys of 256 B, all members together:\n");
    let mut rows = Vec::new();
    for &keys in &options.keys {
        for &members in &options.members {
            let (mut ours, etcd) = start(options, members).await;
            let own = size::at_keys(&mut ours, keys).await;
            drop(ours);
            let etcd = match etcd {
                Some(mut etcd) => Some(size::at_keys(&mut etcd, keys).await),
                None => None,
            };
            rows.push((keys, members, own, etcd));
        }
    }
    size::table(&rows);
}
