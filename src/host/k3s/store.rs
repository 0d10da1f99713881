//! K3s's embedded etcd, asked with the certificates that K3s's apiserver uses.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use futures::FutureExt;

use super::view::{Health, Member};
use crate::host::net;
use crate::rpc::client::{Client, TlsFiles, connect};
use crate::rpc::pb::etcdserverpb::{
    MemberListRequest, MemberRemoveRequest, StatusRequest, StatusResponse,
};

/// How long one member may take to answer.
const TIMEOUT: Duration = Duration::from_secs(3);

/// The local member.
const LOCAL: &str = "https://127.0.0.1:2379";

fn client(data_dir: &str, endpoint: &str) -> Result<Client, String> {
    let dir = Path::new(data_dir).join("server/tls/etcd");
    let file = |name: &str| dir.join(name);
    let files =
        TlsFiles { ca: file("server-ca.crt"), cert: file("client.crt"), key: file("client.key") };
    connect(&[endpoint.to_owned()], Some(&files)).map_err(|error| error.to_string())
}

/// How each member is, by name. Without certificates (a member that does not run yet) the port
/// alone is tried.
pub(super) async fn health(data_dir: &str, members: &[Member]) -> BTreeMap<String, Health> {
    let ask = members.iter().map(|member| health_of(data_dir.to_owned(), member.clone()).boxed());
    let asked: Vec<_> = ask.collect();
    futures::future::join_all(asked).await.into_iter().collect()
}

async fn health_of(data_dir: String, member: Member) -> (String, Health) {
    let endpoint = member.client_urls.first().map_or("", String::as_str);
    let health = match client(&data_dir, endpoint) {
        Ok(client) => match status(client).await {
            Ok(status) => Health::of(&status),
            Err(_) => Health::default(),
        },
        Err(_) => Health::reachable(reaches(endpoint).await),
    };
    (member.name, health)
}

async fn status(client: Client) -> Result<StatusResponse, String> {
    let mut maintenance = client.maintenance;
    match tokio::time::timeout(TIMEOUT, maintenance.status(StatusRequest {})).await {
        Ok(Ok(answer)) => Ok(answer.into_inner()),
        Ok(Err(status)) => Err(status.message().to_owned()),
        Err(_) => Err("no answer in time".to_owned()),
    }
}

async fn reaches(endpoint: &str) -> bool {
    let address = endpoint.split("://").nth(1).unwrap_or_default().trim_end_matches('/');
    let Some((host, port)) = address.rsplit_once(':') else { return false };
    let Ok(port) = port.parse() else { return false };
    net::reaches(host.trim_matches(['[', ']']), port, 2_000).await
}

/// The number of the member called `name`.
pub(super) async fn number(data_dir: &str, name: &str) -> Result<Option<u64>, String> {
    let mut cluster = client(data_dir, LOCAL)?.cluster;
    let request = MemberListRequest { linearizable: true };
    let answer = tokio::time::timeout(TIMEOUT, cluster.member_list(request))
        .await
        .map_err(|_| "the store does not answer in time".to_owned())?
        .map_err(|status| status.message().to_owned())?
        .into_inner();
    Ok(answer.members.iter().find(|member| member.name == name).map(|member| member.id))
}

/// Removes the member with this number.
pub(super) async fn remove(data_dir: &str, id: u64) -> Result<(), String> {
    let mut cluster = client(data_dir, LOCAL)?.cluster;
    tokio::time::timeout(TIMEOUT, cluster.member_remove(MemberRemoveRequest { id }))
        .await
        .map_err(|_| "the store does not answer in time".to_owned())?
        .map_err(|status| status.message().to_owned())
        .map(drop)
}
