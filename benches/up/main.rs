//! How long `up` takes on the lab's three servers and two agents, from nothing and with nothing to
//! change, and how many round trips each host costs.
//!
//! `cargo bench --bench up [-- RUNS]`; the recorded results are in docs/benchmarks.md. Each run has
//! a lab of its own, which is removed after it.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    reason = "a benchmark fails by panicking and tells by printing"
)]

#[path = "../../tests/support/mod.rs"]
mod support;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use support::Lab;

/// Runs with nothing to change after each cold one.
const QUIET_RUNS: usize = 3;

/// One kind of run, again and again.
#[derive(Default)]
struct Series {
    spans: Vec<Duration>,
    /// Round trips by host, of each run.
    trips: BTreeMap<String, Vec<u64>>,
}

impl Series {
    /// Runs `up` once more. Every host must say how many tasks changed something, and `quiet` runs
    /// must say none did.
    fn run(&mut self, lab: &Lab, quiet: bool) {
        let begun = Instant::now();
        let output = lab.up(&["-v"]);
        self.spans.push(begun.elapsed());
        let mut hosts = 0;
        for line in output.lines() {
            let mut words = line.split_whitespace();
            let count = words.clone().find_map(|word| word.strip_prefix("round_trips="));
            let (Some(host), Some(count)) = (words.next(), count) else { continue };
            assert!(!quiet || line.contains("changed=0 "), "something changed: {line}");
            let count = count.parse().expect("a number of round trips");
            self.trips.entry(host.to_owned()).or_default().push(count);
            hosts += 1;
        }
        assert_eq!(hosts, 5, "not all hosts are in the recap:\n{output}");
    }

    /// The median of an even number of runs is the lower of the two in the middle.
    fn print(mut self, name: &str) {
        self.spans.sort_unstable();
        let seconds = |at: usize| self.spans[at].as_secs_f64();
        let last = self.spans.len() - 1;
        let trips: Vec<String> = self
            .trips
            .iter()
            .map(|(host, counts)| {
                let least = counts.iter().min().expect("a run");
                let most = counts.iter().max().expect("a run");
                if least == most {
                    format!("{host} {most}")
                } else {
                    format!("{host} {least}–{most}")
                }
            })
            .collect();
        println!(
            "| {name:<9} | {:>4} | {:>8.2} | {:>5.2} | {:>5.2} | {} |",
            last + 1,
            seconds(last / 2),
            seconds(0),
            seconds(last),
            trips.join(", ")
        );
    }
}

fn main() {
    let runs = std::env::args().skip(1).find_map(|word| word.parse().ok()).unwrap_or(5);
    let (mut cold, mut quiet) = (Series::default(), Series::default());
    for _ in 0..runs {
        let lab = Lab::new("76.3", 3, 2);
        cold.run(&lab, false);
        for _ in 0..QUIET_RUNS {
            quiet.run(&lab, true);
        }
    }
    println!("| run       | runs | median s | min s | max s | round trips |");
    println!("|:----------|-----:|---------:|------:|------:|:------------|");
    cold.print("cold");
    quiet.print("no change");
}
