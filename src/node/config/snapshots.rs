//! `--etcd-snapshot-*` and `--etcd-s3*`: K3s's flags and defaults.

use std::path::PathBuf;
use std::str::FromStr as _;
use std::time::Duration;

use croner::Cron;
use serde::{Deserialize, Serialize};

use super::parse::Reader;
use crate::cluster::snapshots::check_base;
use crate::node::wire::Sent;
use crate::secret::Secret;

/// When snapshots are taken: K3s's default.
const SCHEDULE_DEFAULT: &str = "0 */12 * * *";

/// What a scheduled snapshot's name begins with: K3s's default.
const NAME_DEFAULT: &str = "etcd-snapshot";

/// How many a server keeps: K3s's default.
const RETENTION_DEFAULT: usize = 5;

/// What may be done with S3 in all, for one snapshot: K3s's default.
const S3_TIMEOUT_DEFAULT: Duration = Duration::from_secs(300);

/// How snapshots are taken and kept.
#[derive(Clone, Debug)]
pub struct SnapshotConfig {
    /// When; `None` with `--etcd-disable-snapshots`.
    pub schedule: Option<Cron>,
    /// What the names of scheduled ones begin with.
    pub name: String,
    /// How many scheduled ones stay on this server; 0 is all.
    pub retention: usize,
    /// Where they are, when that is not under the data directory.
    pub dir: Option<PathBuf>,
    /// Put them into zip archives.
    pub compress: bool,
    /// Copy them to S3.
    pub s3: Option<S3Config>,
}

/// Where in S3, and how it is reached.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct S3Config {
    /// `host[:port]`, or a URL.
    pub endpoint: String,
    /// CA certificate of the endpoint: a file, or PEM in base64 as K3s takes it too.
    pub endpoint_ca: String,
    /// Do not verify the endpoint's certificate.
    pub skip_ssl_verify: bool,
    /// Plain HTTP.
    pub insecure: bool,
    /// Who.
    pub access_key: String,
    /// The secret part.
    pub secret_key: Sent,
    /// With temporary credentials.
    pub session_token: Sent,
    /// Bucket.
    pub bucket: String,
    /// `auto`, `dns` or `path`: whether the bucket is in the host name.
    pub bucket_lookup_type: String,
    /// Region.
    pub region: String,
    /// What the names of all objects begin with; empty is the bucket's top.
    pub folder: String,
    /// How many scheduled ones of each server stay; 0 is all.
    pub retention: usize,
    /// Proxy.
    pub proxy: String,
    /// What one operation may take, with all that is tried again.
    pub timeout: Duration,
}

impl Default for S3Config {
    fn default() -> Self {
        Self {
            endpoint: "s3.amazonaws.com".to_owned(),
            endpoint_ca: String::new(),
            skip_ssl_verify: false,
            insecure: false,
            access_key: String::new(),
            secret_key: Sent(Secret::default()),
            session_token: Sent(Secret::default()),
            bucket: String::new(),
            bucket_lookup_type: "auto".to_owned(),
            region: "us-east-1".to_owned(),
            folder: String::new(),
            retention: RETENTION_DEFAULT,
            proxy: String::new(),
            timeout: S3_TIMEOUT_DEFAULT,
        }
    }
}

impl Default for SnapshotConfig {
    fn default() -> Self {
        Self {
            schedule: Cron::from_str(SCHEDULE_DEFAULT).ok(),
            name: NAME_DEFAULT.to_owned(),
            retention: RETENTION_DEFAULT,
            dir: None,
            compress: false,
            s3: None,
        }
    }
}

/// Reads a schedule: five fields, or a word such as `@daily`.
///
/// # Errors
/// Why it is none.
pub fn schedule(text: &str) -> Result<Cron, String> {
    let fields = text.split_whitespace().count();
    if fields != 5 && !text.starts_with('@') {
        return Err(format!("`{text}` is not a schedule: cron has five fields, this has {fields}"));
    }
    Cron::from_str(text).map_err(|error| format!("`{text}` is not a schedule: {error}"))
}

/// A span as Go writes it (`5m0s`, `90s`), which is how K3s's flags have it.
///
/// # Errors
/// It is none, or nothing.
pub fn duration(text: &str) -> Result<Duration, String> {
    let spaced = text.replace('h', "h ").replace('m', "m ").replace("m s", "ms");
    let parsed = humantime::parse_duration(&spaced).ok().filter(|span| !span.is_zero());
    parsed.ok_or_else(|| format!("`{text}` is not a time such as 5m0s"))
}

impl SnapshotConfig {
    pub(super) fn read(reader: &mut Reader<'_>) -> Self {
        let default = Self::default();
        let disabled = reader.switch("etcd-disable-snapshots");
        let text = reader.string("etcd-snapshot-schedule-cron");
        let schedule = match text.as_deref().map(schedule) {
            None => default.schedule,
            Some(Ok(schedule)) => Some(schedule),
            Some(Err(error)) => {
                reader.refuse(format!("--etcd-snapshot-schedule-cron: {error}"));
                None
            }
        };
        let name = reader.string("etcd-snapshot-name").unwrap_or(default.name);
        if let Err(error) = check_base(&name) {
            reader.refuse(format!("--etcd-snapshot-name `{name}` {error}"));
        }
        let kept = reader.count("etcd-snapshot-retention");
        let s3 = reader.switch("etcd-s3").then(|| S3Config::read(reader, kept));
        Self {
            schedule: schedule.filter(|_| !disabled),
            name,
            retention: kept.unwrap_or(default.retention),
            dir: reader.path("etcd-snapshot-dir"),
            compress: reader.switch("etcd-snapshot-compress"),
            s3,
        }
    }
}

impl S3Config {
    /// `kept` is the retention of local snapshots when that was set: it counts here too when this
    /// one's own is not, as in K3s.
    fn read(reader: &mut Reader<'_>, kept: Option<usize>) -> Self {
        let default = Self::default();
        let text = |reader: &Reader<'_>, name: &str, or: &str| {
            reader.string(name).unwrap_or_else(|| or.to_owned())
        };
        let timeout = reader.string("etcd-s3-timeout").map(|text| duration(&text));
        let timeout = timeout.transpose().unwrap_or_else(|error| {
            reader.refuse(format!("--etcd-s3-timeout: {error}"));
            None
        });
        let retention = reader.count("etcd-s3-retention").or(kept);
        let secret = |reader: &Reader<'_>, name: &str| {
            Sent(reader.string(name).map(Secret::new).unwrap_or_default())
        };
        let config = Self {
            endpoint: text(reader, "etcd-s3-endpoint", &default.endpoint),
            endpoint_ca: text(reader, "etcd-s3-endpoint-ca", ""),
            skip_ssl_verify: reader.switch("etcd-s3-skip-ssl-verify"),
            insecure: reader.switch("etcd-s3-insecure"),
            access_key: text(reader, "etcd-s3-access-key", ""),
            secret_key: secret(reader, "etcd-s3-secret-key"),
            session_token: secret(reader, "etcd-s3-session-token"),
            bucket: text(reader, "etcd-s3-bucket", ""),
            bucket_lookup_type: text(reader, "etcd-s3-bucket-lookup-type", "auto"),
            region: text(reader, "etcd-s3-region", &default.region),
            folder: text(reader, "etcd-s3-folder", ""),
            retention: retention.unwrap_or(default.retention),
            proxy: text(reader, "etcd-s3-proxy", ""),
            timeout: timeout.unwrap_or(default.timeout),
        };
        if let Err(error) = config.check() {
            reader.refuse(format!("--etcd-s3-{error}"));
        }
        config
    }

    /// Whether all is there that is needed.
    ///
    /// # Errors
    /// What is not, beginning with the setting's name.
    pub fn check(&self) -> Result<(), String> {
        if self.bucket.is_empty() {
            return Err("bucket is required with S3".to_owned());
        }
        if !matches!(self.bucket_lookup_type.as_str(), "auto" | "dns" | "path") {
            let found = &self.bucket_lookup_type;
            return Err(format!("bucket-lookup-type is auto, dns or path, found `{found}`"));
        }
        if self.access_key.is_empty() != self.secret_key.0.is_empty() {
            return Err("access-key and secret-key go together: one is missing".to_owned());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_go_writes_them() {
        for (text, seconds) in [("5m0s", 300), ("90s", 90), ("1h30m", 5400), ("1h", 3600)] {
            assert_eq!(duration(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        for bad in ["", "0s", "x", "-5s", "5"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn schedules_have_five_fields() {
        for good in ["0 */12 * * *", "*/5 * * * *", "@daily", "30 3 * * 1-5"] {
            assert!(schedule(good).is_ok(), "{good}");
        }
        for bad in ["", "* * * *", "* * * * * *", "61 * * * *", "x"] {
            assert!(schedule(bad).is_err(), "{bad}");
        }
    }
}
