//! The embedded node as its users see it: keys, written and read by the etcd API.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::timeout;

use super::clients::Course;
use super::verdict::Held;
use crate::error::{ExitCode, Failure};
use crate::rpc::client::{Client, TlsFiles, connect};
use crate::rpc::pb::etcdserverpb::{DeleteRangeRequest, PutRequest, RangeRequest, StatusRequest};

/// What all marker keys begin with.
pub(super) const PREFIX: &str = "k3sup-verify/";

/// Where the prefix ends: its last byte plus one.
const PREFIX_END: &str = "k3sup-verify0";

/// How long one try may take before the next member is tried.
const TRY: Duration = Duration::from_secs(2);

/// How often it is asked who leads.
const LEADER_INTERVAL: Duration = Duration::from_millis(200);

/// How long the looks at the end may take, each.
const LOOK: Duration = Duration::from_secs(60);

/// Keys in one answer.
const PAGE: i64 = 5000;

/// A client of one member, or of what stands for it.
pub(super) struct Etcd(Box<Client>);

impl Etcd {
    /// A client of these endpoints.
    pub(super) fn of(endpoints: &[String], tls: &TlsFiles) -> Result<Self, Failure> {
        let client = connect(endpoints, Some(tls));
        client.map(|client| Self(Box::new(client))).map_err(|error| {
            Failure::new(ExitCode::Error, error.to_string())
                .hint("`k3sup-rs up` leaves the client bundle on this machine")
        })
    }

    /// Writes a key whose value is the key.
    pub(super) async fn put(&self, key: &str) -> bool {
        let mut kv = self.0.kv.clone();
        let (name, value) = (format!("{PREFIX}{key}").into(), key.to_owned().into());
        let request = PutRequest { key: name, value, ..PutRequest::default() };
        matches!(timeout(TRY, kv.put(request)).await, Ok(Ok(_)))
    }

    /// All marker keys with their values, by linearizable reads.
    pub(super) async fn all(&self) -> Result<BTreeMap<String, String>, String> {
        let mut found = BTreeMap::new();
        let mut from: Vec<u8> = PREFIX.into();
        loop {
            let request = RangeRequest {
                key: from.clone().into(),
                range_end: PREFIX_END.into(),
                limit: PAGE,
                ..RangeRequest::default()
            };
            let mut kv = self.0.kv.clone();
            let answer = look(kv.range(request)).await?;
            for pair in &answer.kvs {
                let name = String::from_utf8_lossy(&pair.key);
                let value = String::from_utf8_lossy(&pair.value).into_owned();
                found.insert(name.trim_start_matches(PREFIX).to_owned(), value);
            }
            let Some(last) = answer.kvs.last().filter(|_| answer.more) else { return Ok(found) };
            from = last.key.to_vec();
            from.push(0);
        }
    }

    /// Deletes all marker keys.
    pub(super) async fn clear(&self) -> Result<(), String> {
        let mut kv = self.0.kv.clone();
        let request = DeleteRangeRequest {
            key: PREFIX.into(),
            range_end: PREFIX_END.into(),
            ..DeleteRangeRequest::default()
        };
        look(kv.delete_range(request)).await.map(drop)
    }
}

/// What the members hold at one revision.
pub(super) async fn held<'a>(
    members: impl Iterator<Item = (&'a str, &'a Etcd)>,
) -> Result<Held, String> {
    let mut held = Held::default();
    for (name, member) in members {
        let (revision, hash) = match member.0.hash_at(held.revision).await {
            Some(Ok(answer)) => answer,
            Some(Err(status)) => return Err(format!("{name}: {}", status.message())),
            None => return Err(format!("{name}: no answer")),
        };
        held.revision = revision;
        held.hashes.push((name.to_owned(), hash));
    }
    Ok(held)
}

/// Notes each change of the leader, as any member tells it.
pub(super) async fn watch_leader(members: Vec<Etcd>, course: Course) {
    while !course.is_over() {
        for member in &members {
            let mut maintenance = member.0.maintenance.clone();
            let asked = timeout(LEADER_INTERVAL, maintenance.status(StatusRequest {})).await;
            let Ok(Ok(answer)) = asked else { continue };
            let status = answer.into_inner();
            if status.leader != 0 {
                course.leads(status.raft_term, format!("{:x}", status.leader));
            }
        }
        tokio::time::sleep(LEADER_INTERVAL).await;
    }
}

async fn look<T>(
    call: impl Future<Output = Result<tonic::Response<T>, tonic::Status>>,
) -> Result<T, String> {
    match timeout(LOOK, call).await {
        Ok(Ok(answer)) => Ok(answer.into_inner()),
        Ok(Err(status)) => Err(status.message().to_owned()),
        Err(_) => Err("no answer".to_owned()),
    }
}
