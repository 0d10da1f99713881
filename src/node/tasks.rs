//! What a server does beside answering: it writes what a new cluster agreed on, tells a new token for
//! agents, registers its own node, and writes heartbeats.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::agent_token;
use super::config::ServerConfig;
use super::context::{Context, HEARTBEAT_INTERVAL};
use super::host;
use super::records::{NodeRecord, Settings, unix_now};
use super::secrets;
use crate::limits::PEER_PORT;
use crate::secret::Secret;
use crate::store::state::State;

/// How long to wait before a write is tried again.
const RETRY_INTERVAL: Duration = Duration::from_millis(500);

/// How often memory is given back that no command gave back.
const TRIM_INTERVAL: Duration = Duration::from_secs(1);

/// How many changes at a time, between which commands are let in.
const TRIM_STEP: usize = 1000;

/// Keeps the server's own records until `stop`.
pub async fn keep(
    context: Arc<Context>,
    config: ServerConfig,
    settings: Option<Settings>,
    password: Secret,
    stop: CancellationToken,
) {
    let work = async {
        until_done("settings", || begin(&context, settings.as_ref())).await;
        until_done("the token for agents", || agent_token::tell(&context, &config)).await;
        until_done("registration", || register(&context, &config, &password)).await;
        heartbeats(&context).await;
    };
    tokio::select! {
        () = work => {}
        () = trim(&context.state) => {}
        () = stop.cancelled() => {}
    }
}

/// Tries until it is done; says why not only now and then.
async fn until_done<F>(what: &str, mut work: impl FnMut() -> F)
where
    F: Future<Output = Result<(), String>>,
{
    let mut tries = 0_u32;
    while let Err(error) = work().await {
        if tries.is_multiple_of(20) {
            tracing::info!("{what} is not written yet: {error}");
        }
        tries = tries.wrapping_add(1);
        tokio::time::sleep(RETRY_INTERVAL).await;
    }
}

async fn begin(context: &Context, settings: Option<&Settings>) -> Result<(), String> {
    match settings {
        Some(settings) => context.records.begin(settings).await.map_err(|error| error.to_string()),
        None => Ok(()),
    }
}

/// Writes the node as it is now, and the peer URL if the address has changed.
async fn register(
    context: &Context,
    config: &ServerConfig,
    password: &Secret,
) -> Result<(), String> {
    context.consensus.read_barrier().await.map_err(|error| error.to_string())?;
    let id = context.identity.member_id;
    let peer_urls = vec![config.url(PEER_PORT)];
    if context.state.member(id).is_some_and(|member| member.peer_urls != peer_urls) {
        let updated = context.consensus.member_update(id, peer_urls).await;
        updated.map_err(|error| error.to_string())?;
    }
    let seen = context.records.node(&config.node.name);
    let kept = seen.clone().filter(|node| secrets::matches(&node.password, password));
    let password = match kept {
        Some(node) => node.password,
        None => secrets::hash(password).map_err(|error| error.to_string())?,
    };
    let about = host::about(&config.node);
    let node = NodeRecord {
        member_id: format!("{id:x}"),
        supervisor_url: config.supervisor_url(),
        password,
        version: about.version,
        internal_ip: about.internal_ip,
        created_unix_s: seen.as_ref().map_or_else(unix_now, |node| node.created_unix_s),
        os_image: about.os_image,
        kernel: about.kernel,
        labels: about.labels,
        taints: about.taints,
    };
    // The first heartbeat comes before the record: a node that is seen is a node that is ready. It
    // replaces what this server wrote before it was restarted, so that is taken over.
    context.remember();
    let pulse = context.take_pulse();
    let beat = context.records.put_heartbeats(&context.node_name, &pulse).await;
    beat.map_err(|error| error.to_string())?;
    if seen.as_ref() == Some(&node) {
        return Ok(());
    }
    let written = context.records.put_node(&config.node.name, &node, seen.as_ref()).await;
    written.map_err(|error| error.to_string())
}

/// Gives back the memory of what compactions forgot, a little at a time. Applying commands does so
/// too, but few may come after a compaction.
async fn trim(state: &State) {
    loop {
        tokio::time::sleep(TRIM_INTERVAL).await;
        while state.trim(TRIM_STEP) {
            tokio::task::yield_now().await;
        }
    }
}

async fn heartbeats(context: &Context) {
    loop {
        tokio::time::sleep(HEARTBEAT_INTERVAL).await;
        let pulse = context.take_pulse();
        if let Err(error) = context.records.put_heartbeats(&context.node_name, &pulse).await {
            tracing::debug!(%error, "heartbeats were not written");
        }
    }
}
