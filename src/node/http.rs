//! A small HTTP client for the supervisor: one request per connection, bounded in time and size.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderValue, Request, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use zeroize::Zeroizing;

use crate::secret::Secret;

/// Largest answer that is read, in bytes.
const ANSWER_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Why there was no answer.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// Nobody there.
    #[error("cannot connect: {0}")]
    Connect(std::io::Error),
    /// TLS failed: most often a certificate of another CA, or a name that is not in it.
    #[error("TLS: {0}")]
    Tls(std::io::Error),
    /// Not a host name or address.
    #[error("not a host name: {0}")]
    Name(String),
    /// It took too long.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    /// It is not HTTP, or broke off.
    #[error("broken answer: {0}")]
    Broken(String),
}

/// An answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// Body.
    pub body: Bytes,
}

impl Answer {
    /// The body as text, without white space around it.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).trim().to_owned()
    }

    /// The body as JSON.
    pub fn json<T: serde::de::DeserializeOwned>(&self) -> Result<T, HttpError> {
        serde_json::from_slice(&self.body).map_err(|error| HttpError::Broken(error.to_string()))
    }
}

/// How to connect.
#[derive(Clone)]
pub struct Connector {
    tls: Option<Arc<ClientConfig>>,
    timeout: Duration,
}

impl Connector {
    /// Over TLS; `timeout` is for a whole request.
    pub fn tls(config: Arc<ClientConfig>, timeout: Duration) -> Self {
        Self { tls: Some(config), timeout }
    }

    /// Without TLS: for loopback only.
    pub fn plain(timeout: Duration) -> Self {
        Self { tls: None, timeout }
    }

    /// Sends one request to `authority` (`host:port`). `authorization` goes out only once the
    /// other side's certificate was accepted.
    pub async fn ask(
        &self,
        authority: &str,
        method: &str,
        path: &str,
        authorization: Option<&HeaderValue>,
        body: &[u8],
    ) -> Result<Answer, HttpError> {
        let work = async {
            let stream = TcpStream::connect(authority).await.map_err(HttpError::Connect)?;
            let request = request(authority, method, path, authorization, body)?;
            match &self.tls {
                None => exchange(stream, request).await,
                Some(config) => {
                    let name = server_name(authority)?;
                    let connector = TlsConnector::from(Arc::clone(config));
                    let stream = connector.connect(name, stream).await.map_err(HttpError::Tls)?;
                    exchange(stream, request).await
                }
            }
        };
        tokio::time::timeout(self.timeout, work)
            .await
            .map_err(|_| HttpError::Timeout(self.timeout))?
    }
}

/// `Authorization: Basic …`, marked as sensitive.
pub fn basic(user: &str, password: &Secret) -> HeaderValue {
    let credentials = Zeroizing::new(format!("{user}:{}", password.expose()));
    sensitive(&format!("Basic {}", STANDARD.encode(credentials.as_bytes())))
}

/// `Authorization: Bearer …`, marked as sensitive.
pub fn bearer(token: &Secret) -> HeaderValue {
    sensitive(&format!("Bearer {}", token.expose()))
}

/// Text that is not fit for a header becomes an empty one, which nobody accepts.
fn sensitive(text: &str) -> HeaderValue {
    let mut value = HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static(""));
    value.set_sensitive(true);
    value
}

fn request(
    authority: &str,
    method: &str,
    path: &str,
    authorization: Option<&HeaderValue>,
    body: &[u8],
) -> Result<Request<Full<Bytes>>, HttpError> {
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::HOST, authority)
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::CONNECTION, "close");
    if let Some(value) = authorization {
        request = request.header(header::AUTHORIZATION, value);
    }
    let body = Full::new(Bytes::copy_from_slice(body));
    request.body(body).map_err(|error| HttpError::Broken(error.to_string()))
}

async fn exchange<S>(stream: S, request: Request<Full<Bytes>>) -> Result<Answer, HttpError>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let broken = |error: hyper::Error| HttpError::Broken(crate::error::chain(&error));
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
    let driver = tokio::spawn(connection);
    let answer = async {
        let response = sender.send_request(request).await.map_err(broken)?;
        let status = response.status().as_u16();
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX)
            .collect()
            .await
            .map_err(|error| HttpError::Broken(error.to_string()))?;
        Ok(Answer { status, body: body.to_bytes() })
    };
    let answer = answer.await;
    driver.abort();
    answer
}

/// The host of `host:port` as TLS checks it.
fn server_name(authority: &str) -> Result<ServerName<'static>, HttpError> {
    let host = authority.rsplit_once(':').map_or(authority, |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    ServerName::try_from(host.to_owned()).map_err(|_| HttpError::Name(host.to_owned()))
}
