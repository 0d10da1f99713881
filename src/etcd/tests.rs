//! Flags, files and variables; what they mean together; numbers as etcd makes them.

use std::time::Duration;

use super::config::{Config, Retention, Versions};
use super::source::{Values, gather};
use super::{flags, ids};
use crate::error::Failure;

fn values(arguments: &[&str], variables: &[(&str, &str)]) -> Result<Values, Failure> {
    let arguments: Vec<String> = arguments.iter().map(ToString::to_string).collect();
    let variables = variables.iter().map(|(name, text)| (name.to_string(), text.to_string()));
    gather(&arguments, variables)
}

fn config(arguments: &[&str]) -> Result<Config, String> {
    let values = values(arguments, &[]).map_err(|failure| failure.message)?;
    Config::new(&values).map_err(|failure| failure.message)
}

#[test]
fn numbers_are_those_of_etcd() {
    // What every etcd without flags has.
    let member = ids::member(&["http://localhost:2380".to_owned()], "etcd-cluster");
    assert_eq!(member, 0x8e9e_05c5_2164_694d);
    assert_eq!(ids::cluster(&[member]), 0xcdf8_1819_4e3a_8c32);
}

#[test]
fn without_flags_it_is_what_etcd_is() {
    let config = config(&[]).unwrap();
    assert_eq!(config.name, "default");
    assert_eq!(config.data_dir.to_str(), Some("default.etcd"));
    assert_eq!(config.listen_clients[0].bind().unwrap(), "127.0.0.1:2379".parse().unwrap());
    assert_eq!(config.listen_peers[0].bind().unwrap(), "127.0.0.1:2380".parse().unwrap());
    assert_eq!(config.initial["default"], ["http://localhost:2380"]);
    assert_eq!(config.retention, None);
    assert!(!config.joins);
}

#[test]
fn one_dash_or_two_with_or_without_an_equals_sign() {
    let given = values(
        &[
            "-name",
            "m1",
            "--data-dir=/x",
            "-client-cert-auth",
            "--pre-vote=true",
            "-auto-tls=false",
        ],
        &[("ETCD_NAME", "other"), ("ETCD_SNAPSHOT_COUNT", "7"), ("HOME", "/root")],
    )
    .unwrap();
    assert_eq!(given.text("name"), "m1");
    assert_eq!(given.text("data-dir"), "/x");
    assert!(given.flag("client-cert-auth").unwrap());
    assert!(!given.flag("auto-tls").unwrap());
    assert_eq!(given.number("snapshot-count").unwrap(), 7);
    assert!(given.warnings.is_empty(), "{:?}", given.warnings);
}

#[test]
fn what_is_not_known_is_refused_or_warned_about() {
    let refused = |arguments: &[&str]| values(arguments, &[]).unwrap_err().to_string();
    assert_eq!(
        refused(&["--nmae", "x"]),
        "error: flag provided but not defined: -nmae\nhint: did you mean --name?"
    );
    assert_eq!(refused(&["--name"]), "error: flag needs an argument: -name");
    assert_eq!(refused(&["serve"]), "error: 'serve' is not a valid flag");
    assert!(refused(&["--discovery-srv", "x.org"]).contains("`x.org` is not served"));
    let given = values(
        &[
            "--experimental-frobnicate",
            "3",
            "--experimental-compact-hash-check-time=2m",
            "--max-wals=9",
        ],
        &[("ETCD_UNSUPPORTED_ARCH", "arm")],
    )
    .unwrap();
    assert_eq!(
        given.warnings,
        [
            "unrecognized environment variable ETCD_UNSUPPORTED_ARCH",
            "--experimental-frobnicate is not known and has no effect",
            "--compact-hash-check-time has no effect: Every member checks what it reads",
            "--max-wals has no effect: Segments of the log go when nobody needs them",
        ]
    );
}

#[test]
fn a_file_stands_alone_and_has_places() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("etcd.yaml");
    let text = "name: filed\nlisten-client-urls: http://127.0.0.1:1, http://127.0.0.2:2\n\
        advertise-client-urls: [http://127.0.0.1:1]\nsnapshot-count: 9\nunsafe-no-fsync: false\n\
        watch-progress-notify-interval: 5000000000\n\
        client-transport-security:\n  cert-file: c\n  key-file: k\n  trusted-ca-file: a\n  client-cert-auth: true\n\
        peer-transport-security:\n  cert-file: pc\n  key-file: pk\n  allowed-cn: x\n";
    std::fs::write(&path, text).unwrap();
    let given = values(&["--config-file", path.to_str().unwrap(), "--name", "line"], &[]).unwrap();
    let config = Config::new(&given).unwrap();
    assert_eq!(config.name, "filed");
    assert_eq!(config.listen_clients.len(), 2);
    assert_eq!(config.etcd.snapshot_count, 9);
    assert_eq!(config.etcd.progress_notify_interval, Duration::from_secs(5));
    assert!(config.client_security.client_cert_auth);
    assert_eq!(config.peer_security.cert.as_deref(), Some("pc".as_ref()));
    assert_eq!(config.peer_security.allowed_cn, ["x"]);

    std::fs::write(&path, "name: a\nnaem: b\n").unwrap();
    let given = values(&["--config-file", path.to_str().unwrap()], &[]).unwrap();
    let [warning] = &given.warnings[..] else { panic!("{:?}", given.warnings) };
    assert!(warning.contains("etcd.yaml:2:"), "{warning}");
    assert!(
        warning.ends_with("unknown key `naem` has no effect; did you mean `name`?"),
        "{warning}"
    );
    assert_eq!(given.text("name"), "a");
    std::fs::write(&path, "name: a\nelection-timeout: long\n").unwrap();
    let given = values(&["--config-file", path.to_str().unwrap()], &[]).unwrap();
    let failure = Config::new(&given).unwrap_err();
    assert!(failure.message.contains("etcd.yaml:2:19: --election-timeout"), "{failure}");
}

#[test]
fn a_quota_below_zero_is_none() {
    let quota = |text: &str| config(&["--quota-backend-bytes", text]).map(|c| c.etcd.quota_bytes);
    assert_eq!(quota("0"), Ok(crate::limits::QUOTA_BYTES_DEFAULT));
    assert_eq!(quota("-1"), Ok(u64::MAX));
    assert_eq!(quota("12345"), Ok(12_345));
    assert!(quota("much").unwrap_err().contains("`much` is not a number"));
}

#[test]
fn flags_that_were_experiments_of_3_5_are_known_and_warned_about() {
    let given = values(
        &[
            "--experimental-initial-corrupt-check",
            "--experimental-enable-lease-checkpoint=true",
            "--experimental-distributed-tracing-sampling-rate=5",
            "--proxy-read-timeout=1",
        ],
        &[],
    );
    let warnings = given.unwrap().warnings;
    assert_eq!(warnings.len(), 4, "{warnings:?}");
    assert!(warnings.iter().all(|warning| warning.contains(" has no effect: ")), "{warnings:?}");
}

#[test]
fn members_must_agree_with_what_is_advertised() {
    let three = "a=http://127.0.0.1:1,b=http://127.0.0.1:2,b=http://127.0.0.1:3";
    let good = config(&[
        "--name=b",
        "--initial-cluster",
        three,
        "--initial-advertise-peer-urls=http://127.0.0.1:3,http://127.0.0.1:2",
    ]);
    assert_eq!(good.unwrap().initial["b"], ["http://127.0.0.1:2", "http://127.0.0.1:3"]);
    let bad = |arguments: &[&str]| config(arguments).unwrap_err();
    assert_eq!(
        bad(&["--name=c", "--initial-cluster", three]),
        "--initial-cluster: couldn't find local name \"c\" in the initial cluster configuration"
    );
    assert_eq!(
        bad(&["--name=a", "--initial-cluster", three]),
        "--initial-cluster: has a=http://127.0.0.1:1 but --initial-advertise-peer-urls=http://localhost:2380"
    );
    assert!(bad(&["--initial-cluster=a=http://x:1,b=http://x:1"]).contains("is there twice"));
    assert!(bad(&["--initial-cluster-state=old"]).contains("expected `new` or `existing`"));
}

#[test]
fn rules_between_flags_are_etcds() {
    let bad = |arguments: &[&str]| config(arguments).unwrap_err();
    assert_eq!(
        bad(&["--listen-client-urls=http://127.0.0.1:1"]),
        "--advertise-client-urls is required when --listen-client-urls is set explicitly"
    );
    let listen = |url: &str| {
        let flag = format!("--listen-client-urls={url}");
        bad(&[&flag, "--advertise-client-urls=http://127.0.0.1:1"])
    };
    assert!(listen("http://example.org:1").contains("expected IP in URL for binding"));
    assert!(listen("https://127.0.0.1:1").contains("there is no certificate for it"));
    assert!(listen("127.0.0.1:1").contains("URL scheme must be http or https"));
    assert!(bad(&["--client-cert-auth"]).contains("needs --trusted-ca-file"));
    assert!(bad(&["--cert-file=x"]).contains("must both be present"));
    assert!(bad(&["--election-timeout=200"]).contains("should be at least as 5 times"));
    assert!(bad(&["--log-level=loud"]).contains("is not a level"));
}

#[test]
fn retention_is_hours_a_duration_or_revisions() {
    let retention = |arguments: &[&str]| config(arguments).unwrap().retention;
    let hours = |hours: u64| Some(Retention::Period(Duration::from_secs(hours * 3600)));
    assert_eq!(retention(&["--auto-compaction-retention=1"]), hours(1));
    assert_eq!(
        retention(&["--auto-compaction-retention=1h30m"]),
        Some(Retention::Period(Duration::from_secs(5400)))
    );
    let revisions = ["--auto-compaction-mode=revision", "--auto-compaction-retention=1000"];
    assert_eq!(retention(&revisions), Some(Retention::Revisions(1000)));
    assert_eq!(retention(&["--auto-compaction-retention=0"]), None);
    assert!(config(&["--auto-compaction-retention=soon"]).is_err());
}

#[test]
fn versions_of_tls_can_be_narrowed() {
    let versions = |arguments: &[&str]| config(arguments).unwrap().client_security.versions;
    assert_eq!(versions(&[]), Versions::Both);
    assert_eq!(versions(&["--tls-min-version=TLS1.3"]), Versions::Tls13);
    assert_eq!(versions(&["--tls-max-version=TLS1.2"]), Versions::Tls12);
    assert!(config(&["--tls-min-version=TLS1.1"]).is_err());
}

#[test]
fn flags_are_there_once() {
    let mut names: Vec<&str> = flags::FLAGS.iter().map(|flag| flag.name).collect();
    names.sort_unstable();
    let count = names.len();
    names.dedup();
    assert_eq!(names.len(), count);
}

#[test]
fn options_of_tokens_are_read_as_etcd_reads_them() {
    use super::tokens::AuthToken;
    let token = |text: &str| config(&["--auth-token", text]).map(|config| config.auth_token);
    assert_eq!(config(&[]).unwrap().auth_token, AuthToken::Simple);
    assert_eq!(token("simple").unwrap(), AuthToken::Simple);
    assert_eq!(token("").unwrap(), AuthToken::Nothing);
    let jwt = token("jwt,pub-key=/a.pub,priv-key=/a.key,sign-method=RS256,ttl=10m,x=y").unwrap();
    let AuthToken::Jwt(options, unknown) = jwt else { panic!("{jwt:?}") };
    assert_eq!((options.method.name(), options.ttl), ("RS256", Duration::from_secs(600)));
    assert_eq!(options.public.unwrap().to_str(), Some("/a.pub"));
    assert_eq!(options.private.unwrap().to_str(), Some("/a.key"));
    assert_eq!(unknown, ["x"]);
    let AuthToken::Jwt(options, _) = token("jwt,sign-method=HS512,ttl=").unwrap() else { panic!() };
    assert_eq!(options.ttl, Duration::from_secs(300));
    for (text, why) in [
        ("jtw", "`jtw` is not `simple` or `jwt`"),
        ("jwt,ttl", "`ttl` is not name=value"),
        ("jwt,priv-key=a=b", "`priv-key=a=b` is not name=value"),
        ("jwt,ttl=1m,ttl=2m", "`ttl` is there twice"),
        ("jwt", "auth: invalid auth signature method: give sign-method="),
        ("jwt,sign-method=RS1", "`RS1` is not one of HS256, "),
        ("jwt,sign-method=EdDSA", "unsupported signing method: EdDSA"),
        ("jwt,sign-method=HS256,ttl=soon", "`soon` is not a duration"),
        ("jwt,sign-method=HS256,ttl=0s", "ttl must be above 0"),
    ] {
        let error = token(text).unwrap_err();
        assert!(error.starts_with("--auth-token: auth: invalid auth options: "), "{error}");
        assert!(error.contains(why), "{error}");
    }
}

#[test]
fn limits_are_set_and_beyond_what_is_served_refused() {
    let given = config(&[
        "--max-txn-ops=500",
        "--max-request-bytes=8388608",
        "--max-concurrent-streams=7",
        "--grpc-keepalive-interval=30s",
        "--grpc-keepalive-timeout=5s",
        "--grpc-keepalive-min-time=10s",
    ]);
    let limits = given.unwrap().etcd.limits;
    assert_eq!((limits.txn_ops, limits.request_bytes, limits.streams), (500, 8_388_608, 7));
    assert_eq!(limits.keepalive_interval, Duration::from_secs(30));
    assert_eq!(limits.keepalive_timeout, Duration::from_secs(5));
    assert_eq!(limits.ping_interval, Duration::from_secs(10));
    let limits = config(&[]).unwrap().etcd.limits;
    assert_eq!(limits, crate::rpc::Limits::default());
    let zero = config(&["--grpc-keepalive-interval=0s", "--max-concurrent-streams=0"]).unwrap();
    assert_eq!(zero.etcd.limits, limits);
    let zero = config(&["--grpc-keepalive-min-time=0s"]).unwrap();
    assert_eq!(zero.etcd.limits.ping_interval, Duration::from_secs(300), "as in grpc-go");
    for (argument, why) in [
        ("--max-request-bytes=16777217", "16777217 is above 16777216"),
        ("--max-request-bytes=1.5MB", "`1.5MB` is not a number"),
        ("--max-txn-ops=-1", "`-1` is not a number"),
        ("--max-concurrent-streams=4294967296", "is above 4294967295"),
        ("--grpc-keepalive-timeout=5", "`5` is not a duration"),
    ] {
        let error = config(&[argument]).unwrap_err();
        assert!(error.contains(why), "{error}");
    }
}
