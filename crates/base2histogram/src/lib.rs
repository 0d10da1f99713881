//! Stands in for the crate of this name, in which openraft counts how large its batches are: that one
//! builds tables for every precision it could count with, 26 MiB, at the first use, and nobody here reads
//! what is counted (openraft tells it with its feature `runtime-stats` only).
//!
//! Has what openraft uses without that feature, under its names. A histogram has one bucket for each power
//! of two. Knows nothing of Raft.

#![forbid(unsafe_code)]

use std::fmt;
use std::marker::PhantomData;

/// Buckets: one for 0, and one for each highest bit.
const BUCKETS: usize = u64::BITS as usize + 1;

/// Counts values by their highest bit. `T` says nothing: the crate this stands in for has slots of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Histogram<T = ()> {
    counts: [u64; BUCKETS],
    slots: PhantomData<T>,
}

impl<T> Histogram<T> {
    /// Nothing counted yet.
    pub fn new() -> Self {
        Self { counts: [0; BUCKETS], slots: PhantomData }
    }

    /// Counts `value` once.
    pub fn record(&mut self, value: u64) {
        self.record_n(value, 1);
    }

    /// Counts `value` so many `times`.
    pub fn record_n(&mut self, value: u64, times: u64) {
        let bucket = (u64::BITS - value.leading_zeros()) as usize;
        if let Some(count) = self.counts.get_mut(bucket) {
            *count = count.saturating_add(times);
        }
    }

    /// How many values were counted.
    pub fn total(&self) -> u64 {
        self.counts.iter().fold(0, |sum: u64, count| sum.saturating_add(*count))
    }

    /// The least value of the bucket that the given share of a thousand values is reached in; 0 when there
    /// are none.
    fn permille(&self, share: u64) -> u64 {
        let wanted = u128::from(self.total()) * u128::from(share);
        let mut seen = 0_u128;
        for (bucket, count) in self.counts.iter().enumerate() {
            seen += u128::from(*count);
            if *count > 0 && seen * 1000 >= wanted {
                return if bucket == 0 { 0 } else { 1 << (bucket - 1) };
            }
        }
        0
    }

    /// The shares that are usually looked at.
    pub fn percentile_stats(&self) -> PercentileStats {
        PercentileStats {
            samples: self.total(),
            p0_1: self.permille(1),
            p1: self.permille(10),
            p5: self.permille(50),
            p10: self.permille(100),
            p50: self.permille(500),
            p90: self.permille(900),
            p99: self.permille(990),
            p99_9: self.permille(999),
        }
    }
}

impl<T> Default for Histogram<T> {
    fn default() -> Self {
        Self::new()
    }
}

/// Values below which so many percent of all lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub struct PercentileStats {
    pub samples: u64,
    pub p0_1: u64,
    pub p1: u64,
    pub p5: u64,
    pub p10: u64,
    pub p50: u64,
    pub p90: u64,
    pub p99: u64,
    pub p99_9: u64,
}

impl fmt::Display for PercentileStats {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { samples, p50, p90, p99, .. } = self;
        write!(out, "{samples} samples, p50 {p50}, p90 {p90}, p99 {p99}")
    }
}

/// Histograms by name. openraft draws them with its feature `runtime-stats`, which needs the real crate.
#[derive(Clone, Debug, Default)]
pub struct AsciiChart(Vec<(String, Histogram)>);

impl AsciiChart {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// With one more.
    #[must_use]
    pub fn add(mut self, name: &str, histogram: Histogram) -> Self {
        self.0.push((name.to_owned(), histogram));
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_found_by_powers_of_two() {
        let mut histogram = Histogram::<()>::new();
        assert_eq!(histogram.percentile_stats().p99, 0);
        histogram.record(0);
        histogram.record_n(5, 97);
        histogram.record(u64::MAX);
        histogram.record(1 << 20);
        let stats = histogram.percentile_stats();
        assert_eq!((stats.samples, stats.p1, stats.p50, stats.p90), (100, 0, 4, 4));
        assert_eq!((stats.p99, stats.p99_9), (1 << 20, 1 << 63));
    }
}
