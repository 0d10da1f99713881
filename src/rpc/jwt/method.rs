//! The methods by which tokens are signed: those that etcd 3.5 has.

use std::fmt;

/// A way of signing, by its name in RFC 7518.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// HMAC: one secret signs and checks.
    Hs(Hash),
    /// RSA, PKCS #1 v1.5.
    Rs(Hash),
    /// RSA, PSS.
    Ps(Hash),
    /// ECDSA on the curve of this size: P-256, P-384, P-521.
    Es(Hash),
}

/// The SHA-2 of a method. ECDSA's curve follows from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hash {
    /// SHA-256.
    Sha256,
    /// SHA-384.
    Sha384,
    /// SHA-512.
    Sha512,
}

use Hash::{Sha256, Sha384, Sha512};

/// All, with their names.
const METHODS: [(Method, &str); 12] = [
    (Method::Hs(Sha256), "HS256"),
    (Method::Hs(Sha384), "HS384"),
    (Method::Hs(Sha512), "HS512"),
    (Method::Rs(Sha256), "RS256"),
    (Method::Rs(Sha384), "RS384"),
    (Method::Rs(Sha512), "RS512"),
    (Method::Ps(Sha256), "PS256"),
    (Method::Ps(Sha384), "PS384"),
    (Method::Ps(Sha512), "PS512"),
    (Method::Es(Sha256), "ES256"),
    (Method::Es(Sha384), "ES384"),
    (Method::Es(Sha512), "ES512"),
];

impl Method {
    /// The one of a name.
    pub fn find(name: &str) -> Option<Self> {
        METHODS.iter().find(|(_, known)| *known == name).map(|(method, _)| *method)
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        METHODS.iter().find(|(method, _)| *method == self).map_or("", |(_, name)| *name)
    }

    /// The names of all.
    pub fn names() -> impl Iterator<Item = &'static str> {
        METHODS.iter().map(|(_, name)| *name)
    }

    /// What keys it takes.
    pub(super) fn takes(self) -> &'static str {
        match self {
            Self::Hs(_) => "any secret",
            Self::Rs(_) | Self::Ps(_) => {
                "RSA keys of 2048 to 4096 bits (to check only: to 8192), in PEM"
            }
            Self::Es(Sha256) => "keys of the curve P-256, in PEM",
            Self::Es(Sha384) => "keys of the curve P-384, in PEM",
            Self::Es(Sha512) => "keys of the curve P-521, in PEM",
        }
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
