//! Reads what a certificate says: subject, issuer, names, end of validity.

use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::PkiError;

/// What a certificate says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Subject's common name.
    pub common_name: String,
    /// Subject's organisation.
    pub organization: String,
    /// Issuer's common name.
    pub issuer: String,
    /// Host names and addresses, sorted.
    pub sans: Vec<String>,
    /// End of validity, seconds since 1970.
    pub not_after_unix_s: u64,
}

impl Facts {
    /// Reads the first certificate of a PEM text.
    pub fn from_pem(pem: &str) -> Result<Self, PkiError> {
        Self::from_der(&first_der(pem)?)
    }

    /// Reads a certificate as TLS gives it.
    pub fn from_der(der: &[u8]) -> Result<Self, PkiError> {
        let (_, certificate) =
            X509Certificate::from_der(der).map_err(|error| PkiError::Read(error.to_string()))?;
        let text = |value: Option<&x509_parser::x509::AttributeTypeAndValue<'_>>| {
            value.and_then(|value| value.as_str().ok()).unwrap_or_default().to_owned()
        };
        let mut sans: Vec<String> = certificate
            .subject_alternative_name()
            .map_err(|error| PkiError::Read(error.to_string()))?
            .map(|extension| {
                extension.value.general_names.iter().filter_map(general_name).collect()
            })
            .unwrap_or_default();
        sans.sort();
        Ok(Self {
            common_name: text(certificate.subject().iter_common_name().next()),
            organization: text(certificate.subject().iter_organization().next()),
            issuer: text(certificate.issuer().iter_common_name().next()),
            sans,
            not_after_unix_s: u64::try_from(certificate.validity().not_after.timestamp())
                .unwrap_or(0),
        })
    }

    /// Whole days that are left at `now_unix_s`; 0 when it is over.
    pub fn days_left(&self, now_unix_s: u64) -> u64 {
        self.not_after_unix_s.saturating_sub(now_unix_s) / 86_400
    }
}

/// The DER of the first certificate in a PEM text.
pub fn first_der(pem: &str) -> Result<Vec<u8>, PkiError> {
    let (_, block) = x509_parser::pem::parse_x509_pem(pem.as_bytes())
        .map_err(|error| PkiError::Read(error.to_string()))?;
    if block.label != "CERTIFICATE" {
        return Err(PkiError::Read(format!("it is a {}", block.label.to_lowercase())));
    }
    Ok(block.contents)
}

fn general_name(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => match bytes.len() {
            4 => <[u8; 4]>::try_from(*bytes)
                .ok()
                .map(|bytes| std::net::Ipv4Addr::from(bytes).to_string()),
            16 => <[u8; 16]>::try_from(*bytes)
                .ok()
                .map(|bytes| std::net::Ipv6Addr::from(bytes).to_string()),
            _ => None,
        },
        _ => None,
    }
}
