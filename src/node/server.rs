//! A server, from its configuration to a ready voter and back to a clean stop.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::boot::{self, Start};
use super::config::ServerConfig;
use super::context::Context;
use super::disk::{self, StoreDisk};
use super::fence;
use super::host;
use super::identity::{DataDir, Identity, Phase};
use super::join::{join, member_name, plain, random_id};
use super::keys::Keys;
use super::records::unix_now;
use super::reset;
use super::snapshots::keeper::Keeper;
use super::snapshots::metrics::SnapshotMetrics;
use super::snapshots::schedule;
use super::supervisor;
use super::tasks;
use super::{bundle, records::Settings};
use crate::error::{ExitCode, Failure, chain};
use crate::limits::{CLIENT_PORT, PEER_PORT};
use crate::pki::inspect::Facts;
use crate::pki::token::generate_password;
use crate::pki::tree::{Authorities, Owner, member_id_of};
use crate::pki::{Token, files, tls};
use crate::raft::api::Consensus;
use crate::raft::{Observers, PeerClaim, PeerTls, RaftNode, RaftOptions, StartError, Timing};
use crate::rpc::{self, metrics::Metrics};
use crate::secret::Secret;
use crate::store::state::State;
use crate::store::types::{ClusterId, MemberRecord};

/// How often the way to readiness is looked at.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// How often the log says that it is still on the way: K3s's 5 s.
const COMPLAIN_INTERVAL: Duration = Duration::from_secs(5);

/// A server that runs.
pub struct Server {
    context: Arc<Context>,
    data: DataDir,
    stop: CancellationToken,
    tasks: TaskTracker,
}

/// Who the server is, and with which certificates and secrets.
struct Found {
    identity: Identity,
    authorities: Authorities,
}

impl Server {
    /// Starts a server: as the member it was, of a new cluster, or by joining one. Returns when it
    /// listens; [`Self::ready`] waits until it serves.
    pub async fn start(config: ServerConfig) -> Result<Self, Failure> {
        let data = DataDir::new(&config.node.data_dir);
        prepare(&data).map_err(|error| broken(&error))?;
        fence::check(&data)?;
        if reset::finish(&data).map_err(|error| broken(&error))? {
            tracing::info!("a reset that was left half done is finished");
        }
        host::check_ports(&addresses(&config))?;
        let password = host::node_password(&data.node_password())?;
        let found = find_self(&config, &data, &password).await?;
        let Found { identity, authorities } = found;
        let owner = Owner {
            node_name: config.node.name.clone(),
            member_name: identity.member_name.clone(),
            member_id: identity.member_id,
            sans: config.sans(),
            peer_addresses: vec![config.node.ip().to_string()],
        };
        let keys = Keys::open(config.clone(), data.clone(), authorities, owner);
        let keys = Arc::new(keys.map_err(|error| broken(&error))?);

        let state = Arc::new(State::new());
        let metrics = Arc::new(Metrics::new().map_err(|error| broken(&error))?);
        let options =
            raft_options(&config, &data, &identity, &keys).map_err(|error| broken(&error))?;
        let observers = disk::observers(&metrics, options.member.id);
        let options =
            RaftOptions { observers: observers.map_err(|error| broken(&error))?, ..options };
        let raft = RaftNode::start(options, Arc::clone(&state));
        let raft = raft.await.map_err(|error| match error {
            StartError::Superseded { by } => self::superseded(&data, by),
            error => broken(&error),
        })?;
        let raft = Arc::new(raft);
        if boot::initializes(&identity) {
            raft.initialize().await.map_err(|error| broken(&error))?;
        }
        let disk = Arc::new(StoreDisk {
            dir: data.store(),
            cluster: identity.cluster_id,
            state,
            checkpoint: raft.checkpoint(),
        });
        let consensus: Arc<dyn Consensus> = raft;
        let name = config.node.name.clone();
        let keeper = keeper(&config, &data, &identity, &disk.state);
        let numbers = SnapshotMetrics::new(Arc::clone(&keeper));
        numbers.and_then(|numbers| metrics.register(numbers)).map_err(|error| broken(&error))?;
        let scheduled = schedule::keep(Arc::clone(&keeper), Arc::clone(&consensus));
        let context = Context::new(identity, name, consensus, disk, Arc::clone(&keys));
        let context = context.map_err(|error| broken(&error))?.with_snapshots(keeper);
        let context = Arc::new(context);
        let server =
            Self { context, data, stop: CancellationToken::new(), tasks: TaskTracker::new() };
        server.open(&config, metrics).await?;
        let settings = server.settings(&config)?;
        let stop = server.stop.clone();
        server.tasks.spawn(async move { stop.run_until_cancelled(keys.keep()).await });
        let stop = server.stop.clone();
        server.tasks.spawn(async move { stop.run_until_cancelled(scheduled).await });
        server.tasks.spawn(tasks::keep(
            Arc::clone(&server.context),
            config,
            settings,
            password,
            server.stop.clone(),
        ));
        Ok(server)
    }

    /// Waits until it is a voter that sees a leader and has caught up; from then on its identity
    /// says so. Fails when the member was removed or its consensus stopped.
    pub async fn ready(&self) -> Result<(), Failure> {
        let mut complained = tokio::time::Instant::now();
        loop {
            self.check_alive()?;
            let reason = match self.context.ready().await {
                Ok(()) if !self.is_published() => "its URLs are not known yet".to_owned(),
                Ok(())
                    if !self.context.keys.has_agent_token().map_err(|error| broken(&error))? =>
                {
                    "the token for agents is not told yet".to_owned()
                }
                Ok(()) if self.context.records.node(&self.context.node_name).is_some() => break,
                Ok(()) => "this node has not been registered yet".to_owned(),
                Err(reason) => reason,
            };
            if complained.elapsed() >= COMPLAIN_INTERVAL {
                tracing::info!("Failed to test etcd connection: {reason}");
                complained = tokio::time::Instant::now();
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
        let identity = Identity { phase: Phase::Member, ..self.context.identity.clone() };
        if self.context.identity.phase != Phase::Member {
            self.data.write_identity(&identity).map_err(|error| broken(&error))?;
        }
        reset::forget_flag(&self.data).map_err(|error| broken(&error))?;
        Ok(())
    }

    /// Waits until the member's consensus ends for good, and says why. A removed member writes its
    /// tombstone and waits to be restarted.
    pub async fn ended(&self) -> Failure {
        let mut status = self.context.consensus.status();
        let mut told = false;
        loop {
            if status.borrow_and_update().removed && !told {
                told = true;
                if let Err(error) = self.data.write_tombstone() {
                    return broken(&error);
                }
                tracing::error!(
                    "This node has been removed from the cluster - please restart k3sup-rs to \
                     rejoin the cluster"
                );
            }
            if let Err(failure) = self.check_failed() {
                return failure;
            }
            if status.changed().await.is_err() {
                return Failure::new(ExitCode::Error, "consensus ended");
            }
        }
    }

    /// Hands leadership over, ends what is under way and leaves everything on disk.
    pub async fn stop(self) {
        let hands_over = self.context.consensus.status().borrow().can_hand_over();
        if hands_over && let Err(error) = self.context.consensus.transfer_leader(None).await {
            tracing::info!(%error, "leadership was not handed over");
        }
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        self.context.consensus.shutdown().await;
    }

    /// What the server knows.
    pub fn context(&self) -> &Arc<Context> {
        &self.context
    }

    /// Whether clients that ask for the members find this one.
    fn is_published(&self) -> bool {
        let record = self.context.state.member(self.context.identity.member_id);
        record.is_some_and(|record| !record.client_urls.is_empty())
    }

    fn check_alive(&self) -> Result<(), Failure> {
        if self.context.consensus.status().borrow().removed {
            self.data.write_tombstone().map_err(|error| broken(&error))?;
            return Err(Failure::new(
                ExitCode::Error,
                "this server was removed from the cluster before it was ready",
            )
            .hint("restart it to join again under a fresh number"));
        }
        self.check_failed()
    }

    fn check_failed(&self) -> Result<(), Failure> {
        if let Some(by) = self.context.consensus.status().borrow().superseded {
            return Err(superseded(&self.data, by));
        }
        match self.context.consensus.status().borrow().failed.clone() {
            Some(why) => Err(Failure::new(ExitCode::Error, format!("this member stopped: {why}"))),
            None => Ok(()),
        }
    }

    /// Opens supervisor and client API.
    async fn open(&self, config: &ServerConfig, metrics: Arc<Metrics>) -> Result<(), Failure> {
        let serving = |auth| self.context.keys.answering(auth);
        let optional = serving(tls::ClientAuth::Optional).map_err(|error| broken(&error))?;
        let required = serving(tls::ClientAuth::Required).map_err(|error| broken(&error))?;

        let listeners = bind(&supervisor_addresses(config)).await?;
        let context = Arc::clone(&self.context);
        self.tasks.spawn(supervisor::serve(listeners, optional, context, self.stop.clone()));

        let identity = &self.context.identity;
        let member = rpc::member::Member::new(
            Arc::clone(&self.context.consensus),
            Arc::clone(&self.context.state),
            self.context.disk.clone(),
            rpc::member::Identity { cluster: identity.cluster_id, member: identity.member_id },
            rpc::member::Settings {
                election_timeout: config.etcd.election_timeout,
                quota_bytes: config.etcd.quota_bytes,
                progress_notify_interval: config.etcd.progress_notify_interval,
                limits: config.etcd.limits,
            },
            metrics,
        );
        let listeners = bind(&config.listen(CLIENT_PORT)).await?;
        let entrances = rpc::Entrance::to_everything(listeners, Some(&required));
        self.tasks.spawn(rpc::serve(entrances, member, self.stop.clone()));
        Ok(())
    }

    /// What a new cluster agrees on; `None` when the cluster has begun.
    fn settings(&self, config: &ServerConfig) -> Result<Option<Settings>, Failure> {
        if !boot::initializes(&self.context.identity) {
            return Ok(None);
        }
        let token = files::read_private(&self.data.token()).map_err(|error| broken(&error))?;
        let token = Token::parse(&token.unwrap_or_default()).map_err(|error| broken(&error))?;
        let settings = Settings::first(config, &token.password);
        settings.map(Some).map_err(|error| broken(&error))
    }
}

/// Takes and keeps this server's snapshots.
fn keeper(
    config: &ServerConfig,
    data: &DataDir,
    identity: &Identity,
    state: &Arc<State>,
) -> Arc<Keeper> {
    let (name, snapshots) = (&config.node.name, config.snapshots.clone());
    Arc::new(Keeper::new(name, identity.cluster_id, Arc::clone(state), data, snapshots))
}

/// Decides how to start, and does what comes before the store.
async fn find_self(
    config: &ServerConfig,
    data: &DataDir,
    password: &Secret,
) -> Result<Found, Failure> {
    let identity = data.read_identity().map_err(|error| broken(&error))?;
    let start = boot::decide(identity, data.is_removed(), config)
        .map_err(|error| Failure::new(ExitCode::BadInput, error.to_string()))?;
    match start {
        Start::Resume(identity) => {
            tracing::info!("Managed etcd cluster bootstrap already complete and initialized");
            let authorities = data.tree().authorities().map_err(|error| broken(&error))?;
            let authorities = authorities.ok_or_else(|| {
                let path = data.tree().server_ca_path();
                Failure::new(ExitCode::Error, format!("{} is missing", path.display()))
                    .hint("copy server/tls from another server of the cluster")
            })?;
            Ok(Found { identity, authorities })
        }
        Start::Bootstrap { implicit } => bootstrap(config, data, implicit),
        Start::Join(token) => {
            tracing::info!("Managed etcd cluster not yet initialized");
            enter(config, data, &token, password).await
        }
        Start::Rejoin(token) => {
            let aside = data.set_store_aside(unix_now()).map_err(|error| broken(&error))?;
            tracing::info!("this member was removed; its data is now in {}", aside.display());
            enter(config, data, &token, password).await
        }
    }
}

/// Joins. Only then older copies of what this server held before may go.
async fn enter(
    config: &ServerConfig,
    data: &DataDir,
    token: &Token,
    password: &Secret,
) -> Result<Found, Failure> {
    let joined = join(config, data, token, password).await;
    let (identity, authorities) = joined.map_err(|error| broken(&error))?;
    match data.prune_aside() {
        Ok(removed) => {
            for path in removed {
                tracing::info!("{}, set aside long ago, is removed", path.display());
            }
        }
        Err(error) => tracing::warn!(%error, "cannot remove what was set aside long ago"),
    }
    Ok(Found { identity, authorities })
}

/// CAs, token and identity of a new cluster. The identity comes last: without it, another start
/// does this again with the CAs and the token that are there.
fn bootstrap(config: &ServerConfig, data: &DataDir, implicit: bool) -> Result<Found, Failure> {
    if implicit {
        tracing::info!("neither --cluster-init nor --server is set: beginning a cluster of one");
    }
    tracing::info!("Managed etcd cluster initializing");
    let tree = data.tree();
    let authorities = match tree.authorities().map_err(|error| broken(&error))? {
        Some(authorities) => authorities,
        None => tree.create_authorities().map_err(|error| broken(&error))?,
    };
    let known = files::read_private(&data.token()).map_err(|error| broken(&error))?;
    let password = match (&config.node.token, known) {
        (Some(token), _) => plain(token),
        (None, Some(known)) => plain(&Secret::new(known)),
        (None, None) => generate_password().map_err(|error| broken(&error))?,
    };
    let ca = authorities.server.certificate();
    bundle::write_token(data, ca, &password).map_err(|error| broken(&error))?;
    let member_id = random_id().map_err(|error| broken(&error))?;
    let identity = Identity {
        cluster_id: random_id().map_err(|error| broken(&error))?,
        member_id,
        member_name: member_name(&config.node.name, member_id),
        phase: Phase::Bootstrapping,
        supersedes: Vec::new(),
        restore_id: None,
    };
    data.write_identity(&identity).map_err(|error| broken(&error))?;
    let url = config.supervisor_url();
    tracing::info!("Server node token is available at {}", data.token().display());
    tracing::info!("To join server node to cluster: k3sup-rs server -s {url} --token-file TOKEN");
    tracing::info!("Agent node token is available at {}", data.agent_token().display());
    tracing::info!("To join agent node to cluster: k3sup-rs agent -s {url} --token-file TOKEN");
    Ok(Found { identity, authorities })
}

fn prepare(data: &DataDir) -> std::io::Result<()> {
    files::private_directory(data.path())?;
    data.tree().prepare()?;
    files::private_directory(&data.path().join("server/db"))
}

fn raft_options(
    config: &ServerConfig,
    data: &DataDir,
    identity: &Identity,
    keys: &Keys,
) -> Result<RaftOptions, crate::pki::PkiError> {
    let (server, client) = keys.peering()?;
    let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    Ok(RaftOptions {
        cluster: identity.cluster_id,
        supersedes: identity.supersedes.clone(),
        member: MemberRecord {
            id: identity.member_id,
            name: identity.member_name.clone(),
            peer_urls: vec![config.url(PEER_PORT)],
            client_urls: vec![config.url(CLIENT_PORT)],
        },
        dir: data.store(),
        listen: config.listen(PEER_PORT),
        tls: Some(PeerTls {
            server,
            client,
            identify: Some(Arc::new(|der| {
                let facts = Facts::from_der(der).ok()?;
                let id = member_id_of(&facts);
                id.map(|id| PeerClaim { id: Some(id), name: Some(facts.common_name) })
            })),
        }),
        timing: Timing {
            heartbeat_ms: millis(config.etcd.heartbeat_interval),
            election_ms: millis(config.etcd.election_timeout),
        },
        snapshot_count: config.etcd.snapshot_count,
        observers: Observers::default(),
    })
}

/// The supervisor is for everybody: the bind address as it is, unspecified included.
fn supervisor_addresses(config: &ServerConfig) -> Vec<SocketAddr> {
    vec![SocketAddr::new(config.bind_address, config.https_listen_port)]
}

/// All that the server will listen on.
fn addresses(config: &ServerConfig) -> Vec<SocketAddr> {
    let mut all: BTreeSet<SocketAddr> = supervisor_addresses(config).into_iter().collect();
    all.extend(config.listen(CLIENT_PORT));
    all.extend(config.listen(PEER_PORT));
    all.into_iter().collect()
}

async fn bind(addresses: &[SocketAddr]) -> Result<Vec<TcpListener>, Failure> {
    let mut listeners = Vec::new();
    for address in addresses {
        let listener = TcpListener::bind(address).await.map_err(|error| {
            let holder = crate::host::net::holder(*address);
            Failure::new(ExitCode::Error, format!("cannot listen on {address}: {error}{holder}"))
        })?;
        listeners.push(listener);
    }
    Ok(listeners)
}

/// Another cluster took the place of this one: this server fences itself, and ends.
fn superseded(data: &DataDir, by: ClusterId) -> Failure {
    tracing::error!("this server's cluster was restored as cluster {by:x}: it fences itself");
    let fenced = fence::superseded(data, by).map_err(|error| broken(&error));
    match fenced.and_then(|()| fence::check(data)) {
        Err(failure) => failure,
        Ok(()) => Failure::new(ExitCode::Refused, format!("superseded by cluster {by:x}")),
    }
}

/// A failure of the start, with its causes.
fn broken(error: &dyn std::error::Error) -> Failure {
    Failure::new(ExitCode::Error, chain(error))
}
