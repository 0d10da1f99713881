//! The table of results: medians of rounds.

use std::time::Duration;

use super::load::Measured;

/// What one round showed.
pub(crate) struct Round {
    pub(crate) measured: Measured,
    /// CPU time of all members together.
    pub(crate) cpu: Duration,
    /// Bytes that all members had written to the disk.
    pub(crate) written: u64,
}

impl Round {
    fn per_second(&self) -> f64 {
        self.measured.per_second
    }

    fn written_per_op(&self) -> f64 {
        self.written as f64 / self.measured.count as f64
    }

    fn cpu_per_op(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / self.measured.count as f64
    }
}

/// Prints the table's head.
pub(crate) fn head() {
    println!(
        "| work  | members | clients |   ops/s |  p50 ms |  p99 ms | CPU µs/op | disk B/op | etcd ops/s |  p50 ms |  p99 ms | CPU µs/op | disk B/op | ops × | p50 × | p99 × |"
    );
    println!(
        "|:------|--------:|--------:|--------:|--------:|--------:|----------:|----------:|-----------:|--------:|--------:|----------:|----------:|------:|------:|------:|"
    );
}

/// Prints what the rounds of one kind of work showed.
pub(crate) fn row(work: &str, members: usize, clients: usize, ours: &[Round], etcd: &[Round]) {
    let ratio = |of: fn(&Round) -> f64| {
        median(ours.iter().zip(etcd).map(|(ours, etcd)| of(ours) / of(etcd)).collect())
    };
    println!(
        "| {:<5} | {members:>7} | {clients:>7} | {} |    {} | {:>5.2} | {:>5.2} | {:>5.2} |",
        work,
        cells(ours),
        cells(etcd),
        ratio(Round::per_second),
        ratio(|round| round.measured.p50.as_secs_f64()),
        ratio(|round| round.measured.p99.as_secs_f64()),
    );
}

fn cells(rounds: &[Round]) -> String {
    let of = |what: fn(&Round) -> f64| median(rounds.iter().map(what).collect());
    format!(
        "{:>7.0} | {:>7.2} | {:>7.2} | {:>9.0} | {:>9.0}",
        of(Round::per_second),
        of(|round| round.measured.p50.as_secs_f64() * 1e3),
        of(|round| round.measured.p99.as_secs_f64() * 1e3),
        of(Round::cpu_per_op),
        of(Round::written_per_op),
    )
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => values[n / 2],
        n => f64::midpoint(values[n / 2 - 1], values[n / 2]),
    }
}
