//! How a cluster that starts gets its leader at once; and what only the leader does, again and again:
//! keeps member records in step with the membership, promotes learners that have caught up, removes
//! those that never come, ends leases.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval};

use super::api::{ConsensusError, RaftStatus};
use super::shared::Shared;
use super::status::fresh;
use crate::store::types::{Command, MemberId, MemberRecord};

/// Between two looks at learners and records.
const TICK: Duration = Duration::from_millis(250);

/// A learner that is to vote and makes no progress for so long is removed (K3s `pkg/etcd/etcd.go`,
/// `learnerMaxStallTime`).
const STALL_MAX: Duration = Duration::from_secs(5 * 60);

/// How far a learner was when it last got further, and when that was.
type Progress = HashMap<MemberId, (u64, Instant)>;

/// Stands for election soon after the start, if there is no leader: a cluster that starts anew need not
/// wait for the time of the one it had. Where a leader is, the others refuse and nothing changes.
pub(crate) async fn stand(shared: Arc<Shared>) {
    // By chance, lest all stand at the same moment.
    let heartbeat = Duration::from_millis(shared.timing.heartbeat_ms);
    tokio::time::sleep(heartbeat.mul_f64(rand::random_range(0.0..2.0))).await;
    let status = fresh(&shared);
    let takes_part = !status.removed && status.superseded.is_none() && !shared.is_closing();
    if takes_part && status.leader.is_none() {
        // It fails when consensus has stopped, which others tell.
        let _ = shared.raft.trigger().elect(true).await;
    }
}

/// Runs as long as the member; does something while it leads.
pub(crate) async fn lead(shared: Arc<Shared>) {
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut progress = Progress::new();
    loop {
        tick.tick().await;
        let status = shared.status.borrow().clone();
        if !status.is_leader() || shared.is_closing() {
            progress.clear();
            continue;
        }
        if let Err(error) = tend(&shared, &status, &mut progress).await {
            tracing::debug!(%error, "the leader's housekeeping has to wait");
        }
    }
}

async fn tend(
    shared: &Shared,
    status: &RaftStatus,
    progress: &mut Progress,
) -> Result<(), ConsensusError> {
    // A change that is under way does both records and membership: wait for its end.
    if let Ok(changing) = shared.changing.try_lock() {
        shared.finish_change().await?;
        reconcile(shared, status).await?;
        drop(changing);
    }
    let roster = shared.links.context.roster.load_full();
    progress.retain(|id, _| status.learners.contains(id));
    for id in &status.learners {
        if !roster.nodes.get(id).is_some_and(|node| node.promote) {
            continue;
        }
        if shared.is_in_sync(status, *id) {
            shared.member_promote_here(*id).await?;
            continue;
        }
        let matched = status.matched.get(id).copied().unwrap_or(0);
        let (furthest, since) = progress.entry(*id).or_insert((matched, Instant::now()));
        if matched > *furthest {
            (*furthest, *since) = (matched, Instant::now());
        } else if since.elapsed() > STALL_MAX {
            tracing::warn!(id, "removing a learner that made no progress for 5 minutes");
            shared.member_remove_here(*id).await?;
        }
    }
    Ok(())
}

/// Brings the member records in step with the membership, which is the truth. They differ when a
/// leader died between the two halves of a change.
async fn reconcile(shared: &Shared, status: &RaftStatus) -> Result<(), ConsensusError> {
    // Only what is applied can be compared.
    if status.applied_index < status.committed_index {
        return Ok(());
    }
    let roster = shared.links.context.roster.load_full();
    for (id, node) in &roster.nodes {
        // This member tells of itself, see `publish`.
        if *id != shared.id && shared.state.member(*id).is_none() {
            let scheme = if shared.links.context.tls.is_some() { "https" } else { "http" };
            let peer_urls = node.addresses.iter().map(|at| format!("{scheme}://{at}")).collect();
            let record = MemberRecord {
                id: *id,
                name: node.name.clone(),
                peer_urls,
                client_urls: Vec::new(),
            };
            shared.propose(&Command::MemberPut(record)).await?;
        }
    }
    for record in shared.state.members() {
        if !roster.nodes.contains_key(&record.id) && !roster.nodes.is_empty() {
            shared.propose(&Command::MemberDelete { id: record.id }).await?;
        }
    }
    Ok(())
}

/// Tells the cluster this member's name and URLs whenever it has them otherwise: a leader that
/// completes the records may have been slower than this member, and take them back.
pub(crate) async fn publish(shared: Arc<Shared>) {
    let mut status = shared.status.subscribe();
    loop {
        let joined = |status: &RaftStatus| {
            status.voters.contains(&shared.id) || status.learners.contains(&shared.id)
        };
        if status.wait_for(|now| joined(now) && now.leader.is_some()).await.is_err() {
            return;
        }
        let known = shared.state.member(shared.id);
        let is_known = known.is_some_and(|known| {
            (&known.name, &known.client_urls) == (&shared.member.name, &shared.member.client_urls)
        });
        if !is_known && let Err(error) = publish_once(&shared).await {
            tracing::debug!(%error, "cannot publish this member's URLs yet");
        }
        tokio::time::sleep(TICK).await;
    }
}

async fn publish_once(shared: &Shared) -> Result<(), ConsensusError> {
    shared.read_barrier().await?;
    let known = shared.state.member(shared.id).unwrap_or_default();
    let own = &shared.member;
    // The peer URLs are the cluster's to change: by a change of membership.
    let wanted = MemberRecord {
        id: own.id,
        name: own.name.clone(),
        peer_urls: if known.peer_urls.is_empty() { &own.peer_urls } else { &known.peer_urls }
            .clone(),
        client_urls: own.client_urls.clone(),
    };
    if known != wanted {
        shared.propose(&Command::MemberPut(wanted)).await?;
    }
    Ok(())
}
