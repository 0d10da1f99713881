//! All hosts' clocks beside each other.

use super::finding::{Check, Finding};
use super::limits::{SKEW_REFUSED_MS, SKEW_WARNED_MS};
use super::scene::Scene;

/// One finding for each host whose clock was read. The median counts, not the control machine's own
/// clock: one host that is wrong must not make all others seem so.
pub(super) fn check(scene: &Scene) -> Vec<Finding> {
    let clocks = scene.hosts.iter().filter_map(|host| Some((host, host.clock?)));
    let mut sorted: Vec<i64> = clocks.clone().map(|(_, clock)| clock.ahead_ms).collect();
    sorted.sort_unstable();
    // Of two the earlier one: between two clocks there is no telling which is right.
    let Some(median) = sorted.get(sorted.len().saturating_sub(1) / 2).copied() else {
        return Vec::new();
    };
    let error = clocks.clone().map(|(_, clock)| clock.error_ms).max().unwrap_or(0);
    clocks.map(|(host, clock)| judge(clock.ahead_ms - median, error).on(&host.name)).collect()
}

fn judge(off_ms: i64, error_ms: u64) -> Finding {
    let off = off_ms.unsigned_abs();
    // What may be the time that asking took is not held against the clock.
    let sure = off.saturating_sub(error_ms);
    let sign = if off_ms < 0 { '-' } else { '+' };
    let value = format!("{sign}{}.{} s", off / 1000, off % 1000 / 100);
    if sure <= SKEW_WARNED_MS {
        return Finding::good(Check::Clock, value);
    }
    let way = if off_ms < 0 { "behind" } else { "ahead of" };
    let message = format!("its clock is {}.{} s {way} the median", off / 1000, off % 1000 / 100);
    let action = "let it follow a time server: `timedatectl set-ntp true`, or `chronyc makestep`";
    if sure <= SKEW_REFUSED_MS {
        return Finding::warning(Check::Clock, value, message).action(action);
    }
    Finding::bad(Check::Clock, value, message).forceable().action(action)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::checks::Severity::{self, Bad, Good, Warning};
    use crate::cluster::checks::scene::{ClockSeen, HostSeen};

    fn severities(ahead_ms: &[i64], error_ms: u64) -> Vec<Severity> {
        let host = |(number, ahead_ms): (usize, &i64)| HostSeen {
            name: format!("s{number}"),
            clock: Some(ClockSeen { ahead_ms: *ahead_ms, error_ms }),
            ..HostSeen::default()
        };
        let hosts = ahead_ms.iter().enumerate().map(host).collect();
        let findings = check(&Scene { hosts, ..Scene::default() });
        findings.into_iter().map(|finding| finding.severity).collect()
    }

    #[test]
    fn clocks_are_judged_by_the_median() {
        for (ahead_ms, expected) in [
            (vec![], vec![]),
            (vec![90_000], vec![Good]),
            (vec![0, 10, -10], vec![Good, Good, Good]),
            (vec![0, 3_000, -3_000], vec![Good, Good, Good]),
            (vec![0, 3_001, 30_000], vec![Warning, Good, Warning]),
            (vec![0, 0, 31_000], vec![Good, Good, Bad]),
            // The control machine's clock is the wrong one.
            (vec![3_600_000, 3_600_010, 3_600_020], vec![Good, Good, Good]),
            (vec![0, 40_000], vec![Good, Bad]),
            (vec![0, -40_000, 10], vec![Good, Bad, Good]),
        ] {
            assert_eq!(severities(&ahead_ms, 0), expected, "{ahead_ms:?}");
        }
    }

    #[test]
    fn the_time_that_asking_took_is_not_held_against_a_clock() {
        assert_eq!(severities(&[0, 0, 31_000], 1_500), [Good, Good, Warning]);
        let seen = ClockSeen::new(1_000_500, 1_000_000, 1_000_200);
        assert_eq!(seen, ClockSeen { ahead_ms: 400, error_ms: 100 });
        assert_eq!(ClockSeen::new(0, 5_000, 5_000).ahead_ms, -5_000);
    }

    #[test]
    fn what_is_wrong_is_said_with_its_size() {
        let found = judge(-31_400, 0);
        assert_eq!(found.value, "-31.4 s");
        assert_eq!(found.message, "its clock is 31.4 s behind the median");
        assert!(found.stops(false) && !found.stops(true));
    }
}
