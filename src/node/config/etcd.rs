//! `--etcd-arg key=value`: the settings of etcd that this store has too.

use std::collections::BTreeMap;
use std::time::Duration;

use super::snapshots::duration;
use crate::limits::QUOTA_BYTES_DEFAULT;
use crate::rpc::Limits;

/// Longest election time-out: etcd's (`server/embed/config.go`, `maxElectionMs`).
const ELECTION_MS_MAX: u64 = 50_000;

/// What `--etcd-arg` sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EtcdArgs {
    /// How often a leader says that it is there. Default: etcd's 100 ms (K3s: 500 ms).
    pub heartbeat_interval: Duration,
    /// How long a follower waits for it. Default: etcd's 1 s (K3s: 5 s).
    pub election_timeout: Duration,
    /// How many entries between two snapshots of the log. Default: etcd's 10,000.
    pub snapshot_count: u64,
    /// Bytes after which writes are refused. Default: etcd's 2 GiB.
    pub quota_bytes: u64,
    /// How often a watcher that asked for it hears that nothing happened. Default: etcd's 10 min.
    pub progress_notify_interval: Duration,
    /// How much clients may ask at once. Default: etcd's.
    pub limits: Limits,
}

impl Default for EtcdArgs {
    fn default() -> Self {
        Self {
            heartbeat_interval: Duration::from_millis(100),
            election_timeout: Duration::from_secs(1),
            snapshot_count: 10_000,
            quota_bytes: QUOTA_BYTES_DEFAULT,
            progress_notify_interval: Duration::from_secs(10 * 60),
            limits: Limits::default(),
        }
    }
}

impl EtcdArgs {
    /// Takes one `key=value`. The error has no origin yet.
    pub fn set(&mut self, argument: &str) -> Result<(), String> {
        let (key, value) = argument
            .split_once('=')
            .ok_or_else(|| format!("invalid etcd-arg `{argument}`: write key=value"))?;
        let number = || {
            let found = value.trim().parse::<u64>().ok().filter(|number| *number > 0);
            found.ok_or_else(|| format!("etcd-arg {key} must be a number above 0, found `{value}`"))
        };
        let span = || duration(value.trim()).map_err(|error| format!("etcd-arg {key}: {error}"));
        let fits = |set: Result<(), String>| set.map_err(|why| format!("etcd-arg {key}: {why}"));
        match key.trim_start_matches('-') {
            "heartbeat-interval" => self.heartbeat_interval = Duration::from_millis(number()?),
            "election-timeout" => self.election_timeout = Duration::from_millis(number()?),
            "snapshot-count" => self.snapshot_count = number()?,
            "quota-backend-bytes" => self.quota_bytes = number()?,
            "watch-progress-notify-interval" | "experimental-watch-progress-notify-interval" => {
                self.progress_notify_interval = span()?;
            }
            "max-txn-ops" => fits(self.limits.set_txn_ops(number()?))?,
            "max-request-bytes" => fits(self.limits.set_request_bytes(number()?))?,
            "max-concurrent-streams" => fits(self.limits.set_streams(number()?))?,
            "grpc-keepalive-interval" => {
                self.limits.set_keepalive(span()?, self.limits.keepalive_timeout);
            }
            "grpc-keepalive-timeout" => {
                self.limits.set_keepalive(self.limits.keepalive_interval, span()?);
            }
            "grpc-keepalive-min-time" => self.limits.set_ping_interval(span()?),
            other => {
                return Err(format!(
                    "etcd-arg {other} is not one that this store has; it has heartbeat-interval, \
                     election-timeout, snapshot-count, quota-backend-bytes, max-txn-ops, \
                     max-request-bytes, max-concurrent-streams, grpc-keepalive-min-time, \
                     grpc-keepalive-interval, grpc-keepalive-timeout and watch-progress-notify-interval"
                ));
            }
        }
        Ok(())
    }

    /// etcd's rule between the two times, in its words.
    pub fn check(&self) -> Result<(), String> {
        let (heartbeat, election) =
            (self.heartbeat_interval.as_millis(), self.election_timeout.as_millis());
        if 5 * heartbeat > election {
            return Err(format!(
                "--election-timeout[{election}ms] should be at least as 5 times as \
                 --heartbeat-interval[{heartbeat}ms]"
            ));
        }
        if election > u128::from(ELECTION_MS_MAX) {
            return Err(format!(
                "--election-timeout[{election}ms] is too long, and should be set less than \
                 {ELECTION_MS_MAX}ms"
            ));
        }
        Ok(())
    }

    /// What must be equal on all servers, as name and value.
    pub fn critical(&self) -> Vec<(String, String)> {
        vec![
            ("etcd-arg=heartbeat-interval".into(), self.heartbeat_interval.as_millis().to_string()),
            ("etcd-arg=election-timeout".into(), self.election_timeout.as_millis().to_string()),
            ("etcd-arg=quota-backend-bytes".into(), self.quota_bytes.to_string()),
        ]
    }
}

/// What must be equal on all servers and is not, by each server's `etcd-arg` settings: one text for
/// each, with the servers and their values. What is no setting of this store is told elsewhere.
pub fn differences(servers: &[(&str, Vec<String>)]) -> Vec<String> {
    let mut values: BTreeMap<String, BTreeMap<String, Vec<&str>>> = BTreeMap::new();
    for (server, settings) in servers {
        let mut own = EtcdArgs::default();
        for setting in settings {
            // Refused with its place when the node reads its configuration.
            let _ = own.set(setting);
        }
        for (flag, value) in own.critical() {
            values.entry(flag).or_default().entry(value).or_default().push(server);
        }
    }
    let differs = values.into_iter().filter(|(_, by_value)| by_value.len() > 1);
    differs
        .map(|(flag, by_value)| {
            let parts =
                by_value.iter().map(|(value, names)| format!("{value} on {}", names.join(", ")));
            let parts: Vec<String> = parts.collect();
            format!("`{flag}` must be equal on all servers: {}", parts.join("; "))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_of_progress_is_a_time_under_both_of_its_names() {
        let mut args = EtcdArgs::default();
        args.set("experimental-watch-progress-notify-interval=5s").unwrap();
        assert_eq!(args.progress_notify_interval, Duration::from_secs(5));
        args.set("watch-progress-notify-interval=1m30s").unwrap();
        assert_eq!(args.progress_notify_interval, Duration::from_secs(90));
        let error = args.set("watch-progress-notify-interval=5").unwrap_err();
        assert!(error.contains("`5` is not a time such as"), "{error}");
        assert!(args.set("watch-progress-notify-interval=0s").is_err());
    }

    #[test]
    fn limits_for_clients_are_those_of_etcd() {
        let mut args = EtcdArgs::default();
        for setting in [
            "max-txn-ops=256",
            "--max-request-bytes=3000000",
            "max-concurrent-streams=9",
            "grpc-keepalive-interval=1m",
            "grpc-keepalive-timeout=10s",
            "grpc-keepalive-min-time=7s",
        ] {
            args.set(setting).unwrap();
        }
        let limits = args.limits;
        assert_eq!((limits.txn_ops, limits.request_bytes, limits.streams), (256, 3_000_000, 9));
        assert_eq!(limits.keepalive_interval, Duration::from_secs(60));
        assert_eq!(limits.keepalive_timeout, Duration::from_secs(10));
        assert_eq!(limits.ping_interval, Duration::from_secs(7));
        let error = args.set("max-request-bytes=99999999").unwrap_err();
        assert!(error.starts_with("etcd-arg max-request-bytes: 99999999 is above"), "{error}");
        assert!(args.set("max-txn-ops=0").unwrap_err().contains("above 0"));
    }

    #[test]
    fn settings_that_servers_do_not_share_are_named_with_their_values() {
        let set = |settings: &[&str]| settings.iter().map(ToString::to_string).collect::<Vec<_>>();
        let slow = set(&["heartbeat-interval=500", "election-timeout=5000"]);
        assert!(differences(&[("s1", slow.clone()), ("s2", slow.clone())]).is_empty());
        assert!(
            differences(&[("s1", set(&["heartbeat-interval=100"])), ("s2", set(&[]))]).is_empty()
        );
        assert!(
            differences(&[("s1", set(&["snapshot-count=5"])), ("s2", set(&["no"]))]).is_empty()
        );
        assert_eq!(
            differences(&[("s1", slow), ("s2", set(&[])), ("s3", set(&[]))]),
            [
                "`etcd-arg=election-timeout` must be equal on all servers: 1000 on s2, s3; 5000 on s1",
                "`etcd-arg=heartbeat-interval` must be equal on all servers: 100 on s2, s3; 500 on s1",
            ]
        );
    }
}
