//! Snapshots in S3: put there, listed, fetched, removed.
//!
//! An object appears when all of it is there: what broke off in the middle is none. Nothing here ever
//! changes a file on this host but the one that is fetched.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::path::Path as FilePath;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _};
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::client::{HttpClient, HttpConnector};
use object_store::path::Path;
use object_store::{
    BackoffConfig, ClientOptions, ObjectStore as _, ObjectStoreExt as _, PutPayload, RetryConfig,
    WriteMultipart,
};

use crate::cluster::snapshots::{SnapshotName, SnapshotView};
use crate::node::config::S3Config;

/// Where the notes about snapshots are, beside them: K3s's name.
const METADATA: &str = ".metadata";

/// A file is sent in parts of so many bytes, …
const PART_BYTES: usize = 8 * 1024 * 1024;

/// … so many of them at once.
const PARTS_AT_ONCE: usize = 2;

/// How long a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How often a request is sent again that failed in passing.
const RETRIES: usize = 5;

/// Why S3 did not do it.
#[derive(Debug, thiserror::Error)]
pub enum S3Error {
    /// The settings cannot be used.
    #[error("S3: {0}")]
    Settings(String),
    /// The keys were refused.
    #[error("S3 refuses the keys for {place}: {reason}")]
    Denied {
        /// Bucket and folder.
        place: String,
        /// In the service's words.
        reason: String,
    },
    /// There is no such bucket or object.
    #[error("S3 has no {what} in {place}")]
    Missing {
        /// What was asked for.
        what: String,
        /// Bucket and folder.
        place: String,
    },
    /// It took too long.
    #[error("S3 did not {action} in {seconds} s (etcd-s3-timeout)")]
    Timeout {
        /// What was under way.
        action: &'static str,
        /// The limit.
        seconds: u64,
    },
    /// Anything else.
    #[error("S3 cannot {action} in {place}: {reason}")]
    Failed {
        /// What was tried.
        action: &'static str,
        /// Bucket and folder.
        place: String,
        /// Why not.
        reason: String,
    },
    /// The file here cannot be read or written.
    #[error("{0}")]
    File(#[from] io::Error),
}

/// A bucket, or a folder in one.
#[derive(Clone, Debug)]
pub struct Bucket {
    store: Arc<AmazonS3>,
    folder: String,
    name: String,
    timeout: Duration,
}

/// Makes connections with this program's TLS.
#[derive(Debug)]
struct Tls(reqwest::Client);

impl HttpConnector for Tls {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(self.0.clone()))
    }
}

impl Bucket {
    /// Opens a bucket; nothing is sent yet.
    ///
    /// # Errors
    /// [`S3Error::Settings`].
    pub fn open(config: &S3Config) -> Result<Self, S3Error> {
        config.check().map_err(S3Error::Settings)?;
        let bad = |error: &dyn std::fmt::Display| S3Error::Settings(error.to_string());
        let mut client = reqwest::Client::builder()
            .tls_backend_preconfigured(tls(config)?)
            .connect_timeout(CONNECT_TIMEOUT)
            .no_proxy();
        if !config.proxy.is_empty() {
            client = client.proxy(reqwest::Proxy::all(&config.proxy).map_err(|e| bad(&e))?);
        }
        let client = client.build().map_err(|error| bad(&error))?;
        let backoff = BackoffConfig {
            init_backoff: Duration::from_millis(200),
            max_backoff: Duration::from_secs(10),
            base: 2.0,
        };
        let retry = RetryConfig { backoff, max_retries: RETRIES, retry_timeout: config.timeout };
        let (endpoint, in_host) = endpoint(config);
        let mut builder = AmazonS3Builder::new()
            .with_bucket_name(&config.bucket)
            .with_region(&config.region)
            .with_endpoint(endpoint)
            .with_virtual_hosted_style_request(in_host)
            .with_allow_http(config.insecure)
            .with_retry(retry)
            .with_http_connector(Tls(client));
        // Without keys it is what the machine itself may do, as its cloud tells it.
        if !config.access_key.is_empty() {
            builder = builder
                .with_access_key_id(&config.access_key)
                .with_secret_access_key(config.secret_key.0.expose());
            if !config.session_token.0.is_empty() {
                builder = builder.with_token(config.session_token.0.expose());
            }
        }
        Ok(Self {
            store: Arc::new(builder.build().map_err(|error| bad(&error))?),
            folder: config.folder.trim_matches('/').to_owned(),
            name: config.bucket.clone(),
            timeout: config.timeout,
        })
    }

    /// `s3://bucket/folder/name`.
    pub fn location(&self, name: &str) -> String {
        format!("s3://{}/{}", self.name, self.key(name))
    }

    fn key(&self, name: &str) -> Path {
        Path::from(format!("{}/{name}", self.folder))
    }

    fn place(&self) -> String {
        format!("s3://{}/{}", self.name, self.folder)
    }

    /// Copies a file there, with what is known of it. The object is looked at afterwards.
    ///
    /// # Errors
    /// No object of this name is there then, or it is not this file's; the file is as it was.
    pub async fn upload(&self, file: &FilePath, view: &SnapshotView) -> Result<(), S3Error> {
        let note = serde_json::to_vec(view).map_err(io::Error::other)?;
        let work = async {
            let key = self.key(&view.name);
            self.put(file, view.bytes, &key).await?;
            let found = self.store.head(&key).await.map_err(|e| self.failed("store", &e))?;
            if found.size != view.bytes {
                let reason = format!("it has {} bytes of {} there", found.size, view.bytes);
                return Err(S3Error::Failed { action: "store", place: self.place(), reason });
            }
            let note_key = self.key(&format!("{METADATA}/{}", view.name));
            let noted = self.store.put(&note_key, PutPayload::from(note)).await;
            noted.map(drop).map_err(|error| self.failed("store", &error))
        };
        self.limited("store the snapshot", work).await
    }

    async fn put(&self, file: &FilePath, bytes: u64, key: &Path) -> Result<(), S3Error> {
        let mut file = File::open(file)?;
        if bytes <= PART_BYTES as u64 {
            let mut content = Vec::new();
            file.take(bytes + 1).read_to_end(&mut content)?;
            let put = self.store.put(key, PutPayload::from(content)).await;
            return put.map(drop).map_err(|error| self.failed("store", &error));
        }
        let upload = self.store.put_multipart(key).await;
        let upload = upload.map_err(|error| self.failed("store", &error))?;
        let mut upload = WriteMultipart::new_with_chunk_size(upload, PART_BYTES);
        loop {
            let (part, back) = read_part(file).await?;
            file = back;
            if part.is_empty() {
                break;
            }
            let ready = upload.wait_for_capacity(PARTS_AT_ONCE).await;
            if let Err(error) = ready {
                // What is there of it costs money, and is no object.
                let _ = upload.abort().await;
                return Err(self.failed("store", &error));
            }
            upload.put(part);
        }
        upload.finish().await.map(drop).map_err(|error| self.failed("store", &error))
    }

    /// The snapshots that are there, by name.
    ///
    /// # Errors
    /// It cannot be listed.
    pub async fn list(&self) -> Result<Vec<SnapshotView>, S3Error> {
        let work = async {
            let folder = (!self.folder.is_empty()).then(|| Path::from(self.folder.as_str()));
            let listed = self.store.list_with_delimiter(folder.as_ref()).await;
            let listed = listed.map_err(|error| self.failed("list", &error))?;
            let named = listed.objects.into_iter().filter_map(|object| {
                let name = object.location.filename()?.to_owned();
                let parsed = SnapshotName::parse(&name)?;
                Some(SnapshotView {
                    location: self.location(&name),
                    bytes: object.size,
                    created_unix_s: parsed.unix_s,
                    compressed: parsed.compressed,
                    name,
                    ..SnapshotView::default()
                })
            });
            let views = futures::stream::iter(named).map(|view| self.completed(view));
            let mut views: Vec<SnapshotView> = views.buffered(8).collect().await;
            views.sort_by(|one, other| one.name.cmp(&other.name));
            Ok(views)
        };
        self.limited("list snapshots", work).await
    }

    /// With what was noted when it was stored.
    async fn completed(&self, mut view: SnapshotView) -> SnapshotView {
        let note = async {
            let key = self.key(&format!("{METADATA}/{}", view.name));
            let bytes = self.store.get(&key).await.ok()?.bytes().await.ok()?;
            serde_json::from_slice::<SnapshotView>(&bytes).ok()
        };
        if let Some(noted) = note.await.filter(|noted| view.is_still(noted)) {
            view.complete(noted);
        }
        view
    }

    /// Fetches a snapshot into `file`, which must not exist; private from birth.
    ///
    /// # Errors
    /// It is not there, or not all of it came: then there is no file.
    pub async fn download(&self, name: &str, file: &FilePath) -> Result<(), S3Error> {
        let work = async {
            let found = self.store.get(&self.key(name)).await;
            let found = found.map_err(|error| self.failed_for("fetch", name, &error))?;
            let expected = found.meta.size;
            let mut stream = found.into_stream();
            let mut out = crate::store::fs::create_private_file(file)?;
            let mut written = 0;
            while let Some(chunk) =
                stream.try_next().await.map_err(|error| self.failed("fetch", &error))?
            {
                written += chunk.len() as u64;
                out.write_all(&chunk)?;
            }
            out.sync_all()?;
            if written != expected {
                let reason = format!("{written} bytes of {expected} came");
                return Err(S3Error::Failed { action: "fetch", place: self.place(), reason });
            }
            Ok(())
        };
        let fetched = self.limited("give the snapshot", work).await;
        // One that was there before is not ours to remove.
        let existed = matches!(&fetched, Err(S3Error::File(error))
            if error.kind() == io::ErrorKind::AlreadyExists);
        if fetched.is_err() && !existed {
            let _ = std::fs::remove_file(file);
        }
        fetched
    }

    /// Removes a snapshot and what was noted of it. One that is not there is fine.
    ///
    /// # Errors
    /// It may still be there.
    pub async fn remove(&self, name: &str) -> Result<(), S3Error> {
        let work = async {
            for key in [self.key(name), self.key(&format!("{METADATA}/{name}"))] {
                match self.store.delete(&key).await {
                    Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
                    Err(error) => return Err(self.failed("remove", &error)),
                }
            }
            Ok(())
        };
        self.limited("remove the snapshot", work).await
    }

    async fn limited<T>(
        &self,
        action: &'static str,
        work: impl Future<Output = Result<T, S3Error>>,
    ) -> Result<T, S3Error> {
        let seconds = self.timeout.as_secs();
        tokio::time::timeout(self.timeout, work)
            .await
            .map_err(|_| S3Error::Timeout { action, seconds })?
    }

    fn failed(&self, action: &'static str, error: &object_store::Error) -> S3Error {
        self.failed_for(action, "such bucket", error)
    }

    fn failed_for(&self, action: &'static str, what: &str, error: &object_store::Error) -> S3Error {
        let (place, reason) = (self.place(), crate::error::chain(error));
        // A refused list comes without a kind of its own: only its text says so.
        let says = |codes: &[&str]| codes.iter().any(|code| reason.contains(code));
        let is_denied = matches!(
            error,
            object_store::Error::PermissionDenied { .. }
                | object_store::Error::Unauthenticated { .. }
        );
        let is_missing = matches!(error, object_store::Error::NotFound { .. });
        if is_denied || says(&["403 Forbidden", "401 Unauthorized"]) {
            S3Error::Denied { place, reason }
        } else if is_missing || says(&["<Code>NoSuchBucket</Code>"]) {
            S3Error::Missing { what: what.to_owned(), place }
        } else {
            S3Error::Failed { action, place, reason }
        }
    }
}

/// The next part of a file, and the file again.
async fn read_part(mut file: File) -> io::Result<(Bytes, File)> {
    let read = tokio::task::spawn_blocking(move || {
        let mut part = Vec::with_capacity(PART_BYTES);
        io::Read::by_ref(&mut file).take(PART_BYTES as u64).read_to_end(&mut part)?;
        Ok((Bytes::from(part), file))
    });
    read.await.map_err(io::Error::other)?
}

/// The endpoint as a URL, and whether the bucket is in its host name.
fn endpoint(config: &S3Config) -> (String, bool) {
    let scheme = if config.insecure { "http" } else { "https" };
    let bare = config.endpoint.trim_end_matches('/');
    let bare = bare.split_once("://").map_or(bare, |(_, rest)| rest);
    let in_host = match config.bucket_lookup_type.as_str() {
        "dns" => true,
        "path" => false,
        // As K3s's client decides: only Amazon's own hosts have a name for each bucket, and one with
        // a dot in it is in no certificate.
        _ => bare.ends_with("amazonaws.com") && !config.bucket.contains('.'),
    };
    if !in_host {
        return (format!("{scheme}://{bare}"), false);
    }
    // Amazon's general host leads elsewhere: the region's own does not.
    let host = if bare == "s3.amazonaws.com" {
        format!("s3.{}.amazonaws.com", config.region)
    } else {
        bare.to_owned()
    };
    (format!("{scheme}://{}.{host}", config.bucket), true)
}

/// TLS with the system's CAs, or with the one of the settings.
fn tls(config: &S3Config) -> Result<rustls::ClientConfig, S3Error> {
    let bad = |why: String| S3Error::Settings(why);
    if config.skip_ssl_verify {
        let tls = crate::pki::tls::client_without_trust();
        let tls = tls.map_err(|error| bad(error.to_string()))?;
        return Ok(Arc::unwrap_or_clone(tls));
    }
    if !config.endpoint_ca.is_empty() {
        let text = std::fs::read_to_string(&config.endpoint_ca).or_else(|error| {
            let decoded = STANDARD.decode(config.endpoint_ca.trim()).ok();
            decoded.and_then(|pem| String::from_utf8(pem).ok()).ok_or(error)
        });
        let text =
            text.map_err(|error| bad(format!("endpoint CA {}: {error}", config.endpoint_ca)))?;
        let tls = crate::pki::tls::client(&text, None, &[]);
        let tls = tls.map_err(|error| bad(format!("endpoint CA: {error}")))?;
        return Ok(Arc::unwrap_or_clone(tls));
    }
    let mut roots = rustls::RootCertStore::empty();
    if !config.insecure {
        let found = rustls_native_certs::load_native_certs();
        roots.add_parsable_certificates(found.certs);
        if roots.is_empty() {
            let why = "this host has no CA certificates: install them, or name the endpoint's CA";
            return Err(bad(why.to_owned()));
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider);
    let builder = builder.with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| bad(error.to_string()))?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}
