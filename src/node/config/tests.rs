use std::path::Path;

use super::*;

type Files = &'static [(&'static str, &'static str)];
type Case = (&'static str, Files, &'static str, &'static [&'static str]);

/// Values of a command after merging: base file, drop-ins, command line, environment.
fn merged(
    base: Option<&str>,
    drop_ins: &[(&str, &str)],
    line: &[(&'static str, Vec<&str>)],
    environment: &[(&str, &str)],
) -> Result<Values, ConfigError> {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("config.yaml");
    if let Some(text) = base {
        std::fs::write(&file, text).unwrap();
    }
    std::fs::create_dir(directory.path().join("config.yaml.d")).unwrap();
    for (name, text) in drop_ins {
        std::fs::write(directory.path().join("config.yaml.d").join(name), text).unwrap();
    }
    let line = Values::from_command_line(line.iter().cloned());
    let read = |name: &str| {
        environment.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
    };
    gather(Command::Server, line, Some(&file), read).map(|(values, _)| values)
}

fn texts(values: &Values, name: &str) -> Vec<String> {
    values.all(name).iter().map(|given| given.text.expose().to_owned()).collect()
}

#[test]
fn merge_rules_are_k3s_ones() {
    let cases: &[Case] = &[
        ("token: a", &[], "token", &["a"]),
        ("token: a", &[("1.yaml", "token: b")], "token", &["b"]),
        ("tls-san: [a]", &[("1.yaml", "tls-san: [b]")], "tls-san", &["b"]),
        ("tls-san: [a]", &[("1.yaml", "tls-san+: [b]")], "tls-san", &["a", "b"]),
        ("tls-san: a", &[("1.yaml", "tls-san+: b")], "tls-san", &["a", "b"]),
        (
            "tls-san: [a]",
            &[("2.yaml", "tls-san+: [c]"), ("1.yml", "tls-san+: [b]")],
            "tls-san",
            &["a", "b", "c"],
        ),
        (
            "tls-san: [a]",
            &[("1.yaml", "tls-san+: [b]"), ("2.YAML", "tls-san: [c]")],
            "tls-san",
            &["c"],
        ),
        ("tls-san: [a]", &[("readme.txt", "tls-san: [b]")], "tls-san", &["a"]),
        ("t: short", &[], "token", &["short"]),
        ("cluster-init: true", &[], "cluster-init", &["true"]),
        ("https-listen-port: 7443", &[], "https-listen-port", &["7443"]),
        ("etcd-arg: [\"a=1,2\"]", &[], "etcd-arg", &["a=1,2"]),
        ("", &[("1.yaml", "server: https://x:6443")], "server", &["https://x:6443"]),
    ];
    for (base, drop_ins, name, expected) in cases {
        let values = merged(Some(base), drop_ins, &[], &[]).unwrap();
        assert_eq!(texts(&values, name), *expected, "{base} {drop_ins:?}");
    }
}

#[test]
fn the_command_line_wins_over_the_file_and_the_file_over_the_environment() {
    let environment = [("K3S_TOKEN", "env"), ("K3S_NODE_NAME", "env")];
    let file = "token: file\ntls-san: [a, b]";
    let values = merged(Some(file), &[], &[], &environment).unwrap();
    assert_eq!(texts(&values, "token"), ["file"]);
    assert_eq!(texts(&values, "node-name"), ["env"]);

    let line = [("token", vec!["line"]), ("tls-san", vec!["c"])];
    let values = merged(Some(file), &[], &line, &environment).unwrap();
    assert_eq!(texts(&values, "token"), ["line"]);
    assert_eq!(texts(&values, "tls-san"), ["c"]);
}

#[test]
fn drop_ins_alone_are_enough_and_a_named_file_must_be_there() {
    let values = merged(None, &[("1.yaml", "token: a")], &[], &[]).unwrap();
    assert_eq!(texts(&values, "token"), ["a"]);
    let error = merged(None, &[], &[], &[]).unwrap_err().to_string();
    assert!(error.contains("config.yaml:1:1: cannot be read"), "{error}");
}

#[test]
fn what_is_not_understood_is_refused_with_its_line() {
    let cases = [
        ("a: 1\n", ":1:1: unknown key `a`"),
        (
            "token: x\ncluster-ini: true",
            ":2:1: unknown key `cluster-ini` (did you mean `cluster-init`?)",
        ),
        (
            "debug: true\nflannel-backend: none",
            ":2:1: --flannel-backend is a K3s flag that this node does not have",
        ),
        ("lb-server-port: 1", ":1:1: --lb-server-port is not a flag of `server`"),
        ("token: x\ntoken: y", ":2:1: "),
        ("token+: x", ":1:1: `token+` appends, but `token` takes one value"),
        ("token: [a]", ":1:8: `token` takes one value, found a list"),
        ("token: 0123", ":1:8: `token` must be text, found an integer (put it in quotes"),
        ("write-kubeconfig-mode: 0644", "must be text"),
        ("tls-san: [{a: b}]", "`tls-san` takes text, found a mapping"),
        ("- a", "the configuration must be a mapping"),
        ("a: [", "config.yaml:"),
    ];
    for (text, expected) in cases {
        let error = merged(Some(text), &[], &[], &[]).unwrap_err().to_string();
        assert!(error.contains(expected), "{text:?}: {error}");
    }
}

#[test]
fn all_findings_come_at_once_and_no_secret_is_in_them() {
    let text = "token: hunter2\nfoo: 1\ndisable: [traefik]\n";
    let error = merged(Some(text), &[("1.yaml", "bar: hunter2")], &[], &[]).unwrap_err();
    assert_eq!(error.0.len(), 3, "{error}");
    assert!(!error.to_string().contains("hunter2"));
}

fn server(text: &str) -> Result<ServerConfig, ConfigError> {
    let base = format!("node-name: s1\nnode-ip: 127.9.0.1\n{text}");
    let values = merged(Some(&base), &[], &[], &[]).unwrap();
    ServerConfig::from_values(&values, Path::new("/etc/k3sup/config.yaml"))
}

#[test]
fn defaults_are_k3s_ones() {
    let config = server("").unwrap();
    assert_eq!(config.https_listen_port, 6443);
    assert_eq!(config.bundle_path, Path::new("/etc/k3sup/k3sup.yaml"));
    assert_eq!(config.bundle_mode, 0o600);
    assert_eq!(config.node.data_dir, Path::new("/var/lib/k3sup"));
    assert_eq!(config.supervisor_url(), "https://127.9.0.1:6443");
    let listen: Vec<_> = config.listen(2379).iter().map(ToString::to_string).collect();
    assert_eq!(listen, ["127.0.0.1:2379", "127.9.0.1:2379"]);
    let bound = server("bind-address: 127.9.0.1").unwrap().listen(2379);
    assert_eq!(bound, ["127.9.0.1:2379".parse().unwrap()]);
}

#[test]
fn values_are_checked_where_they_were_given() {
    let cases = [
        ("server: http://x:1", "only https:// URLs are supported, invalid scheme: http://x:1"),
        ("server: https://u:p@x:1", "invalid server URL"),
        ("https-listen-port: 70000", ":3:20: --https-listen-port is a port from 1 to 65535"),
        ("bind-address: here", "--bind-address is an IP address"),
        ("node-label: [novalue]", "--node-label is key=value"),
        ("node-taint: ['a=b:Never']", "--node-taint is key=value:effect"),
        ("write-kubeconfig-mode: rw", "octal mode"),
        ("token-file: /nowhere/token", "--token-file /nowhere/token: No such file"),
        ("etcd-arg: heartbeat-interval=0", "must be a number above 0"),
        ("etcd-arg: max-wals=5", "etcd-arg max-wals is not one that this store has"),
        (
            "etcd-arg: [heartbeat-interval=500]",
            "--election-timeout[1000ms] should be at least as 5 times as --heartbeat-interval[500ms]",
        ),
        ("cluster-init: maybe", "--cluster-init is true or false"),
    ];
    for (text, expected) in cases {
        let error = server(text).unwrap_err().to_string();
        assert!(error.contains(expected), "{text:?}: {error}");
    }
}

#[test]
fn a_token_file_wins_over_a_token() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "from-file\n").unwrap();
    let text = format!("token: plain\ntoken-file: {}", file.path().display());
    let node = server(&text).unwrap().node;
    assert_eq!(node.token.as_ref().unwrap().expose(), "from-file");
    // A rotation writes the file while the node runs; a file that went away takes nothing back.
    std::fs::write(file.path(), "rotated\n").unwrap();
    assert_eq!(node.token_now().unwrap().expose(), "rotated");
    drop(file);
    assert_eq!(node.token_now().unwrap().expose(), "from-file");
}

#[test]
fn an_agent_needs_a_server_and_a_token() {
    let values = Values::from_command_line([("node-name", vec!["a1"])]);
    let error = AgentConfig::from_values(&values, false).unwrap_err();
    assert_eq!(error.0, ["--token is required", "--server is required"]);
    let line = [("node-name", vec!["a1"]), ("server", vec!["https://[::1]:6443"])];
    let config = AgentConfig::from_values(&Values::from_command_line(line), true).unwrap();
    assert_eq!(config.node.server.unwrap().authority(), "[::1]:6443");
}

#[test]
fn the_list_of_k3s_flags_is_sorted_and_apart_from_ours() {
    assert!(schema::K3S_ONLY.is_sorted());
    let doubled: Vec<_> =
        schema::FLAGS.iter().filter(|flag| schema::K3S_ONLY.contains(&flag.name)).collect();
    assert!(doubled.is_empty(), "{doubled:?}");
}
