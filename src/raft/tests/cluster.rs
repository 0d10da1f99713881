//! A cluster to make trouble for.

use std::collections::{BTreeMap, HashSet};
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::runtime::Runtime;
use tokio::sync::watch;

use super::journal::MemJournal;
use super::proxy::{Blocked, Proxy};
use super::tally::Tally;
use super::tls::Ca;
use crate::raft::api::{Applied, Consensus, ConsensusError, RaftStatus};
use crate::raft::{Observers, RaftNode, RaftOptions, StartError, Timing};
use crate::store::state::State;
use crate::store::types::{Command, KeyRange, MemberId, MemberRecord, Put, RangeQuery, Reply};
use crate::store::wal::WalError;

/// Generous: the tests run beside others on small machines.
pub(super) const PATIENCE: Duration = Duration::from_secs(120);

/// How often [`in_one_round`] tries.
const ROUNDS_MAX: usize = 5;

pub(super) const CLUSTER: u64 = 0xc1a5;

pub(super) struct Member {
    pub(super) id: MemberId,
    pub(super) dir: tempfile::TempDir,
    pub(super) proxy: Proxy,
    /// In the place of a log on disk.
    pub(super) journal: Option<MemJournal>,
    pub(super) up: Option<Up>,
}

/// A member that runs.
pub(super) struct Up {
    runtime: Runtime,
    pub(super) node: Arc<RaftNode>,
    pub(super) state: Arc<State>,
}

pub(super) struct Cluster {
    pub(super) ca: Ca,
    pub(super) blocked: Arc<Blocked>,
    pub(super) members: BTreeMap<MemberId, Member>,
    pub(super) snapshot_count: u64,
    /// What the members told of their connections.
    pub(super) tallies: BTreeMap<MemberId, Arc<Tally>>,
}

pub(super) fn name(id: MemberId) -> String {
    format!("server{id}-0000000{id}")
}

impl Cluster {
    pub(super) fn new() -> Self {
        let filter = tracing_subscriber::EnvFilter::from_default_env();
        let _ = tracing_subscriber::fmt().with_env_filter(filter).with_test_writer().try_init();
        Self {
            ca: Ca::new(),
            blocked: Arc::new(watch::Sender::new(HashSet::new())),
            members: BTreeMap::new(),
            snapshot_count: 10_000,
            tallies: (1..=9).map(|id| (id, Arc::default())).collect(),
        }
    }

    /// One running voter.
    pub(super) async fn of_one() -> Self {
        let mut cluster = Self::new();
        cluster.begin().await;
        cluster
    }

    /// Starts the first member as a cluster of its own.
    pub(super) async fn begin(&mut self) {
        self.create(1).await;
        self.start(1).await;
        let node = self.node(1);
        self.on(1, async move { node.initialize().await.unwrap() }).await;
        self.leader().await;
    }

    /// `size` running voters.
    pub(super) async fn of(size: u64) -> Self {
        let mut cluster = Self::of_one().await;
        for id in 2..=size {
            cluster.join(id, true).await;
            cluster.until(1, |status| status.voters.contains(&id)).await;
        }
        cluster
    }

    /// Makes room for a member.
    pub(super) async fn create(&mut self, id: MemberId) {
        let proxy = Proxy::start(id, self.blocked.clone()).await;
        let dir = tempfile::tempdir().unwrap();
        self.members.insert(id, Member { id, dir, proxy, journal: None, up: None });
    }

    pub(super) fn record(&self, id: MemberId) -> MemberRecord {
        MemberRecord {
            id,
            name: name(id),
            peer_urls: vec![format!("https://{}", self.members[&id].proxy.address)],
            client_urls: vec![format!("https://127.0.0.{id}:2379")],
        }
    }

    /// Adds a member to the cluster and starts it.
    pub(super) async fn join(&mut self, id: MemberId, voter: bool) {
        self.create(id).await;
        self.join_created(id, voter).await;
    }

    /// As [`Self::join`], for a member that there is room for.
    pub(super) async fn join_created(&mut self, id: MemberId, voter: bool) {
        let record = self.record(id);
        let leader = self.leader().await;
        self.change(leader, move |node| {
            let record = record.clone();
            async move { node.member_add(record, voter).await }
        })
        .await;
        self.start(id).await;
    }

    pub(super) fn options(&self, id: MemberId) -> RaftOptions {
        RaftOptions {
            supersedes: Vec::new(),
            cluster: CLUSTER,
            member: self.record(id),
            dir: self.members[&id].dir.path().to_owned(),
            listen: vec!["127.0.0.1:0".parse().unwrap()],
            tls: Some(self.ca.member(&format!("server{id}"), id)),
            timing: Timing::default(),
            snapshot_count: self.snapshot_count,
            observers: Observers {
                traffic: Some(self.tallies[&id].clone()),
                ..Observers::default()
            },
        }
    }

    /// How often `id` was told `what` of `peer`.
    pub(super) fn told(&self, id: MemberId, what: &'static str, peer: MemberId) -> usize {
        self.tallies[&id].of(what, peer)
    }

    pub(super) async fn start(&mut self, id: MemberId) {
        let options = self.options(id);
        self.start_with(id, options).await;
    }

    pub(super) async fn start_with(&mut self, id: MemberId, options: RaftOptions) {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let member = self.members.get_mut(&id).unwrap();
        let (node, state) = loop {
            let (options, state) = (options.clone(), Arc::new(State::new()));
            let started = match &member.journal {
                None => runtime.spawn(RaftNode::start(options, state.clone())),
                Some(journal) => {
                    let opened = (Arc::new(journal.clone()) as _, journal.recovered());
                    runtime.spawn(RaftNode::start_on(options, state.clone(), opened))
                }
            };
            match started.await.unwrap() {
                Ok(node) => break (Arc::new(node), state),
                // The tasks of the run before are still being taken down.
                Err(StartError::Wal(WalError::InUse { .. })) => {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                Err(error) => panic!("member {id} does not start: {error}"),
            }
        };
        *member.proxy.upstream.lock() = Some(node.local_addresses()[0]);
        member.up = Some(Up { runtime, node, state });
    }

    /// Takes a member away at once.
    pub(super) fn kill(&mut self, id: MemberId) {
        let member = self.members.get_mut(&id).unwrap();
        *member.proxy.upstream.lock() = None;
        if let Some(Up { runtime, node, .. }) = member.up.take() {
            runtime.shutdown_background();
            drop(node);
        }
    }

    pub(super) fn node(&self, id: MemberId) -> Arc<RaftNode> {
        self.members[&id].up.as_ref().unwrap().node.clone()
    }

    pub(super) fn state(&self, id: MemberId) -> Arc<State> {
        self.members[&id].up.as_ref().unwrap().state.clone()
    }

    pub(super) fn status(&self, id: MemberId) -> RaftStatus {
        self.node(id).status().borrow().clone()
    }

    /// Runs something where the member's tasks run.
    pub(super) async fn on<T: Send + 'static>(
        &self,
        id: MemberId,
        what: impl Future<Output = T> + Send + 'static,
    ) -> T {
        self.spawn(id, what).await.unwrap()
    }

    pub(super) fn spawn<T: Send + 'static>(
        &self,
        id: MemberId,
        what: impl Future<Output = T> + Send + 'static,
    ) -> tokio::task::JoinHandle<T> {
        self.members[&id].up.as_ref().unwrap().runtime.spawn(what)
    }

    pub(super) fn running(&self) -> Vec<MemberId> {
        let up = self.members.values().filter(|member| member.up.is_some());
        up.map(|member| member.id).collect()
    }

    /// The leader that a majority of those that run agrees on.
    pub(super) async fn leader(&self) -> MemberId {
        let running = self.running();
        self.leader_among(&running).await
    }

    pub(super) async fn leader_among(&self, ids: &[MemberId]) -> MemberId {
        let mut found = 0;
        eventually("a leader", || {
            let leads = |id: &MemberId| self.status(*id).is_leader();
            found = ids
                .iter()
                .copied()
                .filter(leads)
                .max_by_key(|id| self.status(*id).term)
                .unwrap_or(0);
            found != 0
        })
        .await;
        found
    }

    pub(super) async fn until(&self, id: MemberId, what: impl Fn(&RaftStatus) -> bool) {
        eventually("a status", || what(&self.status(id))).await;
    }

    pub(super) async fn put(
        &self,
        id: MemberId,
        key: &str,
        value: &str,
    ) -> Result<Applied, ConsensusError> {
        let node = self.node(id);
        let command = put_command(key, value);
        self.on(id, async move { node.propose(command).await }).await
    }

    /// Has a member change the membership. A voter that was silent for an election time-out, as it may
    /// be on a machine that has much to do, makes the cluster unhealthy until it is heard again.
    pub(super) async fn change<F>(&self, id: MemberId, ask: impl Fn(Arc<RaftNode>) -> F)
    where
        F: Future<Output = Result<(), ConsensusError>> + Send + 'static,
    {
        self.insist(id, &ConsensusError::Unhealthy, ask).await;
    }

    /// Reads linearizably; a time-out is no answer yet.
    pub(super) async fn read(&self, id: MemberId, key: &str) -> Option<String> {
        let ask = |node: Arc<RaftNode>| async move { node.read_barrier().await };
        self.insist(id, &ConsensusError::Timeout, ask).await;
        self.peek(id, key)
    }

    /// Asks a member again as long as it refuses for a reason that passes.
    async fn insist<F>(
        &self,
        id: MemberId,
        passing: &ConsensusError,
        ask: impl Fn(Arc<RaftNode>) -> F,
    ) where
        F: Future<Output = Result<(), ConsensusError>> + Send + 'static,
    {
        let began = Instant::now();
        loop {
            let answer = self.on(id, ask(self.node(id))).await;
            if answer.as_ref().err() != Some(passing) || began.elapsed() > PATIENCE {
                return answer.unwrap();
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Reads linearizably, or says why not.
    pub(super) async fn get(
        &self,
        id: MemberId,
        key: &str,
    ) -> Result<Option<String>, ConsensusError> {
        let node = self.node(id);
        self.on(id, async move { node.read_barrier().await }).await?;
        Ok(self.peek(id, key))
    }

    /// Reads what is there.
    pub(super) fn peek(&self, id: MemberId, key: &str) -> Option<String> {
        let range = KeyRange { key: Bytes::copy_from_slice(key.as_bytes()), end: Bytes::new() };
        let found = self.state(id).range(&RangeQuery { range, ..RangeQuery::default() }).unwrap();
        found.kvs.first().map(|kv| String::from_utf8(kv.value.to_vec()).unwrap())
    }

    /// Cuts members off from all others, both ways.
    pub(super) fn isolate(&self, id: MemberId) {
        let others = self.members.keys().copied().filter(|other| *other != id);
        let pairs = others.flat_map(|other| [(id, other), (other, id)]);
        self.blocked.send_replace(pairs.collect());
    }

    pub(super) fn heal(&self) {
        self.blocked.send_replace(HashSet::new());
    }
}

impl Drop for Cluster {
    /// Waits until the members' threads have ended: they must not go on in a directory that is gone.
    /// What waits in sled for its disk has all others of the process wait, too.
    fn drop(&mut self) {
        let running = self.members.values_mut().filter_map(|member| member.up.take());
        let ending = running.map(|Up { runtime, node, .. }| {
            std::thread::spawn(move || {
                drop(node);
                runtime.shutdown_timeout(PATIENCE);
            })
        });
        for ended in ending.collect::<Vec<_>>() {
            // A panic in it has been printed; the test has its own result.
            let _ = ended.join();
        }
    }
}

pub(super) fn put_command(key: &str, value: &str) -> Command {
    Command::Put(Put {
        key: Bytes::copy_from_slice(key.as_bytes()),
        value: Bytes::copy_from_slice(value.as_bytes()),
        ..Put::default()
    })
}

pub(super) fn revision(applied: &Applied) -> i64 {
    match &applied.outcome {
        Ok(Reply::Put(put)) => put.revision,
        other => panic!("not a put: {other:?}"),
    }
}

/// Waits until something holds.
pub(super) async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < PATIENCE, "waited in vain for {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Does something until it goes well once. A machine that has much to do may upset a round by chance;
/// what is wrong upsets each.
pub(super) async fn in_one_round(what: &str, mut goes_well: impl AsyncFnMut() -> bool) {
    for _ in 0..ROUNDS_MAX {
        if goes_well().await {
            return;
        }
    }
    panic!("in no round there was {what}");
}
