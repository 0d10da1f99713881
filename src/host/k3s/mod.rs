//! The host's K3s node: what its disk says, how the cluster looks to it, removing a member, and a new
//! token.
//!
//! It is asked as a person on the host would: `k3s kubectl` with the credentials that K3s keeps
//! there, and the store with the certificates that K3s's own apiserver uses. Nothing is made for it
//! and nothing is left behind.

mod disk;
mod store;
pub(crate) mod token;
mod view;
mod wal;

use std::time::{Duration, Instant};

use serde_json::Value as Json;

use crate::cluster::layout::K3sNode;
use crate::cluster::safety::node_of;
use crate::cluster::view::ClusterView;
use crate::host::commands;
use crate::host::error::HostResult;
use crate::host::protocol::{CommandSpec, HostError};

use crate::cluster::restore::LogEnd;

pub(crate) use disk::disk;

/// How long one question to the API may take, in milliseconds; the process may be slow to start.
const ASK_TIMEOUT_MS: u64 = 30_000;

/// How often readiness is asked for while waiting.
const POLL_INTERVAL: Duration = Duration::from_millis(500);

/// How long K3s may take to remove the member of a deleted node before the store is told itself, and then to
/// let go of the node. The controller that does it may have to be taken over from the server that is
/// gone: its lease ends after 45 s (wrangler `leader/leader.go`).
const REMOVAL_TIME: Duration = Duration::from_secs(90);

/// Nodes in one answer: with their lists of images they are up to 30 KiB each.
const PAGE: usize = 20;

/// The cluster as the host's node sees it; `None` when none answers.
pub(crate) async fn view(node: &K3sNode) -> HostResult<Option<Box<ClusterView>>> {
    Ok(look(node).await.ok().map(Box::new))
}

/// Waits until the host's node is ready or the time is over: then says why it is not.
pub(crate) async fn ready(node: &K3sNode, timeout_ms: u64) -> Result<(), String> {
    let end = Instant::now() + Duration::from_millis(timeout_ms);
    loop {
        let reason = match look(node).await {
            Ok(view) if view.ready => return Ok(()),
            Ok(view) => view.not_ready_reason.unwrap_or_else(|| "it gives no reason".into()),
            Err(reason) => reason,
        };
        if Instant::now() + POLL_INTERVAL > end {
            return Err(reason);
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

/// Makes [`crate::host::protocol::Change::HandOverK3s`].
pub(crate) async fn hand_over(node: &K3sNode) -> HostResult<()> {
    store::hand_over(&node.data_dir)
        .await
        .map_err(|why| HostError::other(format!("no other server takes over: {why}")))
}

/// To [`crate::host::protocol::Read::K3sLogEnd`]. Blocks.
pub(crate) fn log_end(data_dir: &str) -> HostResult<Option<LogEnd>> {
    let failed = |error: std::io::Error| HostError::io("read the log of", data_dir, &error);
    wal::log_end(std::path::Path::new(data_dir)).map_err(failed)
}

/// To [`crate::host::protocol::Read::K3sStoreHash`].
pub(crate) async fn store_hash(data_dir: &str, revision: i64) -> HostResult<(i64, u32)> {
    let failed =
        |why: String| HostError::other(format!("cannot ask the store for its hash: {why}"));
    store::hash(data_dir, revision).await.map_err(failed)
}

async fn look(node: &K3sNode) -> Result<ClusterView, String> {
    let nodes = if node.is_server {
        all_nodes(node).await?
    } else {
        vec![raw(node, &format!("/api/v1/nodes/{}", node.name)).await?]
    };
    let mut seen =
        view::Seen { nodes, ca_hash: disk::ca_hash(&node.data_dir), ..Default::default() };
    if node.is_server {
        // Before 2022 it is refused to administrators: then the store itself is asked. Nodes' annotations would
        // also name members that only a snapshot knew.
        seen.members = match raw(node, "/db/info").await {
            Ok(info) => Some(info),
            Err(_) => store::members(&node.data_dir).await.ok(),
        };
        let members = view::members(&seen);
        seen.health = store::health(&node.data_dir, &members).await;
    }
    Ok(view::view(node, &seen))
}

async fn all_nodes(node: &K3sNode) -> Result<Vec<Json>, String> {
    let mut nodes = Vec::new();
    let mut after = String::new();
    loop {
        let mut page = raw(node, &format!("/api/v1/nodes?limit={PAGE}{after}")).await?;
        if let Some(items) = page.get_mut("items").and_then(Json::as_array_mut) {
            nodes.append(items);
        }
        match page.pointer("/metadata/continue").and_then(Json::as_str) {
            // It is base64 for URLs.
            Some(token) if !token.is_empty() => after = format!("&continue={token}"),
            _ => return Ok(nodes),
        }
    }
}

/// A GET of the API server that listens on this host.
async fn raw(node: &K3sNode, path: &str) -> Result<Json, String> {
    let text = kubectl(node, &["get", "--raw", path]).await?;
    serde_json::from_str(&text)
        .map_err(|error| format!("{path} is answered with nonsense: {error}"))
}

async fn kubectl(node: &K3sNode, args: &[&str]) -> Result<String, String> {
    for needed in [&node.binary, &node.kubeconfig] {
        if !std::path::Path::new(needed).exists() {
            return Err(format!("{needed} is not there"));
        }
    }
    // It keeps what it learned of the API in the home directory otherwise, also of who asks once.
    let first = [
        &node.binary,
        "kubectl",
        "--kubeconfig",
        &node.kubeconfig,
        "--request-timeout=10s",
        "--cache-dir=/dev/null",
    ];
    let argv = first.iter().chain(args).map(ToString::to_string).collect();
    let spec = CommandSpec { argv, timeout_ms: ASK_TIMEOUT_MS, ..CommandSpec::default() };
    let output = commands::run(&spec).await.map_err(|error| error.message)?;
    if output.status == 0 && !output.timed_out && !output.truncated {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let said = said.trim().lines().next_back().unwrap_or_default();
    Err(match (output.timed_out, output.truncated, said) {
        (true, ..) => "the API server does not answer in time".to_owned(),
        (_, true, _) => "the API server answers too much".to_owned(),
        (.., "") => format!("kubectl ended with status {}", output.status),
        (.., said) => said.to_owned(),
    })
}

/// Removes a member (by its name) with its node: K3s removes the member of a node that is deleted.
/// What is not there is fine.
pub(crate) async fn remove(node: &K3sNode, member: &str) -> HostResult<()> {
    let failed = |why: String| HostError::other(format!("cannot remove member {member}: {why}"));
    let name = node_of(member);
    // A finalizer of K3s's holds the node until its member is removed.
    let delete = ["delete", "node", name, "--ignore-not-found", "--wait=false"];
    kubectl(node, &delete).await.map_err(failed)?;
    // Newer K3s does it with the node. The password of the new life is another one.
    let secret = format!("{name}.node-password.k3s");
    let forget = ["-n", "kube-system", "delete", "secret", &secret, "--ignore-not-found"];
    kubectl(node, &forget).await.map_err(failed)?;
    let gone = within(REMOVAL_TIME, || async { Ok(number_of(node, member).await?.is_none()) });
    if !gone.await.map_err(failed)?
        && let Some(number) = number_of(node, member).await.map_err(failed)?
    {
        store::remove(&node.data_dir, number).await.map_err(|why| {
            failed(why)
                .hint("`etcdctl member remove` with the certificates in server/tls/etcd does it")
        })?;
    }
    // A node that came back before would be deleted while it runs.
    let is_named =
        |found: &Json| found.pointer("/metadata/name").and_then(Json::as_str) == Some(name);
    let gone = within(REMOVAL_TIME, || async { Ok(!all_nodes(node).await?.iter().any(is_named)) });
    if gone.await.map_err(failed)? {
        return Ok(());
    }
    Err(failed(format!("node {name} is still being deleted"))
        .hint("`kubectl describe node` names the finalizer that holds it"))
}

/// Asks until it is so or the time is over; gives which. An answer that fails counts as a no, the last one
/// does not.
async fn within<F>(time: Duration, is_so: impl Fn() -> F) -> Result<bool, String>
where
    F: Future<Output = Result<bool, String>>,
{
    let end = Instant::now() + time;
    loop {
        match is_so().await {
            Ok(true) => return Ok(true),
            answer if Instant::now() > end => return answer,
            _ => tokio::time::sleep(POLL_INTERVAL).await,
        }
    }
}

/// The number of the member called `member`; `None` when there is none.
async fn number_of(node: &K3sNode, member: &str) -> Result<Option<u64>, String> {
    let Ok(info) = raw(node, "/db/info").await else {
        // An old K3s does not tell; the store does.
        return store::number(&node.data_dir, member).await;
    };
    let members = info.get("members").and_then(Json::as_array);
    let found = members
        .into_iter()
        .flatten()
        .find(|entry| entry.get("name").and_then(Json::as_str) == Some(member));
    Ok(found.and_then(|entry| entry.get("ID").and_then(Json::as_u64)))
}
