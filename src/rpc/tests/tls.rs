//! TLS with certificates on both sides, and the client's choice of a member.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use tonic::Code;

use super::{Fixture, pb, put};
use crate::raft::api::Consensus;
use crate::rpc::caller::Login;
use crate::rpc::client::{Client, ClientError, TlsFiles, connect};
use crate::rpc::member::Settings;
use crate::store::types::{AuthChange, Command};

/// Makes an authority and a certificate for 127.0.0.1 that serves both sides, as files.
fn make_files(directory: &Path) -> TlsFiles {
    let mut params = CertificateParams::new(vec![]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let ca = params.self_signed(&key).unwrap();
    let issuer = Issuer::new(params, key);
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    let cert = params.signed_by(&key, &issuer).unwrap();
    let files = TlsFiles {
        ca: directory.join("ca.crt"),
        cert: directory.join("leaf.crt"),
        key: directory.join("leaf.key"),
    };
    fs::write(&files.ca, ca.pem()).unwrap();
    fs::write(&files.cert, cert.pem()).unwrap();
    fs::write(&files.key, key.serialize_pem()).unwrap();
    files
}

/// A server's side that wants a certificate of the client's.
fn server_config(files: &TlsFiles) -> Arc<rustls::ServerConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(&files.ca).unwrap()).unwrap();
    let roots = Arc::new(roots);
    let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider.clone());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier.build().unwrap())
        .with_single_cert(
            vec![CertificateDer::from_pem_file(&files.cert).unwrap()],
            PrivateKeyDer::from_pem_file(&files.key).unwrap(),
        )
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Arc::new(config)
}

async fn is_served(client: &Client) -> Result<(), Code> {
    let answer = client.kv.clone().put(put("a", "1")).await;
    answer.map(|_| ()).map_err(|status| status.code())
}

#[tokio::test]
async fn both_sides_show_their_certificates() {
    let directory = tempfile::tempdir().unwrap();
    let files = make_files(directory.path());
    let fixture = Fixture::serving(Settings::default(), Some(server_config(&files))).await;
    let address = fixture.address;
    let secure = connect(&[format!("https://{address}")], Some(&files)).unwrap();
    assert_eq!(is_served(&secure).await, Ok(()));
    let plain = connect(&[format!("http://{address}")], None).unwrap();
    assert!(is_served(&plain).await.is_err());

    let other = tempfile::tempdir().unwrap();
    let strangers = make_files(other.path());
    let mixed = TlsFiles { ca: files.ca.clone(), ..strangers };
    let stranger = connect(&[address.to_string()], Some(&mixed)).unwrap();
    assert!(is_served(&stranger).await.is_err());
}

#[tokio::test]
async fn a_certificate_names_a_user_only_where_all_must_show_one() {
    let directory = tempfile::tempdir().unwrap();
    let files = make_files(directory.path());
    for (by_certificate, told) in
        [(true, "etcdserver: permission denied"), (false, "etcdserver: user name is empty")]
    {
        let login = Login { by_certificate, ..Login::default() };
        let tls = Some(server_config(&files));
        let fixture = Fixture::knowing(Settings::default(), tls, login).await;
        let root = || "root".to_owned();
        for change in [
            AuthChange::UserAdd { name: root(), password: None },
            AuthChange::UserGrant { name: root(), role: root() },
            AuthChange::Enable,
        ] {
            fixture.solo.propose(Command::Auth(change)).await.unwrap().outcome.unwrap();
        }
        let address = format!("https://{}", fixture.address);
        let client = connect(&[address], Some(&files)).unwrap();
        let refused = client.kv.clone().put(put("a", "1")).await.unwrap_err();
        assert_eq!(refused.message(), told);
    }
}

#[tokio::test]
async fn a_client_goes_to_a_member_that_answers_and_stays_there() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (first, second) = (Fixture::new().await, Fixture::new().await);
    let endpoints = [nobody, first.address, second.address].map(|address| address.to_string());
    let client = connect(&endpoints, None).unwrap();
    for _ in 0..3 {
        assert_eq!(is_served(&client).await, Ok(()));
    }
    let read = pb::RangeRequest { key: "a".into(), ..Default::default() };
    let versions = async |fixture: &Fixture| -> Vec<i64> {
        let range = fixture.client.kv.clone().range(read.clone()).await.unwrap().into_inner();
        range.kvs.iter().map(|kv| kv.version).collect()
    };
    assert_eq!(versions(&first).await, [3]);
    first.stop.cancel();
    // Calls may fail, or still be answered by the one that stops, until the other is found.
    while versions(&second).await.is_empty() {
        let _ = is_served(&client).await;
    }
}

#[tokio::test]
async fn a_client_is_not_made_of_nonsense() {
    let error = |endpoints: &[&str]| {
        let endpoints: Vec<String> = endpoints.iter().map(ToString::to_string).collect();
        connect(&endpoints, None).unwrap_err()
    };
    assert!(matches!(error(&[]), ClientError::NoEndpoint));
    assert!(matches!(error(&["https://127.0.0.1:1"]), ClientError::NoTls(_)));
    assert!(matches!(error(&["127.0.0.1"]), ClientError::BadEndpoint(_)));
    assert!(matches!(error(&["ftp://127.0.0.1:1"]), ClientError::BadEndpoint(_)));
    let missing = TlsFiles { ca: "/nothing".into(), cert: "".into(), key: "".into() };
    let error = connect(&["a:1".to_owned()], Some(&missing)).unwrap_err();
    assert!(error.to_string().starts_with("/nothing: "), "{error}");
}
