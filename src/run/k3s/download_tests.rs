//! Downloads from an HTTPS server of our own on loopback.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};

use http_body_util::Full;
use hyper::service::service_fn;
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::*;

/// What is at a path: a body, or where it leads.
type Site = BTreeMap<String, Result<Vec<u8>, String>>;

struct Server {
    base: String,
    asked: Arc<AtomicUsize>,
    downloads: Downloads,
    dir: tempfile::TempDir,
}

impl Server {
    async fn new(site: impl FnOnce(&str) -> Site) -> Self {
        let key = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
        let certificate = key.cert.der().clone();
        let private = PrivateKeyDer::try_from(key.signing_key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.clone()], private)
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("https://{}", listener.local_addr().unwrap());
        let site = Arc::new(site(&base));
        let asked = Arc::new(AtomicUsize::new(0));
        tokio::spawn(serve(listener, TlsAcceptor::from(Arc::new(config)), site, asked.clone()));
        let mut roots = RootCertStore::empty();
        roots.add(certificate).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let downloads = Downloads::with(roots, dir.path().join("cache")).unwrap();
        Self { base, asked, downloads, dir }
    }

    async fn release(&self, check: bool) -> Result<Option<PathBuf>, DownloadError> {
        let url = format!("{}/v1.36.3%2Bk3s1/k3s", self.base);
        let sums = format!("{}/v1.36.3%2Bk3s1/sha256sum-amd64.txt", self.base);
        self.downloads.release("v1.36.3+k3s1", "k3s", &url, &sums, check).await
    }
}

async fn serve(listener: TcpListener, tls: TlsAcceptor, site: Arc<Site>, asked: Arc<AtomicUsize>) {
    while let Ok((stream, _)) = listener.accept().await {
        let Ok(stream) = tls.accept(stream).await else { continue };
        let (site, asked) = (site.clone(), asked.clone());
        let answer = service_fn(move |request: Request<Incoming>| {
            asked.fetch_add(1, Ordering::Relaxed);
            let response = match site.get(request.uri().path()) {
                Some(Ok(body)) => Response::new(Full::new(Bytes::from(body.clone()))),
                Some(Err(to)) => Response::builder()
                    .status(302)
                    .header(header::LOCATION, to)
                    .body(Full::default())
                    .unwrap(),
                None => Response::builder().status(404).body(Full::default()).unwrap(),
            };
            async move { Ok::<_, Infallible>(response) }
        });
        let connection = hyper::server::conn::http1::Builder::new()
            .serve_connection(TokioIo::new(stream), answer);
        tokio::spawn(connection);
    }
}

fn release_of(base: &str, body: &[u8], listed: &[u8]) -> Site {
    let sums = format!(
        "{}  k3s-airgap-images-amd64.tar\n{}  k3s\n",
        hex::encode(Sha256::digest(b"other")),
        hex::encode(Sha256::digest(listed))
    );
    BTreeMap::from([
        ("/stable".to_owned(), Err(format!("{base}/releases/tag/v1.36.3%2Bk3s1"))),
        ("/evil".to_owned(), Err(format!("{base}/releases/tag/..%2Fx"))),
        ("/v1.36.3%2Bk3s1/k3s".to_owned(), Err(format!("{base}/store/1"))),
        ("/store/1".to_owned(), Ok(body.to_vec())),
        ("/v1.36.3%2Bk3s1/sha256sum-amd64.txt".to_owned(), Ok(sums.into_bytes())),
        ("/round".to_owned(), Err(format!("{base}/round"))),
    ])
}

#[tokio::test]
async fn a_release_is_downloaded_once_and_only_when_its_checksum_is_right() {
    let body: Vec<u8> = (0..300_000_u32).map(|n| n.to_le_bytes()[0]).collect();
    let server = Server::new(|base| release_of(base, &body, &body)).await;
    assert_eq!(server.release(true).await.unwrap(), None, "a check downloads nothing");
    assert_eq!(server.asked.load(Ordering::Relaxed), 0);
    let path = server.release(false).await.unwrap().unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), body);
    assert!(path.ends_with("cache/v1.36.3+k3s1/k3s"));
    let asked = server.asked.load(Ordering::Relaxed);
    assert_eq!(server.release(false).await.unwrap(), Some(path));
    assert_eq!(server.asked.load(Ordering::Relaxed), asked, "the second time it is there");
}

#[tokio::test]
async fn what_is_not_in_the_list_is_not_kept() {
    let server = Server::new(|base| release_of(base, b"changed on the way", b"as released")).await;
    let error = server.release(false).await.unwrap_err();
    assert!(matches!(error, DownloadError::Checksum { .. }), "{error}");
    let left = std::fs::read_dir(server.dir.path().join("cache/v1.36.3+k3s1")).unwrap().count();
    assert_eq!(left, 0);
}

#[tokio::test]
async fn a_channel_leads_to_a_version() {
    let server = Server::new(|base| release_of(base, b"", b"")).await;
    let of = |name: &str| format!("{}/{name}", server.base);
    assert_eq!(server.downloads.channel(&of("stable")).await.unwrap(), "v1.36.3+k3s1");
    for (name, expected) in [("nowhere", "404"), ("evil", "no version")] {
        let error = server.downloads.channel(&of(name)).await.unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    let error = server.downloads.follow(&of("round")).await.unwrap_err().to_string();
    assert!(error.contains("without end"), "{error}");
}

#[tokio::test]
async fn nobody_else_is_trusted_and_nothing_goes_in_the_clear() {
    let server = Server::new(|base| release_of(base, b"", b"")).await;
    let stranger = Downloads::with(RootCertStore::empty(), server.dir.path().to_owned()).unwrap();
    assert!(stranger.channel(&format!("{}/stable", server.base)).await.is_err());
    let error = server.downloads.channel("http://127.0.0.1:1/stable").await.unwrap_err();
    assert!(error.to_string().contains("only https"), "{error}");
}
