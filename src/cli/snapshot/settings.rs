//! The inventory's `snapshot`: when snapshots are taken, how many stay, and S3.

use std::path::PathBuf;

use serde::Deserialize;
use serde_json::{Value as Json, json};

use crate::cluster::layout::Distribution;
use crate::cluster::snapshots::check_base;
use crate::error::{ExitCode, Failure};
use crate::inventory::Inventory;
use crate::node::config::{S3Config, duration, snapshot_schedule};
use crate::node::wire::Sent;
use crate::secret::Secret;
use crate::template::Engine;

/// What a scheduled snapshot's name begins with when nothing else is said: K3s's.
const NAME_DEFAULT: &str = "etcd-snapshot";

/// The inventory's `snapshot` as this machine uses it.
#[derive(Clone, Debug)]
pub struct SnapshotSettings {
    /// What the names of scheduled ones begin with.
    pub name: String,
    /// Directory on the servers, when it is not K3s's.
    pub dir: Option<String>,
    /// How many scheduled ones each server keeps.
    pub retention: Option<usize>,
    /// S3.
    pub s3: Option<S3Config>,
}

/// As it is written.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Written {
    disabled: bool,
    schedule: Option<String>,
    retention: Option<usize>,
    name: Option<String>,
    compress: bool,
    s3: Option<WrittenS3>,
    monitor: Json,
}

/// As it is written under `monitor`, for the manifest's template.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct WrittenMonitor {
    image: Option<String>,
    schedule: Option<String>,
    max_age_minutes: Option<u32>,
}

/// As it is written under `s3`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct WrittenS3 {
    endpoint: Option<String>,
    endpoint_ca: Option<PathBuf>,
    skip_ssl_verify: bool,
    insecure: bool,
    access_key: Option<String>,
    secret_key: Secret,
    session_token: Secret,
    bucket: String,
    bucket_lookup_type: Option<String>,
    region: Option<String>,
    folder: Option<String>,
    retention: Option<usize>,
    proxy: Option<String>,
    timeout: Option<String>,
}

impl WrittenS3 {
    fn config(self, kept: Option<usize>) -> Result<S3Config, String> {
        let default = S3Config::default();
        let timeout = self.timeout.map(|text| duration(&text)).transpose()?;
        let config = S3Config {
            endpoint: self.endpoint.unwrap_or(default.endpoint),
            endpoint_ca: self
                .endpoint_ca
                .map(|path| path.to_string_lossy().into_owned())
                .unwrap_or_default(),
            skip_ssl_verify: self.skip_ssl_verify,
            insecure: self.insecure,
            access_key: self.access_key.unwrap_or_default(),
            secret_key: Sent(self.secret_key),
            session_token: Sent(self.session_token),
            bucket: self.bucket,
            bucket_lookup_type: self.bucket_lookup_type.unwrap_or(default.bucket_lookup_type),
            region: self.region.unwrap_or(default.region),
            folder: self.folder.unwrap_or_default(),
            retention: self.retention.or(kept).unwrap_or(default.retention),
            proxy: self.proxy.unwrap_or_default(),
            timeout: timeout.unwrap_or(default.timeout),
        };
        config.check().map(|()| config)
    }
}

/// Reads `snapshot` of the first server; nothing said is the default.
///
/// # Errors
/// What in it cannot be meant.
pub fn settings(inventory: &Inventory) -> Result<SnapshotSettings, Failure> {
    let Some(host) = inventory.servers().next() else {
        return Err(Failure::new(ExitCode::BadInput, "no host is in the group `servers`"));
    };
    let engine = Engine::new();
    let bad = |why: String| {
        let mark = host.marks.get("snapshot").unwrap_or(&host.mark);
        Failure::new(ExitCode::BadInput, mark.finding(format!("`snapshot`: {why}")).to_string())
    };
    let evaluated = |expression: &str| {
        let template = json!(format!("{{{{ {expression} }}}}"));
        engine.evaluate(&template, &host.vars).map(|evaluated| evaluated.value)
    };
    let value = match host.vars.get("snapshot") {
        Some(_) => evaluated("snapshot").map_err(|error| bad(error.to_string()))?,
        None => Json::Null,
    };
    let written: Written = match value {
        Json::Null => Written::default(),
        // The parser's own message names keys, never values of secrets.
        value => serde_path_to_error::deserialize(value).map_err(|error| {
            bad(format!("{}: {}", error.path(), without_values(&error.inner().to_string())))
        })?,
    };
    if let Some(text) = &written.schedule {
        snapshot_schedule(text).map_err(bad)?;
    }
    let is_external = host.vars.get("datastore_endpoint").is_some();
    check_monitor(&written, inventory.distribution, is_external).map_err(bad)?;
    let name = written.name.unwrap_or_else(|| NAME_DEFAULT.to_owned());
    check_base(&name).map_err(|why| bad(format!("the name `{name}` {why}")))?;
    let configured = || match evaluated("(config | default({}))['etcd-snapshot-dir']") {
        Ok(Json::String(dir)) if !dir.is_empty() => Some(dir),
        _ => None,
    };
    let s3 = written.s3.map(|s3| s3.config(written.retention)).transpose();
    Ok(SnapshotSettings {
        name,
        dir: configured(),
        retention: written.retention,
        s3: s3.map_err(|why| bad(format!("s3: {why}")))?,
    })
}

/// Whether the jobs that watch snapshots can be meant so.
fn check_monitor(
    written: &Written,
    distribution: Distribution,
    is_external: bool,
) -> Result<(), String> {
    let monitor: WrittenMonitor = match &written.monitor {
        Json::Null | Json::Bool(false) => return Ok(()),
        Json::Bool(true) => WrittenMonitor::default(),
        mapping @ Json::Object(_) => serde_path_to_error::deserialize(mapping)
            .map_err(|error| format!("monitor: {}: {}", error.path(), error.inner()))?,
        _ => return Err("monitor: must be true, false or a mapping".to_owned()),
    };
    if distribution != Distribution::K3s {
        return Err(
            "monitor: is for `distribution: k3s`; this program's own servers say by themselves \
                    when a snapshot is overdue (`status`, /metrics)"
                .to_owned(),
        );
    }
    if written.disabled || is_external {
        let why = if written.disabled { "`disabled`" } else { "an external datastore" };
        return Err(format!("monitor: with {why} there are no snapshots to watch"));
    }
    if monitor.image.is_some_and(|image| image.is_empty() || image.contains(char::is_whitespace)) {
        return Err("monitor: `image` is no name of an image".to_owned());
    }
    if monitor.max_age_minutes == Some(0) {
        return Err("monitor: `max_age_minutes` is 0: no snapshot is ever so young".to_owned());
    }
    monitor.schedule.map_or(Ok(()), |text| snapshot_schedule(&text).map(drop))
}

/// A parser's message without the value that it quotes.
fn without_values(message: &str) -> String {
    let cut = message.split_once(": string \"").or_else(|| message.split_once(": integer `"));
    cut.map_or_else(|| message.to_owned(), |(kind, _)| kind.to_owned())
}
