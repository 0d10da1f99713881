//! Real K3s as its users see it: objects, created and listed by the Kubernetes API. They are `ConfigMap`s in a
//! namespace of the drills' own.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{Method, header};
use serde_json::{Value as Json, json};

use crate::error::chain;
use crate::pki::{KeyPairPem, tls};
use crate::secret::Secret;

/// The namespace of the drills' objects.
pub(super) const NAMESPACE: &str = "k3sup-verify";

/// How long one try may take before the next server is tried: K3s gives its etcd as long to find a leader.
const TRY: Duration = Duration::from_secs(5);

/// How long the looks at the end may take, each.
const LOOK: Duration = Duration::from_secs(60);

/// Before something is asked again.
const PAUSE: Duration = Duration::from_millis(500);

/// How long an earlier drill's namespace may take to go: K3s empties it first.
const GOING: Duration = Duration::from_secs(180);

/// Objects in one answer.
const PAGE: usize = 500;

/// The API server of one server, or of what stands for it.
pub(super) struct Api {
    http: reqwest::Client,
    url: String,
}

/// A client with the credentials of a kubeconfig, of which this program's own has one cluster and one user.
pub(super) fn client(kubeconfig: &Json) -> Result<reqwest::Client, String> {
    let data = |path: &str| {
        let text = kubeconfig.pointer(path).and_then(Json::as_str);
        let text = text.ok_or_else(|| format!("the kubeconfig has no {path}"))?;
        let bytes = STANDARD.decode(text).map_err(|error| format!("{path}: {error}"))?;
        String::from_utf8(bytes).map_err(|error| format!("{path}: {error}"))
    };
    let ca = data("/clusters/0/cluster/certificate-authority-data")?;
    let pair = KeyPairPem {
        certificate: data("/users/0/user/client-certificate-data")?,
        key: Secret::new(data("/users/0/user/client-key-data")?),
    };
    let tls = tls::client(&ca, Some(&pair), &[]).map_err(|error| error.to_string())?;
    reqwest::Client::builder()
        .tls_backend_preconfigured(Arc::unwrap_or_clone(tls))
        .http1_only()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .map_err(|error| chain(&error))
}

impl Api {
    /// The API at `url` (`https://host:port`).
    pub(super) fn at(http: &reqwest::Client, url: &str) -> Self {
        Self { http: http.clone(), url: url.to_owned() }
    }

    /// Creates the object `key`, whose data is its name. Nobody else creates one of that name: when it is there already,
    /// an earlier try had come through, and only its answer was lost.
    pub(super) async fn put(&self, key: &str) -> bool {
        let object = json!({
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": { "name": key },
            "data": { "key": key },
        });
        match self.ask(Method::POST, &objects(), Some(&object), TRY).await {
            Ok((201, _)) => true,
            Ok((409, said)) => said.get("reason") == Some(&"AlreadyExists".into()),
            _ => false,
        }
    }

    /// All objects of drills with their data, from what a majority of the members has.
    pub(super) async fn all(&self) -> Result<BTreeMap<String, String>, String> {
        let mut found = BTreeMap::new();
        let mut after = String::new();
        loop {
            let path = format!("{}?limit={PAGE}{after}", objects());
            let page = match self.insist(Method::GET, &path).await? {
                (200, page) => page,
                (status, said) => return Err(refused(status, &said)),
            };
            for item in page.get("items").and_then(Json::as_array).into_iter().flatten() {
                let text = |path: &str| item.pointer(path).and_then(Json::as_str);
                let name = text("/metadata/name").unwrap_or_default().to_owned();
                found.insert(name, text("/data/key").unwrap_or_default().to_owned());
            }
            match page.pointer("/metadata/continue").and_then(Json::as_str) {
                // It is base64 for URLs.
                Some(token) if !token.is_empty() => after = format!("&continue={token}"),
                _ => return Ok(found),
            }
        }
    }

    /// Deletes the namespace. K3s then deletes what is in it.
    pub(super) async fn clear(&self) -> Result<(), String> {
        match self.insist(Method::DELETE, &namespace()).await? {
            (200 | 202 | 404 | 409, _) => Ok(()),
            (status, said) => Err(refused(status, &said)),
        }
    }

    /// Makes the namespace, or takes the one that is there. `false`: that one is being deleted.
    async fn make_namespace(&self) -> Result<bool, String> {
        let object =
            json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": NAMESPACE } });
        match self.ask(Method::POST, "/api/v1/namespaces", Some(&object), TRY).await? {
            (201, _) => return Ok(true),
            (409, _) => {}
            (status, said) => return Err(refused(status, &said)),
        }
        match self.ask(Method::GET, &namespace(), None, TRY).await? {
            (200, known) => Ok(known.pointer("/status/phase") == Some(&"Active".into())),
            (404, _) => Ok(false),
            (status, said) => Err(refused(status, &said)),
        }
    }

    /// As [`Self::ask`], again and again while the server itself fails: one that leads a moment ago may be gone.
    async fn insist(&self, method: Method, path: &str) -> Result<(u16, Json), String> {
        let end = Instant::now() + LOOK;
        loop {
            let why = match self.ask(method.clone(), path, None, LOOK).await {
                Ok((status, said)) if status < 500 && status != 429 => return Ok((status, said)),
                Ok((status, said)) => refused(status, &said),
                Err(why) => why,
            };
            if Instant::now() > end {
                return Err(why);
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// The status of an answer, and what it says as JSON.
    async fn ask(
        &self,
        method: Method,
        path: &str,
        object: Option<&Json>,
        limit: Duration,
    ) -> Result<(u16, Json), String> {
        let mut request = self.http.request(method, format!("{}{path}", self.url)).timeout(limit);
        if let Some(object) = object {
            let text = object.to_string();
            request = request.header(header::CONTENT_TYPE, "application/json").body(text);
        }
        let answer = request.send().await.map_err(|error| chain(&error))?;
        let status = answer.status().as_u16();
        let body = answer.bytes().await.map_err(|error| chain(&error))?;
        // What is not JSON says nothing but its status.
        Ok((status, serde_json::from_slice(&body).unwrap_or_default()))
    }
}

/// Makes the namespace of the drills' objects through any of `servers`. One that a killed drill left is taken as it is;
/// one that is being deleted is waited for.
pub(super) async fn prepare(servers: &[Api]) -> Result<(), String> {
    let end = Instant::now() + GOING;
    loop {
        let (mut goes, mut reasons) = (false, Vec::new());
        for server in servers {
            match server.make_namespace().await {
                Ok(true) => return Ok(()),
                Ok(false) => goes = true,
                Err(why) => reasons.push(format!("{}: {why}", server.url)),
            }
        }
        if !goes {
            return Err(reasons.join("\n"));
        }
        if Instant::now() > end {
            return Err(format!("the namespace {NAMESPACE} of an earlier drill does not go"));
        }
        tokio::time::sleep(PAUSE).await;
    }
}

fn namespace() -> String {
    format!("/api/v1/namespaces/{NAMESPACE}")
}

fn objects() -> String {
    format!("{}/configmaps", namespace())
}

fn refused(status: u16, said: &Json) -> String {
    let message = said.get("message").and_then(Json::as_str).unwrap_or("no reason is given");
    format!("the API server answers {status}: {message}")
}
