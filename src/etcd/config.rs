//! What the flags mean together: etcd's rules between them, in its words. Pure.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use super::duration;
use super::source::Values;
use super::tokens::AuthToken;
use super::urls::{Url, texts};
use crate::error::{ExitCode, Failure};
use crate::limits::QUOTA_BYTES_DEFAULT;
use crate::node::config::etcd::EtcdArgs;
use crate::rpc::{Access, Limits, Login};

/// etcd's default peer URL.
const PEER_URL: &str = "http://localhost:2380";

/// What a member is started with.
#[derive(Clone, Debug)]
pub struct Config {
    /// Its name.
    pub name: String,
    /// Where it keeps everything.
    pub data_dir: PathBuf,
    /// Where it listens for peers.
    pub listen_peers: Vec<Url>,
    /// Where it listens for clients.
    pub listen_clients: Vec<Url>,
    /// Where it listens for those who want metrics.
    pub listen_metrics: Vec<Url>,
    /// What it tells peers.
    pub peer_urls: Vec<String>,
    /// What it tells clients.
    pub client_urls: Vec<String>,
    /// The members of a new cluster, by name, with their peer URLs.
    pub initial: BTreeMap<String, Vec<String>>,
    /// Whether to join a cluster that runs.
    pub joins: bool,
    /// Tells clusters apart.
    pub cluster_token: String,
    /// Times and sizes.
    pub etcd: EtcdArgs,
    /// How much history is kept.
    pub retention: Option<Retention>,
    /// How users log in.
    pub login: Login,
    /// What they get for it.
    pub auth_token: AuthToken,
    /// Who may ask over plain HTTP.
    pub access: Access,
    /// For clients.
    pub client_security: Security,
    /// For peers.
    pub peer_security: Security,
    /// Whether to become the only member.
    pub force_new_cluster: bool,
    /// How it logs.
    pub log: LogConfig,
}

/// How much history is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retention {
    /// That of this time.
    Period(Duration),
    /// So many revisions.
    Revisions(i64),
}

/// Files and rules of TLS.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Security {
    /// Certificate to answer with.
    pub cert: Option<PathBuf>,
    /// Its key.
    pub key: Option<PathBuf>,
    /// Certificate to ask with, if it is another one.
    pub client_cert: Option<PathBuf>,
    /// Its key.
    pub client_key: Option<PathBuf>,
    /// CA of those who connect.
    pub trusted_ca: Option<PathBuf>,
    /// Whether those who connect must have a certificate.
    pub client_cert_auth: bool,
    /// Whether to make a certificate.
    pub auto: bool,
    /// Names of which a certificate must have one; none: any.
    pub allowed_cn: Vec<String>,
    /// The versions of TLS.
    pub versions: Versions,
}

/// The versions of TLS that are spoken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Versions {
    /// 1.2 and 1.3.
    #[default]
    Both,
    /// 1.2 only.
    Tls12,
    /// 1.3 only.
    Tls13,
}

impl Security {
    /// Whether there is a certificate, or will be.
    pub fn is_set(&self) -> bool {
        self.cert.is_some() || self.auto
    }
}

/// How a member logs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogConfig {
    /// The least that is logged: a level of `tracing`.
    pub level: &'static str,
    /// JSON, or words.
    pub json: bool,
    /// Where to.
    pub outputs: Vec<String>,
}

impl Config {
    /// Reads the values.
    ///
    /// # Errors
    /// What is wrong, with the flag and where it was given.
    pub fn new(values: &Values) -> Result<Self, Failure> {
        let name = values.text("name").to_owned();
        let urls = |flag: &str| {
            let texts = values.list(flag);
            let urls = Url::parse_all(&texts).map_err(|why| values.bad(flag, why))?;
            for url in &urls {
                if flag.starts_with("listen-") {
                    url.bind().map_err(|why| values.bad(flag, why))?;
                }
            }
            Ok::<_, Failure>(urls)
        };
        let mut listen_clients = urls("listen-client-urls")?;
        listen_clients.extend(urls("listen-client-http-urls")?);
        if values.is_given("listen-client-urls") && !values.is_given("advertise-client-urls") {
            return Err(Failure::new(
                ExitCode::BadInput,
                "--advertise-client-urls is required when --listen-client-urls is set explicitly",
            ));
        }
        let peer_urls = texts(&urls("initial-advertise-peer-urls")?);
        let config = Self {
            data_dir: values.text("data-dir").replace("${name}", &name).into(),
            listen_peers: urls("listen-peer-urls")?,
            listen_clients,
            listen_metrics: urls("listen-metrics-urls")?,
            client_urls: texts(&urls("advertise-client-urls")?),
            initial: initial(values, &name, &peer_urls)?,
            peer_urls,
            joins: match values.text("initial-cluster-state") {
                "new" => false,
                "existing" => true,
                other => {
                    let why = format!("expected `new` or `existing`, found `{other}`");
                    return Err(values.bad("initial-cluster-state", why));
                }
            },
            cluster_token: values.text("initial-cluster-token").to_owned(),
            etcd: times(values)?,
            retention: retention(values)?,
            login: login(values)?,
            auth_token: AuthToken::parse(values.text("auth-token"))
                .map_err(|why| values.bad("auth-token", why))?,
            access: Access {
                cors: values.list("cors").into_iter().collect(),
                host_whitelist: values.list("host-whitelist").into_iter().collect(),
            },
            client_security: security(values, "")?,
            peer_security: security(values, "peer-")?,
            force_new_cluster: values.flag("force-new-cluster")?,
            log: log(values)?,
            name,
        };
        config.check(values)?;
        Ok(config)
    }

    fn check(&self, values: &Values) -> Result<(), Failure> {
        if self.listen_clients.is_empty() || self.listen_peers.is_empty() {
            return Err(Failure::new(ExitCode::BadInput, "there is nothing to listen on"));
        }
        let schemes = [
            ("listen-client-urls", &self.listen_clients, &self.client_security),
            ("listen-peer-urls", &self.listen_peers, &self.peer_security),
            ("listen-metrics-urls", &self.listen_metrics, &self.client_security),
        ];
        for (flag, urls, security) in schemes {
            if let Some(url) = urls.iter().find(|url| url.tls && !security.is_set()) {
                let why = format!("{} is https, but there is no certificate for it", url.text);
                return Err(values.bad(flag, why));
            }
        }
        let tls = self.listen_peers.iter().any(|url| url.tls);
        if self.listen_peers.iter().any(|url| url.tls != tls) {
            return Err(values.bad("listen-peer-urls", "http and https together are not served"));
        }
        self.etcd.check().map_err(|why| Failure::new(ExitCode::BadInput, why))
    }

    /// Whether peers speak TLS.
    pub fn peers_speak_tls(&self) -> bool {
        self.listen_peers.iter().any(|url| url.tls)
    }
}

/// The members of a new cluster; by default this one alone.
fn initial(
    values: &Values,
    name: &str,
    peer_urls: &[String],
) -> Result<BTreeMap<String, Vec<String>>, Failure> {
    let flag = "initial-cluster";
    let mut members: BTreeMap<String, Vec<String>> = BTreeMap::new();
    if !values.is_given(flag) {
        members.insert(name.to_owned(), peer_urls.to_vec());
        return Ok(members);
    }
    for part in values.list(flag) {
        let (name, url) = part
            .split_once('=')
            .ok_or_else(|| values.bad(flag, format!("`{part}` is not name=URL")))?;
        let url = Url::parse(url).map_err(|why| values.bad(flag, why))?;
        let taken = members.values().any(|urls| urls.contains(&url.text));
        if taken {
            return Err(values.bad(flag, format!("{} is there twice", url.text)));
        }
        members.entry(name.to_owned()).or_default().push(url.text);
    }
    for urls in members.values_mut() {
        urls.sort();
    }
    let Some(own) = members.get(name) else {
        let why =
            format!("couldn't find local name \"{name}\" in the initial cluster configuration");
        return Err(values.bad(flag, why));
    };
    // Names of one host stand for each other in etcd; the texts must agree here.
    if own != peer_urls {
        let why = format!(
            "has {name}={} but --initial-advertise-peer-urls={}",
            own.join(","),
            peer_urls.join(",")
        );
        let failure = values.bad(flag, why);
        return Err(if peer_urls == [PEER_URL] {
            failure.hint(format!("add --initial-advertise-peer-urls={}", own.join(",")))
        } else {
            failure
        });
    }
    Ok(members)
}

fn times(values: &Values) -> Result<EtcdArgs, Failure> {
    let millis = |flag: &str| values.number(flag).map(Duration::from_millis);
    let interval = "watch-progress-notify-interval";
    let progress_notify_interval =
        duration::parse(values.text(interval)).map_err(|why| values.bad(interval, why))?;
    let snapshot_count = values.number("snapshot-count")?;
    if snapshot_count == 0 {
        return Err(values.bad("snapshot-count", "must be above 0"));
    }
    Ok(EtcdArgs {
        heartbeat_interval: millis("heartbeat-interval")?,
        election_timeout: millis("election-timeout")?,
        snapshot_count,
        quota_bytes: quota(values)?,
        progress_notify_interval,
        limits: limits(values)?,
    })
}

fn limits(values: &Values) -> Result<Limits, Failure> {
    let mut limits = Limits::default();
    let mut set = |flag: &str, set: fn(&mut Limits, u64) -> Result<(), String>| {
        // What is not given keeps our own default.
        if !values.is_given(flag) {
            return Ok(());
        }
        set(&mut limits, values.number(flag)?).map_err(|why| values.bad(flag, why))
    };
    set("max-txn-ops", Limits::set_txn_ops)?;
    set("max-request-bytes", Limits::set_request_bytes)?;
    set("max-concurrent-streams", Limits::set_streams)?;
    let span = |flag: &str| duration::parse(values.text(flag)).map_err(|why| values.bad(flag, why));
    limits.set_keepalive(span("grpc-keepalive-interval")?, span("grpc-keepalive-timeout")?);
    limits.set_ping_interval(span("grpc-keepalive-min-time")?);
    Ok(limits)
}

/// 0 is etcd's default, and a number below it none.
fn quota(values: &Values) -> Result<u64, Failure> {
    let flag = "quota-backend-bytes";
    let text = values.text(flag);
    match text.parse::<i64>() {
        Ok(0) => Ok(QUOTA_BYTES_DEFAULT),
        Ok(bytes) => Ok(u64::try_from(bytes).unwrap_or(u64::MAX)),
        Err(_) => Err(values.bad(flag, format!("`{text}` is not a number"))),
    }
}

fn login(values: &Values) -> Result<Login, Failure> {
    let cost = values.number("bcrypt-cost")?;
    let bcrypt_cost = u32::try_from(cost).ok().filter(|cost| (4..=31).contains(cost));
    let bcrypt_cost =
        bcrypt_cost.ok_or_else(|| values.bad("bcrypt-cost", format!("{cost} is not 4 to 31")))?;
    let seconds = values.number("auth-token-ttl")?;
    if seconds == 0 {
        return Err(values.bad("auth-token-ttl", "must be above 0"));
    }
    let by_certificate = values.flag("client-cert-auth")?;
    Ok(Login { token_ttl: Duration::from_secs(seconds), bcrypt_cost, by_certificate })
}

fn retention(values: &Values) -> Result<Option<Retention>, Failure> {
    let flag = "auto-compaction-retention";
    let text = values.text(flag);
    let number = text.parse::<i64>();
    match values.text("auto-compaction-mode") {
        "revision" => match number {
            Ok(0) => Ok(None),
            Ok(revisions) if revisions > 0 => Ok(Some(Retention::Revisions(revisions))),
            _ => Err(values.bad(flag, format!("`{text}` is not a number of revisions"))),
        },
        "periodic" => {
            let period = match number {
                // etcd's rule: a number alone is hours.
                Ok(hours) => u64::try_from(hours)
                    .map(|hours| Duration::from_secs(hours.saturating_mul(3600)))
                    .map_err(|_| values.bad(flag, "must not be negative"))?,
                Err(_) => duration::parse(text).map_err(|why| values.bad(flag, why))?,
            };
            Ok(Some(period).filter(|period| !period.is_zero()).map(Retention::Period))
        }
        other => Err(values
            .bad("auto-compaction-mode", format!("`{other}` is not `periodic` or `revision`"))),
    }
}

fn security(values: &Values, prefix: &str) -> Result<Security, Failure> {
    let path = |name: &str| values.path(&format!("{prefix}{name}"));
    let flag = |name: &str| values.flag(&format!("{prefix}{name}"));
    let (cert, key) = (path("cert-file"), path("key-file"));
    if cert.is_some() != key.is_some() {
        let why = "KeyFile and CertFile must both be present";
        return Err(values.bad(&format!("{prefix}cert-file"), why));
    }
    let found = Security {
        client_cert: path("client-cert-file").or_else(|| cert.clone()),
        client_key: path("client-key-file").or_else(|| key.clone()),
        auto: flag("auto-tls")? && cert.is_none(),
        cert,
        key,
        trusted_ca: path("trusted-ca-file"),
        client_cert_auth: flag("client-cert-auth")?,
        allowed_cn: if prefix.is_empty() {
            Vec::new()
        } else {
            values.list("peer-cert-allowed-cn")
        },
        versions: versions(values)?,
    };
    if found.client_cert_auth && found.trusted_ca.is_none() {
        let why = format!("needs --{prefix}trusted-ca-file");
        return Err(values.bad(&format!("{prefix}client-cert-auth"), why));
    }
    Ok(found)
}

fn versions(values: &Values) -> Result<Versions, Failure> {
    let (min, max) = (values.text("tls-min-version"), values.text("tls-max-version"));
    match (min, max) {
        ("" | "TLS1.2", "" | "TLS1.3") => Ok(Versions::Both),
        ("" | "TLS1.2", "TLS1.2") => Ok(Versions::Tls12),
        ("TLS1.3", "" | "TLS1.3") => Ok(Versions::Tls13),
        _ => {
            Err(values
                .bad("tls-min-version", format!("`{min}` to `{max}` is not TLS1.2 to TLS1.3")))
        }
    }
}

fn log(values: &Values) -> Result<LogConfig, Failure> {
    let level = match values.text("log-level") {
        "debug" => "debug",
        "info" => "info",
        "warn" => "warn",
        "error" | "panic" | "dpanic" | "fatal" => "error",
        other => return Err(values.bad("log-level", format!("`{other}` is not a level"))),
    };
    let json = match values.text("log-format") {
        "json" => true,
        "console" => false,
        other => {
            return Err(values.bad("log-format", format!("`{other}` is not `json` or `console`")));
        }
    };
    Ok(LogConfig { level, json, outputs: values.list("log-outputs") })
}
