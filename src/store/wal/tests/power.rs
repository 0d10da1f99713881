//! Power cuts: whatever part of the unsynced writes reaches the disk, nothing that was acknowledged
//! is lost and the log opens.

use std::collections::BTreeMap;

use proptest::prelude::*;
use rand::SeedableRng as _;
use rand::rngs::StdRng;

use super::mem::{MemDisk, image};
use super::model::{Call, Driver, Model, calls, reread};

/// The number of the newest state that was acknowledged before the cut.
fn acknowledged(driver: &Driver, cut: usize) -> usize {
    let acks = driver.acks.lock();
    acks.iter().filter(|(at, _)| *at <= cut).map(|(_, state)| *state).max().unwrap_or(0)
}

fn check(driver: &Driver, seed: u64, cuts: usize) {
    let ops = driver.disk.ops();
    let mut rng = StdRng::seed_from_u64(seed);
    for _ in 0..cuts {
        let cut = rng.random_range(0..=ops.len());
        let disk = image(&BTreeMap::new(), &ops[..cut], &mut rng);
        let start = disk.files();
        let found = reread(&disk).unwrap_or_else(|error| panic!("cut at {cut}: {error}"));
        let least = acknowledged(driver, cut);
        assert!(
            driver.states[least..].contains(&found),
            "cut at {cut}: state {least} was acknowledged, found {}..{} vote {:?}",
            found.first,
            found.next,
            found.vote,
        );
        // A second cut while the first is being repaired, and a third start.
        let repair = disk.ops();
        let second = image(&start, &repair[..rng.random_range(0..=repair.len())], &mut rng);
        let again: Model = reread(&second).unwrap_or_else(|error| panic!("second cut: {error}"));
        assert!(driver.states[least..].contains(&again), "second cut after one at {cut}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..Default::default() })]

    #[test]
    fn nothing_acknowledged_is_lost(calls in calls(40), seed in any::<u64>()) {
        let mut driver = Driver::new(MemDisk::default());
        for call in &calls {
            driver.run(call);
        }
        driver.run(&Call::Wait);
        check(&driver, seed, 24);
    }

    /// A process that is killed leaves unsynced writes in the kernel; the next one reads them,
    /// goes on, and only then the power is cut.
    #[test]
    fn nor_after_a_kill_before_it(before in calls(12), after in calls(12), seed in any::<u64>()) {
        let mut driver = Driver::new(MemDisk::default());
        for call in &before {
            driver.run(call);
        }
        driver.run(&Call::Wait);
        let mut rng = StdRng::seed_from_u64(seed);
        let ops = driver.disk.ops();
        let killed = rng.random_range(0..=ops.len());
        let mut next = Driver::new(MemDisk::after(&ops[..killed]));
        let opened = next.opened;
        let kept = &driver.states[acknowledged(&driver, killed)..];
        prop_assert!(kept.contains(next.state()));
        for call in &after {
            next.run(call);
        }
        next.run(&Call::Wait);
        let ops = next.disk.ops();
        for _ in 0..24 {
            let cut = rng.random_range(killed..=ops.len());
            let found = reread(&image(&BTreeMap::new(), &ops[..cut], &mut rng));
            let found = found.unwrap_or_else(|error| panic!("cut at {cut}: {error}"));
            let known = next.states[acknowledged(&next, cut)..].contains(&found)
                || (cut < opened && kept.contains(&found));
            prop_assert!(known, "killed at {}, opened at {}, cut at {}", killed, opened, cut);
        }
    }
}
