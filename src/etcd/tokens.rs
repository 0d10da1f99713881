//! `--auth-token`: what users get for their passwords, in etcd's form `jwt,pub-key=FILE,…`
//! (`server/auth/store.go`, `options.go`). Pure: the keys are read when the member starts.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::duration;
use crate::error::{ExitCode, Failure};
use crate::rpc::Tokens;
use crate::rpc::jwt::{Jwt, JwtOptions, Method};

/// How long a token of JWT holds when nothing is said (etcd's `DefaultTTL`).
const TTL_DEFAULT: Duration = Duration::from_secs(5 * 60);

/// What the options of `jwt` are called.
const OPTIONS: [&str; 4] = ["sign-method", "pub-key", "priv-key", "ttl"];

/// What is given out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuthToken {
    /// `simple`.
    Simple,
    /// `jwt`, and options that are not known.
    Jwt(JwtOptions, Vec<String>),
    /// Nothing was named: nobody logs in with a password.
    Nothing,
}

impl AuthToken {
    /// Reads the flag's value. The error begins with etcd's words.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let bad = |why: String| format!("auth: invalid auth options: {why}");
        let mut parts = text.split(',');
        let kind = parts.next().unwrap_or_default();
        let mut options = BTreeMap::new();
        for part in parts {
            let pair = part.split_once('=').filter(|(_, value)| !value.contains('='));
            let (name, value) = pair.ok_or_else(|| bad(format!("`{part}` is not name=value")))?;
            if options.insert(name, value).is_some() {
                return Err(bad(format!("`{name}` is there twice")));
            }
        }
        match kind {
            "simple" => Ok(Self::Simple),
            "jwt" => jwt(&options).map_err(bad),
            "" => Ok(Self::Nothing),
            other => Err(bad(format!("`{other}` is not `simple` or `jwt`"))),
        }
    }

    /// Reads the keys, if there are any.
    pub(super) fn open(&self) -> Result<Tokens, Failure> {
        let (options, unknown) = match self {
            Self::Simple => return Ok(Tokens::Simple),
            Self::Nothing => return Ok(Tokens::None),
            Self::Jwt(options, unknown) => (options, unknown),
        };
        if !unknown.is_empty() {
            tracing::warn!("unknown JWT options have no effect: {}", unknown.join(", "));
        }
        let jwt = Jwt::open(options)
            .map_err(|error| Failure::new(ExitCode::BadInput, format!("--auth-token: {error}")))?;
        if jwt.only_checks() {
            tracing::info!("tokens are checked only: without priv-key nobody logs in here");
        }
        Ok(Tokens::Signed(Arc::new(jwt)))
    }
}

fn jwt(options: &BTreeMap<&str, &str>) -> Result<AuthToken, String> {
    let given = |name: &str| options.get(name).copied().filter(|value| !value.is_empty());
    let names = || Method::names().collect::<Vec<_>>().join(", ");
    let method = match given("sign-method") {
        None => {
            let why = "auth: invalid auth signature method: give sign-method=";
            return Err(format!("{why}{}", names()));
        }
        Some(name @ ("EdDSA" | "none")) => {
            return Err(format!("unsupported signing method: {name}: use one of {}", names()));
        }
        Some(name) => Method::find(name).ok_or_else(|| {
            format!("auth: invalid auth signature method: `{name}` is not one of {}", names())
        })?,
    };
    let ttl = given("ttl").map_or(Ok(TTL_DEFAULT), duration::parse)?;
    if ttl.is_zero() {
        return Err("ttl must be above 0: every token would have ended when it is made".to_owned());
    }
    let path = |name: &str| given(name).map(PathBuf::from);
    let unknown = options.keys().filter(|name| !OPTIONS.contains(name));
    let unknown = unknown.map(ToString::to_string).collect();
    let options = JwtOptions { method, public: path("pub-key"), private: path("priv-key"), ttl };
    Ok(AuthToken::Jwt(options, unknown))
}
