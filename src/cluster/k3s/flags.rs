//! K3s's settings: what an inventory may say in `config`, for servers and for agents.
//!
//! K3s skips an unknown key of a server and dies of one of an agent, and finds out at the join that
//! servers differ; here all of it is found before a host is touched.

use std::collections::BTreeMap;

use serde_json::{Map, Value as Json};

use super::super::layout::Role;

/// Settings of servers and agents (k3s `pkg/cli/cmds/agent.go`).
const NODE: &[&str] = &[
    "debug",
    "v",
    "vmodule",
    "alsologtostderr",
    "bind-address",
    "with-node-id",
    "node-label",
    "node-taint",
    "node-ip",
    "node-external-ip",
    "node-internal-dns",
    "node-external-dns",
    "resolv-conf",
    "flannel-iface",
    "flannel-conf",
    "flannel-cni-conf",
    "kubelet-arg",
    "kube-proxy-arg",
    "protect-kernel-defaults",
    "selinux",
    "lb-server-port",
    "private-registry",
    "pause-image",
    "snapshotter",
    "container-runtime-endpoint",
    "docker",
    "default-runtime",
    "image-service-endpoint",
    "disable-default-registry-endpoint",
    "nonroot-devices",
    "vpn-auth",
    "vpn-auth-file",
    "image-credential-provider-bin-dir",
    "image-credential-provider-config",
    "prefer-bundled-bin",
    "rootless",
];

/// Settings of agents alone.
const AGENT: &[&str] = &["disable-apiserver-lb"];

/// Settings of servers alone (k3s `pkg/cli/cmds/server.go`).
const SERVER: &[&str] = &[
    "https-listen-port",
    "supervisor-port",
    "apiserver-port",
    "apiserver-bind-address",
    "advertise-address",
    "advertise-port",
    "tls-san",
    "tls-san-security",
    "cluster-cidr",
    "service-cidr",
    "service-node-port-range",
    "cluster-dns",
    "cluster-domain",
    "flannel-backend",
    "flannel-ipv6-masq",
    "flannel-external-ip",
    "egress-selector-mode",
    "servicelb-namespace",
    "write-kubeconfig-mode",
    "write-kubeconfig-group",
    "kube-apiserver-arg",
    "etcd-arg",
    "kube-controller-manager-arg",
    "kube-scheduler-arg",
    "kube-cloud-controller-manager-arg",
    "kube-cloud-controller-arg",
    "helm-controller-arg",
    "kine-tls",
    "etcd-expose-metrics",
    "etcd-disable-snapshots",
    "etcd-snapshot-name",
    "etcd-snapshot-schedule-cron",
    "etcd-snapshot-reconcile-interval",
    "etcd-snapshot-retention",
    "etcd-snapshot-dir",
    "etcd-snapshot-compress",
    "etcd-s3",
    "etcd-s3-endpoint",
    "etcd-s3-endpoint-ca",
    "etcd-s3-skip-ssl-verify",
    "etcd-s3-insecure",
    "etcd-s3-access-key",
    "etcd-s3-secret-key",
    "etcd-s3-session-token",
    "etcd-s3-bucket",
    "etcd-s3-bucket-lookup-type",
    "etcd-s3-region",
    "etcd-s3-folder",
    "etcd-s3-retention",
    "etcd-s3-proxy",
    "etcd-s3-config-secret",
    "etcd-s3-timeout",
    "default-local-storage-path",
    "disable",
    "disable-scheduler",
    "disable-cloud-controller",
    "disable-kube-proxy",
    "disable-network-policy",
    "disable-helm-controller",
    "disable-apiserver",
    "disable-controller-manager",
    "disable-etcd",
    "disable-agent",
    "embedded-registry",
    "supervisor-metrics",
    "enable-pprof",
    "secrets-encryption",
    "secrets-encryption-provider",
    "system-default-registry",
];

/// Settings that are this program's business, and what to do instead.
const OWN: &[(&str, &str)] = &[
    ("node-name", "a node is called what its host is called in the inventory"),
    ("token", "set the variable `token`"),
    ("token-file", "set the variable `token`"),
    ("agent-token", "set the variable `agent_token`"),
    ("agent-token-file", "set the variable `agent_token`"),
    ("server", "it is decided by what is on the servers; `api_endpoint` names a load balancer"),
    (
        "cluster-init",
        "it is decided by what is on the servers, so that no second cluster is founded",
    ),
    ("cluster-reset", "it is no setting but an act"),
    ("cluster-reset-restore-path", "it is no setting but an act"),
    ("datastore-endpoint", "set the variable `datastore_endpoint`"),
    ("datastore-cafile", "set the variable `datastore_cafile` to a file on this machine"),
    ("datastore-certfile", "set the variable `datastore_certfile` to a file on this machine"),
    ("datastore-keyfile", "set the variable `datastore_keyfile` to a file on this machine"),
    ("data-dir", "the data is in /var/lib/rancher/k3s; mount a file system there"),
    ("write-kubeconfig", "it is in /etc/rancher/k3s/k3s.yaml; `k3sup-rs kubeconfig` fetches it"),
    ("write-kubeconfig-name", "`k3sup-rs kubeconfig --context` names it"),
    ("log", "with a log file K3s says that it is ready at once, and a start proves nothing"),
    ("config", "it is the file that is written"),
];

/// Settings that must be equal on all servers: those that K3s compares at a join
/// (`CriticalControlArgs` in k3s `pkg/daemons/config/types.go`), and those that it does not compare
/// and that break a cluster all the same.
const COMMON: &[&str] = &[
    "cluster-cidr",
    "cluster-dns",
    "cluster-domain",
    "disable-cloud-controller",
    "disable-helm-controller",
    "disable-kube-proxy",
    "disable-network-policy",
    "disable",
    "egress-selector-mode",
    "embedded-registry",
    "flannel-backend",
    "flannel-external-ip",
    "flannel-ipv6-masq",
    "https-listen-port",
    "secrets-encryption",
    "secrets-encryption-provider",
    "service-cidr",
    "supervisor-metrics",
];

/// What is wrong with the `config` of a host with `role`, one text for each finding.
pub fn check(role: Role, config: &Map<String, Json>) -> Vec<String> {
    config.keys().filter_map(|key| wrong(role, key)).collect()
}

fn wrong(role: Role, key: &str) -> Option<String> {
    let name = key.strip_suffix('+').unwrap_or(key);
    if let Some((_, instead)) = OWN.iter().find(|(own, _)| *own == name) {
        return Some(format!("`{name}` cannot be set in `config`: {instead}"));
    }
    let known = || NODE.iter().chain(SERVER).chain(AGENT).copied();
    // What is only for the others is left out of a node's file, so that one `config` does for all.
    if known().any(|known| known == name) {
        let misplaced = role == Role::Server && AGENT.contains(&name);
        return misplaced.then(|| format!("`{name}` is a setting of agents"));
    }
    Some(match crate::yaml::did_you_mean(name, known()) {
        Some(near) => format!("K3s has no setting `{name}`: did you mean `{near}`?"),
        None => format!("K3s has no setting `{name}`"),
    })
}

/// The settings of `config` that a node with `role` has: an agent dies of a server's.
pub fn of_role(role: Role, config: &Map<String, Json>) -> Map<String, Json> {
    let for_others: &[&str] = if role == Role::Agent { SERVER } else { AGENT };
    let kept = config
        .iter()
        .filter(|(key, _)| !for_others.contains(&key.strip_suffix('+').unwrap_or(key)));
    kept.map(|(key, value)| (key.clone(), value.clone())).collect()
}

/// Settings that must be equal on all servers and are not: one text for each, with the servers and
/// their values.
pub fn differences(servers: &[(&str, &Map<String, Json>)]) -> Vec<String> {
    let differs = |key: &&&str| {
        let mut by_value: BTreeMap<String, Vec<&str>> = BTreeMap::new();
        for (name, config) in servers {
            by_value.entry(canonical(config.get(**key))).or_default().push(name);
        }
        if by_value.len() < 2 {
            return None;
        }
        let parts: Vec<String> = by_value
            .iter()
            .map(|(value, names)| format!("{value} on {}", names.join(", ")))
            .collect();
        Some(format!("`{key}` must be equal on all servers: {}", parts.join("; ")))
    };
    COMMON.iter().filter_map(|key| differs(&key)).collect()
}

/// A value so that what means the same reads the same: a comma list and a list, in any order.
fn canonical(value: Option<&Json>) -> String {
    let mut words: Vec<String> = match value {
        None | Some(Json::Null) => return "not set".to_owned(),
        Some(Json::Array(items)) => items.iter().flat_map(words_of).collect(),
        Some(other) => words_of(other),
    };
    words.sort();
    words.join(",")
}

fn words_of(value: &Json) -> Vec<String> {
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    text.split(',').map(|word| word.trim().to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn map(value: Json) -> Map<String, Json> {
        match value {
            Json::Object(map) => map,
            other => panic!("{other} is no mapping"),
        }
    }

    #[test]
    fn what_k3s_would_skip_or_die_of_is_named() {
        for (role, config, expected) in [
            (Role::Server, json!({ "flannel-backend": "none", "tls-san+": ["x"] }), ""),
            (Role::Agent, json!({ "node-label": ["a=b"], "flannel-backend": "none" }), ""),
            (
                Role::Server,
                json!({ "flanel-backend": "x" }),
                "K3s has no setting `flanel-backend`: did you mean `flannel-backend`?",
            ),
            (Role::Agent, json!({ "qwertyuiop": 1 }), "K3s has no setting `qwertyuiop`"),
            (
                Role::Server,
                json!({ "cluster-init": true }),
                "`cluster-init` cannot be set in `config`: it is decided by what is on the servers, so \
                 that no second cluster is founded",
            ),
            (
                Role::Server,
                json!({ "disable-apiserver-lb": true }),
                "`disable-apiserver-lb` is a setting of agents",
            ),
        ] {
            assert_eq!(check(role, &map(config)).join("\n"), expected);
        }
        assert!(check(Role::Server, &map(json!({ "log": "/x" })))[0].contains("ready at once"));
    }

    #[test]
    fn an_agent_gets_only_what_it_knows() {
        let config = map(json!({ "node-label": ["a=b"], "tls-san": ["x"], "etcd-arg+": ["y"] }));
        assert_eq!(of_role(Role::Agent, &config), map(json!({ "node-label": ["a=b"] })));
        assert_eq!(of_role(Role::Server, &config), config);
    }

    #[test]
    fn what_servers_must_share_is_compared() {
        let one =
            map(json!({ "disable": ["traefik", "servicelb"], "cluster-cidr": "10.0.0.0/16" }));
        let same = map(json!({ "disable": "servicelb,traefik", "cluster-cidr": "10.0.0.0/16" }));
        let other = map(json!({ "disable": ["traefik"], "node-label": ["x"] }));
        assert_eq!(differences(&[("s1", &one), ("s2", &same)]), Vec::<String>::new());
        assert_eq!(
            differences(&[("s1", &one), ("s2", &same), ("s3", &other)]),
            [
                "`cluster-cidr` must be equal on all servers: 10.0.0.0/16 on s1, s2; not set on s3",
                "`disable` must be equal on all servers: servicelb,traefik on s1, s2; traefik on s3",
            ]
        );
    }

    #[test]
    fn no_setting_is_listed_twice() {
        let mut all: Vec<&str> = NODE.iter().chain(SERVER).chain(AGENT).copied().collect();
        all.extend(OWN.iter().map(|(name, _)| *name));
        let count = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), count);
        assert!(COMMON.iter().all(|name| SERVER.contains(name)));
    }
}
