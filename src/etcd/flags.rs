//! etcd's flags: what each takes, what is done with it, and what it is for.
//!
//! The names, defaults and meanings are etcd's (`server/etcdmain/help.go`, `server/embed/config.go`).

use super::flags::Kind::{Bool, List, Text};
use super::flags::Use::{Idle, Refused, Served};

/// How a flag is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// With a value.
    Text,
    /// With a value that a file may give as a list.
    List,
    /// `--flag`, `--flag=true` or `--flag=false`.
    Bool,
}

/// What is done with a flag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// What it says.
    Served,
    /// Nothing: it tunes what this store does not have, or has always. A warning says so.
    Idle,
    /// The start is refused when it has a value other than its default: going on would not be what
    /// was asked for.
    Refused,
}

/// A flag.
#[derive(Clone, Copy, Debug)]
pub struct Flag {
    /// Name without dashes.
    pub name: &'static str,
    /// How it is written.
    pub kind: Kind,
    /// What is done with it.
    pub used: Use,
    /// etcd's default.
    pub default: &'static str,
    /// Headline that it stands under.
    pub group: &'static str,
    /// One line for `--help`; for an idle or refused flag, why.
    pub help: &'static str,
}

macro_rules! flags {
    ($($group:literal { $($name:literal $kind:ident $used:ident $default:literal $help:literal;)* })*) => {
        /// All flags, as `--help` shows them.
        pub const FLAGS: &[Flag] = &[$($(Flag {
            name: $name,
            kind: $kind,
            used: $used,
            default: $default,
            group: $group,
            help: $help,
        },)*)*];
    };
}

flags! {
    "Member" {
        "name" Text Served "default" "Human-readable name for this member";
        "data-dir" Text Served "${name}.etcd" "Path to the data directory";
        "wal-dir" Text Refused "" "Log and state are in one directory: --data-dir";
        "snapshot-count" Text Served "10000" "Number of entries between two snapshots of the log";
        "heartbeat-interval" Text Served "100" "Time of a heartbeat interval, in milliseconds";
        "election-timeout" Text Served "1000" "Time for an election to time out, in milliseconds";
        "initial-election-tick-advance" Bool Idle "true" "Elections begin at once";
        "listen-peer-urls" List Served "http://localhost:2380" "URLs to listen on for peers";
        "listen-client-urls" List Served "http://localhost:2379" "URLs to listen on for clients, gRPC and HTTP on one port";
        "listen-client-http-urls" List Served "" "Further URLs to listen on for clients";
        "max-snapshots" Text Idle "5" "One snapshot is kept";
        "max-wals" Text Idle "5" "Segments of the log go when nobody needs them";
        "memory-mlock" Bool Idle "false" "The state is in memory and nowhere else";
        "quota-backend-bytes" Text Served "0" "Bytes after which writes are refused; 0 for 2 GiB, -1 for none";
        "backend-bbolt-freelist-type" Text Idle "map" "There is no bbolt";
        "backend-batch-interval" Text Idle "" "There is no bbolt";
        "backend-batch-limit" Text Idle "0" "There is no bbolt";
        "max-txn-ops" Text Served "128" "Most operations in a list of a transaction";
        "max-request-bytes" Text Served "1572864" "Largest change that one request may make, in bytes; at most 16 MiB";
        "max-concurrent-streams" Text Served "4294967295" "Calls and streams at once on one connection; without it 16384";
        "grpc-keepalive-min-time" Text Served "5s" "A client that pings more often is sent away; 0 for 5m";
        "grpc-keepalive-interval" Text Served "2h" "A silent client is asked after this time whether it is there";
        "grpc-keepalive-timeout" Text Served "20s" "A client that was asked and does not answer is dropped after this time";
        "socket-reuse-port" Bool Refused "false" "A second process on one port would be another member";
        "socket-reuse-address" Bool Idle "false" "It is always so";
        "enable-grpc-gateway" Bool Idle "true" "JSON is served on the client URLs";
        "enable-v2" Bool Refused "false" "The v2 API is not served";
        "raft-read-timeout" Text Idle "5s" "Peers speak another protocol than etcd's";
        "raft-write-timeout" Text Idle "5s" "Peers speak another protocol than etcd's";
        "feature-gates" Text Idle "" "There are no feature gates";
    }
    "Clustering" {
        "initial-advertise-peer-urls" List Served "http://localhost:2380" "URLs that peers reach this member at";
        "initial-cluster" Text Served "default=http://localhost:2380" "Members of a new cluster as name=URL, comma-separated";
        "initial-cluster-state" Text Served "new" "`new`, or `existing` to join one that runs, after `etcdctl member add`; without meaning once there is data";
        "initial-cluster-token" Text Served "etcd-cluster" "Tells clusters with the same URLs apart";
        "advertise-client-urls" List Served "http://localhost:2379" "URLs that clients are told";
        "discovery" Text Refused "" "Give the members with --initial-cluster";
        "discovery-token" Text Refused "" "Give the members with --initial-cluster";
        "discovery-endpoints" Text Refused "" "Give the members with --initial-cluster";
        "discovery-srv" Text Refused "" "Give the members with --initial-cluster";
        "discovery-srv-name" Text Refused "" "Give the members with --initial-cluster";
        "discovery-fallback" Text Idle "exit" "There is no discovery";
        "discovery-proxy" Text Idle "" "There is no discovery";
        "proxy" Text Refused "off" "A member is no proxy";
        "proxy-failure-wait" Text Idle "5000" "A member is no proxy";
        "proxy-refresh-interval" Text Idle "30000" "A member is no proxy";
        "proxy-dial-timeout" Text Idle "1000" "A member is no proxy";
        "proxy-write-timeout" Text Idle "5000" "A member is no proxy";
        "proxy-read-timeout" Text Idle "0" "A member is no proxy";
        "strict-reconfig-check" Bool Idle "true" "Changes that would cost quorum are always refused";
        "pre-vote" Bool Idle "true" "Members always ask before they stand for election";
        "auto-compaction-retention" Text Served "0" "How much history is kept: a duration, or a number of revisions; 0 for all";
        "auto-compaction-mode" Text Served "periodic" "What the retention counts: `periodic` or `revision`";
    }
    "Security" {
        "cert-file" Text Served "" "Certificate for clients";
        "key-file" Text Served "" "Its key";
        "client-cert-auth" Bool Served "false" "Demand a certificate of clients";
        "client-cert-file" Text Idle "" "A member is no client of itself";
        "client-key-file" Text Idle "" "A member is no client of itself";
        "client-crl-file" Text Refused "" "Revocation lists are not read; take the CA out of service instead";
        "client-cert-allowed-hostname" Text Refused "" "Names of client certificates are not restricted";
        "trusted-ca-file" Text Served "" "CA of clients' certificates";
        "auto-tls" Bool Served "false" "Make a certificate for clients";
        "peer-cert-file" Text Served "" "Certificate for peers";
        "peer-key-file" Text Served "" "Its key";
        "peer-client-cert-auth" Bool Served "false" "Demand a certificate of peers";
        "peer-client-cert-file" Text Served "" "Another certificate to show to peers [default: --peer-cert-file]";
        "peer-client-key-file" Text Served "" "Its key";
        "peer-trusted-ca-file" Text Served "" "CA of peers' certificates";
        "peer-cert-allowed-cn" Text Served "" "Names, one of which a peer's certificate must have, comma-separated";
        "peer-cert-allowed-hostname" Text Refused "" "Use --peer-cert-allowed-cn";
        "peer-auto-tls" Bool Served "false" "Make a certificate for peers; who they are is then not checked";
        "self-signed-cert-validity" Text Refused "1" "Certificates of --auto-tls and --peer-auto-tls hold a year and are made anew by the start in their last month";
        "peer-crl-file" Text Refused "" "Revocation lists are not read; take the CA out of service instead";
        "peer-skip-client-san-verification" Bool Idle "false" "The address of a peer is not compared with its certificate";
        "cipher-suites" Text Refused "" "They are those of rustls, all of them strong";
        "tls-min-version" Text Served "TLS1.2" "TLS1.2 or TLS1.3";
        "tls-max-version" Text Served "" "TLS1.2 or TLS1.3";
        "cors" Text Served "*" "Origins that scripts of web pages may come from, comma-separated";
        "host-whitelist" Text Served "*" "Names that clients over plain HTTP may call this member, comma-separated";
    }
    "Auth" {
        "auth-token" Text Served "simple" "`simple`, or `jwt,sign-method=METHOD,pub-key=FILE,priv-key=FILE,ttl=TIME`";
        "bcrypt-cost" Text Served "10" "What hashing a password costs: 4 to 31";
        "auth-token-ttl" Text Served "300" "Seconds that a token lasts after it was last used";
    }
    "Profiling and monitoring" {
        "enable-pprof" Bool Idle "false" "There is no Go runtime";
        "metrics" Text Idle "basic" "It makes no difference";
        "listen-metrics-urls" List Served "" "Further URLs for /metrics, /health, /livez and /readyz";
    }
    "Logging" {
        "logger" Text Idle "zap" "Lines have zap's form";
        "log-outputs" List Served "default" "`default`, `stderr`, `stdout` or files, comma-separated";
        "log-level" Text Served "info" "debug, info, warn, error, panic or fatal";
        "log-format" Text Served "json" "`json` or `console`";
        "log-package-levels" Text Idle "" "Use --log-level";
        "debug" Bool Idle "false" "Use --log-level=debug";
        "enable-log-rotation" Bool Refused "false" "Use logrotate, or the service manager's journal";
        "log-rotation-config-json" Text Idle "" "Use logrotate, or the service manager's journal";
        "warning-unary-request-duration" Text Idle "300ms" "Slow requests are not logged";
    }
    "Features" {
        "initial-corrupt-check" Bool Idle "false" "Every member checks what it reads";
        "corrupt-check-time" Text Idle "0s" "Every member checks what it reads";
        "compact-hash-check-enabled" Bool Idle "false" "Every member checks what it reads";
        "compact-hash-check-time" Text Idle "1m" "Every member checks what it reads";
        "compaction-batch-limit" Text Idle "1000" "A compaction stops nobody";
        "compaction-sleep-interval" Text Idle "" "A compaction stops nobody";
        "watch-progress-notify-interval" Text Served "10m" "How often a watcher that asked for it hears that nothing happened";
        "warning-apply-duration" Text Idle "100ms" "Slow requests are not logged";
        "bootstrap-defrag-threshold-megabytes" Text Idle "" "The database is compact after each start";
        "enable-lease-checkpoint" Bool Idle "false" "It is always so";
        "enable-lease-checkpoint-persist" Bool Idle "false" "It is always so";
        "enable-distributed-tracing" Bool Idle "false" "There is no tracing";
        "distributed-tracing-address" Text Idle "localhost:4317" "There is no tracing";
        "distributed-tracing-service-name" Text Idle "etcd" "There is no tracing";
        "distributed-tracing-instance-id" Text Idle "" "There is no tracing";
        "distributed-tracing-sampling-rate" Text Idle "0" "There is no tracing";
        "stop-grpc-service-on-defrag" Bool Idle "false" "Reads and writes go on meanwhile";
        "txn-mode-write-with-shared-buffer" Bool Idle "true" "Reads wait for nobody";
        "enable-v2v3" Text Idle "" "The v2 API is not served";
        "v2-deprecation" Text Idle "not-yet" "The v2 API is not served";
        "max-learners" Text Idle "1" "One learner at a time";
        "downgrade-check-time" Text Idle "" "There is nothing to downgrade";
        "snapshot-catchup-entries" Text Idle "5000" "5000 entries are kept for slow members";
    }
    "Unsafe" {
        "force-new-cluster" Bool Served "false" "Become the only member of the cluster; the data of before is kept beside";
        "unsafe-no-fsync" Bool Idle "false" "What is acknowledged is on disk";
    }
    "File" {
        "config-file" Text Served "" "File with all flags; then command line and environment do not count";
    }
}

/// The flag of a name. What etcd called experimental is found under its later name.
pub fn find(name: &str) -> Option<&'static Flag> {
    let plain = name.strip_prefix("experimental-").unwrap_or(name);
    FLAGS.iter().find(|flag| flag.name == plain)
}

impl Flag {
    /// The environment variable: `ETCD_` and the name in capitals.
    pub fn variable(&self) -> String {
        format!("ETCD_{}", self.name.to_ascii_uppercase().replace('-', "_"))
    }
}
