//! Counts what passes between members.

use std::collections::BTreeMap;
use std::time::Duration;

use parking_lot::Mutex;

use super::super::{Traffic, Way};
use crate::store::types::MemberId;

/// How often what was told of which peer.
#[derive(Default)]
pub(super) struct Tally(Mutex<BTreeMap<(&'static str, MemberId), usize>>);

impl Tally {
    fn add(&self, what: &'static str, peer: MemberId, count: usize) {
        *self.0.lock().entry((what, peer)).or_default() += count;
    }

    pub(super) fn of(&self, what: &'static str, peer: MemberId) -> usize {
        self.0.lock().get(&(what, peer)).copied().unwrap_or(0)
    }
}

impl Traffic for Tally {
    fn connected(&self, peer: MemberId) {
        self.add("connected", peer, 1);
    }

    fn disconnected(&self, peer: MemberId) {
        self.add("disconnected", peer, 1);
    }

    fn sent(&self, to: MemberId, bytes: usize) {
        self.add("bytes sent", to, bytes);
    }

    fn send_failed(&self, to: MemberId) {
        self.add("send failed", to, 1);
    }

    fn received(&self, from: MemberId, bytes: usize) {
        self.add("bytes received", from, bytes);
    }

    fn receive_failed(&self, from: MemberId) {
        self.add("receive failed", from, 1);
    }

    fn round_trip(&self, to: MemberId, _: Duration) {
        self.add("round trips", to, 1);
    }

    fn snapshot_begins(&self, peer: MemberId, way: Way) {
        self.add(if way == Way::Out { "snapshots begun" } else { "snapshots coming" }, peer, 1);
    }

    fn snapshot_ends(&self, peer: MemberId, way: Way, took: Option<Duration>) {
        let what = match (way, took) {
            (Way::Out, Some(_)) => "snapshots sent",
            (Way::In, Some(_)) => "snapshots received",
            (_, None) => "snapshots lost",
        };
        self.add(what, peer, 1);
    }
}
