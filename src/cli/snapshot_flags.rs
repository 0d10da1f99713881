//! The flags of `server` about snapshots and S3: K3s's names and environment.

use super::server::{Given, one};
use crate::secret::Secret;

/// When and where snapshots are taken.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Snapshots")]
pub struct SnapshotFlags {
    /// Take no snapshots by schedule
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    pub etcd_disable_snapshots: Option<String>,
    /// When: five cron fields, local time [default: `0 */12 * * *`]
    #[arg(long, value_name = "CRON")]
    pub etcd_snapshot_schedule_cron: Option<String>,
    /// How many of them this server keeps, 0 for all [default: 5]
    #[arg(long, value_name = "COUNT")]
    pub etcd_snapshot_retention: Option<String>,
    /// Where; a directory of your own must be there [default: `DATA-DIR/server/db/snapshots`]
    #[arg(long, value_name = "DIR")]
    pub etcd_snapshot_dir: Option<String>,
    /// What their names begin with [default: etcd-snapshot]
    #[arg(long, value_name = "NAME")]
    pub etcd_snapshot_name: Option<String>,
    /// Put them into zip archives
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    pub etcd_snapshot_compress: Option<String>,
    /// Copy snapshots to S3
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    pub etcd_s3: Option<String>,
    /// Host and port, or URL [default: s3.amazonaws.com]
    #[arg(long, value_name = "ENDPOINT")]
    pub etcd_s3_endpoint: Option<String>,
    /// CA certificate of the endpoint: a file, or PEM in base64
    #[arg(long, value_name = "FILE")]
    pub etcd_s3_endpoint_ca: Option<String>,
    /// Do not verify the endpoint's certificate
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    pub etcd_s3_skip_ssl_verify: Option<String>,
    /// Plain HTTP
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    pub etcd_s3_insecure: Option<String>,
    /// Access key [env: `AWS_ACCESS_KEY_ID`]
    #[arg(long, value_name = "KEY")]
    pub etcd_s3_access_key: Option<String>,
    /// Secret key; visible to every user of the host, so prefer the file or the environment [env: `AWS_SECRET_ACCESS_KEY`]
    #[arg(long, value_name = "KEY")]
    pub etcd_s3_secret_key: Option<Secret>,
    /// With temporary credentials [env: `AWS_SESSION_TOKEN`]
    #[arg(long, value_name = "TOKEN")]
    pub etcd_s3_session_token: Option<Secret>,
    /// Bucket
    #[arg(long, value_name = "NAME")]
    pub etcd_s3_bucket: Option<String>,
    /// Whether the bucket is in the host name: auto, dns or path [default: auto]
    #[arg(long, value_name = "TYPE")]
    pub etcd_s3_bucket_lookup_type: Option<String>,
    /// Region [default: us-east-1]
    #[arg(long, value_name = "NAME")]
    pub etcd_s3_region: Option<String>,
    /// What the names of all objects begin with
    #[arg(long, value_name = "NAME")]
    pub etcd_s3_folder: Option<String>,
    /// How many scheduled ones of each server stay there, 0 for all [default: as `--etcd-snapshot-retention`]
    #[arg(long, value_name = "COUNT")]
    pub etcd_s3_retention: Option<String>,
    /// Proxy
    #[arg(long, value_name = "URL")]
    pub etcd_s3_proxy: Option<String>,
    /// What one operation may take, with what is tried again [default: 5m0s]
    #[arg(long, value_name = "TIME")]
    pub etcd_s3_timeout: Option<String>,
}

impl SnapshotFlags {
    /// As the configuration takes them.
    pub(crate) fn given(&self) -> Vec<Given<'_>> {
        vec![
            one("etcd-disable-snapshots", self.etcd_disable_snapshots.as_deref()),
            one("etcd-snapshot-schedule-cron", self.etcd_snapshot_schedule_cron.as_deref()),
            one("etcd-snapshot-retention", self.etcd_snapshot_retention.as_deref()),
            one("etcd-snapshot-dir", self.etcd_snapshot_dir.as_deref()),
            one("etcd-snapshot-name", self.etcd_snapshot_name.as_deref()),
            one("etcd-snapshot-compress", self.etcd_snapshot_compress.as_deref()),
            one("etcd-s3", self.etcd_s3.as_deref()),
            one("etcd-s3-endpoint", self.etcd_s3_endpoint.as_deref()),
            one("etcd-s3-endpoint-ca", self.etcd_s3_endpoint_ca.as_deref()),
            one("etcd-s3-skip-ssl-verify", self.etcd_s3_skip_ssl_verify.as_deref()),
            one("etcd-s3-insecure", self.etcd_s3_insecure.as_deref()),
            one("etcd-s3-access-key", self.etcd_s3_access_key.as_deref()),
            one("etcd-s3-secret-key", self.etcd_s3_secret_key.as_ref().map(Secret::expose)),
            one("etcd-s3-session-token", self.etcd_s3_session_token.as_ref().map(Secret::expose)),
            one("etcd-s3-bucket", self.etcd_s3_bucket.as_deref()),
            one("etcd-s3-bucket-lookup-type", self.etcd_s3_bucket_lookup_type.as_deref()),
            one("etcd-s3-region", self.etcd_s3_region.as_deref()),
            one("etcd-s3-folder", self.etcd_s3_folder.as_deref()),
            one("etcd-s3-retention", self.etcd_s3_retention.as_deref()),
            one("etcd-s3-proxy", self.etcd_s3_proxy.as_deref()),
            one("etcd-s3-timeout", self.etcd_s3_timeout.as_deref()),
        ]
    }
}
