//! `--etcd-arg key=value`: the settings of etcd that this store has too.

use std::time::Duration;

use crate::limits::QUOTA_BYTES_DEFAULT;

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
}

impl Default for EtcdArgs {
    fn default() -> Self {
        Self {
            heartbeat_interval: Duration::from_millis(100),
            election_timeout: Duration::from_secs(1),
            snapshot_count: 10_000,
            quota_bytes: QUOTA_BYTES_DEFAULT,
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
        match key.trim_start_matches('-') {
            "heartbeat-interval" => self.heartbeat_interval = Duration::from_millis(number()?),
            "election-timeout" => self.election_timeout = Duration::from_millis(number()?),
            "snapshot-count" => self.snapshot_count = number()?,
            "quota-backend-bytes" => self.quota_bytes = number()?,
            other => {
                return Err(format!(
                    "etcd-arg {other} is not one that this store has; it has heartbeat-interval, \
                     election-timeout, snapshot-count and quota-backend-bytes"
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
