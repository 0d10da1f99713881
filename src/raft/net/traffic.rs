//! What passes between this member and its peers, as whoever counts it is told.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::store::types::MemberId;

/// Which way something goes, as seen from this member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// To the peer.
    Out,
    /// From the peer.
    In,
}

/// Is told of all that passes. It is told on the way of every message, so it must only count.
pub trait Traffic: Send + Sync {
    /// The connection that votes and heartbeats take is open.
    fn connected(&self, peer: MemberId);
    /// It broke.
    fn disconnected(&self, peer: MemberId);
    /// So many bytes were given to the network.
    fn sent(&self, to: MemberId, bytes: usize);
    /// A message could not be sent, or the connection broke before it was answered.
    fn send_failed(&self, to: MemberId);
    /// So many bytes came.
    fn received(&self, from: MemberId, bytes: usize);
    /// A connection of the peer's broke.
    fn receive_failed(&self, from: MemberId);
    /// How long an answer to the simplest question took.
    fn round_trip(&self, to: MemberId, took: Duration);
    /// A snapshot is on its way.
    fn snapshot_begins(&self, peer: MemberId, way: Way);
    /// It arrived after so long, or not at all.
    fn snapshot_ends(&self, peer: MemberId, way: Way, took: Option<Duration>);
}

/// Nobody counts.
impl Traffic for () {
    fn connected(&self, _: MemberId) {}
    fn disconnected(&self, _: MemberId) {}
    fn sent(&self, _: MemberId, _: usize) {}
    fn send_failed(&self, _: MemberId) {}
    fn received(&self, _: MemberId, _: usize) {}
    fn receive_failed(&self, _: MemberId) {}
    fn round_trip(&self, _: MemberId, _: Duration) {}
    fn snapshot_begins(&self, _: MemberId, _: Way) {}
    fn snapshot_ends(&self, _: MemberId, _: Way, _: Option<Duration>) {}
}

/// A snapshot on its way; one that is dropped did not arrive.
pub(crate) struct Passage {
    traffic: Arc<dyn Traffic>,
    peer: MemberId,
    way: Way,
    began: Instant,
    arrived: bool,
}

impl Passage {
    /// One begins.
    pub(crate) fn begin(traffic: &Arc<dyn Traffic>, peer: MemberId, way: Way) -> Self {
        traffic.snapshot_begins(peer, way);
        let traffic = Arc::clone(traffic);
        Self { traffic, peer, way, began: Instant::now(), arrived: false }
    }

    /// It arrived.
    pub(crate) fn arrived(mut self) {
        self.arrived = true;
    }
}

impl Drop for Passage {
    fn drop(&mut self) {
        let took = self.arrived.then(|| self.began.elapsed());
        self.traffic.snapshot_ends(self.peer, self.way, took);
    }
}
