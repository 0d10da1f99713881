use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::{Jwt, JwtOptions, Method};
use crate::rpc::errors::ApiError;

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/jwt").join(name)
}

fn options(method: &str, private: Option<&str>, public: Option<&str>) -> JwtOptions {
    JwtOptions {
        method: Method::find(method).unwrap(),
        private: private.map(file),
        public: public.map(file),
        ttl: Duration::from_secs(300),
    }
}

fn open(method: &str, private: Option<&str>, public: Option<&str>) -> Result<Jwt, String> {
    Jwt::open(&options(method, private, public)).map_err(|error| error.to_string())
}

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000)
}

fn part(token: &str, number: usize) -> Value {
    let part = token.split('.').nth(number).unwrap();
    serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
}

/// A token of these claims, signed by `jwt`.
fn signed(jwt: &Jwt, head: &Value, claims: &Value) -> String {
    let encode = |value: &Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
    let body = format!("{}.{}", encode(head), encode(claims));
    let signature = jwt.keys.sign.as_ref().unwrap()(body.as_bytes()).unwrap();
    format!("{body}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature))
}

#[test]
fn every_method_signs_and_checks() {
    for method in Method::names() {
        let (private, public) = match method {
            "HS256" | "HS384" | "HS512" => ("hmac.secret", None),
            "ES256" => ("p256.key", Some("p256.pub")),
            "ES384" => ("p384.key", Some("p384.pub")),
            "ES512" => ("p521.key", Some("p521.pub")),
            _ => ("rsa.key", Some("rsa.pub")),
        };
        let both = open(method, Some(private), public).unwrap();
        let token = both.issue("alice", 7, now()).unwrap();
        assert_eq!(part(&token, 0), json!({ "alg": method, "typ": "JWT" }));
        let claims = json!({ "exp": 1_700_000_300, "revision": 7, "username": "alice" });
        assert_eq!(part(&token, 1), claims);
        let caller = both.caller(&token, now()).unwrap();
        assert_eq!((caller.user.as_str(), caller.revision), ("alice", 7), "{method}");
        // Another signature, other claims, and no signature at all.
        let (body, _) = token.rsplit_once('.').unwrap();
        let other = both.issue("mallory", 7, now()).unwrap();
        let (_, signature) = other.rsplit_once('.').unwrap();
        assert!(both.caller(&format!("{body}.{signature}"), now()).is_none(), "{method}");
        assert!(both.caller(&format!("{body}."), now()).is_none(), "{method}");
        assert!(both.caller(body, now()).is_none(), "{method}");
        let Some(public) = public else { continue };
        let checks = open(method, None, Some(public)).unwrap();
        assert!(checks.only_checks());
        assert_eq!(checks.caller(&token, now()).unwrap(), caller, "{method}");
        assert_eq!(checks.issue("alice", 7, now()), Err(ApiError::VERIFY_ONLY));
    }
}

#[test]
fn a_token_of_another_key_or_method_is_not_believed() {
    let ours = open("RS256", Some("rsa.key"), None).unwrap();
    for (method, key) in [
        ("RS256", "rsa-other.key"),
        ("RS384", "rsa.key"),
        ("PS256", "rsa.key"),
        ("HS256", "rsa.pub"),
    ] {
        let theirs = open(method, Some(key), None).unwrap();
        let token = theirs.issue("alice", 7, now()).unwrap();
        assert!(ours.caller(&token, now()).is_none(), "{method} of {key}");
    }
    let none = signed(&ours, &json!({ "alg": "none" }), &json!({ "username": "a", "revision": 1 }));
    assert!(ours.caller(&none, now()).is_none());
    for text in ["", ".", "..", "a.b.c", "abcdefghijklmnop.12", "é.é.é"] {
        assert!(ours.caller(text, now()).is_none(), "{text}");
    }
}

#[test]
fn times_and_claims_count_as_in_etcd() {
    let jwt = open("HS256", Some("hmac.secret"), None).unwrap();
    let head = json!({ "alg": "HS256", "typ": "JWT" });
    let believed = |claims: Value| jwt.caller(&signed(&jwt, &head, &claims), now());
    let with = |name: &str, value: Value| {
        let mut claims = json!({ "username": "a", "revision": 3 });
        claims[name] = value;
        believed(claims).is_some()
    };
    let second = 1_700_000_000;
    // Without an end it holds for ever, and a token ends at the second it names.
    assert!(with("exp", json!(0)) && with("exp", json!(second + 1)));
    assert!(!with("exp", json!(second)) && !with("exp", json!("later")));
    assert!(with("iat", json!(second)) && !with("iat", json!(second + 1)));
    assert!(with("nbf", json!(second)) && !with("nbf", json!(second + 1)));
    assert!(with("aud", json!("anybody")));
    assert!(!with("username", json!(5)) && !with("revision", json!("3")));
    assert!(believed(json!({ "username": "a" })).is_none());
    assert!(believed(json!({ "revision": 3 })).is_none());
    assert_eq!(believed(json!({ "username": "a", "revision": 3.9 })).unwrap().revision, 3);
}

#[test]
fn keys_that_do_not_fit_are_refused_with_their_file() {
    let refused = |method: &str, private: Option<&str>, public: Option<&str>| {
        open(method, private, public).unwrap_err()
    };
    for method in ["HS256", "RS256", "PS512", "ES384"] {
        let error = refused(method, None, None);
        assert!(error.starts_with("auth: missing key data"), "{error}");
    }
    let error = refused("RS256", Some("rsa.key"), Some("rsa-other.pub"));
    assert!(error.starts_with("auth: public and private keys don't match: "), "{error}");
    assert!(error.contains("rsa-other.pub is not the public key of "), "{error}");
    let error = refused("RS256", Some("nothing.key"), None);
    assert!(error.starts_with("auth: invalid auth options: /"), "{error}");
    assert!(error.contains("nothing.key: No such file"), "{error}");
    for (method, private, public, why) in [
        ("RS256", Some("hmac.secret"), None, "hmac.secret: no private key in PEM"),
        ("RS256", Some("p256.key"), None, "p256.key: the key is not RSA's"),
        ("ES256", Some("p384.key"), None, "p384.key: the key is not one of P-256"),
        ("ES256", None, Some("p384.pub"), "p384.pub: the key is another one"),
        ("RS256", None, Some("p256.pub"), "p256.pub: the key is another one"),
        ("ES384", Some("rsa.key"), None, "keys of the curve P-384, in PEM"),
    ] {
        let error = refused(method, private, public);
        assert!(error.contains(why), "{error}");
    }
}
