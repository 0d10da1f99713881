//! Releases of K3s, downloaded once to `$XDG_CACHE_HOME/k3sup-rs/k3s/VERSION` and never used before
//! their SHA-256 was found in the release's list.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use etcetera::BaseStrategy;
use http::{Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use sha2::{Digest, Sha256};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

/// How long connecting, and each piece of an answer, may take.
const STEP_TIME: Duration = Duration::from_secs(60);

/// How often an answer may point elsewhere.
const REDIRECTS_MAX: usize = 5;

/// Largest list of checksums, in bytes.
const SUMS_BYTES_MAX: usize = 1024 * 1024;

/// Why something could not be downloaded.
#[derive(Debug, thiserror::Error)]
pub(super) enum DownloadError {
    /// There is no way to know whom to trust, or no place to keep it.
    #[error("{0}")]
    Setup(String),
    /// No answer.
    #[error("{url}: {reason}")]
    Http {
        /// What was asked for.
        url: String,
        /// Why there is no answer, or what the answer is.
        reason: String,
    },
    /// It is not what the release's list says.
    #[error("{url}: its SHA-256 is {found}, expected {expected}; it is not kept")]
    Checksum {
        /// What was downloaded.
        url: String,
        /// What it is.
        found: String,
        /// What it should be.
        expected: String,
    },
    /// It cannot be kept here.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

#[expect(clippy::needless_pass_by_value, reason = "what `map_err` hands over")]
fn failed(url: &str, reason: impl ToString) -> DownloadError {
    DownloadError::Http { url: url.to_owned(), reason: reason.to_string() }
}

/// Downloads and keeps.
pub(super) struct Downloads {
    tls: TlsConnector,
    cache: PathBuf,
}

impl Downloads {
    /// Trusts whom the machine trusts (`SSL_CERT_FILE` names others).
    pub(super) fn new() -> Result<Self, DownloadError> {
        let found = rustls_native_certs::load_native_certs();
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(found.certs);
        if roots.is_empty() {
            let mut why = "this machine has no certificates to trust".to_owned();
            for error in found.errors {
                let _ = write!(why, "; {error}");
            }
            return Err(DownloadError::Setup(why));
        }
        let base = etcetera::choose_base_strategy()
            .map_err(|error| DownloadError::Setup(format!("no home directory: {error}")))?;
        Self::with(roots, base.cache_dir().join("k3sup-rs/k3s"))
    }

    fn with(roots: RootCertStore, cache: PathBuf) -> Result<Self, DownloadError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| DownloadError::Setup(error.to_string()))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self { tls: TlsConnector::from(Arc::new(config)), cache })
    }

    /// The version that a channel stands for: the last part of where its address leads.
    pub(super) async fn channel(&self, url: &str) -> Result<String, DownloadError> {
        let answer = self.ask(url).await?;
        let location = location(&answer).ok_or_else(|| {
            failed(url, format!("the channel leads nowhere ({})", answer.status()))
        })?;
        let version = location.rsplit('/').next().unwrap_or_default().replace("%2B", "+");
        if version.starts_with('v') && is_plain(&version) {
            return Ok(version);
        }
        Err(failed(url, format!("the channel leads to {location}, which is no version")))
    }

    /// The file of a release, from the cache or else downloaded; with `check` nothing is
    /// downloaded and `None` means that a run would.
    pub(super) async fn release(
        &self,
        version: &str,
        file: &str,
        url: &str,
        sums_url: &str,
        check: bool,
    ) -> Result<Option<PathBuf>, DownloadError> {
        if !is_plain(version) {
            return Err(DownloadError::Setup(format!("{version:?} is no version of K3s")));
        }
        let dir = self.cache.join(version);
        let path = dir.join(file);
        // It got its name only after its checksum was found right.
        if path.is_file() {
            return Ok(Some(path));
        }
        if check {
            return Ok(None);
        }
        let expected = self.checksum(sums_url, file).await?;
        let at = |path: &Path| {
            let path = path.to_owned();
            move |source| DownloadError::Io { path, source }
        };
        std::fs::create_dir_all(&dir).map_err(at(&dir))?;
        let mut part = tempfile::Builder::new().tempfile_in(&dir).map_err(at(&dir))?;
        let found = self.fetch(url, part.as_file_mut(), &path).await?;
        if !found.eq_ignore_ascii_case(&expected) {
            return Err(DownloadError::Checksum { url: url.to_owned(), found, expected });
        }
        part.as_file().sync_all().map_err(at(&path))?;
        part.persist(&path).map_err(|error| at(&path)(error.error))?;
        Ok(Some(path))
    }

    /// The SHA-256 of `file` in a list as `sha256sum` writes it.
    async fn checksum(&self, url: &str, file: &str) -> Result<String, DownloadError> {
        let body =
            http_body_util::Limited::new(self.follow(url).await?.into_body(), SUMS_BYTES_MAX);
        let collected = timeout(STEP_TIME, body.collect()).await;
        let bytes = collected
            .map_err(|_| failed(url, "no answer in time"))?
            .map_err(|error| failed(url, error))?
            .to_bytes();
        let text = String::from_utf8_lossy(&bytes);
        let of_file = |line: &str| {
            let (sum, name) = line.split_once(char::is_whitespace)?;
            (name.trim().trim_start_matches('*') == file).then(|| sum.to_owned())
        };
        text.lines().find_map(of_file).ok_or_else(|| failed(url, format!("it has no {file}")))
    }

    /// Writes what `url` has into `file` and gives its SHA-256.
    async fn fetch(
        &self,
        url: &str,
        file: &mut std::fs::File,
        path: &Path,
    ) -> Result<String, DownloadError> {
        let mut body = self.follow(url).await?.into_body();
        let mut hasher = Sha256::new();
        loop {
            let frame = timeout(STEP_TIME, body.frame()).await;
            let Some(frame) = frame.map_err(|_| failed(url, "it stopped in the middle"))? else {
                return Ok(hex::encode(hasher.finalize()));
            };
            let frame = frame.map_err(|error| failed(url, error))?;
            let Some(bytes) = frame.data_ref() else { continue };
            hasher.update(bytes);
            let written = file.write_all(bytes);
            written.map_err(|source| DownloadError::Io { path: path.to_owned(), source })?;
        }
    }

    /// Asks until an answer points nowhere else.
    async fn follow(&self, url: &str) -> Result<Response<Incoming>, DownloadError> {
        let mut at = url.to_owned();
        for _ in 0..=REDIRECTS_MAX {
            let answer = self.ask(&at).await?;
            match location(&answer) {
                Some(next) => at = next,
                None if answer.status() == StatusCode::OK => return Ok(answer),
                None => return Err(failed(&at, format!("the answer is {}", answer.status()))),
            }
        }
        Err(failed(url, "it leads from one address to the next without end"))
    }

    async fn ask(&self, url: &str) -> Result<Response<Incoming>, DownloadError> {
        timeout(STEP_TIME, self.exchange(url))
            .await
            .map_err(|_| failed(url, "no answer in time"))?
    }

    async fn exchange(&self, url: &str) -> Result<Response<Incoming>, DownloadError> {
        let uri: Uri = url.parse().map_err(|error| failed(url, error))?;
        let (Some("https"), Some(host)) = (uri.scheme_str(), uri.host()) else {
            return Err(failed(url, "only https:// addresses are used"));
        };
        let bare = host.trim_matches(['[', ']']).to_owned();
        let stream = TcpStream::connect((bare.as_str(), uri.port_u16().unwrap_or(443))).await;
        let stream = stream.map_err(|error| failed(url, error))?;
        let name = ServerName::try_from(bare).map_err(|error| failed(url, error))?;
        let stream = self.tls.connect(name, stream).await.map_err(|error| failed(url, error))?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| failed(url, error))?;
        // It ends with the body that it carries; its error shows there.
        tokio::spawn(connection);
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        let request = Request::get(path)
            .header(header::HOST, uri.authority().map_or(host, |authority| authority.as_str()))
            .header(header::USER_AGENT, concat!("k3sup-rs/", env!("CARGO_PKG_VERSION")))
            .body(Empty::<Bytes>::new())
            .map_err(|error| failed(url, error))?;
        sender.send_request(request).await.map_err(|error| failed(url, error))
    }
}

/// Where a redirection leads.
fn location(answer: &Response<Incoming>) -> Option<String> {
    if !answer.status().is_redirection() {
        return None;
    }
    answer.headers().get(header::LOCATION)?.to_str().ok().map(str::to_owned)
}

/// Whether a version can be the name of a directory and a part of an address.
fn is_plain(version: &str) -> bool {
    !version.is_empty()
        && !version.contains("..")
        && version.chars().all(|c| c.is_ascii_alphanumeric() || "+-._".contains(c))
}

#[cfg(test)]
#[path = "download_tests.rs"]
mod tests;
