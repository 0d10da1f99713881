//! The agent: registers with the cluster, keeps being heard of, and gives its host a local,
//! always-live endpoint to the servers.
//!
//! It needs its token only once: afterwards it has a certificate. Any server it knows will do.

mod health;
mod registration;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use sd_notify::NotifyState;
use tokio::net::TcpListener;

use super::balancer::{Balancer, Forward, Pool, Saved, load, save};
use super::config::AgentConfig;
use super::host;
use super::identity::DataDir;
use crate::cluster::view::ClusterView;
use crate::error::{ExitCode, Failure, chain};
use crate::limits::{AGENT_HEALTH_PORT, CLIENT_PORT};
use crate::pki::token::ca_hash;

use registration::{Refusal, Registration};

/// How often the agent is heard of.
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(10);

/// How long between attempts while no server answers.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// Without a heartbeat for so long it is not ready: as the servers see it (Kubernetes'
/// `node-monitor-grace-period`).
const GRACE: Duration = Duration::from_secs(super::records::GRACE_SECONDS);

/// What the health endpoint tells.
#[derive(Debug, Default)]
struct Health {
    heard: Option<Instant>,
    trouble: Option<String>,
}

/// Runs the agent until SIGTERM.
///
/// # Errors
/// The cluster refuses it, a port is taken, or its files cannot be used.
pub async fn run(config: AgentConfig, data: DataDir) -> Result<(), Failure> {
    let listen = |port| SocketAddr::new(config.bind_address, port);
    let (lb, store) = (listen(config.lb_server_port), listen(CLIENT_PORT));
    let health_address = listen(AGENT_HEALTH_PORT);
    host::check_ports(&[lb, store, health_address])?;
    crate::pki::files::private_directory(&data.agent().join("etc")).map_err(|e| failed(&e))?;

    let registration = Registration::open(&config, &data)?;
    let saved = state_file(&data);
    let url = registration.server_url();
    let pool = Arc::new(Pool::new(load(&saved, &url), Some(registration.server_host())));
    let health = Arc::new(Mutex::new(Health::default()));
    let local_token = health::local_token(&data)?;
    let listener = TcpListener::bind(health_address).await.map_err(|e| failed(&e))?;
    let agent = Agent { registration, pool, health, saved, url };
    tokio::spawn(health::serve(listener, local_token, agent.viewer(&config)));

    tokio::select! {
        ended = agent.live(&config, lb, store) => ended,
        () = host::stop_signal() => {
            host::notify(&[NotifyState::Stopping]);
            Ok(())
        }
    }
}

/// Where the list of servers is kept.
fn state_file(data: &DataDir) -> PathBuf {
    data.agent().join("etc/k3sup-agent-load-balancer.json")
}

fn failed(error: &dyn std::error::Error) -> Failure {
    Failure::new(ExitCode::Error, chain(error))
}

struct Agent {
    registration: Registration,
    pool: Arc<Pool>,
    health: Arc<Mutex<Health>>,
    saved: PathBuf,
    /// The registration address that the saved list belongs to.
    url: String,
}

impl Agent {
    async fn live(
        mut self,
        config: &AgentConfig,
        lb: SocketAddr,
        store: SocketAddr,
    ) -> Result<(), Failure> {
        // The local endpoint comes first: what runs on this host needs it whether or not the
        // cluster can be registered with just now.
        let forwards = [
            Forward { listen: lb, server_port: self.registration.server_port() },
            Forward { listen: store, server_port: CLIENT_PORT },
        ];
        let _balancer = Balancer::start(&forwards, Arc::clone(&self.pool))
            .await
            .map_err(|error| failed(&error))?;
        self.register(config).await?;
        tracing::info!("k3sup agent is up and running");
        host::notify(&[NotifyState::Ready]);
        loop {
            tokio::time::sleep(HEARTBEAT_INTERVAL).await;
            self.heartbeat(config).await?;
        }
    }

    /// Registers with the first server that answers; goes on trying until one does. A refusal is
    /// final: trying again would not change it, and K3s's endless retries hide it.
    async fn register(&mut self, config: &AgentConfig) -> Result<(), Failure> {
        loop {
            for server in self.pool.candidates() {
                match self.registration.register(&server, config).await {
                    Ok(servers) => {
                        self.heard(&servers);
                        return Ok(());
                    }
                    Err(Refusal::Final(failure)) => return Err(failure),
                    Err(Refusal::Later(reason)) => self.trouble(&server, &reason),
                }
            }
            tokio::time::sleep(RETRY_INTERVAL).await;
        }
    }

    /// Is heard of by the first server that answers. One that does not know this agent any more
    /// (its node was deleted, the cluster restored) is registered with again.
    async fn heartbeat(&mut self, config: &AgentConfig) -> Result<(), Failure> {
        for server in self.pool.candidates() {
            match self.registration.heartbeat(&server).await {
                Ok(servers) => {
                    self.heard(&servers);
                    return Ok(());
                }
                Err(Refusal::Final(_)) => return self.register(config).await,
                Err(Refusal::Later(reason)) => self.trouble(&server, &reason),
            }
        }
        Ok(())
    }

    fn heard(&self, servers: &[String]) {
        *self.health.lock() = Health { heard: Some(Instant::now()), trouble: None };
        if servers.is_empty() || self.pool.servers() == servers {
            return;
        }
        self.pool.set_servers(servers);
        let saved = Saved { server_url: self.url.clone(), server_addresses: servers.to_vec() };
        if let Err(error) = save(&self.saved, &saved) {
            tracing::warn!(%error, file = %self.saved.display(), "the list of servers was not saved");
        }
    }

    fn trouble(&self, server: &str, reason: &str) {
        tracing::warn!(server, reason, "the server does not answer as it should");
        self.health.lock().trouble = Some(format!("{server}: {reason}"));
    }

    /// What the health endpoint shows, whenever it is asked.
    fn viewer(&self, config: &AgentConfig) -> impl Fn() -> ClusterView + Send + Sync + 'static {
        let (health, name) = (Arc::clone(&self.health), config.node.name.clone());
        let ca = self.registration.ca();
        move || {
            let health = health.lock();
            let ready = health.heard.is_some_and(|heard| heard.elapsed() < GRACE);
            let trouble = health.trouble.clone();
            ClusterView {
                node_name: name.clone(),
                ready,
                not_ready_reason: (!ready)
                    .then(|| trouble.unwrap_or_else(|| "it is not registered yet".to_owned())),
                ca_hash: ca.lock().as_deref().map(ca_hash).unwrap_or_default(),
                ..ClusterView::default()
            }
        }
    }
}
