//! Keys of tokens: from their files to what signs and what checks.

use std::path::Path;
use std::sync::Arc;

use ring::hmac;
use ring::rand::SystemRandom;
use ring::signature::{self, KeyPair, RsaEncoding, RsaKeyPair, RsaParameters, UnparsedPublicKey};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, SubjectPublicKeyInfoDer};
use x509_parser::prelude::FromDer;
use x509_parser::x509::SubjectPublicKeyInfo;

use super::JwtError;
use super::method::Hash::{Sha256, Sha384, Sha512};
use super::method::{Hash, Method};

/// Signs; nothing when it cannot, which it does not say why.
pub(super) type Sign = Box<dyn Fn(&[u8]) -> Option<Vec<u8>> + Send + Sync>;

/// Whether a signature (the second) is that of what is signed (the first).
pub(super) type Verify = Box<dyn Fn(&[u8], &[u8]) -> bool + Send + Sync>;

/// What signs and what checks.
pub(super) struct Keys {
    /// `None` where there is only a public key.
    pub(super) sign: Option<Sign>,
    pub(super) verify: Verify,
}

/// A file, and what is in it.
type Read<'a> = (&'a Path, Vec<u8>);

/// Makes keys of the files' contents.
pub(super) fn load(
    method: Method,
    private: Option<&Read<'_>>,
    public: Option<&Read<'_>>,
) -> Result<Keys, JwtError> {
    let unfit = |(path, _): &Read<'_>, why: String| JwtError::Unfit {
        path: (*path).to_owned(),
        why,
        method,
        takes: method.takes(),
    };
    if let Method::Hs(hash) = method {
        let (_, secret) = private.ok_or(JwtError::Missing("give priv-key=FILE, the secret"))?;
        return Ok(hmac_keys(hash, secret));
    }
    let signer = match private {
        None => None,
        Some(file) => {
            let key = PrivateKeyDer::from_pem_slice(&file.1);
            let key =
                key.map_err(|error| unfit(file, format!("no private key in PEM: {error}")))?;
            Some(signer(method, &key).map_err(|why| unfit(file, why))?)
        }
    };
    let given = match public {
        None => None,
        Some(file) => Some((file, public_point(&file.1).map_err(|why| unfit(file, why))?)),
    };
    let (sign, point) = match (signer, given) {
        (Some((_, own)), Some(((path, _), point))) if own != point => {
            let private = private.map(|(path, _)| (*path).to_owned()).unwrap_or_default();
            return Err(JwtError::Mismatch((*path).to_owned(), private));
        }
        (Some((sign, own)), _) => (Some(sign), own),
        (None, Some((file, point))) => {
            check_public(method, &point).map_err(|why| unfit(file, why))?;
            (None, point)
        }
        (None, None) => {
            return Err(JwtError::Missing("give priv-key=FILE, or pub-key=FILE to check only"));
        }
    };
    let verify = verifier(method, &point).ok_or(JwtError::Missing("there is no public key"))?;
    Ok(Keys { sign, verify })
}

fn hmac_keys(hash: Hash, secret: &[u8]) -> Keys {
    let algorithm = match hash {
        Sha256 => hmac::HMAC_SHA256,
        Sha384 => hmac::HMAC_SHA384,
        Sha512 => hmac::HMAC_SHA512,
    };
    let key = hmac::Key::new(algorithm, secret);
    let signing = key.clone();
    Keys {
        sign: Some(Box::new(move |data| Some(hmac::sign(&signing, data).as_ref().to_vec()))),
        verify: Box::new(move |data, signature| hmac::verify(&key, data, signature).is_ok()),
    }
}

/// The public key in a PEM file, or that of the certificate in it, without what names its kind.
fn public_point(pem: &[u8]) -> Result<Vec<u8>, String> {
    if let Ok(key) = SubjectPublicKeyInfoDer::from_pem_slice(pem) {
        let (_, info) = SubjectPublicKeyInfo::from_der(&key)
            .map_err(|error| format!("no public key: {error}"))?;
        return Ok(info.subject_public_key.data.to_vec());
    }
    let certificate = CertificateDer::from_pem_slice(pem)
        .map_err(|error| format!("no public key or certificate in PEM: {error}"))?;
    let (_, certificate) = x509_parser::parse_x509_certificate(&certificate)
        .map_err(|error| format!("no certificate: {error}"))?;
    Ok(certificate.public_key().subject_public_key.data.to_vec())
}

/// Signs by a private key; with its public key.
fn signer(method: Method, key: &PrivateKeyDer<'_>) -> Result<(Sign, Vec<u8>), String> {
    match method {
        Method::Rs(Sha256) => rsa(key, &signature::RSA_PKCS1_SHA256),
        Method::Rs(Sha384) => rsa(key, &signature::RSA_PKCS1_SHA384),
        Method::Rs(Sha512) => rsa(key, &signature::RSA_PKCS1_SHA512),
        Method::Ps(Sha256) => rsa(key, &signature::RSA_PSS_SHA256),
        Method::Ps(Sha384) => rsa(key, &signature::RSA_PSS_SHA384),
        Method::Ps(Sha512) => rsa(key, &signature::RSA_PSS_SHA512),
        Method::Es(Sha256) => curve_p256::signer(key),
        Method::Es(Sha384) => curve_p384::signer(key),
        Method::Es(Sha512) => curve_p521::signer(key),
        Method::Hs(_) => Err("HMAC has no such key".to_owned()),
    }
}

fn rsa(
    key: &PrivateKeyDer<'_>,
    encoding: &'static dyn RsaEncoding,
) -> Result<(Sign, Vec<u8>), String> {
    let pair = match key {
        PrivateKeyDer::Pkcs1(key) => RsaKeyPair::from_der(key.secret_pkcs1_der()),
        PrivateKeyDer::Pkcs8(key) => RsaKeyPair::from_pkcs8(key.secret_pkcs8_der()),
        _ => return Err("the key is not RSA's".to_owned()),
    };
    let pair = pair.map_err(|error| format!("the key is refused ({error})"))?;
    let public = pair.public_key().as_ref().to_vec();
    let random = SystemRandom::new();
    let sign = move |data: &[u8]| {
        let mut signature = vec![0; pair.public().modulus_len()];
        pair.sign(encoding, &random, data, &mut signature).ok()?;
        Some(signature)
    };
    Ok((Box::new(sign), public))
}

/// Refuses a public key that could check nothing.
fn check_public(method: Method, point: &[u8]) -> Result<(), String> {
    let is_one = match method {
        Method::Es(_) => verifier(method, point).is_some(),
        Method::Rs(_) | Method::Ps(_) => is_rsa_public(point),
        Method::Hs(_) => true,
    };
    if is_one { Ok(()) } else { Err("the key is another one".to_owned()) }
}

/// Whether it is an RSA key of a size that is served.
fn is_rsa_public(der: &[u8]) -> bool {
    x509_parser::public_key::RSAPublicKey::from_der(der)
        .is_ok_and(|(_, key)| (2048..=8192).contains(&key.key_size()))
}

/// Checks signatures by a public key; nothing when the key is of another curve.
fn verifier(method: Method, point: &[u8]) -> Option<Verify> {
    let rsa = |parameters: &'static RsaParameters| {
        let key = UnparsedPublicKey::new(parameters, point.to_vec());
        let check = move |data: &[u8], signature: &[u8]| key.verify(data, signature).is_ok();
        Some(Box::new(check) as Verify)
    };
    match method {
        Method::Rs(Sha256) => rsa(&signature::RSA_PKCS1_2048_8192_SHA256),
        Method::Rs(Sha384) => rsa(&signature::RSA_PKCS1_2048_8192_SHA384),
        Method::Rs(Sha512) => rsa(&signature::RSA_PKCS1_2048_8192_SHA512),
        Method::Ps(Sha256) => rsa(&signature::RSA_PSS_2048_8192_SHA256),
        Method::Ps(Sha384) => rsa(&signature::RSA_PSS_2048_8192_SHA384),
        Method::Ps(Sha512) => rsa(&signature::RSA_PSS_2048_8192_SHA512),
        Method::Es(Sha256) => curve_p256::verifier(point),
        Method::Es(Sha384) => curve_p384::verifier(point),
        Method::Es(Sha512) => curve_p521::verifier(point),
        Method::Hs(_) => None,
    }
}

/// ECDSA on a curve. A macro and no generic function: the crates' types agree in names only.
macro_rules! curve {
    ($module:ident, $curve:ident, $name:literal) => {
        mod $module {
            use $curve::ecdsa::signature::{Signer, Verifier};
            use $curve::ecdsa::{Signature, SigningKey, VerifyingKey};
            use $curve::pkcs8::DecodePrivateKey;

            use super::{Arc, PrivateKeyDer, Sign, Verify};

            pub(super) fn signer(key: &PrivateKeyDer<'_>) -> Result<(Sign, Vec<u8>), String> {
                let secret = match key {
                    PrivateKeyDer::Sec1(key) => {
                        $curve::SecretKey::from_sec1_der(key.secret_sec1_der()).ok()
                    }
                    PrivateKeyDer::Pkcs8(key) => {
                        $curve::SecretKey::from_pkcs8_der(key.secret_pkcs8_der()).ok()
                    }
                    _ => None,
                };
                let secret = secret.ok_or(concat!("the key is not one of ", $name))?;
                let key = Arc::new(SigningKey::from(&secret));
                let public = key.verifying_key().to_sec1_point(false).as_bytes().to_vec();
                let sign = move |data: &[u8]| {
                    let signature: Signature = key.try_sign(data).ok()?;
                    Some(signature.to_bytes().to_vec())
                };
                Ok((Box::new(sign), public))
            }

            pub(super) fn verifier(point: &[u8]) -> Option<Verify> {
                let key = VerifyingKey::from_sec1_bytes(point).ok()?;
                let check = move |data: &[u8], signature: &[u8]| {
                    let signature = Signature::from_slice(signature);
                    signature.is_ok_and(|signature| key.verify(data, &signature).is_ok())
                };
                Some(Box::new(check))
            }
        }
    };
}

curve!(curve_p256, p256, "P-256");
curve!(curve_p384, p384, "P-384");
curve!(curve_p521, p521, "P-521");
