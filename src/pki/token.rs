//! Tokens, in K3s's format: `K10<sha256 of the CA's PEM>::<user>:<password>`, or the password alone.
//!
//! The texts of errors are K3s's (`pkg/clientaccess/token.go`): people search for them.

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::secret::Secret;

/// What a full token begins with.
const PREFIX: &str = "K10";

/// Length of a CA hash in hex digits.
const HASH_DIGITS: usize = 64;

/// User of a token that admits servers and agents.
pub const SERVER_USER: &str = "server";

/// User of a token that admits agents only.
pub const AGENT_USER: &str = "node";

/// Bytes of chance in a generated password: K3s's 16, written as 32 hex digits.
const PASSWORD_BYTES: usize = 16;

/// Why a token is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Nothing there.
    #[error("token must not be empty")]
    Empty,
    /// `K10` without 64 hex digits.
    #[error("invalid token CA hash length")]
    HashLength,
    /// Anything else that is not a token.
    #[error("invalid token format")]
    Format,
    /// It has no CA hash, and one is needed.
    #[error(
        "failed to normalize server token; must be in format K10<CA-HASH>::<USERNAME>:<PASSWORD>: \
         a token without a CA hash cannot prove which cluster it is for"
    )]
    NoHash,
    /// The cluster at the other end is not the one the token is for.
    #[error("token CA hash does not match the Cluster CA certificate hash: {token} != {found}")]
    WrongCa {
        /// The token's.
        token: String,
        /// The one that was met.
        found: String,
    },
    /// Chance could not be had from the system.
    #[error("cannot generate a token: no random numbers from the system")]
    Random,
}

/// A token, taken apart. `Debug` shows no secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// SHA-256 of the cluster CA's PEM in lower-case hex; `None` in a short token.
    pub ca_hash: Option<String>,
    /// `server`, `node`, or empty in a short token.
    pub user: String,
    /// The secret part.
    pub password: Secret,
}

impl Token {
    /// Takes a token apart. White space around it (a file's last newline) does not count.
    pub fn parse(text: &str) -> Result<Self, TokenError> {
        let text = text.trim();
        if text.is_empty() {
            return Err(TokenError::Empty);
        }
        let Some(rest) = text.strip_prefix(PREFIX) else {
            return Self::parse_short(text);
        };
        let Some((hash, credentials)) = rest.split_once("::") else {
            // A password that happens to begin with K10 is a password.
            return if rest.len() >= HASH_DIGITS {
                Err(TokenError::Format)
            } else {
                Self::parse_short(text)
            };
        };
        if hash.len() != HASH_DIGITS || !hash.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return Err(TokenError::HashLength);
        }
        let (user, password) = credentials.split_once(':').ok_or(TokenError::Format)?;
        if user.is_empty() || password.is_empty() || has_blank(password) {
            return Err(TokenError::Format);
        }
        Ok(Self {
            ca_hash: Some(hash.to_ascii_lowercase()),
            user: user.to_owned(),
            password: Secret::new(password),
        })
    }

    fn parse_short(text: &str) -> Result<Self, TokenError> {
        if has_blank(text) || text.contains("::") {
            return Err(TokenError::Format);
        }
        // `user:password` is accepted by K3s as well; the user does not matter without a hash.
        let (user, password) = text.split_once(':').unwrap_or(("", text));
        if password.is_empty() {
            return Err(TokenError::Format);
        }
        Ok(Self { ca_hash: None, user: user.to_owned(), password: Secret::new(password) })
    }

    /// A full token for the cluster whose CA is `ca_pem`.
    pub fn full(ca_pem: &str, user: &str, password: Secret) -> Self {
        Self { ca_hash: Some(ca_hash(ca_pem)), user: user.to_owned(), password }
    }

    /// The token as it is written. Secret.
    pub fn text(&self) -> Secret {
        Secret::new(match &self.ca_hash {
            Some(hash) => format!("{PREFIX}{hash}::{}:{}", self.user, self.password.expose()),
            None => self.password.expose().to_owned(),
        })
    }

    /// Whether one of the CAs in `pem` is the one this token is for: in a roll-over there are two.
    pub fn check_any_ca(&self, pem: &str) -> Result<(), TokenError> {
        let mut result = self.check_ca(pem);
        for one in split(pem) {
            if result.is_err() {
                result = self.check_ca(one);
            }
        }
        result
    }

    /// Whether `ca_pem` is the CA this token is for. Always asked before anything secret is sent,
    /// whatever the system's own CAs say.
    pub fn check_ca(&self, ca_pem: &str) -> Result<(), TokenError> {
        let token = self.ca_hash.clone().ok_or(TokenError::NoHash)?;
        let found = ca_hash(ca_pem);
        if token.as_bytes().ct_eq(found.as_bytes()).into() {
            Ok(())
        } else {
            Err(TokenError::WrongCa { token, found })
        }
    }
}

/// SHA-256 of a CA's PEM in hex: what a full token begins with, and `status` shows.
pub fn ca_hash(ca_pem: &str) -> String {
    hex::encode(Sha256::digest(ca_pem.as_bytes()))
}

/// The certificates of a PEM text, each with its line end: what a CA's hash is made of.
pub fn split(pem: &str) -> Vec<&str> {
    const END: &str = "-----END CERTIFICATE-----";
    let (mut found, mut rest) = (Vec::new(), pem);
    while let Some(at) = rest.find(END) {
        let (_, behind) = rest.split_at(at + END.len());
        let line_end = behind.len() - behind.strip_prefix('\r').unwrap_or(behind).len();
        let after = behind.split_at(line_end).1;
        let line_end = line_end + usize::from(after.starts_with('\n'));
        let (one, left) = rest.split_at(at + END.len() + line_end);
        found.push(one);
        rest = left;
    }
    found
}

/// A new password: 128 bits of chance in hex.
pub fn generate_password() -> Result<Secret, TokenError> {
    let mut bytes = zeroize::Zeroizing::new([0_u8; PASSWORD_BYTES]);
    getrandom::fill(bytes.as_mut_slice()).map_err(|_| TokenError::Random)?;
    Ok(Secret::new(hex::encode(bytes.as_slice())))
}

fn has_blank(text: &str) -> bool {
    text.chars().any(|letter| letter.is_whitespace() || letter.is_control())
}
