//! An agent: registers with the cluster, says every ten seconds that it is there, and gives its
//! host local ports that always lead to a live server.

mod files;
mod health;
mod register;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::balancer::{self, Ask, Balancer, Forward, Health, Pool, Saved};
use super::config::AgentConfig;
use super::context::HEARTBEAT_INTERVAL;
use super::host;
use super::http::{Answer, Connector, HttpError};
use super::wire::Servers;
use crate::error::{ExitCode, Failure, chain};
use crate::limits::{AGENT_HEALTH_PORT, CLIENT_PORT, SUPERVISOR_PORT};
use crate::pki::{KeyPairPem, tls};
use files::AgentFiles;

pub use files::is_registered;

/// How long one server may take to answer.
const ASK_TIMEOUT: Duration = Duration::from_secs(5);

/// How long to wait before another try.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// An agent whose last heartbeat is older is not ready.
const STALE_AFTER: Duration = Duration::from_secs(20);

/// How often it is looked at whether the certificate lasts.
const RENEWAL_INTERVAL: Duration = Duration::from_secs(24 * 60 * 60);

/// An agent that runs.
pub struct Agent {
    shared: Arc<Shared>,
    balancer: Balancer,
    stop: CancellationToken,
    tasks: TaskTracker,
}

/// Who asks servers whether they are ready, as soon as a CA is known.
type Trust = Arc<Mutex<Option<Connector>>>;

/// What the agent's tasks share.
struct Shared {
    config: AgentConfig,
    files: AgentFiles,
    pool: Arc<Pool>,
    /// The supervisors' port, the same on all servers.
    port: u16,
    /// The CAs that servers are believed with, PEM.
    ca: Mutex<String>,
    /// With the agent's certificate.
    connector: Mutex<Connector>,
    /// Without it.
    trust: Trust,
    /// The servers' mark of their CAs when this agent registered last.
    mark: Mutex<String>,
    heard: Mutex<Option<Instant>>,
}

impl Agent {
    /// Opens the local ports and registers at the first server that answers. An agent that knows
    /// servers from an earlier run opens the ports first: what runs on this host needs them whether
    /// or not it can be registered just now. Waits for a server as long as it takes; a refusal is
    /// an error.
    pub async fn start(config: AgentConfig) -> Result<Self, Failure> {
        let files = AgentFiles::open(&config.node.data_dir).map_err(|error| broken(&error))?;
        host::check_ports(&ports(&config))?;
        let known = balancer::load(&files.servers(), &url(&config));
        let default = config.node.server.as_ref().map(|server| server.host.as_str());
        let pool = Arc::new(Pool::new(hosts(&known), default));
        let trust = Trust::default();
        let mut balancer = match known.iter().find_map(|authority| port_of(authority)) {
            Some(port) => Some(open(&config, port, &pool, &trust).await?),
            None => None,
        };
        let entered = register::enter(&config, &files, &known).await?;
        *trust.lock() = Some(asker(&entered.ca)?);

        let supervisors = &entered.servers.supervisors;
        let told = supervisors.iter().chain(&known).find_map(|authority| port_of(authority));
        let configured = config.node.server.as_ref().map(|server| server.port);
        let port = told.or(configured).unwrap_or(SUPERVISOR_PORT);
        let balancer = match balancer.take() {
            Some(balancer) => balancer,
            None => open(&config, port, &pool, &trust).await?,
        };
        let shared = Arc::new(Shared {
            connector: Mutex::new(connector(&entered.ca, &entered.pair)?),
            heard: Mutex::new(Some(Instant::now())),
            port,
            ca: Mutex::new(entered.ca),
            trust,
            mark: Mutex::new(entered.servers.trust.clone()),
            pool,
            files,
            config,
        });
        shared.learn(&entered.servers);
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let listener = health::bind(health_address(shared.config.bind_address)).await?;
        tasks.spawn(health::serve(listener, Arc::clone(&shared), stop.clone()));
        tasks.spawn(beat(Arc::clone(&shared), stop.clone()));
        let (renewed, stopped) = (Arc::clone(&shared), stop.clone());
        tasks.spawn(async move { stopped.run_until_cancelled(renew(&renewed)).await });
        Ok(Self { shared, balancer, stop, tasks })
    }

    /// The servers it knows of.
    pub fn servers(&self) -> Vec<String> {
        self.shared.pool.servers()
    }

    /// Closes its ports and ends.
    pub async fn stop(self) {
        self.stop.cancel();
        self.balancer.stop().await;
        self.tasks.close();
        self.tasks.wait().await;
    }
}

impl Shared {
    /// Asks the servers in the balancer's order until one answers.
    async fn ask(&self, method: &str, path: &str) -> Result<Answer, HttpError> {
        let connector = self.connector.lock().clone();
        let mut last = HttpError::Broken("no server is known".to_owned());
        for host in self.pool.candidates() {
            let authority = authority(&host, self.port);
            match connector.ask(&authority, method, path, None, b"").await {
                Ok(answer) if answer.status < 500 => return Ok(answer),
                Ok(answer) => {
                    last = HttpError::Broken(format!("{authority}: {}", answer.text()));
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Takes over the list of servers, on disk too when it is another.
    fn learn(&self, servers: &Servers) {
        if servers.supervisors.is_empty() {
            return;
        }
        self.pool.set_servers(&hosts(&servers.supervisors));
        let (path, url) = (self.files.servers(), url(&self.config));
        if balancer::load(&path, &url) == servers.supervisors {
            return;
        }
        let saved = Saved { server_url: url, server_addresses: servers.supervisors.clone() };
        if let Err(error) = balancer::save(&path, &saved) {
            tracing::warn!(%error, "the list of servers was not saved");
        }
    }

    /// Why the agent is not ready, if so.
    fn standing(&self) -> Result<(), String> {
        match *self.heard.lock() {
            Some(heard) if heard.elapsed() <= STALE_AFTER => Ok(()),
            _ => Err("no server answers its heartbeats".to_owned()),
        }
    }

    fn authorities(&self) -> Vec<String> {
        self.pool.candidates().iter().map(|host| authority(host, self.port)).collect()
    }

    /// Registers again: the node was deleted while it ran.
    async fn enter_again(&self) -> Result<(), Failure> {
        let servers = self.authorities();
        let ca = self.ca.lock().clone();
        let entered = register::again(&self.config, &self.files, &ca, &servers).await?;
        self.take_up(&entered)
    }

    /// Gets a new certificate when the one it has will not last long.
    async fn renew(&self) -> Result<(), Failure> {
        if !register::is_due(&self.files) {
            return Ok(());
        }
        self.certify(false).await
    }

    /// Gets a new certificate, and the CAs of the moment.
    async fn certify(&self, rekey: bool) -> Result<(), Failure> {
        let servers = self.authorities();
        let entered = register::renew(&self.config, &self.files, &servers, rekey).await?;
        self.take_up(&entered)
    }

    fn take_up(&self, entered: &register::Entered) -> Result<(), Failure> {
        *self.connector.lock() = connector(&entered.ca, &entered.pair)?;
        *self.trust.lock() = Some(asker(&entered.ca)?);
        self.ca.lock().clone_from(&entered.ca);
        self.mark.lock().clone_from(&entered.servers.trust);
        self.learn(&entered.servers);
        Ok(())
    }

    async fn beat(&self) -> Result<(), String> {
        let answer = self.ask("POST", "/v1-k3sup/heartbeat").await;
        let answer = answer.map_err(|error| error.to_string())?;
        match answer.status {
            200 => {
                let servers: Servers = answer.json().map_err(|error| error.to_string())?;
                self.learn(&servers);
                let other = !servers.trust.is_empty() && *self.mark.lock() != servers.trust;
                if other {
                    tracing::info!("the cluster's CAs are others: registering again");
                    self.certify(false).await.map_err(|failure| failure.message)?;
                }
            }
            401 | 403 | 410 => self.enter_again().await.map_err(|failure| failure.message)?,
            status => return Err(format!("it answers {status}: {}", answer.text())),
        }
        *self.heard.lock() = Some(Instant::now());
        Ok(())
    }
}

/// Says that the node is there until `stop`.
async fn beat(shared: Arc<Shared>, stop: CancellationToken) {
    let work = async {
        let mut wait = HEARTBEAT_INTERVAL;
        loop {
            tokio::time::sleep(wait).await;
            wait = match shared.beat().await {
                Ok(()) => HEARTBEAT_INTERVAL,
                Err(error) => {
                    tracing::info!("Waiting for a server: {error}");
                    RETRY_INTERVAL
                }
            };
        }
    };
    tokio::select! {
        () = work => {}
        () = stop.cancelled() => {}
    }
}

/// Looks after the certificate, once a day.
async fn renew(shared: &Shared) {
    loop {
        if let Err(failure) = shared.renew().await {
            tracing::warn!("the certificate was not renewed: {}", failure.message);
        }
        tokio::time::sleep(RENEWAL_INTERVAL).await;
    }
}

/// Opens the local ports.
async fn open(
    config: &AgentConfig,
    port: u16,
    pool: &Arc<Pool>,
    trust: &Trust,
) -> Result<Balancer, Failure> {
    let listen = |port| SocketAddr::new(config.bind_address, port);
    let forwards = [
        Forward { listen: listen(config.lb_server_port), server_port: port },
        Forward { listen: listen(CLIENT_PORT), server_port: CLIENT_PORT },
    ];
    let ask = ask(port, Trust::clone(trust));
    Balancer::start(&forwards, Arc::clone(pool), ask).await.map_err(|error| broken(&error))
}

/// Asks a server's `/readyz`. Until the CA is known no server can be asked, and all count as ready.
fn ask(port: u16, trust: Trust) -> Ask {
    Arc::new(move |host| {
        let connector = trust.lock().clone();
        Box::pin(async move {
            let Some(connector) = connector else { return Health::Ready };
            match connector.ask(&authority(&host, port), "GET", "/readyz", None, b"").await {
                Ok(answer) if answer.status == 200 => Health::Ready,
                Ok(_) => Health::Unready,
                Err(_) => Health::Silent,
            }
        })
    })
}

/// Without the agent's certificate: readiness is told to everybody.
fn asker(ca: &str) -> Result<Connector, Failure> {
    let config = tls::client(ca, None, &[]).map_err(|error| broken(&error))?;
    Ok(Connector::tls(config, ASK_TIMEOUT))
}

fn connector(ca: &str, pair: &KeyPairPem) -> Result<Connector, Failure> {
    let config = tls::client(ca, Some(pair), &[]).map_err(|error| broken(&error))?;
    Ok(Connector::tls(config, ASK_TIMEOUT))
}

/// The registration address, which the saved list of servers belongs to.
fn url(config: &AgentConfig) -> String {
    config.node.server.as_ref().map(ToString::to_string).unwrap_or_default()
}

/// All that the agent will listen on.
fn ports(config: &AgentConfig) -> [SocketAddr; 3] {
    let at = |port| SocketAddr::new(config.bind_address, port);
    [at(config.lb_server_port), at(CLIENT_PORT), health_address(config.bind_address)]
}

/// The health endpoint speaks plain HTTP and so stays on loopback, whatever the bind address.
fn health_address(bind: IpAddr) -> SocketAddr {
    let address = if bind.is_loopback() { bind } else { IpAddr::V4(Ipv4Addr::LOCALHOST) };
    SocketAddr::new(address, AGENT_HEALTH_PORT)
}

fn hosts(authorities: &[String]) -> Vec<String> {
    let host = |authority: &String| {
        let host = authority.rsplit_once(':').map_or(authority.as_str(), |(host, _)| host);
        host.trim_start_matches('[').trim_end_matches(']').to_owned()
    };
    authorities.iter().map(host).collect()
}

fn port_of(authority: &str) -> Option<u16> {
    authority.rsplit_once(':').and_then(|(_, port)| port.parse().ok())
}

fn authority(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

fn broken(error: &dyn std::error::Error) -> Failure {
    Failure::new(ExitCode::Error, chain(error))
}
