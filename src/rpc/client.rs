//! A client of the API, for the command line, the load generator and tests: one channel that goes
//! to the first member that answers, and to another when that one is lost.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::Uri;
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tonic::transport::Endpoint;

use super::pb::etcdserverpb as pb;
use super::session::Session;
pub use super::session::User;
use pb::auth_client::AuthClient;
use pb::cluster_client::ClusterClient;
use pb::kv_client::KvClient;
use pb::lease_client::LeaseClient;
use pb::maintenance_client::MaintenanceClient;
use pb::watch_client::WatchClient;

/// How long one member may take to be connected to before the next is tried.
const ENDPOINT_TIMEOUT: Duration = Duration::from_secs(2);

/// While it owes an answer, a silent member is asked whether it is there after this long …
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);

/// … and given up when it does not answer within this.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(3);

/// How long a member may take for a hash of all keys.
const HASH_LIMIT: Duration = Duration::from_secs(60);

/// The files of a client certificate, all PEM.
#[derive(Clone, Debug)]
pub struct TlsFiles {
    /// Certificates of the authority that signed the members' certificates.
    pub ca: PathBuf,
    /// The client's certificate, and those between it and the authority.
    pub cert: PathBuf,
    /// The client's private key.
    pub key: PathBuf,
}

impl TlsFiles {
    /// Those of a client bundle, as `up` leaves one on the control machine: `ca.crt`, `client.crt` and
    /// `client.key` in `dir`.
    pub fn in_bundle(dir: &Path) -> Self {
        let file = |name: &str| dir.join(name);
        Self { ca: file("ca.crt"), cert: file("client.crt"), key: file("client.key") }
    }
}

/// Why a client could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The list of endpoints is empty.
    #[error("no endpoint is given; give at least one as https://host:2379")]
    NoEndpoint,
    /// An endpoint is not what it should be.
    #[error("endpoint {0:?} is not http(s)://host:port")]
    BadEndpoint(String),
    /// An `https` endpoint without certificates.
    #[error("endpoint {0:?} needs the certificate files of a client")]
    NoTls(String),
    /// A certificate or key file cannot be used.
    #[error("{path}: {reason}")]
    BadFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

/// Clients of all services over one channel; cheap to clone. Messages of any size are taken.
#[derive(Clone, Debug)]
pub struct Client {
    /// Keys.
    pub kv: KvClient<Session>,
    /// Watches.
    pub watch: WatchClient<Session>,
    /// Leases.
    pub lease: LeaseClient<Session>,
    /// Members.
    pub cluster: ClusterClient<Session>,
    /// Status, alarms, snapshots.
    pub maintenance: MaintenanceClient<Session>,
    /// Users and roles.
    pub auth: AuthClient<Session>,
}

impl Client {
    /// The hash of all keys at `revision`, or at the newest one when it is 0, and which revision that is. A
    /// linearizable read first, so that the member has caught up with whatever was written before.
    /// `None`: no answer within a minute.
    pub(crate) async fn hash_at(&self, revision: i64) -> Option<Result<(i64, u32), tonic::Status>> {
        let asked = async {
            let request =
                pb::RangeRequest { key: b"\0".as_slice().into(), ..pb::RangeRequest::default() };
            let header = self.kv.clone().range(request).await?.into_inner().header;
            let newest = header.map_or(0, |header| header.revision);
            let revision = if revision == 0 { newest } else { revision };
            let request = pb::HashKvRequest { revision };
            let answer = self.maintenance.clone().hash_kv(request).await?;
            Ok((revision, answer.into_inner().hash))
        };
        timeout(HASH_LIMIT, asked).await.ok()
    }
}

/// Makes a client of the members at `endpoints` (`https://host:port`, `http://host:port`, or
/// `host:port` with TLS when files are given). Connects with the first call, and again whenever the
/// connection is lost.
pub fn connect(endpoints: &[String], tls: Option<&TlsFiles>) -> Result<Client, ClientError> {
    connect_with(endpoints, tls.map(tls_config).transpose()?.map(Arc::new).as_ref(), None)
}

/// As [`connect`], with TLS that was set up elsewhere, whose ALPN protocol must be `h2`; the calls are
/// those of `user`.
pub fn connect_with(
    endpoints: &[String],
    config: Option<&Arc<ClientConfig>>,
    user: Option<User>,
) -> Result<Client, ClientError> {
    let targets =
        endpoints.iter().map(|text| Target::parse(text, config)).collect::<Result<Vec<_>, _>>()?;
    let first = targets.first().ok_or(ClientError::NoEndpoint)?;
    // The scheme only names the protocol inside: TLS is the connector's affair.
    let uri = format!("http://{}:{}", bracketed(&first.host), first.port);
    let endpoint = Endpoint::from_shared(uri)
        .map_err(|_| ClientError::BadEndpoint(endpoints.join(",")))?
        .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT);
    let dialer = Arc::new(Dialer { targets, last: AtomicUsize::new(0) });
    let channel = endpoint.connect_with_connector_lazy(tower::service_fn(move |_: Uri| {
        let dialer = dialer.clone();
        async move { dialer.dial().await.map(TokioIo::new) }
    }));
    let session = Session::new(channel, user);
    let of = || session.clone();
    Ok(Client {
        kv: KvClient::new(of()).max_decoding_message_size(usize::MAX),
        watch: WatchClient::new(of()).max_decoding_message_size(usize::MAX),
        lease: LeaseClient::new(of()).max_decoding_message_size(usize::MAX),
        cluster: ClusterClient::new(of()).max_decoding_message_size(usize::MAX),
        maintenance: MaintenanceClient::new(of()).max_decoding_message_size(usize::MAX),
        auth: AuthClient::new(of()).max_decoding_message_size(usize::MAX),
    })
}

/// TLS 1.2 or 1.3 with the client's certificate, trusting only the given authority.
fn tls_config(files: &TlsFiles) -> Result<ClientConfig, ClientError> {
    let bad = |path: &Path, reason: String| ClientError::BadFile { path: path.into(), reason };
    let certificates = |path: &Path| -> Result<Vec<CertificateDer<'static>>, ClientError> {
        CertificateDer::pem_file_iter(path)
            .and_then(Iterator::collect)
            .map_err(|error| bad(path, error.to_string()))
    };
    let mut roots = RootCertStore::empty();
    for certificate in certificates(&files.ca)? {
        roots.add(certificate).map_err(|error| bad(&files.ca, error.to_string()))?;
    }
    let key = PrivateKeyDer::from_pem_file(&files.key)
        .map_err(|error| bad(&files.key, error.to_string()))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| bad(&files.ca, error.to_string()))?
        .with_root_certificates(roots)
        .with_client_auth_cert(certificates(&files.cert)?, key)
        .map_err(|error| bad(&files.cert, error.to_string()))?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

/// Where one member is.
struct Target {
    host: String,
    port: u16,
    tls: Option<(TlsConnector, ServerName<'static>)>,
}

/// An IPv6 address as it stands in a URI.
fn bracketed(host: &str) -> String {
    if host.contains(':') { format!("[{host}]") } else { host.to_owned() }
}

impl Target {
    fn parse(text: &str, tls: Option<&Arc<ClientConfig>>) -> Result<Self, ClientError> {
        let bad = || ClientError::BadEndpoint(text.to_owned());
        let (scheme, rest) = match text.split_once("://") {
            Some((scheme, rest)) => (scheme, rest),
            None if tls.is_some() => ("https", text),
            None => ("http", text),
        };
        let (host, port) = rest.trim_end_matches('/').rsplit_once(':').ok_or_else(bad)?;
        let port = port.parse().map_err(|_| bad())?;
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let tls = match scheme {
            "http" => None,
            "https" => {
                let config = tls.ok_or_else(|| ClientError::NoTls(text.to_owned()))?;
                let name = ServerName::try_from(host.clone()).map_err(|_| bad())?;
                Some((TlsConnector::from(config.clone()), name))
            }
            _ => return Err(bad()),
        };
        Ok(Self { host, port, tls })
    }

    async fn dial(&self) -> io::Result<Box<dyn Transport>> {
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await?;
        stream.set_nodelay(true)?;
        Ok(match &self.tls {
            None => Box::new(stream),
            Some((connector, name)) => Box::new(connector.connect(name.clone(), stream).await?),
        })
    }
}

/// A connection, with or without TLS.
trait Transport: AsyncRead + AsyncWrite + Unpin + Send + 'static {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send + 'static> Transport for T {}

/// Tries the members in turn.
struct Dialer {
    targets: Vec<Target>,
    /// The one that was connected to last.
    last: AtomicUsize,
}

impl Dialer {
    /// A connection to the member that was used last, or else to the next that answers.
    async fn dial(&self) -> io::Result<Box<dyn Transport>> {
        let start = self.last.load(Ordering::Relaxed);
        let mut failure = io::Error::from(io::ErrorKind::NotFound);
        for (index, target) in self.targets.iter().enumerate().cycle().skip(start) {
            match timeout(ENDPOINT_TIMEOUT, target.dial()).await.unwrap_or_else(|e| Err(e.into())) {
                Ok(stream) => {
                    self.last.store(index, Ordering::Relaxed);
                    return Ok(stream);
                }
                Err(error) => {
                    let reason = format!("{}:{}: {error}", bracketed(&target.host), target.port);
                    failure = io::Error::new(error.kind(), reason);
                }
            }
            if (index + 1) % self.targets.len() == start % self.targets.len() {
                break;
            }
        }
        Err(failure)
    }
}
