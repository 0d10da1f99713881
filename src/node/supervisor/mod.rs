//! The supervisor: HTTPS on 6443 for joining, registering, heartbeats and status.
//!
//! A caller is known by a client certificate of the client CA, or by a token in basic
//! authentication. Bodies, handshakes, requests and connections are bounded; a wrong secret is
//! answered late. The serving certificate's names come from the configuration alone: no handshake
//! adds one.

mod caller;
mod join;
mod nodes;
pub(crate) mod rotation;
mod routes;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

use super::context::{Context, canonical};
use crate::pki::inspect::Facts;
use caller::{Origin, Patience};

/// How long a caller may take for its TLS handshake, and for the head of a request.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a connection may live: nothing here streams, and idle ones end.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(120);

/// Connections at once; further ones wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 512;

/// How long requests under way may take when the server stops.
const STOP_GRACE: Duration = Duration::from_secs(2);

/// Serves on all listeners until `stop`.
pub async fn serve(
    listeners: Vec<TcpListener>,
    tls: Arc<rustls::ServerConfig>,
    context: Arc<Context>,
    stop: CancellationToken,
) {
    let tracker = TaskTracker::new();
    let door = Door {
        router: routes::router(context),
        acceptor: TlsAcceptor::from(tls),
        connections: Arc::new(Semaphore::new(CONNECTIONS_MAX)),
        stop: stop.clone(),
    };
    for listener in listeners {
        tracker.spawn(accept(listener, door.clone(), tracker.clone()));
    }
    stop.cancelled().await;
    tracker.close();
    // Who does not end in time is cut off with the process.
    let _ = timeout(STOP_GRACE, tracker.wait()).await;
}

#[derive(Clone)]
struct Door {
    router: Router,
    acceptor: TlsAcceptor,
    connections: Arc<Semaphore>,
    stop: CancellationToken,
}

async fn accept(listener: TcpListener, door: Door, tracker: TaskTracker) {
    loop {
        let Ok(permit) = Arc::clone(&door.connections).acquire_owned().await else { return };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = door.stop.cancelled() => return,
        };
        match accepted {
            Ok((stream, address)) => {
                let (door, source) = (door.clone(), canonical(address.ip()));
                tracker.spawn(async move {
                    let _permit = permit;
                    if let Err(error) = door.carry(stream, source).await {
                        tracing::debug!(%source, %error, "a supervisor connection ended");
                    }
                });
            }
            // Out of file descriptors, for example: others may be freed soon.
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

impl Door {
    async fn carry(self, stream: TcpStream, source: std::net::IpAddr) -> Result<(), String> {
        let stream = timeout(HANDSHAKE_TIMEOUT, self.acceptor.accept(stream))
            .await
            .map_err(|_| "handshake took too long".to_owned())?
            .map_err(|error| error.to_string())?;
        let certificates = stream.get_ref().1.peer_certificates();
        let certificate = certificates
            .and_then(|chain| chain.first())
            .and_then(|leaf| Facts::from_der(leaf).ok());
        let patience = Patience::default();
        let certificate = certificate.map(Arc::new);
        let origin = Origin { source, certificate, patience: patience.clone() };
        let service = self.router.map_request(move |mut request: http::Request<_>| {
            request.extensions_mut().insert(origin.clone());
            request
        });
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder.http1().timer(TokioTimer::new()).header_read_timeout(HANDSHAKE_TIMEOUT);
        builder.http2().timer(TokioTimer::new()).max_concurrent_streams(64);
        let connection =
            builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(service));
        tokio::pin!(connection);
        let mut stopping = false;
        let end = tokio::time::sleep(CONNECTION_TIMEOUT);
        tokio::pin!(end);
        loop {
            tokio::select! {
                done = connection.as_mut() => return done.map_err(|error| error.to_string()),
                () = self.stop.cancelled(), if !stopping => {
                    stopping = true;
                    connection.as_mut().graceful_shutdown();
                }
                () = end.as_mut() => {
                    if !patience.is_taken() {
                        return Err("it was open for too long".to_owned());
                    }
                    end.as_mut().reset(tokio::time::Instant::now() + CONNECTION_TIMEOUT);
                }
            }
        }
    }
}
