//! The listeners: TCP, TLS and HTTP, with gRPC and plain HTTP on one port.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::Status;
use tonic::body::Body;
use tower::Service;

use super::cluster::ClusterService;
use super::health::HealthService;
use super::http::router;
use super::kv::KvService;
use super::lease::LeaseService;
use super::maintenance::MaintenanceService;
use super::member::Member;
use super::pb::etcdserverpb as pb;
use super::pb::grpc::health::v1::health_server::HealthServer;
use super::watch::{self, WatchService};
use crate::limits::{GRPC_OVERHEAD_BYTES, REQUEST_BYTES_MAX};

/// How long a client may take for its TLS handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// How many clients may be in their handshake at once; others wait in the kernel's queue, so that
/// a flood of half-open connections does not take all memory.
const HANDSHAKES_MAX: usize = 256;

/// Streams per connection. A Kubernetes API server holds hundreds of watches on one.
const STREAMS_PER_CONNECTION_MAX: u32 = 16 * 1024;

/// Receive window per stream, in bytes: most requests arrive without waiting for an update.
const STREAM_WINDOW_BYTES: u32 = 1024 * 1024;

/// Receive window per connection, in bytes.
const CONNECTION_WINDOW_BYTES: u32 = 8 * 1024 * 1024;

/// A silent client is asked whether it is there after this long (etcd's
/// `--grpc-keepalive-interval`), …
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(2 * 60 * 60);

/// … and dropped when it does not answer within this (etcd's `--grpc-keepalive-timeout`).
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);

/// Largest message a client may send, in bytes.
const LIMIT: usize = REQUEST_BYTES_MAX + GRPC_OVERHEAD_BYTES;

/// How long calls under way may take to end when the server stops.
const STOP_GRACE: Duration = Duration::from_secs(3);

/// Serves the API on all listeners until `shutdown`, then ends streams with etcd's "server stopped",
/// lets calls under way finish for a short while and returns.
///
/// With `tls` every connection must be TLS; its ALPN protocols must be `h2` and `http/1.1`.
/// Which client certificates are wanted is for `tls` to say.
pub async fn serve(
    listeners: Vec<TcpListener>,
    tls: Option<Arc<rustls::ServerConfig>>,
    member: Member,
    shutdown: CancellationToken,
) {
    let tracker = TaskTracker::new();
    let api = Api::new(member.clone());
    for listener in listeners {
        let door = Door {
            api: api.clone(),
            tls: tls.clone().map(TlsAcceptor::from),
            handshakes: Arc::new(Semaphore::new(HANDSHAKES_MAX)),
            shutdown: shutdown.clone(),
            tracker: tracker.clone(),
        };
        tracker.spawn(door.accept(listener));
    }
    tracker.spawn(member.clone().watch_leader());
    tracker.spawn(member.clone().watch_space());
    shutdown.cancelled().await;
    member.stop.cancel();
    tracker.close();
    tracker.wait().await;
}

/// One listener and all that its connections need.
#[derive(Clone)]
struct Door {
    api: Api,
    tls: Option<TlsAcceptor>,
    handshakes: Arc<Semaphore>,
    shutdown: CancellationToken,
    tracker: TaskTracker,
}

impl Door {
    async fn accept(self, listener: TcpListener) {
        loop {
            let Ok(permit) = self.handshakes.clone().acquire_owned().await else { return };
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = self.shutdown.cancelled() => return,
            };
            match accepted {
                Ok((stream, _)) => {
                    let door = self.clone();
                    self.tracker.spawn(async move {
                        match door.greet(stream).await {
                            Ok(connection) => {
                                drop(permit);
                                connection.await;
                            }
                            Err(error) => tracing::debug!(%error, "a client's handshake failed"),
                        }
                    });
                }
                Err(error) => {
                    // Out of file descriptors, most likely: the next try would fail at once too.
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
    }

    /// Does the handshake; gives the connection to serve.
    async fn greet(&self, stream: TcpStream) -> io::Result<BoxFuture<'static, ()>> {
        stream.set_nodelay(true)?;
        let (api, shutdown) = (self.api.clone(), self.shutdown.clone());
        let Some(tls) = &self.tls else {
            return Ok(Box::pin(converse(stream, api, shutdown)));
        };
        let stream = timeout(HANDSHAKE_TIMEOUT, tls.accept(stream)).await??;
        Ok(Box::pin(converse(stream, api, shutdown)))
    }
}

/// Serves one connection until it ends, or a little longer than the server runs.
async fn converse<S>(stream: S, api: Api, shutdown: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new());
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_PER_CONNECTION_MAX)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT);
    let mut connection =
        std::pin::pin!(builder.serve_connection(TokioIo::new(stream), api).into_owned());
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            timeout(STOP_GRACE, connection).await.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = ended {
        tracing::debug!(error, "a connection broke");
    }
}

/// All services, and which one a request is for.
///
/// A match on the path instead of a router: the names are fixed, and this is the hot path.
#[derive(Clone)]
struct Api {
    kv: pb::kv_server::KvServer<KvService>,
    lease: pb::lease_server::LeaseServer<LeaseService>,
    cluster: pb::cluster_server::ClusterServer<ClusterService>,
    maintenance: pb::maintenance_server::MaintenanceServer<MaintenanceService>,
    watch: WatchService,
    health: HealthServer<HealthService>,
    http: axum::Router,
}

impl Api {
    fn new(member: Member) -> Self {
        let m = || member.clone();
        Self {
            kv: pb::kv_server::KvServer::new(KvService(m())).max_decoding_message_size(LIMIT),
            lease: pb::lease_server::LeaseServer::new(LeaseService(m()))
                .max_decoding_message_size(LIMIT),
            cluster: pb::cluster_server::ClusterServer::new(ClusterService(m()))
                .max_decoding_message_size(LIMIT),
            maintenance: pb::maintenance_server::MaintenanceServer::new(MaintenanceService(m()))
                .max_decoding_message_size(LIMIT),
            watch: WatchService(m()),
            health: HealthServer::new(HealthService(m())),
            http: router(member),
        }
    }

    /// Anything that is not one of our services: plain HTTP, or a gRPC service we do not have.
    fn other(&self, request: Request<Incoming>) -> Answer {
        let grpc = request.headers().get(http::header::CONTENT_TYPE);
        if grpc.is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc")) {
            let service = request.uri().path().split('/').nth(1).unwrap_or_default();
            let status = Status::unimplemented(format!("unknown service {service}"));
            return Box::pin(async { Ok(status.into_http()) });
        }
        let answer = self.http.clone().call(request);
        Box::pin(async { answer.await.map(|response| response.map(Body::new)) })
    }
}

type Answer = BoxFuture<'static, Result<Response<Body>, Infallible>>;

impl hyper::service::Service<Request<Incoming>> for Api {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Answer;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let path = request.uri().path();
        let service = path.strip_prefix('/').and_then(|path| path.split_once('/'));
        match service.map(|(service, _)| service) {
            Some("etcdserverpb.KV") => self.kv.clone().call(request),
            Some("etcdserverpb.Watch") if path == watch::PATH => {
                let service = self.watch.clone();
                Box::pin(async { Ok(service.serve(request, LIMIT).await) })
            }
            Some("etcdserverpb.Lease") => self.lease.clone().call(request),
            Some("etcdserverpb.Cluster") => self.cluster.clone().call(request),
            Some("etcdserverpb.Maintenance") => self.maintenance.clone().call(request),
            Some("grpc.health.v1.Health") => self.health.clone().call(request),
            _ => self.other(request),
        }
    }
}
