//! A stand-alone member, from its configuration to serving clients and back to a clean stop.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rand::seq::IndexedRandom as _;
use rustls::ServerConfig;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::compactor;
use super::config::Config;
use super::data::{DataDir, Identity, PART};
use super::ids;
use super::security::Armed;
use super::urls::Url;
use crate::error::{ExitCode, Failure, chain};
use crate::node::disk::{self, StoreDisk};
use crate::node::host::check_ports;
use crate::node::records::unix_now;
use crate::pki::files;
use crate::raft::api::Consensus;
use crate::raft::reset::{self, Source};
use crate::raft::{About, PeerTls, RaftNode, RaftOptions, Timing, who_is_there};
use crate::rpc::metrics::Metrics;
use crate::rpc::{self, Entrance, Offer, Tokens, member};
use crate::store::fs::remove_dir_all;
use crate::store::state::State;
use crate::store::types::{ClusterId, MemberId, MemberRecord};

/// How often the way to readiness is looked at.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// How long a member that joins tries to find the others, as etcd does not say.
const JOIN_ROUNDS: u32 = 30;

/// A stand-alone member that runs.
pub struct Server {
    config: Config,
    data: DataDir,
    identity: Identity,
    state: Arc<State>,
    consensus: Arc<dyn Consensus>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Server {
    /// Starts a member: as the one it was, of a new cluster, or by joining one. Returns when it
    /// listens; [`Self::ready`] waits until it serves.
    ///
    /// # Errors
    /// What stands in the way, as etcd would say it where it has words.
    pub async fn start(config: Config) -> Result<Self, Failure> {
        let tokens = config.auth_token.open()?;
        let data = DataDir::new(&config.data_dir);
        files::private_directory(&config.data_dir).map_err(|error| broken(&error))?;
        let addresses = [&config.listen_peers, &config.listen_clients, &config.listen_metrics];
        let addresses: Result<Vec<_>, _> = addresses.into_iter().flatten().map(Url::bind).collect();
        check_ports(&addresses.map_err(bad)?)?;
        let clients =
            Armed::open(&config.client_security, &config.listen_clients, &data.made("client"))?;
        let peers = Armed::open(&config.peer_security, &config.listen_peers, &data.made("peer"))?;
        let peering = match &peers {
            Some(peers) if config.peers_speak_tls() => Some(peers.peering()?),
            _ => None,
        };
        let client_tls = clients.as_ref().map(Armed::server).transpose()?;

        let identity = find_self(&config, &data, peering.as_ref()).await?;
        if config.force_new_cluster {
            force_new_cluster(&config, &data, &identity).map_err(|error| broken(&error))?;
        }
        let state = Arc::new(State::new());
        let metrics = Arc::new(Metrics::new().map_err(|error| broken(&error))?);
        let options = options(&config, &data, &identity, peering)?;
        let observers = disk::observers(&metrics, options.member.id);
        let options =
            RaftOptions { observers: observers.map_err(|error| broken(&error))?, ..options };
        let raft = RaftNode::start(options, Arc::clone(&state)).await;
        let raft = Arc::new(raft.map_err(|error| broken(&error))?);
        if !identity.initial.is_empty() {
            raft.initialize_with(&identity.initial).await.map_err(|error| broken(&error))?;
        }
        let disk = Arc::new(StoreDisk {
            dir: data.member(),
            cluster: identity.cluster,
            state: Arc::clone(&state),
            checkpoint: raft.checkpoint(),
        });
        let consensus: Arc<dyn Consensus> = raft;
        let server = Self {
            config,
            data,
            identity,
            state,
            consensus,
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
        };
        server.open(client_tls, disk, metrics, tokens).await?;
        for armed in [clients, peers].into_iter().flatten() {
            server.keep(armed.watch());
        }
        if let Some(retention) = server.config.retention {
            let (state, consensus) = (server.state.clone(), server.consensus.clone());
            server.keep(compactor::keep(retention, state, consensus));
        }
        Ok(server)
    }

    /// Waits until it is a member that sees a leader and whose URLs the cluster knows.
    ///
    /// # Errors
    /// It was removed, or its consensus stopped.
    pub async fn ready(&self) -> Result<(), Failure> {
        loop {
            self.check_alive()?;
            let status = self.consensus.status().borrow().clone();
            // A voter to be serves nothing yet; a learner that stays one serves what learners serve.
            let has_place = !status.voters_to_be.contains(&status.id);
            let own = self.state.member(self.identity.member);
            let is_published = own.is_some_and(|own| own.client_urls == self.config.client_urls);
            if status.leader.is_some() && has_place && is_published {
                break;
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
        tracing::info!("ready to serve client requests");
        for url in &self.config.listen_clients {
            let address = format!("{}:{}", url.host, url.port);
            if url.tls {
                tracing::info!(address, "serving client traffic securely");
            } else {
                tracing::info!(
                    address,
                    "serving client traffic insecurely; this is strongly discouraged!"
                );
            }
        }
        Ok(())
    }

    /// Waits until the member ends for good, and says why.
    pub async fn ended(&self) -> Failure {
        let mut status = self.consensus.status();
        loop {
            if let Err(failure) = self.check_alive() {
                return failure;
            }
            if status.changed().await.is_err() {
                return Failure::new(ExitCode::Error, "consensus ended");
            }
        }
    }

    /// Hands leadership over, ends what is under way and leaves everything on disk.
    pub async fn stop(self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        self.consensus.shutdown().await;
    }

    fn check_alive(&self) -> Result<(), Failure> {
        let status = self.consensus.status().borrow().clone();
        if status.removed {
            let identity = Identity { removed: true, ..self.identity.clone() };
            self.data.write(&identity).map_err(|error| broken(&error))?;
            return Err(removed());
        }
        match status.failed {
            Some(why) => Err(Failure::new(ExitCode::Error, format!("this member stopped: {why}"))),
            None => Ok(()),
        }
    }

    fn keep(&self, work: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        self.tasks.spawn(async move {
            stop.run_until_cancelled(work).await;
        });
    }

    /// Opens the client API.
    async fn open(
        &self,
        tls: Option<Arc<ServerConfig>>,
        disk: Arc<StoreDisk>,
        metrics: Arc<Metrics>,
        tokens: Tokens,
    ) -> Result<(), Failure> {
        let member = member::Member::new(
            Arc::clone(&self.consensus),
            Arc::clone(&self.state),
            disk,
            member::Identity { cluster: self.identity.cluster, member: self.identity.member },
            member::Settings {
                election_timeout: self.config.etcd.election_timeout,
                quota_bytes: self.config.etcd.quota_bytes,
                progress_notify_interval: self.config.etcd.progress_notify_interval,
                limits: self.config.etcd.limits,
            },
            metrics,
        );
        let member = member
            .with_access(self.config.access.clone())
            .with_login(self.config.login)
            .with_tokens(tokens);
        let mut entrances = Vec::new();
        for (urls, offer) in [
            (&self.config.listen_clients, Offer::Everything),
            (&self.config.listen_metrics, Offer::Observation),
        ] {
            for url in urls {
                let address = url.bind().map_err(bad)?;
                let listener = TcpListener::bind(address).await.map_err(|error| {
                    Failure::new(ExitCode::Error, format!("cannot listen on {address}: {error}"))
                })?;
                let tls = if url.tls { tls.clone() } else { None };
                entrances.push(Entrance { listener, tls, offer });
            }
        }
        self.tasks.spawn(rpc::serve(entrances, member, self.stop.clone()));
        Ok(())
    }
}

/// Who the member is: by its data, else by its configuration and its peers.
async fn find_self(
    config: &Config,
    data: &DataDir,
    tls: Option<&PeerTls>,
) -> Result<Identity, Failure> {
    if let Some(identity) = data.read()? {
        return if identity.removed { Err(removed()) } else { Ok(identity) };
    }
    let identity = if config.joins {
        join(config, tls).await?
    } else {
        let identity = begin(config);
        check_not_bootstrapped(config, identity.member, tls).await?;
        identity
    };
    data.write(&identity).map_err(|error| broken(&error))?;
    Ok(identity)
}

/// A member of a new cluster: numbers follow from the configuration, which is the same on all.
pub(super) fn begin(config: &Config) -> Identity {
    let record = |(name, urls): (&String, &Vec<String>)| MemberRecord {
        id: ids::member(urls, &config.cluster_token),
        name: name.clone(),
        peer_urls: urls.clone(),
        client_urls: Vec::new(),
    };
    let initial: Vec<MemberRecord> = config.initial.iter().map(record).collect();
    let members: Vec<MemberId> = initial.iter().map(|member| member.id).collect();
    let member = ids::member(&config.peer_urls, &config.cluster_token);
    Identity::new(ids::cluster(&members), member, initial)
}

/// A member that lost its data must not begin its cluster again beside the others.
async fn check_not_bootstrapped(
    config: &Config,
    member: MemberId,
    tls: Option<&PeerTls>,
) -> Result<(), Failure> {
    for about in ask(&others(config), tls).await {
        let own = about.members.iter().find(|known| known.id == member);
        if own.is_some_and(|own| !own.client_urls.is_empty()) {
            return Err(Failure::new(
                ExitCode::Refused,
                format!("member {member:x} has already been bootstrapped"),
            )
            .hint(
                "its data is gone: remove it with `etcdctl member remove`, add it with `etcdctl member \
                 add`, and start it with --initial-cluster-state=existing",
            ));
        }
    }
    Ok(())
}

/// A member that was added to a cluster: its peers know its number by its URLs.
async fn join(config: &Config, tls: Option<&PeerTls>) -> Result<Identity, Failure> {
    let others = others(config);
    if others.is_empty() {
        return Err(bad("--initial-cluster names nobody else to join".to_owned()));
    }
    for _ in 0..JOIN_ROUNDS {
        let answers = ask(&others, tls).await;
        let Some(about) = answers.choose(&mut rand::rng()) else {
            tracing::warn!("no peer answers yet");
            tokio::time::sleep(Duration::from_secs(1)).await;
            continue;
        };
        return fit(config, about);
    }
    let urls: Vec<&str> = others.iter().map(|url| url.text.as_str()).collect();
    Err(Failure::new(
        ExitCode::Error,
        format!("could not retrieve cluster information from the given URLs: {}", urls.join(", ")),
    ))
}

/// Finds this member among those that a peer tells of.
fn fit(config: &Config, about: &About) -> Result<Identity, Failure> {
    let refuse =
        |why: String| Failure::new(ExitCode::Refused, format!("error validating peerURLs: {why}"));
    if about.members.len() != config.initial.len() {
        return Err(refuse(format!(
            "member count is unequal: the cluster has {}, --initial-cluster {}",
            about.members.len(),
            config.initial.len()
        ))
        .hint("etcdctl member add prints the ETCD_INITIAL_CLUSTER to give"));
    }
    let sorted = |urls: &[String]| {
        let mut urls = urls.to_vec();
        urls.sort();
        urls
    };
    let find = |urls: &Vec<String>| {
        about.members.iter().find(|member| sorted(&member.peer_urls) == sorted(urls))
    };
    if let Some((name, urls)) = config.initial.iter().find(|(_, urls)| find(urls).is_none()) {
        return Err(refuse(format!(
            "unmatched member while checking PeerURLs ({name}={})",
            urls.join(",")
        )));
    }
    let own = find(&config.peer_urls).ok_or_else(|| refuse("unmatched own URLs".to_owned()))?;
    if !own.client_urls.is_empty() {
        return Err(Failure::new(
            ExitCode::Refused,
            format!("member {:x} has already been bootstrapped", own.id),
        ));
    }
    Ok(Identity::new(about.cluster, own.id, Vec::new()))
}

/// The peer URLs of the others.
fn others(config: &Config) -> Vec<Url> {
    let urls = config.initial.iter().filter(|(name, _)| **name != config.name);
    urls.flat_map(|(_, urls)| urls).filter_map(|url| Url::parse(url).ok()).collect()
}

/// What each of the peers that answer tells.
async fn ask(peers: &[Url], tls: Option<&PeerTls>) -> Vec<About> {
    let asked =
        peers.iter().map(|url| async move { who_is_there(&url.authority(), tls).await.ok() });
    futures::future::join_all(asked).await.into_iter().flatten().collect()
}

fn options(
    config: &Config,
    data: &DataDir,
    identity: &Identity,
    tls: Option<PeerTls>,
) -> Result<RaftOptions, Failure> {
    let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let listen: Result<Vec<_>, _> = config.listen_peers.iter().map(Url::bind).collect();
    Ok(RaftOptions {
        cluster: identity.cluster,
        supersedes: Vec::new(),
        member: record(config, identity.member),
        dir: data.member(),
        listen: listen.map_err(bad)?,
        tls,
        timing: Timing {
            heartbeat_ms: millis(config.etcd.heartbeat_interval),
            election_ms: millis(config.etcd.election_timeout),
        },
        snapshot_count: config.etcd.snapshot_count,
        observers: crate::raft::Observers::default(),
    })
}

fn record(config: &Config, id: MemberId) -> MemberRecord {
    MemberRecord {
        id,
        name: config.name.clone(),
        peer_urls: config.peer_urls.clone(),
        client_urls: config.client_urls.clone(),
    }
}

/// Makes this member the only one, with what it holds. Its data of before is kept beside.
fn force_new_cluster(config: &Config, data: &DataDir, identity: &Identity) -> io::Result<()> {
    let cluster: ClusterId = identity.cluster;
    let loaded = reset::load(Source::Data(&data.member(), cluster))?;
    let made = config.data_dir.join(PART);
    remove_dir_all(&made)?;
    let own = [record(config, identity.member)];
    reset::write(&loaded, &made, cluster, &own, identity.member, Vec::new())?;
    let text = std::fs::read(data.member().join("identity.json"))?;
    files::write_private(&made.join("identity.json"), &text)?;
    let aside = config.data_dir.join(format!("member.before-{}", unix_now()));
    std::fs::rename(data.member(), &aside)?;
    std::fs::rename(&made, data.member())?;
    tracing::warn!(kept = %aside.display(), "forced a new cluster of this member alone");
    Ok(())
}

fn removed() -> Failure {
    Failure::new(ExitCode::Error, "the member has been permanently removed from the cluster").hint(
        "to let it join again: etcdctl member add, and start it with another or an empty --data-dir",
    )
}

fn bad(why: String) -> Failure {
    Failure::new(ExitCode::BadInput, why)
}

/// A failure of the start, with its causes.
fn broken(error: &dyn std::error::Error) -> Failure {
    Failure::new(ExitCode::Error, chain(error))
}
