//! The lab's store from a test's point of view: put, get, members.

use std::collections::BTreeMap;
use std::time::Duration;

use k3sup_rs::rpc::client::{Client, TlsFiles, connect};
use k3sup_rs::rpc::pb::etcdserverpb::{
    DeleteRangeRequest, HashKvRequest, Member, MemberAddRequest, MemberListRequest,
    MemberRemoveRequest, PutRequest, RangeRequest, SnapshotRequest,
};
use tonic::Status;

use super::{Lab, wait_for};

/// How long one call may take: well beyond the seven seconds after which a member gives up by
/// itself, so that it is the member's answer that a test sees.
const CALL_LIMIT: Duration = Duration::from_secs(120);

/// Keys with their values and `mod_revision`s.
pub type Pairs = BTreeMap<String, (String, i64)>;

/// How many calls of a client may fail for a [passing](is_passing) reason where none should fail.
pub const PASSING_MAX: usize = 3;

/// Whether what a failed call says is only that there was an election, or that the machine stood still;
/// nothing that the member can be blamed for.
pub fn is_passing(said: &str) -> bool {
    // The last is of a handshake that took longer than a client waits for one endpoint.
    const PASSING: [&str; 4] = [
        "etcdserver: request timed out",
        "etcdserver: leader changed",
        "etcdserver: no leader",
        "deadline has elapsed",
    ];
    PASSING.iter().any(|words| said.contains(words))
}

/// Calls until it goes well; a refusal that is not [passing](is_passing) is a failure at once.
#[track_caller]
pub fn insist<T>(what: &str, call: impl Fn() -> Result<T, Status>) -> T {
    wait_for(what, || {
        let answer = call();
        let refused = answer.as_ref().err().filter(|refused| !is_passing(refused.message()));
        assert!(refused.is_none(), "{what}: {refused:?}");
        answer.ok()
    })
}

/// A client over given endpoints; each call blocks.
pub struct Store {
    runtime: tokio::runtime::Runtime,
    client: Client,
}

impl Store {
    /// A client of these servers (by number) with the bundle that `up` left.
    pub fn of(lab: &Lab, servers: &[usize]) -> Self {
        Self::at(lab, &lab.endpoints(servers))
    }

    /// A client of these endpoints.
    pub fn at(lab: &Lab, endpoints: &[String]) -> Self {
        Self::with(endpoints, &lab.tls())
    }

    /// A client of these endpoints with other credentials.
    pub fn with(endpoints: &[String], tls: &TlsFiles) -> Self {
        Self::connected(endpoints, Some(tls))
    }

    /// A client of these endpoints over plain HTTP.
    pub fn plain(endpoints: &[String]) -> Self {
        Self::connected(endpoints, None)
    }

    fn connected(endpoints: &[String], tls: Option<&TlsFiles>) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let client = runtime.block_on(async { connect(endpoints, tls) }).expect("a client");
        Self { runtime, client }
    }

    fn call<T>(&self, call: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
        self.runtime.block_on(async {
            tokio::time::timeout(CALL_LIMIT, call)
                .await
                .unwrap_or_else(|_| Err(Status::deadline_exceeded("the test waited long enough")))
        })
    }

    /// Puts; gives the store's revision, which is the key's `mod_revision` too.
    pub fn put(&self, key: &str, value: &str) -> Result<i64, Status> {
        let request = PutRequest {
            key: key.to_owned().into(),
            value: value.to_owned().into(),
            ..PutRequest::default()
        };
        let mut kv = self.client.kv.clone();
        let response = self.call(async move { kv.put(request).await })?.into_inner();
        Ok(response.header.map_or(0, |header| header.revision))
    }

    /// Deletes; gives how many keys that were.
    pub fn delete(&self, key: &str) -> Result<i64, Status> {
        let request =
            DeleteRangeRequest { key: key.to_owned().into(), ..DeleteRangeRequest::default() };
        let mut kv = self.client.kv.clone();
        Ok(self.call(async move { kv.delete_range(request).await })?.into_inner().deleted)
    }

    /// Gets; `serializable` is a local read.
    pub fn get(&self, key: &str, serializable: bool) -> Result<Option<String>, Status> {
        let request =
            RangeRequest { key: key.to_owned().into(), serializable, ..RangeRequest::default() };
        let mut kv = self.client.kv.clone();
        let response = self.call(async move { kv.range(request).await })?.into_inner();
        let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
        Ok(response.kvs.first().map(|kv| text(&kv.value)))
    }

    /// The store's revision, by a linearizable read.
    pub fn revision(&self) -> Result<i64, Status> {
        let request = RangeRequest { key: "revision".into(), ..RangeRequest::default() };
        let mut kv = self.client.kv.clone();
        let response = self.call(async move { kv.range(request).await })?.into_inner();
        Ok(response.header.map_or(0, |header| header.revision))
    }

    /// All keys by a linearizable read, each with its value and `mod_revision`; and the store's
    /// revision.
    pub fn all(&self) -> Result<(i64, Pairs), Status> {
        let request = RangeRequest {
            key: b"\0".as_slice().into(),
            range_end: b"\0".as_slice().into(),
            ..RangeRequest::default()
        };
        let mut kv = self.client.kv.clone();
        let response = self.call(async move { kv.range(request).await })?.into_inner();
        let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
        let pairs =
            response.kvs.iter().map(|kv| (text(&kv.key), (text(&kv.value), kv.mod_revision)));
        Ok((response.header.map_or(0, |header| header.revision), pairs.collect()))
    }

    /// The hash of the member's own store at `revision`, once it has caught up.
    pub fn hash(&self, revision: i64) -> Result<u32, Status> {
        self.revision()?;
        let mut maintenance = self.client.maintenance.clone();
        let request = HashKvRequest { revision };
        Ok(self.call(async move { maintenance.hash_kv(request).await })?.into_inner().hash)
    }

    /// What `etcdctl snapshot save` gets.
    pub fn snapshot(&self) -> Result<Vec<u8>, Status> {
        let mut maintenance = self.client.maintenance.clone();
        self.call(async move {
            let request = SnapshotRequest::default();
            let mut parts = maintenance.snapshot(request).await?.into_inner();
            let mut bytes = Vec::new();
            while let Some(part) = parts.message().await? {
                bytes.extend_from_slice(&part.blob);
            }
            Ok(bytes)
        })
    }

    /// Adds a voter that is reached at a peer URL; gives its number.
    pub fn member_add(&self, peer_url: &str) -> Result<u64, Status> {
        let mut cluster = self.client.cluster.clone();
        let request = MemberAddRequest { peer_ur_ls: vec![peer_url.to_owned()], is_learner: false };
        let response = self.call(async move { cluster.member_add(request).await })?.into_inner();
        Ok(response.member.map_or(0, |member| member.id))
    }

    /// Removes a member.
    pub fn member_remove(&self, id: u64) -> Result<(), Status> {
        let mut cluster = self.client.cluster.clone();
        let request = MemberRemoveRequest { id };
        self.call(async move { cluster.member_remove(request).await }).map(drop)
    }

    /// The cluster's number and its members, as the member at the endpoint knows them by itself.
    pub fn members(&self) -> Result<(u64, Vec<Member>), Status> {
        let mut cluster = self.client.cluster.clone();
        let request = MemberListRequest { linearizable: false };
        let response = self.call(async move { cluster.member_list(request).await })?.into_inner();
        Ok((response.header.map_or(0, |header| header.cluster_id), response.members))
    }
}
