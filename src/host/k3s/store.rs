//! K3s's embedded etcd, asked with the certificates that K3s's apiserver uses.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use futures::FutureExt;
use serde_json::{Value as Json, json};

use super::view::{Health, Member};
use crate::host::net;
use crate::rpc::client::{Client, TlsFiles, connect};
use crate::rpc::pb::etcdserverpb::{
    Member as StoreMember, MemberListRequest, MemberRemoveRequest, MoveLeaderRequest, RangeRequest,
    StatusRequest, StatusResponse,
};

/// How long one member may take to answer.
const TIMEOUT: Duration = Duration::from_secs(3);

/// What K3s's keys of bootstrap data begin with …
const BOOTSTRAP: &str = "/bootstrap/";

/// … and the first key behind all of these.
const BOOTSTRAP_END: &str = "/bootstrap0";

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

/// The members as the store itself has them, in the form of K3s's `/db/info`.
pub(super) async fn members(data_dir: &str) -> Result<Json, String> {
    let mut cluster = client(data_dir, LOCAL)?.cluster;
    let list = cluster.member_list(MemberListRequest { linearizable: false });
    let late = |_| "the store does not answer in time".to_owned();
    let answer = tokio::time::timeout(TIMEOUT, list).await.map_err(late)?;
    let members = answer.map_err(|status| status.message().to_owned())?.into_inner().members;
    let member = |member: &StoreMember| {
        json!({
            "ID": member.id,
            "name": member.name,
            "peerURLs": member.peer_ur_ls,
            "clientURLs": member.client_ur_ls,
            "isLearner": member.is_learner,
        })
    };
    Ok(json!({ "members": members.iter().map(member).collect::<Vec<_>>() }))
}

/// The hash of all keys at `revision`, or at the newest one when it is 0.
pub(super) async fn hash(data_dir: &str, revision: i64) -> Result<(i64, u32), String> {
    match client(data_dir, LOCAL)?.hash_at(revision).await {
        Some(answer) => answer.map_err(|status| status.message().to_owned()),
        None => Err("the store does not answer in time".to_owned()),
    }
}

/// The keys under which the store has K3s's bootstrap data, without [`BOOTSTRAP`].
pub(super) async fn bootstrap_keys(data_dir: &str) -> Result<Vec<String>, String> {
    let mut kv = client(data_dir, LOCAL)?.kv;
    let request = RangeRequest {
        key: BOOTSTRAP.into(),
        range_end: BOOTSTRAP_END.into(),
        keys_only: true,
        ..RangeRequest::default()
    };
    let late = |_| "the store does not answer in time".to_owned();
    let answer = tokio::time::timeout(TIMEOUT, kv.range(request)).await.map_err(late)?;
    let pairs = answer.map_err(|status| status.message().to_owned())?.into_inner().kvs;
    let name = |key: &[u8]| String::from_utf8_lossy(key).trim_start_matches(BOOTSTRAP).to_owned();
    Ok(pairs.iter().map(|pair| name(&pair.key)).collect())
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

/// Lets another voter lead, if the local member does.
pub(super) async fn hand_over(data_dir: &str) -> Result<(), String> {
    let client = client(data_dir, LOCAL)?;
    let (mut cluster, mut maintenance) = (client.cluster.clone(), client.maintenance.clone());
    let own = status(client).await?;
    let id = own.header.map(|header| header.member_id).unwrap_or_default();
    if own.leader != id {
        return Ok(());
    }
    let late = |_| "the store does not answer in time".to_owned();
    let list = cluster.member_list(MemberListRequest { linearizable: false });
    let list = tokio::time::timeout(TIMEOUT, list).await.map_err(late)?;
    let members = list.map_err(|status| status.message().to_owned())?.into_inner().members;
    let mut last = "no other member votes".to_owned();
    // One that is down is refused by the store or never takes over: the next one is asked.
    for heir in members.iter().filter(|member| member.id != id && !member.is_learner) {
        let moved = maintenance.move_leader(MoveLeaderRequest { target_id: heir.id });
        match tokio::time::timeout(TIMEOUT, moved).await {
            Ok(Ok(_)) => return Ok(()),
            Ok(Err(status)) => status.message().clone_into(&mut last),
            Err(_) => "the store does not answer in time".clone_into(&mut last),
        }
    }
    Err(last)
}
