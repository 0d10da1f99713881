//! What each template gives, kept beside this file; the programs that read it have the last word
//! in tests/suites/render.rs.

use super::super::reach::fleet;
use super::*;
use crate::inventory::inventory_of;

const TOKEN: &str = "hunter22hunter22hunter22hunter22";

const INVENTORY: &str = "
all:
  vars:
    cluster_name: production
    loadbalancer_vip: 192.0.2.10/24
    loadbalancer_vip_password: s3cret77
    loadbalancer_interface: eth0
    ssh_authorized_keys: [ssh-ed25519 AAAA ops]
    ntp_servers: [ntp.example.com]
    dns_nameservers: [192.0.2.53]
    kernel_modules: [br_netfilter]
    sysctl: {net.ipv4.ip_forward: 1}
  children:
    servers:
      hosts:
        server1: {ansible_host: 192.0.2.11}
        server2: {ansible_host: 192.0.2.12}
        server3: {ansible_host: '2001:db8::13'}
    agents:
      hosts:
        agent1: {ansible_host: agent1.example.com}
    loadbalancers:
      hosts:
        lb1: {ansible_host: 192.0.2.21}
        lb2: {ansible_host: 192.0.2.22}
";

fn shown(text: &str, host: &str, template: &str, with: &[(&str, serde_json::Value)]) -> String {
    let inventory = inventory_of(text);
    let fleet = fleet(&inventory, Secret::new(TOKEN));
    let plain =
        |(name, value): &(&str, serde_json::Value)| ((*name).to_owned(), Var::Plain(value.clone()));
    let vars: BTreeMap<String, Var> = with.iter().map(plain).collect();
    let secrets = vars.get("with_token") == Some(&Var::Plain(true.into()));
    let wish = Wish { host, template, vars, secrets };
    match preview(&fleet, &Library::built_in(), wish) {
        Ok(preview) => preview.text,
        Err(failure) => panic!("{failure}"),
    }
}

fn joins(with_token: bool) -> [(&'static str, serde_json::Value); 3] {
    let url = "https://192.0.2.10:6443".into();
    [("with_token", with_token.into()), ("first", false.into()), ("join_url", url)]
}

#[test]
fn what_load_balancers_get() {
    insta::assert_snapshot!("haproxy", shown(INVENTORY, "lb1", "haproxy.cfg.j2", &[]));
    insta::assert_snapshot!("nginx", shown(INVENTORY, "lb1", "nginx.conf.j2", &[]));
    insta::assert_snapshot!("keepalived", shown(INVENTORY, "lb2", "keepalived.conf.j2", &[]));
    insta::assert_snapshot!(
        "loadbalancer",
        shown(INVENTORY, "server1", "loadbalancer.yaml.j2", &[])
    );
    insta::assert_snapshot!("kube-vip", shown(INVENTORY, "server1", "kube-vip.yaml.j2", &[]));
}

#[test]
fn what_nodes_get() {
    insta::assert_snapshot!("config", shown(INVENTORY, "server2", "server.yaml.j2", &[]));
    insta::assert_snapshot!("openrc", shown(INVENTORY, "agent1", "agent.openrc.j2", &[]));
    let server = shown(INVENTORY, "server2", "cloud-init.yaml.j2", &joins(false));
    insta::assert_snapshot!("cloud-init-server", server);
    assert!(!server.contains("hunter22"), "{server}");
    let k3s = INVENTORY.replace("cluster_name: production", "distribution: k3s");
    let agent = shown(&k3s, "agent1", "cloud-init.yaml.j2", &joins(true));
    insta::assert_snapshot!("cloud-init-k3s-agent", agent);
    let k3os = shown(&k3s, "server3", "k3os.yaml.j2", &joins(true));
    insta::assert_snapshot!("k3os", k3os);
}

#[test]
fn what_watches_the_snapshots_of_k3s() {
    let monitored = |settings: &str| {
        let said = format!("distribution: k3s\n    snapshot: {settings}");
        let inventory = INVENTORY.replace("cluster_name: production", &said);
        shown(&inventory, "server2", "k3s/snapshot-monitor.yaml.j2", &[])
    };
    let text = monitored("{monitor: true}");
    // The others differ in the server's name.
    let first: Vec<&str> = text.split("---\n").take(2).collect();
    insta::assert_snapshot!("snapshot-monitor", first.join("---\n"));
    let jobs: Vec<serde_json::Value> = serde_yaml::Deserializer::from_str(&text)
        .map(|document| serde::Deserialize::deserialize(document).unwrap())
        .collect();
    let pod = "/spec/jobTemplate/spec/template/spec";
    let on = |job: &serde_json::Value| job.pointer(pod).unwrap()["nodeSelector"].clone();
    let on: Vec<_> = jobs.iter().map(|job| on(job)["kubernetes.io/hostname"].clone()).collect();
    assert_eq!(on, ["server1", "server2", "server3"]);
    for (settings, minutes) in [
        ("{schedule: '0 */6 * * *', monitor: {}}", "\"435\""),
        ("{monitor: {max_age_minutes: 90}}", "\"90\""),
    ] {
        let text = monitored(settings);
        assert!(
            text.contains(&format!("name: MINUTES\n                  value: {minutes}")),
            "{text}"
        );
    }
}

#[test]
fn what_is_asked_for_by_a_variable() {
    let rke2 = INVENTORY.replace("sysctl:", "loadbalancer_ports: [9345, 6443]\n    sysctl:");
    let text = shown(&rke2, "lb1", "haproxy.cfg.j2", &[]);
    assert!(text.contains("bind *:9345") && !text.contains(":2379"), "{text}");
    assert!(text.contains("server1 192.0.2.11:6443 check port 9345 "), "{text}");
    assert!(text.contains("uri /ping "), "{text}");
}

#[test]
fn a_secret_is_shown_only_when_asked_for_and_what_is_missing_is_named() {
    let masked = shown(INVENTORY, "lb2", "keepalived.conf.j2", &[]);
    assert!(masked.contains("auth_pass ********"), "{masked}");
    let open = shown(INVENTORY, "lb2", "keepalived.conf.j2", &joins(true));
    assert!(open.contains("auth_pass s3cret77"), "{open}");
    let inventory = inventory_of(&INVENTORY.replace("loadbalancer_interface: eth0", "x: 1"));
    let fleet = fleet(&inventory, Secret::default());
    let (template, vars) = ("keepalived.conf.j2", BTreeMap::new());
    let wish = Wish { host: "lb1", template, vars, secrets: false };
    let error = preview(&fleet, &Library::built_in(), wish).unwrap_err().to_string();
    assert!(error.contains("set loadbalancer_interface"), "{error}");
}
