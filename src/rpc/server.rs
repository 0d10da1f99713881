//! The listeners: TCP, TLS and HTTP, with gRPC and plain HTTP on one port.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use prometheus::IntCounter;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_util::io::{InspectReader, InspectWriter};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::Status;
use tonic::body::Body;
use tonic::codec::CompressionEncoding;
use tower::Service;

use super::auth::AuthService;
use super::caller::CertificateName;
use super::cluster::ClusterService;
use super::deadline;
use super::election::ElectionService;
use super::gateway::{self, Access, Gateway};
use super::health::HealthService;
use super::http::{observation, router};
use super::kv::KvService;
use super::lease::LeaseService;
use super::limits::Limits;
use super::lock::LockService;
use super::maintenance::MaintenanceService;
use super::member::Member;
use super::metrics::Metrics;
use super::pb::etcdserverpb as pb;
use super::pb::grpc::health::v1::health_server::HealthServer;
use super::pb::{v3electionpb, v3lockpb};
use super::policed::Policed;
use super::watch::{self, WatchService};

/// How long a client may take for its TLS handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// How many clients may be in their handshake at once; others wait in the kernel's queue, so that
/// a flood of half-open connections does not take all memory.
const HANDSHAKES_MAX: usize = 256;

/// Receive window per stream, in bytes: most requests arrive without waiting for an update.
const STREAM_WINDOW_BYTES: u32 = 1024 * 1024;

/// Receive window per connection, in bytes.
const CONNECTION_WINDOW_BYTES: u32 = 8 * 1024 * 1024;

/// How long calls under way may take to end when the server stops.
const STOP_GRACE: Duration = Duration::from_secs(3);

/// What is served to those who come in somewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offer {
    /// The whole API.
    Everything,
    /// Metrics, health and version: what a monitor may see, and no key.
    Observation,
}

/// A listener, and how those who come in there are served.
#[derive(Debug)]
pub struct Entrance {
    /// Where they come in.
    pub listener: TcpListener,
    /// With it every connection must be TLS; its ALPN protocols must be `h2` and `http/1.1`. Which
    /// client certificates are wanted is for it to say. `None`: connections are plain TCP.
    pub tls: Option<Arc<rustls::ServerConfig>>,
    /// What is served.
    pub offer: Offer,
}

impl Entrance {
    /// The whole API on all of `listeners`.
    pub fn to_everything(
        listeners: Vec<TcpListener>,
        tls: Option<&Arc<rustls::ServerConfig>>,
    ) -> Vec<Self> {
        let entrance = |listener| Self { listener, tls: tls.cloned(), offer: Offer::Everything };
        listeners.into_iter().map(entrance).collect()
    }
}

/// Serves the API until `shutdown`, then ends streams with etcd's "server stopped", lets calls under
/// way finish for a short while and returns.
pub async fn serve(entrances: Vec<Entrance>, member: Member, shutdown: CancellationToken) {
    let tracker = TaskTracker::new();
    let api = Api::new(member.clone());
    for Entrance { listener, tls, offer } in entrances {
        let door = Door {
            api: match offer {
                Offer::Everything => api.clone(),
                Offer::Observation => api.observation(member.clone()),
            },
            tls: tls.map(TlsAcceptor::from),
            by_certificate: member.login.by_certificate,
            handshakes: Arc::new(Semaphore::new(HANDSHAKES_MAX)),
            shutdown: shutdown.clone(),
            tracker: tracker.clone(),
        };
        tracker.spawn(door.accept(listener));
    }
    tracker.spawn(member.clone().watch_leader());
    tracker.spawn(member.clone().watch_space());
    tracker.spawn(member.clone().watch_tokens());
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
    /// Whether certificates name users.
    by_certificate: bool,
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
        let (mut api, shutdown) = (self.api.clone(), self.shutdown.clone());
        let Some(tls) = &self.tls else {
            return Ok(Box::pin(converse(metered(stream, &api.metrics), api, shutdown)));
        };
        let stream = timeout(HANDSHAKE_TIMEOUT, tls.accept(stream)).await??;
        let name = self.by_certificate.then(|| name(stream.get_ref().1)).flatten();
        api.peer = Peer { tls: true, name };
        Ok(Box::pin(converse(metered(stream, &api.metrics), api, shutdown)))
    }
}

/// Counts what comes and goes, as it is inside TLS.
fn metered<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    metrics: &Metrics,
) -> impl AsyncRead + AsyncWrite + Unpin + use<S> {
    let count = |counter: &IntCounter| {
        let counter = counter.clone();
        move |bytes: &[u8]| counter.inc_by(bytes.len() as u64)
    };
    let stream = InspectWriter::new(stream, count(&metrics.client_sent));
    InspectReader::new(stream, count(&metrics.client_received))
}

/// Serves one connection until it ends, or a little longer than the server runs.
async fn converse<S>(stream: S, api: Api, shutdown: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let limits = api.limits;
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new());
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.streams)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .keep_alive_interval(limits.keepalive_interval)
        .keep_alive_timeout(limits.keepalive_timeout);
    let stream = TokioIo::new(Policed::new(stream, limits.ping_interval));
    let mut connection =
        std::pin::pin!(builder.serve_connection_with_upgrades(stream, api).into_owned());
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

/// Who is at the other end of a connection.
#[derive(Clone, Debug, Default)]
pub(crate) struct Peer {
    /// Whether it came over TLS.
    tls: bool,
    /// The name in its certificate, when it showed one and that names a user.
    name: Option<CertificateName>,
}

/// The name in the certificate that a client showed, which TLS has checked by now; without a name
/// the empty one.
fn name(connection: &rustls::ServerConnection) -> Option<CertificateName> {
    let shown = connection.peer_certificates()?.first()?;
    let (_, certificate) = x509_parser::parse_x509_certificate(shown).ok()?;
    let mut names = certificate.subject().iter_common_name();
    let name = names.next().and_then(|name| name.as_str().ok()).unwrap_or_default();
    Some(CertificateName(name.into()))
}

/// All services, and which one a request is for.
///
/// A match on the path instead of a router: the names are fixed, and this is the hot path.
#[derive(Clone)]
struct Api {
    kv: pb::kv_server::KvServer<KvService>,
    lease: pb::lease_server::LeaseServer<LeaseService>,
    cluster: pb::cluster_server::ClusterServer<ClusterService>,
    auth: pb::auth_server::AuthServer<AuthService>,
    lock: v3lockpb::lock_server::LockServer<LockService>,
    election: v3electionpb::election_server::ElectionServer<ElectionService>,
    maintenance: pb::maintenance_server::MaintenanceServer<MaintenanceService>,
    watch: WatchService,
    health: HealthServer<HealthService>,
    gateway: Gateway,
    access: Arc<Access>,
    metrics: Arc<Metrics>,
    http: axum::Router,
    offer: Offer,
    peer: Peer,
    limits: Limits,
}

/// A service that takes messages up to the limit, compressed or not.
macro_rules! offered {
    ($service:expr, $limits:expr) => {
        $service
            .max_decoding_message_size($limits.message_bytes())
            .accept_compressed(CompressionEncoding::Gzip)
            .send_compressed(CompressionEncoding::Gzip)
    };
}

impl Api {
    fn new(member: Member) -> Self {
        let m = || member.clone();
        let limits = member.settings.limits;
        let lock = LockService::new(&member);
        let election = ElectionService::new(&member);
        Self {
            kv: offered!(pb::kv_server::KvServer::new(KvService(m())), limits),
            lease: offered!(pb::lease_server::LeaseServer::new(LeaseService(m())), limits),
            cluster: offered!(pb::cluster_server::ClusterServer::new(ClusterService(m())), limits),
            maintenance: offered!(
                pb::maintenance_server::MaintenanceServer::new(MaintenanceService(m())),
                limits
            ),
            auth: offered!(pb::auth_server::AuthServer::new(AuthService(m())), limits),
            lock: offered!(v3lockpb::lock_server::LockServer::new(lock), limits),
            election: offered!(
                v3electionpb::election_server::ElectionServer::new(election),
                limits
            ),
            watch: WatchService(m()),
            health: offered!(HealthServer::new(HealthService(m())), limits),
            gateway: Gateway::new(&member),
            access: member.access.clone(),
            metrics: member.metrics.clone(),
            peer: Peer::default(),
            limits,
            http: router(member),
            offer: Offer::Everything,
        }
    }

    /// The same for those who may only look.
    fn observation(&self, member: Member) -> Self {
        Self { http: observation(member), offer: Offer::Observation, ..self.clone() }
    }

    /// Anything that is not one of our services: plain HTTP, or a gRPC service we do not have.
    fn other(&self, request: Request<Incoming>) -> Answer {
        let grpc = request.headers().get(http::header::CONTENT_TYPE);
        if grpc.is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc")) {
            let service = request.uri().path().split('/').nth(1).unwrap_or_default();
            let status = Status::unimplemented(format!("unknown service {service}"));
            return Box::pin(async { Ok(status.into_http()) });
        }
        if let Some(host) = self.foreign_host(&request) {
            let mut response = Response::new(Body::new(gateway::unknown_host(host)));
            *response.status_mut() = StatusCode::MISDIRECTED_REQUEST;
            return Box::pin(async { Ok(response) });
        }
        let origin = request.headers().get(http::header::ORIGIN).cloned();
        let access = self.access.clone();
        let answer: Answer = if request.method() == Method::OPTIONS {
            Box::pin(async { Ok(Response::new(Body::default())) })
        } else if self.offer == Offer::Everything
            && gateway::procedure(request.uri().path()).is_some()
        {
            let gateway = self.gateway.clone();
            Box::pin(async { Ok(gateway.serve(request).await) })
        } else {
            let answer = self.http.clone().call(request);
            Box::pin(async { answer.await.map(|response| response.map(Body::new)) })
        };
        Box::pin(async move {
            let mut response = answer.await?;
            access.allow_origin(origin.as_ref(), response.headers_mut());
            Ok(response)
        })
    }

    /// The host that a request is for, if this member does not answer to it. With TLS the client
    /// has seen the member's certificate, which says more.
    fn foreign_host<'a>(&self, request: &'a Request<Incoming>) -> Option<&'a str> {
        if self.peer.tls {
            return None;
        }
        let named = request.headers().get(http::header::HOST).and_then(|host| host.to_str().ok());
        let host = gateway::host_name(named.or(request.uri().host()).unwrap_or_default());
        (!self.access.admits(host)).then_some(host)
    }
}

type Answer = BoxFuture<'static, Result<Response<Body>, Infallible>>;

impl hyper::service::Service<Request<Incoming>> for Api {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Answer;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        if self.offer == Offer::Observation {
            return self.other(request);
        }
        let version = request.headers().get("client-api-version");
        let version = version.and_then(|version| version.to_str().ok());
        let begun = self.metrics.begun(request.uri().path(), version);
        let answer = self.in_time(request);
        match begun {
            None => answer,
            Some(timer) => Box::pin(async move {
                let answer = answer.await;
                drop(timer);
                answer
            }),
        }
    }
}

impl Api {
    /// Answers one call before its deadline, if it has one.
    fn in_time(&self, mut request: Request<Incoming>) -> Answer {
        if let Some(name) = &self.peer.name {
            request.extensions_mut().insert(name.clone());
        }
        // As etcd's library does it: compressed is the answer to what came compressed.
        let encoding = request.headers().get("grpc-encoding");
        if encoding.is_none_or(|encoding| encoding != "gzip") {
            request.headers_mut().remove("grpc-accept-encoding");
        }
        let Some(patience) = deadline::of(request.headers()) else { return self.serve(request) };
        let json = gateway::procedure(request.uri().path()).is_some();
        let answer = self.serve(request);
        Box::pin(async move {
            timeout(patience, answer).await.unwrap_or_else(|_| {
                let over = deadline::exceeded();
                Ok(if json { gateway::refused(&over) } else { over.into_http() })
            })
        })
    }

    /// Answers one call.
    fn serve(&self, request: Request<Incoming>) -> Answer {
        let path = request.uri().path();
        let service = path.strip_prefix('/').and_then(|path| path.split_once('/'));
        match service.map(|(service, _)| service) {
            Some("etcdserverpb.KV") => self.kv.clone().call(request),
            Some("etcdserverpb.Watch") if path == watch::PATH => {
                let (service, bytes_max) = (self.watch.clone(), self.limits.message_bytes());
                Box::pin(async move { Ok(service.serve(request, bytes_max).await) })
            }
            Some("etcdserverpb.Lease") => self.lease.clone().call(request),
            Some("etcdserverpb.Cluster") => self.cluster.clone().call(request),
            Some("etcdserverpb.Auth") => self.auth.clone().call(request),
            Some("v3lockpb.Lock") => self.lock.clone().call(request),
            Some("v3electionpb.Election") => self.election.clone().call(request),
            Some("etcdserverpb.Maintenance") => self.maintenance.clone().call(request),
            Some("grpc.health.v1.Health") => self.health.clone().call(request),
            _ => self.other(request),
        }
    }
}
