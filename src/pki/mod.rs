//! Certificates, the cluster's CAs and tokens.
//!
//! Three CAs, as K3s has them: `server-ca` signs what clients verify (its hash is in the token),
//! `client-ca` signs who may ask, `peer-ca` signs members. Knows nothing of joining, of the store
//! and of the network; the file names under `<data-dir>/server/tls` are K3s's where it has one.

pub mod authority;
pub mod files;
pub mod inspect;
pub mod rollover;
pub mod tls;
pub mod token;
pub mod tree;

#[cfg(test)]
mod tests;

pub use authority::{Authority, KeyPairPem, Leaf, Purpose};
pub use token::{Token, TokenError};
pub use tree::{Tree, TreeError};

/// Why a certificate could not be made or read.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// Making or signing it failed.
    #[error("cannot make a certificate: {0}")]
    Make(#[from] rcgen::Error),
    /// It is not PEM, or not a certificate.
    #[error("cannot read a certificate: {0}")]
    Read(String),
    /// TLS refuses it.
    #[error("TLS refuses the certificate: {0}")]
    Tls(#[from] rustls::Error),
    /// The verifier cannot be built.
    #[error("cannot verify with this CA: {0}")]
    Verifier(#[from] rustls::server::VerifierBuilderError),
    /// The clock is not set.
    #[error("server time isn't set properly: {0}")]
    Clock(String),
}
