//! The token that admits agents alone. The cluster keeps its hash, each server a file of it; both follow
//! what a server is started with, when that is another than at its last start. A server that only
//! starts again changes nothing, so while a new token goes from server to server none brings back
//! the old one.

use super::config::ServerConfig;
use super::context::Context;
use super::join::plain;
use super::records::Settings;
use super::secrets;
use crate::secret::Secret;

/// Tells the cluster what this server is started with, then writes the file.
pub(super) async fn tell(context: &Context, config: &ServerConfig) -> Result<(), String> {
    let wanted = config.agent_token.as_ref().map(plain);
    let last = context.keys.agent_token().map_err(|error| error.to_string())?;
    if last != wanted {
        replace(context, wanted.as_ref()).await?;
    }
    context.keys.keep_agent_token(wanted.as_ref()).map_err(|error| error.to_string())
}

async fn replace(context: &Context, wanted: Option<&Secret>) -> Result<(), String> {
    context.consensus.read_barrier().await.map_err(|error| error.to_string())?;
    let seen = context.records.settings().ok_or("the cluster has not written its settings yet")?;
    let same = match (&seen.agent_secret, wanted) {
        (Some(hash), Some(secret)) => secrets::matches(hash, secret),
        (None, None) => true,
        _ => false,
    };
    if same {
        return Ok(());
    }
    let agent_secret = wanted.map(secrets::hash).transpose().map_err(|error| error.to_string())?;
    let settings = Settings { agent_secret, ..seen.clone() };
    let replaced = context.records.replace_settings(&settings, &seen).await;
    replaced.map_err(|error| error.to_string())?;
    tracing::warn!("the token for agents was replaced");
    Ok(())
}
