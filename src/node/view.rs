//! The cluster as this server sees it, for `/v1-k3sup/status`.

use futures::future::join_all;

use super::context::Context;
use super::host::version;
use super::records::unix_now;
use super::wire::MemberSelf;
use crate::cluster::snapshots::SnapshotStanding;
use crate::cluster::view::{ClusterView, MemberView};
use crate::pki::token::ca_hash;
use crate::raft::api::RaftStatus;
use crate::rpc::disk::Disk;
use crate::store::types::{AlarmKind, MemberRecord};

/// Takes the view. Asks every other member's supervisor, all at once and for a short while.
pub async fn cluster(context: &Context) -> ClusterView {
    let (ready, (members, snapshots)) = futures::join!(context.ready(), told(context));
    let status = context.consensus.status().borrow().clone();
    let alarms = context.state.alarms().into_iter().map(|(member, kind)| {
        let name = match kind {
            AlarmKind::NoSpace => "NOSPACE",
            AlarmKind::Corrupt => "CORRUPT",
        };
        format!("{name} on member {member:x}")
    });
    ClusterView {
        cluster_id: format!("{:x}", context.identity.cluster_id),
        member_id: format!("{:x}", context.identity.member_id),
        node_name: context.node_name.clone(),
        // While this member is not ready it may still hear of a leader that is cut off itself.
        leader_id: status.leader.filter(|_| ready.is_ok()).map(|id| format!("{id:x}")),
        ready: ready.is_ok(),
        not_ready_reason: ready.err(),
        term: status.term,
        ca_hash: ca_hash(context.keys.authorities().server.certificate()),
        members,
        nodes: context.records.views(unix_now()),
        revision: context.state.revision(),
        certificates: context.keys.tree().views(),
        alarms: alarms.collect(),
        snapshots,
    }
}

/// How this member stands.
pub fn own(context: &Context) -> MemberSelf {
    let status = context.consensus.status().borrow().clone();
    MemberSelf {
        member_id: context.identity.member_id,
        applied_index: status.applied_index,
        db_bytes: context.disk.size().unwrap_or(0).max(context.state.size_bytes().total),
        version: version(),
        snapshots: context.snapshots.as_ref().map(|keeper| keeper.standing()),
    }
}

/// The members with how each stands.
pub async fn members(context: &Context) -> Vec<MemberView> {
    told(context).await.0
}

/// The members with how each stands, and how the snapshots of those stand that told.
async fn told(context: &Context) -> (Vec<MemberView>, Vec<SnapshotStanding>) {
    let status = context.consensus.status().borrow().clone();
    let records = context.state.members();
    let answers = join_all(records.iter().map(|record| ask(context, record))).await;
    let furthest = answers.iter().flatten().map(|member| member.applied_index).max();
    let snapshots = answers.iter().flatten().filter_map(|own| own.snapshots.clone()).collect();
    let view = |(record, answer): (MemberRecord, Option<MemberSelf>)| {
        member(&status, &record, answer, furthest)
    };
    (records.into_iter().zip(answers).map(view).collect(), snapshots)
}

async fn ask(context: &Context, record: &MemberRecord) -> Option<MemberSelf> {
    if record.id == context.identity.member_id {
        return Some(own(context));
    }
    let node = context.records.node(&context.node_of_member(record.id, &record.name))?;
    let authority = node.supervisor_url.strip_prefix("https://")?;
    let answer = context.peers.ask(authority, "GET", "/v1-k3sup/self", None, b"").await.ok()?;
    let answer: MemberSelf = answer.json().ok()?;
    (answer.member_id == record.id).then_some(answer)
}

fn member(
    status: &RaftStatus,
    record: &MemberRecord,
    answer: Option<MemberSelf>,
    furthest: Option<u64>,
) -> MemberView {
    // What the leader knows counts; else how far a member says it is behind the furthest.
    let told = answer.as_ref().and_then(|own| Some(furthest?.saturating_sub(own.applied_index)));
    let matched = status.matched.get(&record.id);
    let lag = matched.map(|index| status.last_log_index.saturating_sub(*index)).or(told);
    MemberView {
        id: format!("{:x}", record.id),
        name: record.name.clone(),
        peer_urls: record.peer_urls.clone(),
        client_urls: record.client_urls.clone(),
        voter: status.voters.contains(&record.id),
        healthy: answer.is_some(),
        lag,
        db_bytes: answer.as_ref().map(|own| own.db_bytes),
        version: answer.map(|own| own.version),
    }
}
