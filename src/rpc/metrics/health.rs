//! How the checks of `/livez` and `/readyz` ended (etcd `server/etcdserver/api/etcdhttp/health.go`).

use prometheus::{IntCounterVec, IntGaugeVec, Registry};

use super::{counters, gauges};

/// Counted by the page, the check's name and its end.
pub(crate) struct HealthChecks {
    last: IntGaugeVec,
    all: IntCounterVec,
}

impl HealthChecks {
    pub(super) fn new(registry: &Registry) -> prometheus::Result<Self> {
        Ok(Self {
            last: gauges(
                registry,
                "etcd_server_healthcheck",
                "The result of each kind of healthcheck.",
                &["type", "name"],
            )?,
            all: counters(
                registry,
                "etcd_server_healthchecks_total",
                "The total number of each kind of healthcheck.",
                &["type", "name", "status"],
            )?,
        })
    }

    /// Notes how a check of a page ended.
    pub(crate) fn ended(&self, page: &str, name: &str, well: bool) {
        self.last.with_label_values(&[page, name]).set(i64::from(well));
        let status = if well { "success" } else { "error" };
        self.all.with_label_values(&[page, name, status]).inc();
    }
}
