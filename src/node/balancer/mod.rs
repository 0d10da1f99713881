//! The agent's client-side load balancer: a local port that always leads to a live server.
//!
//! As in K3s it fails over, it does not spread: one server is active and stays so until it cannot
//! be dialled, or does not serve while another does (it hangs, or lost its quorum); then its
//! connections are closed, so that clients notice at once, and another takes its place. The list of
//! servers survives a restart.
//!
//! It passes bytes through: TLS is end to end between client and server. Knows nothing of tokens
//! and of the supervisor's API.

mod pool;
mod state;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::future::{BoxFuture, join_all};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub use pool::Pool;
pub use state::{Saved, load, save};

/// How long dialling a server may take.
const DIAL_LIMIT: Duration = Duration::from_secs(2);

/// How often each server is dialled to see whether it is there.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// How often each server is asked how it is.
const ASK_INTERVAL: Duration = Duration::from_secs(5);

/// What a server says of itself; the better, the greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Health {
    /// It does not answer, though it may accept connections: it hangs.
    Silent,
    /// It answers that it cannot serve now.
    Unready,
    /// It serves.
    Ready,
}

/// Asks the server at an address (without port) how it is; must end by itself.
pub type Ask = Arc<dyn Fn(String) -> BoxFuture<'static, Health> + Send + Sync>;

/// A port to listen on and the servers' port it leads to.
#[derive(Clone, Debug)]
pub struct Forward {
    /// Where clients connect.
    pub listen: SocketAddr,
    /// The port on the servers.
    pub server_port: u16,
}

/// The running balancer. Dropping it closes its ports and connections.
#[derive(Debug)]
pub struct Balancer {
    tasks: JoinSet<()>,
    addresses: Vec<SocketAddr>,
}

/// Why the balancer could not start.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {source}")]
pub struct ListenError {
    /// Where.
    pub address: SocketAddr,
    /// Why.
    pub source: std::io::Error,
}

impl Balancer {
    /// Listens on every forward's port and leads to the servers of `pool`, which it asks by `ask` how
    /// they are. The pool is shared, so that all forwards fail over together.
    ///
    /// # Errors
    /// A port is taken.
    pub async fn start(
        forwards: &[Forward],
        pool: Arc<Pool>,
        ask: Ask,
    ) -> Result<Self, ListenError> {
        let mut tasks = JoinSet::new();
        let mut addresses = Vec::new();
        for forward in forwards {
            let wrap = |source| ListenError { address: forward.listen, source };
            let listener = TcpListener::bind(forward.listen).await.map_err(wrap)?;
            addresses.push(listener.local_addr().map_err(wrap)?);
            tasks.spawn(accept(listener, forward.server_port, Arc::clone(&pool)));
        }
        let port = forwards.first().map_or(0, |forward| forward.server_port);
        tasks.spawn(check(Arc::clone(&pool), port));
        tasks.spawn(judge(pool, ask));
        Ok(Self { tasks, addresses })
    }

    /// Where it listens, in the order of the forwards.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Closes its ports and connections.
    pub async fn stop(mut self) {
        self.tasks.shutdown().await;
    }
}

async fn accept(listener: TcpListener, port: u16, pool: Arc<Pool>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((client, _)) => {
                    connections.spawn(carry(client, port, Arc::clone(&pool)));
                }
                // Out of file descriptors, for example: others may be freed soon.
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

/// Dials servers, the active one first, until one answers; then carries bytes until either side or
/// the server's health ends it. With no live server the client sees its connection closed.
async fn carry(mut client: TcpStream, port: u16, pool: Arc<Pool>) {
    for server in pool.candidates() {
        let Some(mut upstream) = dial(&server, port).await else {
            pool.failed(&server);
            continue;
        };
        let ended: CancellationToken = pool.succeeded(&server);
        // Small requests must not wait for Nagle; without it they still work.
        let _ = (client.set_nodelay(true), upstream.set_nodelay(true));
        tokio::select! {
            // How a connection ended is its two ends' business.
            _ = copy_bidirectional(&mut client, &mut upstream) => {}
            () = ended.cancelled() => {}
        }
        return;
    }
}

async fn dial(server: &str, port: u16) -> Option<TcpStream> {
    tokio::time::timeout(DIAL_LIMIT, TcpStream::connect((server, port))).await.ok()?.ok()
}

/// Asks every server, over and over, whether it accepts connections.
async fn check(pool: Arc<Pool>, port: u16) {
    loop {
        tokio::time::sleep(CHECK_INTERVAL).await;
        let servers = pool.candidates();
        let checks = servers.iter().map(|server| async move { dial(server, port).await.is_some() });
        for (server, alive) in servers.iter().zip(join_all(checks).await) {
            if alive { pool.healthy(server) } else { pool.failed(server) }
        }
    }
}

/// Asks every server, over and over, how it is. The default address is not asked: what answers there
/// may be a balancer.
async fn judge(pool: Arc<Pool>, ask: Ask) {
    loop {
        tokio::time::sleep(ASK_INTERVAL).await;
        let servers = pool.servers();
        let answers = join_all(servers.iter().map(|server| ask(server.clone()))).await;
        let found: Vec<_> = servers.into_iter().zip(answers).collect();
        pool.judge(&found);
    }
}

#[cfg(test)]
mod tests;
