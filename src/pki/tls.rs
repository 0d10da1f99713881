//! rustls configurations: who answers, who asks, whom they believe. ring, TLS 1.2 and 1.3.

use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ResolvesClientCert, Resumption, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{
    ClientHello, NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier,
};
use rustls::sign::CertifiedKey;
use rustls::{
    ClientConfig, DigitallySignedStruct, DistinguishedName, RootCertStore, ServerConfig,
    SignatureScheme, SupportedProtocolVersion,
};

use super::{KeyPairPem, PkiError};

/// HTTP/2 and HTTP/1.1, in this order.
pub const ALPN_HTTP: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// What a server asks of those who connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientAuth {
    /// A certificate of the CA, or the handshake fails.
    Required,
    /// A certificate of the CA, or none: then a token must do.
    Optional,
}

/// A certificate and its key as connections show it. It can be replaced while it is in use:
/// connections made from then on show the new one.
#[derive(Debug)]
pub struct Shown(ArcSwap<CertifiedKey>);

impl Shown {
    /// Shows `pair`.
    pub fn new(pair: &KeyPairPem) -> Result<Arc<Self>, PkiError> {
        Ok(Arc::new(Self(ArcSwap::from_pointee(certified(pair)?))))
    }

    /// Shows `pair` from now on.
    pub fn replace(&self, pair: &KeyPairPem) -> Result<(), PkiError> {
        self.0.store(Arc::new(certified(pair)?));
        Ok(())
    }
}

impl ResolvesServerCert for Shown {
    fn resolve(&self, _client_hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }
}

impl ResolvesClientCert for Shown {
    fn resolve(
        &self,
        _root_hint_subjects: &[&[u8]],
        _sigschemes: &[SignatureScheme],
    ) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// The CAs that connections believe. They can be replaced while they are in use: connections made
/// from then on are checked with the new ones.
#[derive(Debug)]
pub struct Roots {
    servers: ArcSwap<WebPkiServerVerifier>,
    clients: ArcSwap<Clients>,
}

#[derive(Debug)]
struct Clients(Arc<dyn ClientCertVerifier>);

impl Roots {
    /// Believes what any of the CAs in `pem` signed.
    pub fn new(pem: &str) -> Result<Arc<Self>, PkiError> {
        let (servers, clients) = verifiers(roots(pem)?)?;
        let clients = ArcSwap::from_pointee(clients);
        Ok(Arc::new(Self { servers: ArcSwap::new(servers), clients }))
    }

    /// Believes what any of the CAs signed that this host believes.
    pub fn of_this_host() -> Result<Arc<Self>, PkiError> {
        let mut store = RootCertStore::empty();
        store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        let (servers, clients) = verifiers(store)?;
        let clients = ArcSwap::from_pointee(clients);
        Ok(Arc::new(Self { servers: ArcSwap::new(servers), clients }))
    }

    /// Believes these from now on.
    pub fn replace(&self, pem: &str) -> Result<(), PkiError> {
        let (servers, clients) = verifiers(roots(pem)?)?;
        self.servers.store(servers);
        self.clients.store(Arc::new(clients));
        Ok(())
    }
}

fn verifiers(roots: RootCertStore) -> Result<(Arc<WebPkiServerVerifier>, Clients), PkiError> {
    let roots = Arc::new(roots);
    let servers =
        WebPkiServerVerifier::builder_with_provider(Arc::clone(&roots), provider()).build()?;
    let clients = WebPkiClientVerifier::builder_with_provider(roots, provider()).build()?;
    Ok((servers, Clients(clients)))
}

/// Checks clients with the roots of the moment.
#[derive(Debug)]
struct CheckClients {
    roots: Arc<Roots>,
    auth: ClientAuth,
}

impl ClientCertVerifier for CheckClients {
    fn client_auth_mandatory(&self) -> bool {
        self.auth == ClientAuth::Required
    }

    /// None: a client shows what it has.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.roots.clients.load().0.verify_client_cert(end_entity, intermediates, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.roots.clients.load().0.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.roots.clients.load().0.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.roots.clients.load().0.supported_verify_schemes()
    }
}

/// Checks servers with the roots of the moment.
#[derive(Debug)]
struct CheckServers(Arc<Roots>);

impl ServerCertVerifier for CheckServers {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let servers = self.0.servers.load();
        servers.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.servers.load().verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.servers.load().verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.servers.load().supported_verify_schemes()
    }
}

/// For who answers with `pair` and believes certificates that `client_ca` (PEM) signed.
pub fn server(
    pair: &KeyPairPem,
    client_ca: &str,
    auth: ClientAuth,
    alpn: &[&[u8]],
) -> Result<Arc<ServerConfig>, PkiError> {
    server_showing(Shown::new(pair)?, client_ca, auth, alpn)
}

/// As [`server`], with a certificate that may be replaced.
pub fn server_showing(
    shown: Arc<Shown>,
    client_ca: &str,
    auth: ClientAuth,
    alpn: &[&[u8]],
) -> Result<Arc<ServerConfig>, PkiError> {
    server_believing(shown, Roots::new(client_ca)?, auth, alpn)
}

/// As [`server_showing`], with CAs that may be replaced as well. Sessions are not resumed: who
/// resumes one is not checked again.
pub fn server_believing(
    shown: Arc<Shown>,
    roots: Arc<Roots>,
    auth: ClientAuth,
    alpn: &[&[u8]],
) -> Result<Arc<ServerConfig>, PkiError> {
    server_speaking(rustls::DEFAULT_VERSIONS, shown, Some((roots, auth)), alpn)
}

/// As [`server_believing`], with these versions of TLS only. Without `believed` nobody is asked for
/// a certificate.
pub fn server_speaking(
    versions: &[&'static SupportedProtocolVersion],
    shown: Arc<Shown>,
    believed: Option<(Arc<Roots>, ClientAuth)>,
    alpn: &[&[u8]],
) -> Result<Arc<ServerConfig>, PkiError> {
    let builder =
        ServerConfig::builder_with_provider(provider()).with_protocol_versions(versions)?;
    let builder = match believed {
        Some((roots, auth)) => {
            builder.with_client_cert_verifier(Arc::new(CheckClients { roots, auth }))
        }
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_cert_resolver(shown);
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    Ok(Arc::new(config))
}

/// For who asks: believes servers whose certificate `server_ca` (PEM) signed for the name that was
/// dialled, and shows `pair` when it has one.
pub fn client(
    server_ca: &str,
    pair: Option<&KeyPairPem>,
    alpn: &[&[u8]],
) -> Result<Arc<ClientConfig>, PkiError> {
    client_showing(server_ca, pair.map(Shown::new).transpose()?, alpn)
}

/// As [`client`], with a certificate that may be replaced.
pub fn client_showing(
    server_ca: &str,
    shown: Option<Arc<Shown>>,
    alpn: &[&[u8]],
) -> Result<Arc<ClientConfig>, PkiError> {
    client_believing(Roots::new(server_ca)?, shown, alpn)
}

/// As [`client_showing`], with CAs that may be replaced as well.
pub fn client_believing(
    roots: Arc<Roots>,
    shown: Option<Arc<Shown>>,
    alpn: &[&[u8]],
) -> Result<Arc<ClientConfig>, PkiError> {
    client_checking(Arc::new(CheckServers(roots)), shown, alpn)
}

/// As [`client_believing`], without any check of who answers: for who asked for just that.
pub fn client_believing_anybody(
    shown: Option<Arc<Shown>>,
    alpn: &[&[u8]],
) -> Result<Arc<ClientConfig>, PkiError> {
    client_checking(Arc::new(Anybody(provider())), shown, alpn)
}

fn client_checking(
    verifier: Arc<dyn ServerCertVerifier>,
    shown: Option<Arc<Shown>>,
    alpn: &[&[u8]],
) -> Result<Arc<ClientConfig>, PkiError> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut config = match shown {
        Some(shown) => builder.with_client_cert_resolver(shown),
        None => builder.with_no_client_auth(),
    };
    config.resumption = Resumption::disabled();
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    Ok(Arc::new(config))
}

/// For fetching a CA that is not known yet: believes anybody. Nothing secret may be sent over it,
/// and what it brings is worth nothing until its hash was compared with the token's.
pub fn client_without_trust() -> Result<Arc<ClientConfig>, PkiError> {
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody(provider())))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn roots(pem: &str) -> Result<RootCertStore, PkiError> {
    let mut store = RootCertStore::empty();
    for certificate in certificates(pem)? {
        store.add(certificate)?;
    }
    Ok(store)
}

fn certified(pair: &KeyPairPem) -> Result<CertifiedKey, PkiError> {
    let key = PrivateKeyDer::from_pem_slice(pair.key.expose().as_bytes())
        .map_err(|error| PkiError::Read(format!("private key: {error}")))?;
    Ok(CertifiedKey::from_der(certificates(&pair.certificate)?, key, &provider())?)
}

/// All certificates of a PEM text; at least one.
pub fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>, PkiError> {
    let found = CertificateDer::pem_slice_iter(pem.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| PkiError::Read(error.to_string()))?;
    if found.is_empty() {
        Err(PkiError::Read("no certificate in it".to_owned()))
    } else {
        Ok(found)
    }
}

/// Believes any certificate, but still checks that the other side holds its key.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
