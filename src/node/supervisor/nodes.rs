//! Agents register and say that they are there; members and nodes are removed.

use http::StatusCode;
use serde::Deserialize;

use super::super::context::Context;
use super::super::records::{NodeRecord, unix_now};
use super::super::secrets;
use super::super::wire::{
    About, PROTOCOL, RegisterAnswer, RegisterRequest, Servers, TEXT_BYTES_MAX,
};
use super::caller::Caller;
use super::routes::Refusal;
use crate::pki::token::ca_hash;
use crate::pki::tree::{NODE_GROUP, NODE_PREFIX};
use crate::pki::{Leaf, Purpose};
use crate::raft::api::ConsensusError;
use crate::secret::Secret;

/// Most labels and taints of a node, each.
const LABELS_MAX: usize = 256;

/// K3s's text for a node name whose owner is another host.
const PASSWORD_REJECTED: &str = "Node password rejected, duplicate hostname or contents of \
    '<data-dir>/node-password' may not match server node-passwd entry, try another --node-name, or \
    delete the node first";

/// Removes this member.
#[derive(Debug, Deserialize)]
pub(super) struct MemberRemove {
    member_id: String,
}

/// Deletes this node's record.
#[derive(Debug, Deserialize)]
pub(super) struct NodeDelete {
    name: String,
}

/// Refuses what is not of a size and version that can be kept.
pub(super) fn check_about(protocol: u32, about: &About) -> Result<(), Refusal> {
    let bad = |message: String| Refusal::new(StatusCode::BAD_REQUEST, message);
    if protocol != PROTOCOL {
        let other = &about.version;
        return Err(bad(format!(
            "this server speaks protocol {PROTOCOL} and {other} speaks {protocol}: use one version"
        )));
    }
    let long = [&about.name, &about.version, &about.internal_ip, &about.os_image, &about.kernel]
        .iter()
        .any(|text| text.len() > TEXT_BYTES_MAX);
    let many = about.labels.len() > LABELS_MAX || about.taints.len() > LABELS_MAX;
    let named = !about.name.is_empty() && !about.name.contains('/');
    if long || many || !named {
        return Err(bad("the node's name, labels or taints are not valid".to_owned()));
    }
    Ok(())
}

/// The record of a node as it says it is now; who registered before keeps its date.
pub(super) async fn record(
    about: About,
    password: Secret,
    seen: Option<&NodeRecord>,
) -> Result<NodeRecord, Refusal> {
    let password = match seen.filter(|node| !node.password.is_empty()).cloned() {
        Some(node) if matches(node.password.clone(), password.clone()).await => node.password,
        _ => hash(password).await?,
    };
    Ok(NodeRecord {
        member_id: String::new(),
        supervisor_url: String::new(),
        password,
        version: about.version,
        internal_ip: about.internal_ip,
        created_unix_s: seen.map_or_else(unix_now, |node| node.created_unix_s),
        os_image: about.os_image,
        kernel: about.kernel,
        labels: about.labels,
        taints: about.taints,
    })
}

/// Whether the password is the one this name was registered with.
pub(super) async fn owns(node: &NodeRecord, password: &Secret) -> bool {
    matches(node.password.clone(), password.clone()).await
}

async fn matches(hashed: String, password: Secret) -> bool {
    tokio::task::spawn_blocking(move || secrets::matches(&hashed, &password)).await.unwrap_or(false)
}

async fn hash(password: Secret) -> Result<String, Refusal> {
    let hashed = tokio::task::spawn_blocking(move || secrets::hash(&password)).await;
    hashed.ok().and_then(Result::ok).ok_or_else(|| {
        Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "the node password cannot be hashed")
    })
}

/// Registers an agent and signs a certificate for its key.
pub(super) async fn register(
    context: &Context,
    caller: &Caller,
    request: RegisterRequest,
) -> Result<RegisterAnswer, Refusal> {
    check_about(request.protocol, &request.about)?;
    let name = request.about.name.clone();
    let allowed = match caller {
        Caller::AgentToken | Caller::ServerToken => true,
        Caller::Node(own) => *own == name,
        _ => false,
    };
    if !allowed {
        return Err(Refusal::new(StatusCode::FORBIDDEN, "not with these credentials"));
    }
    let leaf = Leaf {
        common_name: format!("{NODE_PREFIX}{name}"),
        organization: Some(NODE_GROUP.to_owned()),
        sans: Vec::new(),
        purpose: Purpose::Client,
    };
    let signed = context.keys.authorities().client.issue_for_public_key(&leaf, &request.public_key);
    let certificate = signed.map_err(|error| {
        Refusal::new(StatusCode::BAD_REQUEST, format!("the public key is not usable: {error}"))
    })?;

    let seen = context.records.node(&name);
    if let Some(node) = &seen {
        let duplicate = node.is_server() || !owns(node, &request.password.0).await;
        if duplicate {
            tracing::warn!(node = name, "unable to verify password for node");
            return Err(Refusal::new(StatusCode::FORBIDDEN, PASSWORD_REJECTED));
        }
    }
    let node = record(request.about, request.password.0, seen.as_ref()).await?;
    if seen.as_ref() != Some(&node) {
        context.records.put_node(&name, &node, seen.as_ref()).await.map_err(unwritten)?;
    }
    context.heard_of(&name);
    // The first heartbeat is written at once: a registered agent is a ready node. A server that was
    // restarted a moment ago has not forgotten whom it heard of before.
    context.remember();
    let pulse = context.take_pulse();
    context.records.put_heartbeats(&context.node_name, &pulse).await.map_err(unwritten)?;
    let ca = context.keys.believed().server.clone();
    Ok(RegisterAnswer { certificate, ca, servers: servers(context) })
}

/// Notes that an agent is there and tells it which servers there are.
pub(super) fn heartbeat(context: &Context, caller: &Caller) -> Result<Servers, Refusal> {
    let Caller::Node(name) = caller else {
        return Err(Refusal::new(StatusCode::FORBIDDEN, "not with these credentials"));
    };
    match context.records.node(name) {
        Some(node) if !node.is_server() => {
            context.heard_of(name);
            Ok(servers(context))
        }
        // It was deleted: it must register again, with a token.
        _ => Err(Refusal::new(StatusCode::GONE, "this node is not registered")),
    }
}

fn servers(context: &Context) -> Servers {
    let (believed, signing) = (context.keys.believed(), context.keys.authorities());
    let trust = ca_hash(&format!("{}{}", believed.server, signing.client.certificate()));
    Servers { supervisors: context.records.supervisors(), trust }
}

/// Removes a member, and the record of its node. One that is not there is fine.
pub(super) async fn remove_member(context: &Context, request: MemberRemove) -> Result<(), Refusal> {
    let id = u64::from_str_radix(&request.member_id, 16)
        .map_err(|_| Refusal::new(StatusCode::BAD_REQUEST, "member_id must be a number in hex"))?;
    let name = context.state.member(id).map(|member| member.name).unwrap_or_default();
    let node = context.node_of_member(id, &name);
    match context.consensus.member_remove(id).await {
        Ok(()) => tracing::info!(member = request.member_id, name, "member removed"),
        Err(ConsensusError::MemberNotFound) => {}
        Err(error) => return Err(unwritten(error)),
    }
    let hex = format!("{id:x}");
    if context.records.node(&node).is_some_and(|record| record.member_id == hex) {
        return delete(context, &node).await;
    }
    Ok(())
}

/// Lets another voter lead, if this member does.
pub(super) async fn hand_over(context: &Context) -> Result<(), Refusal> {
    match context.consensus.transfer_leader(None).await {
        Ok(()) | Err(ConsensusError::NotLeader) => Ok(()),
        Err(error) => Err(unwritten(error)),
    }
}

/// Deletes a node's record, and with it the claim on its name. A server's member must be removed
/// first: a member without a node would not be seen.
pub(super) async fn delete_node(context: &Context, request: NodeDelete) -> Result<(), Refusal> {
    if let Some(node) = context.records.node(&request.name)
        && let Ok(id) = u64::from_str_radix(&node.member_id, 16)
        && context.state.member(id).is_some()
    {
        let message = format!(
            "{} is member {} of the cluster: remove the member first",
            request.name, node.member_id
        );
        return Err(Refusal::new(StatusCode::CONFLICT, message));
    }
    delete(context, &request.name).await
}

async fn delete(context: &Context, name: &str) -> Result<(), Refusal> {
    // An agent that only the deleted server heard of is as alive as before: what that server heard is
    // taken over before it is deleted.
    context.remember();
    context.forget(name);
    let pulse = context.take_pulse();
    context.records.put_heartbeats(&context.node_name, &pulse).await.map_err(unwritten)?;
    context.records.delete_node(name).await.map_err(unwritten)?;
    context.records.delete_heartbeats(name).await.map_err(unwritten)
}

/// A write that consensus did not make: worth another try.
pub(super) fn unwritten(error: impl std::fmt::Display) -> Refusal {
    Refusal::new(StatusCode::SERVICE_UNAVAILABLE, format!("etcdserver: {error}"))
}
