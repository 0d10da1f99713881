//! A CA and the certificates it signs. ECDSA P-256, CAs for ten years, leaves for one.

use std::net::IpAddr;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PublicKeyData, SanType, SubjectPublicKeyInfo,
};
use time::{Duration, OffsetDateTime};

use super::PkiError;
use crate::secret::Secret;

/// How long a CA is valid: K3s's ten years.
const AUTHORITY_DAYS: i64 = 3650;

/// How long a leaf is valid: K3s's 365 days.
pub const LEAF_DAYS: i64 = 365;

/// Certificates begin this long before they are made, so that a host whose clock is a little
/// behind accepts them.
const BACKDATE: Duration = Duration::hours(1);

/// A certificate with its key, both PEM.
#[derive(Clone, Debug)]
pub struct KeyPairPem {
    /// The certificate.
    pub certificate: String,
    /// Its private key.
    pub key: Secret,
}

/// What a leaf may be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Answer.
    Server,
    /// Ask.
    Client,
    /// Both: members answer and ask one another.
    Peer,
}

/// What a leaf says.
#[derive(Clone, Debug)]
pub struct Leaf {
    /// Subject's common name.
    pub common_name: String,
    /// Subject's organisations: K3s's groups, for example `system:masters`.
    pub organization: Option<String>,
    /// Host names and addresses it is valid for.
    pub sans: Vec<String>,
    /// What for.
    pub purpose: Purpose,
}

/// A CA with its key.
#[derive(Clone, Debug)]
pub struct Authority {
    pair: KeyPairPem,
}

impl Authority {
    /// Makes a new one. The name gets the time as K3s's does (`k3sup-server-ca@1700000000`), so that
    /// two clusters' CAs are told apart by eye.
    pub fn create(name: &str) -> Result<Self, PkiError> {
        let now = now()?;
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.distinguished_name = subject(&format!("{name}@{}", now.unix_timestamp()), None);
        params.not_before = now - BACKDATE;
        params.not_after = now + Duration::days(AUTHORITY_DAYS);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![
            KeyUsagePurpose::DigitalSignature,
            KeyUsagePurpose::KeyCertSign,
            KeyUsagePurpose::CrlSign,
        ];
        let certificate = params.self_signed(&key)?.pem();
        let key = Secret::new(key.serialize_pem());
        Ok(Self { pair: KeyPairPem { certificate, key } })
    }

    /// Takes one that was made before.
    pub fn from_pem(pair: KeyPairPem) -> Result<Self, PkiError> {
        let authority = Self { pair };
        authority.issuer()?;
        Ok(authority)
    }

    /// Certificate and key.
    pub fn pair(&self) -> &KeyPairPem {
        &self.pair
    }

    /// The certificate.
    pub fn certificate(&self) -> &str {
        &self.pair.certificate
    }

    /// Makes a key and a certificate for it.
    pub fn issue(&self, leaf: &Leaf) -> Result<KeyPairPem, PkiError> {
        let key = KeyPair::generate()?;
        let certificate = self.sign(leaf, &key)?;
        Ok(KeyPairPem { certificate, key: Secret::new(key.serialize_pem()) })
    }

    /// Makes a certificate for a key that stays where it was made. `public_key` is PEM
    /// (`BEGIN PUBLIC KEY`). What the certificate says is the caller's choice alone.
    pub fn issue_for_public_key(&self, leaf: &Leaf, public_key: &str) -> Result<String, PkiError> {
        self.sign(leaf, &SubjectPublicKeyInfo::from_pem(public_key)?)
    }

    fn sign(&self, leaf: &Leaf, key: &impl PublicKeyData) -> Result<String, PkiError> {
        let now = now()?;
        let mut params = CertificateParams::default();
        params.distinguished_name = subject(&leaf.common_name, leaf.organization.as_deref());
        params.subject_alt_names =
            leaf.sans.iter().map(|name| san(name)).collect::<Result<_, _>>()?;
        params.not_before = now - BACKDATE;
        params.not_after = now + Duration::days(LEAF_DAYS);
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = match leaf.purpose {
            Purpose::Server => vec![ExtendedKeyUsagePurpose::ServerAuth],
            Purpose::Client => vec![ExtendedKeyUsagePurpose::ClientAuth],
            Purpose::Peer => {
                vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth]
            }
        };
        params.use_authority_key_identifier_extension = true;
        Ok(params.signed_by(key, &self.issuer()?)?.pem())
    }

    fn issuer(&self) -> Result<Issuer<'static, KeyPair>, PkiError> {
        let key = KeyPair::from_pem(self.pair.key.expose())?;
        Ok(Issuer::from_ca_cert_pem(&self.pair.certificate, key)?)
    }
}

/// A fresh key with the PEM of its public half, for [`Authority::issue_for_public_key`].
pub fn fresh_key() -> Result<(Secret, String), PkiError> {
    let key = KeyPair::generate()?;
    Ok((Secret::new(key.serialize_pem()), key.public_key_pem()))
}

/// The public half of a private key, both PEM.
pub fn public_key(key: &Secret) -> Result<String, PkiError> {
    Ok(KeyPair::from_pem(key.expose())?.public_key_pem())
}

/// An address or a host name.
fn san(name: &str) -> Result<SanType, PkiError> {
    Ok(match name.parse::<IpAddr>() {
        Ok(address) => SanType::IpAddress(address),
        Err(_) => SanType::DnsName(name.try_into()?),
    })
}

fn subject(common_name: &str, organization: Option<&str>) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    if let Some(organization) = organization {
        name.push(DnType::OrganizationName, organization);
    }
    name.push(DnType::CommonName, common_name);
    name
}

/// Now, unless the clock was plainly never set: K3s refuses anything before 1980.
fn now() -> Result<OffsetDateTime, PkiError> {
    let now = OffsetDateTime::now_utc();
    if now.year() < 1980 { Err(PkiError::Clock(format!("it is {now}"))) } else { Ok(now) }
}
