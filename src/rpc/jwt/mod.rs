//! Tokens that carry who somebody is, signed (etcd's `--auth-token=jwt,…`): any member with the key
//! believes them, and no member keeps any.
//!
//! What a token says, and when it is believed, is etcd's (`server/auth/jwt.go`). Knows nothing of
//! users and rights: whether a user of that name exists is found out when it asks for something.

mod keys;
mod method;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde_json::{Map, Value, json};

use self::keys::Keys;
pub use self::method::Method;
use super::errors::ApiError;
use crate::store::types::Caller;

/// How tokens are signed and checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JwtOptions {
    /// `sign-method`.
    pub method: Method,
    /// `pub-key`: a file with the public key, or with a certificate of it.
    pub public: Option<PathBuf>,
    /// `priv-key`: a file with the private key; of HMAC the secret, as it is.
    pub private: Option<PathBuf>,
    /// `ttl`: how long a token holds.
    pub ttl: Duration,
}

/// Why tokens cannot be signed or checked with the options given. The beginnings are etcd's words.
#[derive(Debug, thiserror::Error)]
pub enum JwtError {
    /// A file cannot be read.
    #[error("auth: invalid auth options: {0}: {1}")]
    File(PathBuf, std::io::Error),
    /// No key at all, or HMAC without a secret.
    #[error("auth: missing key data: {0}")]
    Missing(&'static str),
    /// The public key is not that of the private one.
    #[error("auth: public and private keys don't match: {0} is not the public key of {1}")]
    Mismatch(PathBuf, PathBuf),
    /// A file holds another key than the method takes.
    #[error("auth: invalid auth options: {path}: {why}, and {method} takes {takes}")]
    Unfit {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
        /// The method.
        method: Method,
        /// What the method takes.
        takes: &'static str,
    },
}

/// What signs and checks tokens.
pub struct Jwt {
    method: Method,
    ttl: Duration,
    keys: Keys,
}

impl std::fmt::Debug for Jwt {
    /// Without the keys: they are not for logs.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Jwt").field("method", &self.method).finish_non_exhaustive()
    }
}

impl Jwt {
    /// Reads the keys.
    ///
    /// # Errors
    /// There is none, or it does not fit.
    pub fn open(options: &JwtOptions) -> Result<Self, JwtError> {
        let public = options.public.as_deref().map(read).transpose()?.flatten();
        let private = options.private.as_deref().map(read).transpose()?.flatten();
        let keys = keys::load(options.method, private.as_ref(), public.as_ref())?;
        Ok(Self { method: options.method, ttl: options.ttl, keys })
    }

    /// Whether it can only check, having no private key.
    pub fn only_checks(&self) -> bool {
        self.keys.sign.is_none()
    }

    /// A token for a user who showed at this revision of users and roles who it is.
    pub(crate) fn issue(
        &self,
        user: &str,
        revision: u64,
        now: SystemTime,
    ) -> Result<String, ApiError> {
        let sign = self.keys.sign.as_ref().ok_or(ApiError::VERIFY_ONLY)?;
        let head = json!({ "alg": self.method.name(), "typ": "JWT" });
        let until = (now + self.ttl).duration_since(SystemTime::UNIX_EPOCH);
        let until = until.map_or(0, |until| until.as_secs());
        // In the order of names, as Go writes them.
        let claims = json!({ "exp": until, "revision": revision, "username": user });
        let part = |value: &Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", part(&head), part(&claims));
        let signature = sign(signed.as_bytes()).ok_or(ApiError::UNSIGNED)?;
        Ok(format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature)))
    }

    /// Whose token it is, if it is to be believed. The log says why one is not.
    pub(crate) fn caller(&self, token: &str, now: SystemTime) -> Option<Caller> {
        match self.read(token, now) {
            Ok(caller) => Some(caller),
            Err(why) => {
                tracing::warn!("failed to parse a JWT token: {why}");
                None
            }
        }
    }

    fn read(&self, token: &str, now: SystemTime) -> Result<Caller, &'static str> {
        let (signed, signature) = token.rsplit_once('.').ok_or("it has not three parts")?;
        let (head, claims) = signed.split_once('.').ok_or("it has not three parts")?;
        let head = object(head).ok_or("its header is no JSON object")?;
        if head.get("alg").and_then(Value::as_str) != Some(self.method.name()) {
            return Err("invalid signing method");
        }
        let signature = BASE64_URL_SAFE_NO_PAD.decode(signature);
        if !(self.keys.verify)(signed.as_bytes(), &signature.map_err(|_| "no signature")?) {
            return Err("signature is invalid");
        }
        let claims = object(claims).ok_or("its claims are no JSON object")?;
        check_times(&claims, seconds(now))?;
        let user = claims.get("username").and_then(Value::as_str).ok_or("no username claim")?;
        let revision = claims.get("revision").and_then(Value::as_f64).ok_or("no revision claim")?;
        Ok(Caller { user: user.to_owned(), revision: whole(revision) })
    }
}

/// A file and what is in it. As in etcd, an empty file is none.
fn read(path: &Path) -> Result<Option<(&Path, Vec<u8>)>, JwtError> {
    match std::fs::read(path) {
        Ok(bytes) if bytes.is_empty() => Ok(None),
        Ok(bytes) => Ok(Some((path, bytes))),
        Err(error) => Err(JwtError::File(path.to_owned(), error)),
    }
}

/// etcd's rules (golang-jwt's `MapClaims.Valid`): each of the three may be missing, and an end at 0
/// is none.
fn check_times(claims: &Map<String, Value>, now: f64) -> Result<(), &'static str> {
    // What is no number compares with nothing.
    let time = |name: &str| claims.get(name).map_or(0.0, |at| at.as_f64().unwrap_or(f64::NAN));
    let is_past = |time: f64| time == 0.0 || now >= time;
    let end = time("exp");
    let holds = end == 0.0 || now < end;
    if !holds {
        return Err("token is expired");
    }
    if !is_past(time("iat")) {
        return Err("token was used before it was issued");
    }
    if is_past(time("nbf")) { Ok(()) } else { Err("token is not valid yet") }
}

/// A number of JSON, without what is behind its point, as etcd reads revisions.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "what is beyond the range becomes its end, which no revision is"
)]
fn whole(number: f64) -> u64 {
    number as u64
}

fn seconds(time: SystemTime) -> f64 {
    time.duration_since(SystemTime::UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

/// A part of a token that is a JSON object.
fn object(part: &str) -> Option<Map<String, Value>> {
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(part).ok()?;
    match serde_json::from_slice(&bytes) {
        Ok(Value::Object(object)) => Some(object),
        _ => None,
    }
}
