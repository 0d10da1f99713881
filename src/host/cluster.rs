//! The host's node: what its data directory and its supervisor say.
//!
//! Where nothing is, that is the answer. What is there is read by the node's own client; until this
//! executor has one, it refuses rather than guess.

use std::path::Path;

use crate::cluster::view::{ClusterView, DiskView};
use crate::host::error::HostResult;
use crate::host::protocol::HostError;

/// How long the supervisor's port may take to accept a connection, in milliseconds.
const PROBE_TIMEOUT_MS: u64 = 2_000;

/// To [`crate::host::protocol::Read::Disk`].
pub(crate) fn disk(data_dir: &str) -> HostResult<Option<DiskView>> {
    let exists = Path::new(data_dir)
        .try_exists()
        .map_err(|error| HostError::io("look at", data_dir, &error))?;
    if exists { Err(no_client()) } else { Ok(None) }
}

/// To [`crate::host::protocol::Read::Cluster`].
pub(crate) async fn view(
    _data_dir: &str,
    supervisor: &str,
) -> HostResult<Option<Box<ClusterView>>> {
    if answers(supervisor).await? { Err(no_client()) } else { Ok(None) }
}

/// To [`crate::host::protocol::Read::Ready`].
pub(crate) async fn ready(
    _data_dir: &str,
    supervisor: &str,
    _timeout_ms: u64,
) -> HostResult<Result<(), String>> {
    if answers(supervisor).await? {
        return Err(no_client());
    }
    Ok(Err(format!("nothing answers on {supervisor}")))
}

/// Makes [`crate::host::protocol::Change::RemoveMember`].
pub(crate) fn remove_member(_data_dir: &str, _supervisor: &str, _id: &str) -> HostResult<()> {
    Err(no_client())
}

async fn answers(supervisor: &str) -> HostResult<bool> {
    let (host, port) = supervisor
        .rsplit_once(':')
        .and_then(|(host, port)| Some((host, port.parse().ok()?)))
        .ok_or_else(|| HostError::other(format!("{supervisor:?} is not an address with a port")))?;
    Ok(super::net::reaches(host.trim_matches(['[', ']']), port, PROBE_TIMEOUT_MS).await)
}

fn no_client() -> HostError {
    HostError::other("this executor cannot talk to a node")
        .hint("use a newer k3sup-rs on the control machine")
}
