//! What passes between this member and its peers, under etcd's names
//! (etcd `server/etcdserver/api/rafthttp/metrics.go`).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec,
    Registry, exponential_buckets,
};

use super::{counters, gauges, registered};
use crate::raft::{Traffic, Way};
use crate::store::types::MemberId;

/// Counters of the peers of one member.
pub struct PeerMetrics {
    local: String,
    families: Families,
    peers: RwLock<HashMap<MemberId, Arc<Peer>>>,
}

struct Families {
    active: IntGaugeVec,
    disconnected: IntCounterVec,
    sent: IntCounterVec,
    send_failures: IntCounterVec,
    received: IntCounterVec,
    receive_failures: IntCounterVec,
    round_trip: HistogramVec,
    snapshots_sent: SnapshotFamilies,
    snapshots_received: SnapshotFamilies,
}

struct SnapshotFamilies {
    success: IntCounterVec,
    failures: IntCounterVec,
    in_flight: IntGaugeVec,
    seconds: HistogramVec,
}

/// One peer's, made when it is first heard of, so that what is sent only adds to atomics.
struct Peer {
    active: IntGauge,
    disconnected: IntCounter,
    sent: IntCounter,
    send_failures: IntCounter,
    received: IntCounter,
    receive_failures: IntCounter,
    round_trip: Histogram,
    snapshots_sent: Snapshots,
    snapshots_received: Snapshots,
}

struct Snapshots {
    success: IntCounter,
    failures: IntCounter,
    in_flight: IntGauge,
    seconds: Histogram,
}

impl PeerMetrics {
    /// Of the member `local`; in `registry`, without any peer yet.
    pub(super) fn new(registry: &Registry, local: MemberId) -> prometheus::Result<Self> {
        let families = Families::new(registry)?;
        Ok(Self { local: format!("{local:x}"), families, peers: RwLock::default() })
    }

    fn peer(&self, id: MemberId) -> Arc<Peer> {
        if let Some(peer) = self.peers.read().get(&id) {
            return Arc::clone(peer);
        }
        let new = || Arc::new(self.families.peer(&self.local, &format!("{id:x}")));
        Arc::clone(self.peers.write().entry(id).or_insert_with(new))
    }
}

impl Families {
    fn new(registry: &Registry) -> prometheus::Result<Self> {
        let count =
            |name: &str, help: &str, labels: &[&str]| counters(registry, name, help, labels);
        Ok(Self {
            active: gauges(
                registry,
                "etcd_network_active_peers",
                "The current number of active peer connections.",
                &["Local", "Remote"],
            )?,
            disconnected: count(
                "etcd_network_disconnected_peers_total",
                "The total number of disconnected peers.",
                &["Local", "Remote"],
            )?,
            sent: count(
                "etcd_network_peer_sent_bytes_total",
                "The total number of bytes sent to peers.",
                &["To"],
            )?,
            send_failures: count(
                "etcd_network_peer_sent_failures_total",
                "The total number of send failures from peers.",
                &["To"],
            )?,
            received: count(
                "etcd_network_peer_received_bytes_total",
                "The total number of bytes received from peers.",
                &["From"],
            )?,
            receive_failures: count(
                "etcd_network_peer_received_failures_total",
                "The total number of receive failures from peers.",
                &["From"],
            )?,
            round_trip: histograms(
                registry,
                "etcd_network_peer_round_trip_time_seconds",
                "Round-Trip-Time histogram between peers",
                "To",
                // From 0.1 ms to 3.2 s.
                exponential_buckets(0.000_1, 2.0, 16)?,
            )?,
            snapshots_sent: SnapshotFamilies::new(registry, "send", "sends", "To")?,
            snapshots_received: SnapshotFamilies::new(registry, "receive", "receives", "From")?,
        })
    }

    fn peer(&self, local: &str, remote: &str) -> Peer {
        let both = &[local, remote];
        Peer {
            active: self.active.with_label_values(both),
            disconnected: self.disconnected.with_label_values(both),
            sent: self.sent.with_label_values(&[remote]),
            send_failures: self.send_failures.with_label_values(&[remote]),
            received: self.received.with_label_values(&[remote]),
            receive_failures: self.receive_failures.with_label_values(&[remote]),
            round_trip: self.round_trip.with_label_values(&[remote]),
            snapshots_sent: self.snapshots_sent.peer(remote),
            snapshots_received: self.snapshots_received.peer(remote),
        }
    }
}

impl SnapshotFamilies {
    fn new(registry: &Registry, verb: &str, verbs: &str, label: &str) -> prometheus::Result<Self> {
        let name = |what: &str| format!("etcd_network_snapshot_{verb}_{what}");
        let count = |what: &str, help: &str| counters(registry, &name(what), help, &[label]);
        Ok(Self {
            success: count("success", &format!("Total number of successful snapshot {verbs}"))?,
            failures: count("failures", &format!("Total number of snapshot {verb} failures"))?,
            in_flight: gauges(
                registry,
                &name("inflights_total"),
                &format!("Total number of inflight snapshot {verbs}"),
                &[label],
            )?,
            seconds: histograms(
                registry,
                &name("total_duration_seconds"),
                &format!("Total latency distributions of v3 snapshot {verbs}"),
                label,
                // From 0.1 s to 51 s.
                exponential_buckets(0.1, 2.0, 10)?,
            )?,
        })
    }

    fn peer(&self, remote: &str) -> Snapshots {
        Snapshots {
            success: self.success.with_label_values(&[remote]),
            failures: self.failures.with_label_values(&[remote]),
            in_flight: self.in_flight.with_label_values(&[remote]),
            seconds: self.seconds.with_label_values(&[remote]),
        }
    }
}

impl Peer {
    fn snapshots(&self, way: Way) -> &Snapshots {
        match way {
            Way::Out => &self.snapshots_sent,
            Way::In => &self.snapshots_received,
        }
    }
}

impl Traffic for PeerMetrics {
    fn connected(&self, peer: MemberId) {
        self.peer(peer).active.set(1);
    }

    fn disconnected(&self, peer: MemberId) {
        let peer = self.peer(peer);
        peer.active.set(0);
        peer.disconnected.inc();
    }

    fn sent(&self, to: MemberId, bytes: usize) {
        self.peer(to).sent.inc_by(bytes as u64);
    }

    fn send_failed(&self, to: MemberId) {
        self.peer(to).send_failures.inc();
    }

    fn received(&self, from: MemberId, bytes: usize) {
        self.peer(from).received.inc_by(bytes as u64);
    }

    fn receive_failed(&self, from: MemberId) {
        self.peer(from).receive_failures.inc();
    }

    fn round_trip(&self, to: MemberId, took: Duration) {
        self.peer(to).round_trip.observe(took.as_secs_f64());
    }

    fn snapshot_begins(&self, peer: MemberId, way: Way) {
        self.peer(peer).snapshots(way).in_flight.inc();
    }

    fn snapshot_ends(&self, peer: MemberId, way: Way, took: Option<Duration>) {
        let peer = self.peer(peer);
        let snapshots = peer.snapshots(way);
        snapshots.in_flight.dec();
        match took {
            Some(took) => {
                snapshots.success.inc();
                snapshots.seconds.observe(took.as_secs_f64());
            }
            None => snapshots.failures.inc(),
        }
    }
}

fn histograms(
    registry: &Registry,
    name: &str,
    help: &str,
    label: &str,
    buckets: Vec<f64>,
) -> prometheus::Result<HistogramVec> {
    registered(
        registry,
        HistogramVec::new(HistogramOpts::new(name, help).buckets(buckets), &[label]),
    )
}
