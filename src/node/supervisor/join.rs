//! A server asks to become a member.
//!
//! The number of the new member was chosen by chance by the one that joins, which writes it down
//! first: a join that died half-way is asked again with the same number and changes nothing twice.

use http::StatusCode;

use super::super::context::Context;
use super::super::join::member_name;
use super::super::records::NodeRecord;
use super::super::secrets;
use super::super::wire::{JoinAnswer, JoinRequest};
use super::nodes::{check_about, record, unwritten};
use super::rotation;
use super::routes::Refusal;
use crate::raft::api::ConsensusError;
use crate::store::types::MemberRecord;

/// K3s's text for a node name that another member has.
const DUPLICATE: &str = "etcd cluster join failed: duplicate node name found, please use a unique \
    name for this node";

/// Admits a server as a learner that becomes a voter once it has caught up.
pub(super) async fn admit(context: &Context, request: JoinRequest) -> Result<JoinAnswer, Refusal> {
    check_about(request.protocol, &request.about)?;
    let expected = member_name(&request.about.name, request.member_id);
    if request.member_id == 0 || request.member_name != expected {
        let message = format!("a member of this number must be named {expected}");
        return Err(Refusal::new(StatusCode::BAD_REQUEST, message));
    }
    check_critical(context, &request).await?;
    // The checks below must see what was committed before.
    context.consensus.read_barrier().await.map_err(unwritten)?;
    // What a joining server is given must be what it needs in the end.
    let standing = rotation::standing(context)?;
    if standing.next.is_some() || standing.previous.is_some() {
        let message =
            "a CA roll-over is under way; it is ended by `k3sup-rs certificate rotate-ca`";
        return Err(Refusal::new(StatusCode::SERVICE_UNAVAILABLE, message));
    }
    let name = request.about.name.clone();
    let seen = context.records.node(&name);
    check_name(context, &request, seen.as_ref())?;

    add(context, &request).await?;

    let mut node = record(request.about, request.password.0, seen.as_ref()).await?;
    node.member_id = format!("{:x}", request.member_id);
    node.supervisor_url = request.supervisor_url;
    if seen.as_ref() != Some(&node) {
        context.records.put_node(&name, &node, seen.as_ref()).await.map_err(unwritten)?;
    }
    Ok(JoinAnswer {
        cluster_id: context.identity.cluster_id,
        authorities: (&*context.keys.authorities()).into(),
        supersedes: context.identity.supersedes.clone(),
        members: context.state.members().into_iter().map(|member| member.name).collect(),
    })
}

/// Refuses a server whose must-match flags differ, and names each with both values.
async fn check_critical(context: &Context, request: &JoinRequest) -> Result<(), Refusal> {
    let Some(settings) = context.records.settings() else {
        let message = "the cluster has not written its settings yet";
        return Err(Refusal::new(StatusCode::SERVICE_UNAVAILABLE, message));
    };
    let theirs = |flag: &str| {
        request.critical.iter().find(|(name, _)| name == flag).map(|(_, value)| value.as_str())
    };
    let mut wrong: Vec<String> = settings
        .critical
        .iter()
        .filter(|(flag, value)| theirs(flag) != Some(value))
        .map(|(flag, value)| {
            let theirs = theirs(flag).unwrap_or("nothing");
            format!(
                "critical configuration mismatched: {flag}: the cluster has {value}, this server \
                 has {theirs}"
            )
        })
        .collect();
    if let Some(token) = &request.agent_token {
        let token = token.0.clone();
        let hash = settings.agent_secret.unwrap_or(settings.server_secret);
        let same = tokio::task::spawn_blocking(move || secrets::matches(&hash, &token)).await;
        if !same.unwrap_or(false) {
            wrong.push("critical configuration mismatched: agent-token".to_owned());
        }
    }
    if wrong.is_empty() {
        return Ok(());
    }
    wrong.push("critical configuration value mismatch between servers".to_owned());
    Err(Refusal::new(StatusCode::CONFLICT, wrong.join("\n")))
}

/// Refuses a node name that another member, or an agent, has. A server whose member was removed may
/// come back under its name.
fn check_name(
    context: &Context,
    request: &JoinRequest,
    seen: Option<&NodeRecord>,
) -> Result<(), Refusal> {
    let name = &request.about.name;
    let refuse =
        |who: String| Err(Refusal::new(StatusCode::CONFLICT, format!("{DUPLICATE}: {who}")));
    let belongs = |member: &MemberRecord| {
        let node = member.name.rsplit_once('-').map(|(node, _)| node);
        let recorded = seen.is_some_and(|node| node.member_id == format!("{:x}", member.id));
        recorded || node == Some(name)
    };
    let members = context.state.members();
    if let Some(other) =
        members.iter().find(|member| belongs(member) && member.id != request.member_id)
    {
        return refuse(format!(
            "{name} is member {:x} ({}); if that server's data is lost, remove the member first",
            other.id, other.name
        ));
    }
    match seen {
        Some(node) if !node.is_server() => {
            refuse(format!("{name} is an agent; delete that node first"))
        }
        _ => Ok(()),
    }
}

async fn add(context: &Context, request: &JoinRequest) -> Result<(), Refusal> {
    let member = MemberRecord {
        id: request.member_id,
        name: request.member_name.clone(),
        peer_urls: request.peer_urls.clone(),
        client_urls: request.client_urls.clone(),
    };
    if let Some(known) = context.state.member(member.id) {
        let same = known.peer_urls == member.peer_urls;
        let other = "the member number is taken under another address";
        return if same { Ok(()) } else { Err(Refusal::new(StatusCode::GONE, other)) };
    }
    let id = format!("{:x}", member.id);
    tracing::info!(
        "Adding member {}={} to etcd cluster",
        member.name,
        member.peer_urls.first().map_or("", String::as_str)
    );
    match context.consensus.member_add(member, true).await {
        Ok(()) => Ok(()),
        // Numbers are never used again: this one was a member once.
        Err(ConsensusError::MemberExists) => {
            Err(Refusal::new(StatusCode::GONE, format!("member {id} was removed")))
        }
        Err(error @ ConsensusError::PeerUrlExists) => {
            let text =
                format!("{error}: another member is reached at {}", request.peer_urls.join(", "));
            Err(Refusal::new(StatusCode::CONFLICT, text))
        }
        Err(error) => Err(unwritten(error)),
    }
}
