//! Turns openraft's metrics into [`RaftStatus`], and keeps the roster of peers.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use openraft::Instant as _;
use openraft::async_runtime::watch::WatchReceiver;
use tokio::time::{Instant, sleep};

use super::api::RaftStatus;
use super::contact::Contact;
use super::net::identity::Roster;
use super::shared::Shared;
use super::types::{LogId, TypeConfig};
use crate::store::types::MemberId;

/// Metrics change with every batch of entries; they are looked at this often.
const PACE: Duration = Duration::from_millis(5);

/// The log's space may change without the metrics; it is looked at this often at least.
const SPACE_PACE: Duration = Duration::from_secs(1);

type Metrics = openraft::RaftMetrics<TypeConfig>;

/// Follows openraft's metrics until it stops.
pub(crate) async fn follow(shared: Arc<Shared>) {
    let mut metrics = shared.raft.metrics();
    let mut removed = shared.links.context.removed.subscribe();
    let mut superseded = shared.links.context.superseded.subscribe();
    loop {
        removed.borrow_and_update();
        superseded.borrow_and_update();
        let now = metrics.borrow_and_update().clone();
        if let Some(why) = publish(&shared, &now).failed {
            tracing::error!(why, "this member has stopped");
            return;
        }
        sleep(PACE).await;
        tokio::select! {
            changed = metrics.changed() => if changed.is_err() {
                shared.status.send_modify(|status| {
                    let why = "the consensus task ended";
                    status.failed.get_or_insert_with(|| why.to_owned());
                });
                return;
            },
            () = shared.contact.changes() => {}
            _ = removed.changed() => {}
            _ = superseded.changed() => {}
            () = sleep(SPACE_PACE) => {}
        }
    }
}

/// Makes the status and the roster those of `metrics`.
fn publish(shared: &Shared, metrics: &Metrics) -> RaftStatus {
    let mut status = status_of(metrics);
    status.leader = leader(&shared.contact, metrics).filter(|_| status.failed.is_none());
    status.removed = *shared.links.context.removed.borrow();
    status.superseded = *shared.links.context.superseded.borrow();
    status.low_space = shared.log.low_space();
    keep_roster(shared, metrics);
    if status.removed || status.superseded.is_some() {
        shared.raft.runtime_config().elect(false);
    }
    shared.status.send_if_modified(|current| {
        let changed = *current != status;
        current.clone_from(&status);
        changed
    });
    status
}

/// The status as it is now.
pub(crate) fn fresh(shared: &Shared) -> RaftStatus {
    let metrics = shared.raft.metrics().borrow_watched().clone();
    publish(shared, &metrics)
}

/// Waits until the membership entry at `log_id` shows in the status.
pub(crate) async fn shows(shared: &Shared, log_id: LogId) {
    let mut metrics = shared.raft.metrics();
    while *metrics.borrow_and_update().membership_config.log_id() < Some(log_id) {
        if metrics.changed().await.is_err() {
            return;
        }
    }
    fresh(shared);
}

/// The leader, if it is still there. openraft names the last one that was elected.
fn leader(contact: &Contact, metrics: &Metrics) -> Option<MemberId> {
    let (leader, term) = (metrics.current_leader?, metrics.current_term);
    if leader == metrics.id {
        // One that was started again finds its own old vote, and leads no more.
        if !metrics.state.is_leader() {
            return None;
        }
        contact.begins(term);
        let mut voters = metrics.membership_config.membership().voter_ids();
        if voters.all(|id| id == metrics.id) {
            contact.heard(term, Instant::now());
        } else if let Some(acked) = metrics.last_quorum_acked {
            contact.heard(term, Instant::now() - acked.elapsed());
        }
    }
    contact.is_fresh(term).then_some(leader)
}

fn status_of(metrics: &Metrics) -> RaftStatus {
    let membership = metrics.membership_config.membership();
    let index = |log_id: &Option<LogId>| log_id.map_or(0, |log_id| log_id.index);
    // While a change of voters is under way, those of before: it is not made until it is over.
    let voters = membership.get_joint_config().first();
    let voters: Vec<_> = voters.into_iter().flatten().copied().collect();
    let matched = metrics.replication.iter().flatten();
    let failed = metrics.running_state.as_ref().err().map(ToString::to_string);
    RaftStatus {
        id: metrics.id,
        term: metrics.current_term,
        leader: None,
        last_log_index: metrics.last_log_index.unwrap_or(0),
        committed_index: index(&metrics.cluster_committed).max(index(&metrics.local_committed)),
        applied_index: index(&metrics.last_applied),
        learners: membership.nodes().map(|(id, _)| *id).filter(|id| !voters.contains(id)).collect(),
        voters_to_be: membership
            .nodes()
            .filter(|(_, node)| node.promote)
            .map(|(id, _)| *id)
            .filter(|id| !voters.contains(id))
            .collect(),
        voters,
        matched: matched.map(|(id, log_id)| (*id, index(log_id))).collect(),
        removed: false,
        superseded: None,
        low_space: None,
        failed,
    }
}

/// Keeps addresses and names as the newest membership has them, committed or not: a change of them
/// has to reach the peers before it can be committed.
fn keep_roster(shared: &Shared, metrics: &Metrics) {
    let roster = &shared.links.context.roster;
    let membership = metrics.membership_config.membership();
    let same = {
        let current = roster.load();
        current.nodes.len() == membership.nodes().count()
            && membership.nodes().all(|(id, node)| current.nodes.get(id) == Some(node))
    };
    if !same {
        roster.rcu(|current| Roster {
            nodes: membership.nodes().map(|(id, node)| (*id, node.clone())).collect(),
            removed: current.removed.clone(),
        });
    }
}

/// Notes who was removed; the set only grows.
pub(crate) fn note_removed(roster: &arc_swap::ArcSwap<Roster>, removed: &BTreeSet<MemberId>) {
    if !removed.is_subset(&roster.load().removed) {
        roster.rcu(|current| Roster {
            nodes: current.nodes.clone(),
            removed: current.removed.union(removed).copied().collect(),
        });
    }
}
