//! A running member: puts the parts together, and takes them apart again.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use futures::future::BoxFuture;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::InitializeError;
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::watch;
use tokio::time::{interval, timeout};
use tokio_util::task::AbortOnDropHandle;

use super::api::{Applied, Consensus, ConsensusError, LeaseView, RaftStatus};
use super::applied::applied;
use super::checkpoint::{CHECKPOINT, CheckpointHandle, Keeper};
use super::config::{RaftOptions, StartError, peer_addresses};
use super::contact::Contact;
use super::forward::{Call, Told};
use super::journal::{Journal, Recovered};
use super::leader;
use super::leases::LeaseKeeper;
use super::log::LogStore;
use super::machine::{Machine, Parts};
use super::net::identity::{Context, Roster};
use super::net::link;
use super::net::links::Links;
use super::net::network::PeerFactory;
use super::net::server;
use super::read::ReadQueue;
use super::shared::Shared;
use super::snapshot::SnapshotStore;
use super::status;
use super::types::MemberNode;
use crate::store::state::State;
use crate::store::types::{Command, LeaseId, MemberId, MemberRecord};
use crate::store::wal::{Wal, WalOptions};

/// Between two looks at the connections to peers.
const TEND_INTERVAL: Duration = Duration::from_secs(1);

/// The log's file keeps nothing of what it wrote: the newest entries are kept by [`LogStore`].
const WAL_CACHE_BYTES: usize = 0;

/// How long writing a snapshot may take before whoever waits for it is told so.
const SNAPSHOT_TIMEOUT: Duration = Duration::from_secs(10 * 60);

/// Peers that may wait to be taken in.
const BACKLOG: u32 = 1024;

/// The consensus of one member. Dropping it stops the member at once, as a crash would; see
/// [`Consensus::shutdown`] for the orderly way.
pub struct RaftNode {
    shared: Arc<Shared>,
    addresses: Vec<SocketAddr>,
    checkpoint: CheckpointHandle,
    tasks: parking_lot::Mutex<Vec<AbortOnDropHandle<()>>>,
}

impl RaftNode {
    /// Starts a member: opens its log and newest snapshot, brings `state` (which must be new) to
    /// where it was, and begins to talk to its peers. A member that was never in a cluster waits to
    /// be contacted; the first of a new cluster needs [`Self::initialize`].
    pub async fn start(options: RaftOptions, state: Arc<State>) -> Result<Self, StartError> {
        let wal_options = WalOptions {
            cache_bytes: WAL_CACHE_BYTES,
            observer: options.observers.wal_sync.clone(),
            ..WalOptions::default()
        };
        // Whoever has the log has the checkpoint too, which is read beside it: its memory is then not
        // what reading the log has used, which sled would have to fill with 20 MiB of zeros.
        let claimed = Wal::claim(&options.dir.join("wal"))?;
        let bound = bind(&options.listen)?;
        let reading = tokio::task::spawn_blocking(move || claimed.open(wal_options));
        let keeper = open_checkpoint(&options, &state).await;
        let read = reading.await.map_err(|error| StartError::Data(error.to_string()))?;
        let (wal, recovered) = read?;
        let opened = Opened { journal: Arc::new(wal), recovered, keeper, bound };
        Self::start_with(options, state, opened).await
    }

    /// Starts a member on a journal that was opened by the caller.
    #[cfg(test)]
    pub(crate) async fn start_on(
        options: RaftOptions,
        state: Arc<State>,
        (journal, recovered): (Arc<dyn Journal>, Recovered),
    ) -> Result<Self, StartError> {
        let bound = bind(&options.listen)?;
        let keeper = open_checkpoint(&options, &state).await;
        Self::start_with(options, state, Opened { journal, recovered, keeper, bound }).await
    }

    async fn start_with(
        options: RaftOptions,
        state: Arc<State>,
        opened: Opened,
    ) -> Result<Self, StartError> {
        let Opened { journal, recovered, keeper, bound: (sockets, addresses) } = opened;
        let config =
            options.raft_config().map_err(|error| StartError::Timing(error.to_string()))?;
        let links = Arc::new(Links::new(Arc::new(Context {
            id: options.member.id,
            name: options.member.name.clone(),
            cluster: options.cluster,
            tls: options.tls.clone(),
            roster: ArcSwap::from_pointee(Roster::default()),
            removed: watch::Sender::new(false),
            supersedes: options.supersedes.clone(),
            superseded: watch::Sender::new(None),
            traffic: options.observers.traffic.clone().unwrap_or_else(|| Arc::new(())),
        })));
        let snap_dir = options.dir.join("snap");
        let snapshots =
            SnapshotStore::open(&snap_dir, options.cluster).map_err(StartError::file(&snap_dir))?;
        let snapshots = Arc::new(snapshots.observed_by(options.observers.snapshot.clone()));
        let data = |error: std::io::Error| StartError::Data(error.to_string());
        let log = LogStore::open(journal, &recovered).map_err(data)?;
        let (applying, applied) = applied();
        let listeners = listen(sockets, &addresses)?;
        let greeted = listeners.iter().map(|one| server::greet_all(one, &links.context, &state));
        tokio::select! {
            asked = ask_peers(&links.context, &options.member, &state) => asked?,
            _ = futures::future::join_all(greeted), if !listeners.is_empty() => {}
        }
        let leases = Arc::new(LeaseKeeper::default());
        let parts = Parts {
            context: links.context.clone(),
            state: state.clone(),
            snapshots: snapshots.clone(),
            applied: applying,
            leases: leases.clone(),
            log: log.clone(),
        };
        let machine = Machine::new(parts).map_err(data)?;
        let factory = PeerFactory(links.clone());
        let (id, config) = (options.member.id, Arc::new(config));
        let raft = openraft::Raft::new(id, config, factory, log.clone(), machine)
            .await
            .map_err(|error| StartError::Data(error.to_string()))?;
        let shared = Arc::new(Shared {
            id,
            member: options.member,
            timing: options.timing,
            raft,
            log,
            state,
            links,
            contact: Contact::new(options.timing.leader_patience()),
            snapshots,
            status: watch::Sender::new(RaftStatus::default()),
            applied,
            reads: ReadQueue::default(),
            leases,
            changing: tokio::sync::Mutex::new(()),
            proposals: AtomicUsize::new(0),
            closing: AtomicBool::new(false),
        });
        shared.status.send_modify(|status| status.id = shared.id);
        let mut tasks = spawn_tasks(&shared, listeners);
        let checkpoint = keeper.as_ref().map(Keeper::handle).unwrap_or_default();
        if let Some(keeper) = keeper {
            tasks.push(AbortOnDropHandle::new(tokio::spawn(keeper.run())));
        }
        Ok(Self { shared, addresses, checkpoint, tasks: parking_lot::Mutex::new(tasks) })
    }

    /// Makes this member the only voter of a new cluster. Does nothing on a member that has a log
    /// already, so that it may be called on each start.
    pub async fn initialize(&self) -> Result<(), StartError> {
        self.initialize_with(std::slice::from_ref(&self.shared.member)).await
    }

    /// Makes `members`, of which this one is one, the voters of a new cluster. Each of them must be told
    /// the same. Does nothing on a member that has a log already.
    pub async fn initialize_with(&self, members: &[MemberRecord]) -> Result<(), StartError> {
        let shared = &self.shared;
        let data = |error: String| StartError::Data(error);
        let begun = shared.raft.is_initialized().await.map_err(|error| data(error.to_string()))?;
        if begun {
            return Ok(());
        }
        let node = |member: &MemberRecord| {
            let addresses = peer_addresses(&member.peer_urls)?;
            Ok((member.id, MemberNode { addresses, name: member.name.clone(), promote: false }))
        };
        let members: Result<BTreeMap<_, _>, StartError> = members.iter().map(node).collect();
        match shared.raft.initialize(members?).await {
            // Another one of them was quicker, and its entry is here already.
            Err(error) if matches!(error.api_error(), Some(InitializeError::NotAllowed(_))) => {
                Ok(())
            }
            other => other.map_err(|error| data(error.to_string())),
        }
    }

    /// The addresses it listens on for peers.
    pub fn local_addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// The checkpoint of the state, to be asked for its size and to be rewritten.
    pub fn checkpoint(&self) -> CheckpointHandle {
        self.checkpoint.clone()
    }

    async fn snapshot(&self) -> Result<(), ConsensusError> {
        let shared = &self.shared;
        let wanted = shared.applied.index();
        let stopped = |_| ConsensusError::Stopped;
        shared.snapshots.want(wanted);
        let mut metrics = shared.raft.metrics();
        let written = async {
            let mut newest = None;
            loop {
                // One that is being written already may be too old: then another one follows.
                shared.raft.trigger().snapshot().await.map_err(stopped)?;
                loop {
                    let snapshot = metrics.borrow_and_update().snapshot;
                    if snapshot.is_some_and(|last| last.index >= wanted) {
                        return Ok(());
                    }
                    if snapshot > newest {
                        newest = snapshot;
                        break;
                    }
                    metrics.changed().await.map_err(|_| ConsensusError::Stopped)?;
                }
            }
        };
        timeout(SNAPSHOT_TIMEOUT, written).await.unwrap_or(Err(ConsensusError::Timeout))
    }

    async fn stop(&self) {
        let shared = &self.shared;
        let hands_over = shared.status.borrow().can_hand_over();
        if hands_over && let Err(error) = shared.transfer(None).await {
            tracing::info!(%error, "leadership was not handed over");
        }
        shared.closing.store(true, Ordering::Relaxed);
        // First those who watch: a member that is told to stop has not failed.
        self.tasks.lock().clear();
        shared.links.close();
        if let Err(error) = shared.raft.shutdown().await {
            tracing::warn!(%error, "consensus did not stop cleanly");
        }
        if let Err(error) = shared.log.close().await {
            tracing::warn!(%error, "the log was not closed cleanly");
        }
        shared.status.send_modify(|status| status.leader = None);
    }
}

/// What a member has opened before it starts.
struct Opened {
    journal: Arc<dyn Journal>,
    recovered: Recovered,
    /// `None`: it goes on without a checkpoint.
    keeper: Option<Keeper>,
    bound: Bound,
}

/// Sockets that do not listen yet, and their addresses.
type Bound = (Vec<TcpSocket>, Vec<SocketAddr>);

/// Opens the checkpoint, which may fail without harm.
async fn open_checkpoint(options: &RaftOptions, state: &Arc<State>) -> Option<Keeper> {
    let (dir, state) = (options.dir.join(CHECKPOINT), state.clone());
    match Keeper::open_unless_stalled(dir.clone(), options.cluster, state).await {
        Ok(keeper) => Some(keeper.observed_by(options.observers.checkpoint.clone())),
        Err(error) => {
            tracing::warn!(%error, dir = %dir.display(), "going on without a checkpoint");
            None
        }
    }
}

/// Takes the addresses. While a member still reads its data connections are refused, rather than that
/// its peers wait for a word.
fn bind(wanted: &[SocketAddr]) -> Result<Bound, StartError> {
    let take = |address: SocketAddr| {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        let address = socket.local_addr()?;
        Ok((socket, address))
    };
    let taken = wanted
        .iter()
        .map(|&address| take(address).map_err(|source| StartError::Listen { address, source }));
    Ok(taken.collect::<Result<Vec<_>, _>>()?.into_iter().unzip())
}

fn listen(
    sockets: Vec<TcpSocket>,
    addresses: &[SocketAddr],
) -> Result<Vec<TcpListener>, StartError> {
    let listen = |(socket, &address): (TcpSocket, &SocketAddr)| {
        socket.listen(BACKLOG).map_err(|source| StartError::Listen { address, source })
    };
    sockets.into_iter().zip(addresses).map(listen).collect()
}

/// Asks those that were members when this one last ran whether its cluster still is one.
async fn ask_peers(
    context: &Arc<Context>,
    own: &MemberRecord,
    state: &State,
) -> Result<(), StartError> {
    let others = state.members().into_iter().filter(|member| member.id != own.id);
    let peers = others.filter_map(|member| {
        let addresses = peer_addresses(&member.peer_urls).ok()?;
        Some((member.id, addresses))
    });
    link::probe(context, peers.collect()).await;
    let by = *context.superseded.borrow();
    by.map_or(Ok(()), |by| Err(StartError::Superseded { by }))
}

fn spawn_tasks(shared: &Arc<Shared>, listeners: Vec<TcpListener>) -> Vec<AbortOnDropHandle<()>> {
    let mut tasks = Vec::new();
    for listener in listeners {
        tasks.push(tokio::spawn(server::serve(listener, shared.clone())));
    }
    tasks.push(tokio::spawn(status::follow(shared.clone())));
    tasks.push(tokio::spawn(shared.clone().serve_reads()));
    tasks.push(tokio::spawn(leader::stand(shared.clone())));
    tasks.push(tokio::spawn(leader::lead(shared.clone())));
    tasks.push(tokio::spawn(leader::publish(shared.clone())));
    tasks.push(tokio::spawn(shared.clone().keep_leases()));
    let links = shared.links.clone();
    tasks.push(tokio::spawn(async move {
        let mut tick = interval(TEND_INTERVAL);
        loop {
            tick.tick().await;
            links.tend();
        }
    }));
    tasks.into_iter().map(AbortOnDropHandle::new).collect()
}

impl Drop for RaftNode {
    fn drop(&mut self) {
        let shared = self.shared.clone();
        shared.closing.store(true, Ordering::Relaxed);
        shared.links.close();
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move { shared.raft.shutdown().await });
        }
    }
}

/// What a question that has no answer of its own was told.
fn done(told: &Told) -> Result<(), ConsensusError> {
    match told {
        Told::Done => Ok(()),
        _ => Err(ConsensusError::ConnectionLost),
    }
}

impl Consensus for RaftNode {
    fn propose(&self, command: Command) -> BoxFuture<'_, Result<Applied, ConsensusError>> {
        Box::pin(async move { self.shared.propose(&command).await })
    }

    fn read_barrier(&self) -> BoxFuture<'_, Result<(), ConsensusError>> {
        Box::pin(self.shared.read_barrier())
    }

    fn lease_renew(&self, id: LeaseId) -> BoxFuture<'_, Result<i64, ConsensusError>> {
        Box::pin(async move {
            match self.shared.ask(Call::LeaseRenew(id)).await? {
                Told::Ttl(ttl) => Ok(ttl),
                _ => Err(ConsensusError::ConnectionLost),
            }
        })
    }

    fn lease_view(
        &self,
        id: LeaseId,
        keys: bool,
    ) -> BoxFuture<'_, Result<LeaseView, ConsensusError>> {
        Box::pin(async move {
            match self.shared.ask(Call::LeaseView { id, keys }).await? {
                Told::Lease(view) => Ok(view),
                _ => Err(ConsensusError::ConnectionLost),
            }
        })
    }

    fn lease_sort(&self, leases: &mut [LeaseId]) {
        self.shared.leases.sort(leases);
    }

    fn member_add(
        &self,
        member: MemberRecord,
        voter: bool,
    ) -> BoxFuture<'_, Result<(), ConsensusError>> {
        Box::pin(async move { done(&self.shared.ask(Call::MemberAdd { member, voter }).await?) })
    }

    fn member_promote(&self, id: MemberId) -> BoxFuture<'_, Result<(), ConsensusError>> {
        Box::pin(async move { done(&self.shared.ask(Call::MemberPromote(id)).await?) })
    }

    fn member_remove(&self, id: MemberId) -> BoxFuture<'_, Result<(), ConsensusError>> {
        Box::pin(async move { done(&self.shared.ask(Call::MemberRemove(id)).await?) })
    }

    fn member_update(
        &self,
        id: MemberId,
        peer_urls: Vec<String>,
    ) -> BoxFuture<'_, Result<(), ConsensusError>> {
        Box::pin(async move { done(&self.shared.ask(Call::MemberUpdate { id, peer_urls }).await?) })
    }

    fn transfer_leader(&self, to: Option<MemberId>) -> BoxFuture<'_, Result<(), ConsensusError>> {
        Box::pin(self.shared.transfer(to))
    }

    fn status(&self) -> watch::Receiver<RaftStatus> {
        self.shared.status.subscribe()
    }

    fn snapshot_now(&self) -> BoxFuture<'_, Result<(), ConsensusError>> {
        Box::pin(self.snapshot())
    }

    fn shutdown(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.stop())
    }
}
