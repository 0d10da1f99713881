//! How the snapshots stand, for `/metrics`. K3s has no such numbers for the newest good one.

use std::sync::Arc;

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{IntGauge, Opts};

use super::keeper::Keeper;

/// Reads a keeper whenever it is asked.
pub(crate) struct SnapshotMetrics {
    keeper: Arc<Keeper>,
    last: IntGauge,
    uploaded: IntGauge,
    overdue: IntGauge,
    failures: IntGauge,
}

impl SnapshotMetrics {
    /// The numbers of `keeper`.
    ///
    /// # Errors
    /// None that a correct program meets: the names are fixed.
    pub(crate) fn new(keeper: Arc<Keeper>) -> prometheus::Result<Self> {
        let gauge = |name: &str, help: &str| IntGauge::with_opts(Opts::new(name, help));
        Ok(Self {
            keeper,
            last: gauge(
                "k3sup_snapshot_last_success_timestamp_seconds",
                "When the newest good snapshot on this server's disk was taken; 0 when there is none.",
            )?,
            uploaded: gauge(
                "k3sup_snapshot_last_upload_timestamp_seconds",
                "When the newest snapshot that this server copied to S3 was taken; 0 when there is none.",
            )?,
            overdue: gauge(
                "k3sup_snapshot_overdue",
                "Whether a scheduled snapshot should have been taken by now and was not.",
            )?,
            failures: gauge(
                "k3sup_snapshot_failures_total",
                "How many snapshots or their copies to S3 failed since this server started.",
            )?,
        })
    }

    fn gauges(&self) -> [&IntGauge; 4] {
        [&self.last, &self.uploaded, &self.overdue, &self.failures]
    }
}

impl Collector for SnapshotMetrics {
    fn desc(&self) -> Vec<&Desc> {
        self.gauges().into_iter().flat_map(Collector::desc).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let standing = self.keeper.standing();
        let number = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        self.last.set(number(standing.last_unix_s.unwrap_or(0)));
        self.uploaded.set(number(standing.uploaded_unix_s.unwrap_or(0)));
        self.overdue.set(i64::from(standing.overdue));
        self.failures.set(number(self.keeper.failures()));
        self.gauges().into_iter().flat_map(Collector::collect).collect()
    }
}
