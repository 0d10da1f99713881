//! TLS of the files that etcd's flags name. Files that change are taken up while the member runs, as
//! etcd does.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::version::{TLS12, TLS13};
use rustls::{ServerConfig, SupportedProtocolVersion};

use super::config::{Security, Versions};
use super::urls::Url;
use crate::error::{ExitCode, Failure};
use crate::node::records::unix_now;
use crate::pki::authority::{Authority, Leaf, Purpose};
use crate::pki::inspect::Facts;
use crate::pki::tls::{self, ALPN_HTTP, ClientAuth, Roots, Shown};
use crate::pki::{KeyPairPem, PkiError, files};
use crate::raft::{Identify, PeerClaim, PeerTls};
use crate::secret::Secret;

/// How often files are looked at for changes.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);

/// A made certificate that holds for fewer days is made anew.
const DAYS_LEFT_MIN: u64 = 30;

/// One side's certificates and CAs, and the files they come from.
pub(crate) struct Armed {
    security: Security,
    /// To answer with.
    served: Pair,
    /// To ask with, when it is another one.
    asked: Option<Pair>,
    roots: Option<Arc<Roots>>,
}

/// A certificate in use, and its files.
struct Pair {
    cert: PathBuf,
    key: PathBuf,
    shown: Arc<Shown>,
}

impl Pair {
    fn open(cert: &Path, key: &Path) -> Result<Self, Failure> {
        let pair = read_pair(cert, key)?;
        let shown = Shown::new(&pair).map_err(|error| unusable(cert, &error))?;
        Ok(Self { cert: cert.to_owned(), key: key.to_owned(), shown })
    }

    fn reload(&self) -> Result<(), Failure> {
        let pair = read_pair(&self.cert, &self.key)?;
        self.shown.replace(&pair).map_err(|error| unusable(&self.cert, &error))
    }
}

impl Armed {
    /// Reads the files; makes a certificate for the hosts of `urls` in `made` when it is to. `None`
    /// without a certificate.
    pub(crate) fn open(
        security: &Security,
        urls: &[Url],
        made: &Path,
    ) -> Result<Option<Self>, Failure> {
        let (cert, key) = match (&security.cert, &security.key) {
            (Some(cert), Some(key)) => (cert.clone(), key.clone()),
            _ if security.auto => make(urls, made)?,
            _ => return Ok(None),
        };
        let served = Pair::open(&cert, &key)?;
        let asked = match (&security.client_cert, &security.client_key) {
            (Some(cert), Some(key)) if security.cert.as_ref() != Some(cert) => {
                Some(Pair::open(cert, key)?)
            }
            _ => None,
        };
        let roots = match &security.trusted_ca {
            Some(path) => Some(Roots::new(&read(path)?).map_err(|error| unusable(path, &error))?),
            None => None,
        };
        Ok(Some(Self { security: security.clone(), served, asked, roots }))
    }

    /// For incoming connections of clients. A CA is there to be asked for, as in etcd: with one,
    /// everybody needs a certificate of it.
    pub(crate) fn server(&self) -> Result<Arc<ServerConfig>, Failure> {
        self.answering(&ALPN_HTTP)
    }

    /// For connections between members.
    pub(crate) fn peering(&self) -> Result<PeerTls, Failure> {
        let shown = self.asked.as_ref().unwrap_or(&self.served).shown.clone();
        let client = match &self.roots {
            Some(roots) => tls::client_believing(roots.clone(), Some(shown), &[]),
            None if self.security.auto => tls::client_believing_anybody(Some(shown), &[]),
            None => Roots::of_this_host()
                .and_then(|roots| tls::client_believing(roots, Some(shown), &[])),
        };
        let client = client.map_err(|error| unusable(&self.served.cert, &error))?;
        Ok(PeerTls { server: self.answering(&[])?, client, identify: self.identify() })
    }

    fn answering(&self, alpn: &[&[u8]]) -> Result<Arc<ServerConfig>, Failure> {
        let versions: &[&'static SupportedProtocolVersion] = match self.security.versions {
            Versions::Both => rustls::DEFAULT_VERSIONS,
            Versions::Tls12 => &[&TLS12],
            Versions::Tls13 => &[&TLS13],
        };
        let believed = self.roots.clone().map(|roots| (roots, ClientAuth::Required));
        tls::server_speaking(versions, self.served.shown.clone(), believed, alpn)
            .map_err(|error| unusable(&self.served.cert, &error))
    }

    /// The names that a peer's certificate may have.
    fn identify(&self) -> Option<Identify> {
        let allowed = self.security.allowed_cn.clone();
        if allowed.is_empty() {
            return None;
        }
        Some(Arc::new(move |der| {
            let facts = Facts::from_der(der).ok()?;
            allowed.contains(&facts.common_name).then(PeerClaim::default)
        }))
    }

    /// Takes up files that change, until it is dropped.
    pub(crate) async fn watch(self) {
        let mut seen = self.stamps();
        loop {
            tokio::time::sleep(LOOK_INTERVAL).await;
            let now = self.stamps();
            if now == seen {
                continue;
            }
            match self.reload() {
                Ok(()) => {
                    tracing::info!("certificates changed and were read again");
                    seen = now;
                }
                // Half of them may be written only.
                Err(failure) => {
                    tracing::warn!("certificates stay as they were: {}", failure.message);
                }
            }
        }
    }

    fn reload(&self) -> Result<(), Failure> {
        self.served.reload()?;
        self.asked.as_ref().map_or(Ok(()), Pair::reload)?;
        if let (Some(roots), Some(path)) = (&self.roots, &self.security.trusted_ca) {
            roots.replace(&read(path)?).map_err(|error| unusable(path, &error))?;
        }
        Ok(())
    }

    /// When each file was written.
    fn stamps(&self) -> Vec<Option<std::time::SystemTime>> {
        let pairs = std::iter::once(&self.served).chain(&self.asked);
        let paths = pairs.flat_map(|pair| [&pair.cert, &pair.key]).chain(&self.security.trusted_ca);
        paths.map(|path| fs::metadata(path).and_then(|found| found.modified()).ok()).collect()
    }
}

/// A certificate that nobody signed but its own CA, whose key is gone; kept for the next start.
fn make(urls: &[Url], directory: &Path) -> Result<(PathBuf, PathBuf), Failure> {
    let (cert, key) = (directory.join("cert.pem"), directory.join("key.pem"));
    let holds = |pem: String| {
        Facts::from_pem(&pem).is_ok_and(|facts| facts.days_left(unix_now()) >= DAYS_LEFT_MIN)
    };
    if key.exists() && fs::read_to_string(&cert).is_ok_and(holds) {
        return Ok((cert, key));
    }
    let leaf = Leaf {
        common_name: "etcd".to_owned(),
        organization: Some("etcd".to_owned()),
        sans: urls.iter().map(|url| url.host.clone()).collect(),
        purpose: Purpose::Peer,
    };
    let made = Authority::create("etcd").and_then(|ca| {
        let pair = ca.issue(&leaf)?;
        Ok((pair.certificate + ca.certificate(), pair.key))
    });
    let (certificate, secret) = made.map_err(|error| unusable(&cert, &error))?;
    let written = files::private_directory(directory)
        .and_then(|()| files::write_private(&cert, certificate.as_bytes()))
        .and_then(|()| files::write_private(&key, secret.expose().as_bytes()));
    written.map_err(|error| Failure::new(ExitCode::Error, error.to_string()))?;
    Ok((cert, key))
}

fn read(path: &Path) -> Result<String, Failure> {
    fs::read_to_string(path)
        .map_err(|error| Failure::new(ExitCode::BadInput, format!("{}: {error}", path.display())))
}

fn read_pair(cert: &Path, key: &Path) -> Result<KeyPairPem, Failure> {
    Ok(KeyPairPem { certificate: read(cert)?, key: Secret::new(read(key)?) })
}

fn unusable(path: &Path, error: &PkiError) -> Failure {
    Failure::new(ExitCode::BadInput, format!("{}: {error}", path.display()))
}
