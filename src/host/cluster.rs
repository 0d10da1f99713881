//! The host's node: what its data directory and its supervisor say, asked by the node's own client.

use std::path::Path;
use std::time::Duration;

use crate::cluster::view::{ClusterView, DiskView};
use crate::error::chain;
use crate::host::error::HostResult;
use crate::host::protocol::HostError;
use crate::node::client;
use crate::rpc::client::{TlsFiles, connect};

/// To [`crate::host::protocol::Read::Disk`]. Blocks.
pub(crate) fn disk(data_dir: &str) -> HostResult<Option<DiskView>> {
    client::disk_view(Path::new(data_dir)).map_err(|error| HostError::io("read", data_dir, &error))
}

/// To [`crate::host::protocol::Read::LogEnd`]. Blocks.
pub(crate) fn log_end(data_dir: &str) -> HostResult<Option<crate::cluster::restore::LogEnd>> {
    let data = crate::node::identity::DataDir::new(data_dir);
    let failed = |error: std::io::Error| HostError::io("read the log of", data_dir, &error);
    crate::raft::reset::log_end(&data.store(), &data.db()).map_err(failed)
}

/// To [`crate::host::protocol::Read::StoreHash`].
pub(crate) async fn store_hash(
    data_dir: &str,
    endpoint: &str,
    revision: i64,
) -> HostResult<(i64, u32)> {
    let failed =
        |why: String| HostError::other(format!("cannot ask {endpoint} for its hash: {why}"));
    let tls = Path::new(data_dir).join("server/tls");
    let bundle = tls.join("server-ca-bundle.crt");
    let files = TlsFiles {
        ca: if bundle.exists() { bundle } else { tls.join("server-ca.crt") },
        cert: tls.join("client-admin.crt"),
        key: tls.join("client-admin.key"),
    };
    let client = connect(&[endpoint.to_owned()], Some(&files));
    match client.map_err(|error| failed(chain(&error)))?.hash_at(revision).await {
        Some(answer) => answer.map_err(|status| failed(status.message().to_owned())),
        None => Err(failed("no answer".to_owned())),
    }
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

/// Makes [`crate::host::protocol::Change::HandOver`].
pub(crate) async fn hand_over(data_dir: &str, supervisor: &str) -> HostResult<()> {
    client::hand_over(Path::new(data_dir), supervisor)
        .await
        .map_err(|error| HostError::other(format!("no other server takes over: {}", chain(&error))))
}

/// Makes [`crate::host::protocol::Change::ForgetNode`].
pub(crate) async fn forget_node(data_dir: &str, supervisor: &str, name: &str) -> HostResult<()> {
    client::delete_node(Path::new(data_dir), supervisor, name)
        .await
        .map_err(|error| HostError::other(format!("cannot forget node {name}: {}", chain(&error))))
}
