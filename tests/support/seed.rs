//! Random moments that can be had again: the seed is printed, and taken from `K3SUP_TEST_SEED`.

use std::time::Duration;

/// A small generator (splitmix64): moments need no better one.
pub struct Random(u64);

impl Random {
    /// Seeded by the environment, or else by the clock; says with what.
    pub fn new() -> Self {
        let given = std::env::var("K3SUP_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
        let clock = || {
            let since = std::time::UNIX_EPOCH.elapsed().unwrap_or_default();
            u64::from(since.subsec_nanos()) ^ since.as_secs()
        };
        let seed = given.unwrap_or_else(clock);
        eprintln!("K3SUP_TEST_SEED={seed}");
        Self(seed)
    }

    /// Any number.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `limit`.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit.max(1)
    }

    /// A time below `limit`, in steps of a microsecond.
    pub fn upto(&mut self, limit: Duration) -> Duration {
        let micros = u64::try_from(limit.as_micros()).unwrap_or(u64::MAX);
        Duration::from_micros(self.below(micros))
    }
}
