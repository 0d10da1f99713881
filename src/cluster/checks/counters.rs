//! The counters of a member, read from Prometheus' text form: etcd's names, which this store has too.

use std::collections::BTreeMap;

/// What the checks want of a member's counters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// fdatasync of the log.
    pub fsync: Durations,
    /// Writes of the applied state.
    pub commit: Durations,
    /// Times that the leader changed as this member saw it since it started.
    pub leader_changes: u64,
    /// Proposals that failed since then.
    pub proposals_failed: u64,
    /// Size of the store in bytes.
    pub store_bytes: u64,
    /// The quota in bytes; 0 when it is not told.
    pub quota_bytes: u64,
    /// When the process started, seconds since 1970.
    pub started_unix_s: u64,
}

/// A histogram of durations.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Durations {
    /// How many there were since the process started.
    pub count: u64,
    /// Upper bounds in microseconds with how many were at most that long, ascending.
    buckets: Vec<(u64, u64)>,
}

impl Durations {
    /// 99 of 100 took at most about this long, in microseconds: between the bounds of a bucket a
    /// straight line is assumed, as Prometheus does. `None` when there were too few to say.
    pub fn p99_us(&self) -> Option<u64> {
        if self.count < 100 {
            return None;
        }
        let rank = self.count.saturating_mul(99).div_ceil(100);
        let (mut low, mut below) = (0, 0);
        for (bound, up_to) in &self.buckets {
            if *up_to >= rank {
                let inside = up_to.saturating_sub(below).max(1);
                let part = rank.saturating_sub(below);
                return Some(low + (bound - low).saturating_mul(part) / inside);
            }
            (low, below) = (*bound, *up_to);
        }
        // Longer than the last bound, by how much is not known.
        Some(low)
    }
}

/// Reads the text; what is not there stays 0.
pub fn parse(text: &str) -> Counters {
    let mut single: BTreeMap<&str, f64> = BTreeMap::new();
    let mut counters = Counters::default();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let Some((name, value)) = line.rsplit_once(' ') else { continue };
        let Ok(value) = value.parse::<f64>() else { continue };
        let (family, labels) = name.split_once('{').unwrap_or((name, ""));
        match family {
            "etcd_disk_wal_fsync_duration_seconds_bucket" => {
                bucket(&mut counters.fsync, labels, value);
            }
            "etcd_disk_backend_commit_duration_seconds_bucket" => {
                bucket(&mut counters.commit, labels, value);
            }
            _ if labels.is_empty() => {
                single.insert(family, value);
            }
            _ => {}
        }
    }
    let get = |name: &str| single.get(name).map_or(0, |value| whole(*value));
    counters.fsync.count = get("etcd_disk_wal_fsync_duration_seconds_count");
    counters.commit.count = get("etcd_disk_backend_commit_duration_seconds_count");
    counters.leader_changes = get("etcd_server_leader_changes_seen_total");
    counters.proposals_failed = get("etcd_server_proposals_failed_total");
    counters.store_bytes = get("etcd_mvcc_db_total_size_in_bytes");
    counters.quota_bytes = get("etcd_server_quota_backend_bytes");
    counters.started_unix_s = get("process_start_time_seconds");
    counters
}

fn bucket(durations: &mut Durations, labels: &str, value: f64) {
    let bound = labels.split_once("le=\"").and_then(|(_, rest)| rest.split_once('"'));
    // The last bucket has no bound: its count is the whole count.
    let Some(bound) = bound.and_then(|(bound, _)| bound.parse::<f64>().ok()) else { return };
    if bound.is_finite() {
        durations.buckets.push((whole(bound * 1e6), whole(value)));
    }
}

/// The nearest whole number.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a cast from a float stops at the bounds of the integer"
)]
fn whole(value: f64) -> u64 {
    value.round() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
# HELP etcd_disk_wal_fsync_duration_seconds The latency distributions of fsync called by WAL.
# TYPE etcd_disk_wal_fsync_duration_seconds histogram
etcd_disk_wal_fsync_duration_seconds_bucket{le=\"0.001\"} 900
etcd_disk_wal_fsync_duration_seconds_bucket{le=\"0.002\"} 980
etcd_disk_wal_fsync_duration_seconds_bucket{le=\"0.004\"} 1000
etcd_disk_wal_fsync_duration_seconds_bucket{le=\"+Inf\"} 1000
etcd_disk_wal_fsync_duration_seconds_sum 0.8
etcd_disk_wal_fsync_duration_seconds_count 1000
etcd_server_leader_changes_seen_total 3
etcd_server_quota_backend_bytes 2.147483648e+09
etcd_mvcc_db_total_size_in_bytes 20480
process_start_time_seconds 1.7e+09
grpc_server_handled_total{grpc_code=\"OK\"} 12
nonsense
also nonsense
";

    #[test]
    fn counters_are_read_from_prometheus_text() {
        let counters = parse(TEXT);
        assert_eq!(counters.leader_changes, 3);
        assert_eq!(counters.quota_bytes, 2 << 30);
        assert_eq!((counters.store_bytes, counters.started_unix_s), (20480, 1_700_000_000));
        // 990 is half way between 980 and 1000.
        assert_eq!(counters.fsync.p99_us(), Some(3000));
        assert_eq!(counters.commit.p99_us(), None);
        assert_eq!(parse(""), Counters::default());
    }

    #[test]
    fn a_quantile_has_bounds() {
        let of = |count, buckets: &[(u64, u64)]| Durations { count, buckets: buckets.to_vec() };
        assert_eq!(of(99, &[(1000, 99)]).p99_us(), None, "too few to say");
        assert_eq!(of(100, &[(1000, 100)]).p99_us(), Some(990));
        assert_eq!(of(100, &[(1000, 10), (2000, 20)]).p99_us(), Some(2000), "beyond the last");
        assert_eq!(of(100, &[]).p99_us(), Some(0));
    }
}
