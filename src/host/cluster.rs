//! The host's node: what its data directory and its supervisor say, asked by the node's own client.

use std::path::Path;
use std::time::Duration;

use crate::cluster::view::{ClusterView, DiskView};
use crate::error::chain;
use crate::host::error::HostResult;
use crate::host::protocol::HostError;
use crate::node::client;

/// To [`crate::host::protocol::Read::Disk`]. Blocks.
pub(crate) fn disk(data_dir: &str) -> HostResult<Option<DiskView>> {
    client::disk_view(Path::new(data_dir)).map_err(|error| HostError::io("read", data_dir, &error))
}

/// To [`crate::host::protocol::Read::Cluster`].
pub(crate) async fn view(data_dir: &str, supervisor: &str) -> HostResult<Option<Box<ClusterView>>> {
    match client::cluster_view(Path::new(data_dir), supervisor).await {
        Ok(view) => Ok(view.map(Box::new)),
        Err(error) => Err(HostError::other(format!("cannot ask the node: {}", chain(&error)))),
    }
}

/// To [`crate::host::protocol::Read::Ready`].
pub(crate) async fn ready(data_dir: &str, supervisor: &str, timeout_ms: u64) -> Result<(), String> {
    client::ready(Path::new(data_dir), supervisor, Duration::from_millis(timeout_ms)).await
}

/// Makes [`crate::host::protocol::Change::RemoveMember`].
pub(crate) async fn remove_member(data_dir: &str, supervisor: &str, id: &str) -> HostResult<()> {
    client::remove_member(Path::new(data_dir), supervisor, id)
        .await
        .map_err(|error| HostError::other(format!("cannot remove member {id}: {}", chain(&error))))
}
