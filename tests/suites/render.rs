//! What `render` prints, judged by the programs that read it. One that is not installed is SKIPPED,
//! and the test says so.

use crate::support;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::support::shown;

const INVENTORY: &str = "
all:
  vars:
    cluster_name: rendered
    token: hunter22hunter22hunter22hunter22
    loadbalancer_vip: 192.0.2.10/24
    loadbalancer_vip_password: s3cret77
    loadbalancer_interface: lo
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
        server3: {ansible_host: 192.0.2.13}
    agents:
      hosts:
        agent1: {ansible_host: agent1.example.com}
    loadbalancers:
      hosts:
        lb1: {ansible_host: 192.0.2.21}
        lb2: {ansible_host: 192.0.2.22}
";

/// An inventory in a directory of its own.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("inventory.yaml"), INVENTORY).unwrap();
        Self(dir)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn render(&self, args: &[&str]) -> Output {
        Command::new(support::BINARY)
            .arg("render")
            .args(args)
            .arg("-i")
            .arg(self.path("inventory.yaml"))
            .env("XDG_CONFIG_HOME", self.path("config"))
            .env("NO_COLOR", "1")
            .current_dir(self.0.path())
            .output()
            .unwrap()
    }

    /// What is printed for `args`, in the file `name`.
    fn file(&self, name: &str, args: &[&str], change: &[(&str, &str)]) -> PathBuf {
        let output = self.render(args);
        assert!(output.status.success(), "{}", shown(&output));
        let mut text = String::from_utf8(output.stdout).unwrap();
        for (from, to) in change {
            text = text.replace(from, to);
        }
        std::fs::write(self.path(name), text).unwrap();
        self.path(name)
    }
}

/// Runs a program of the administrator on a file; none when it is not installed.
fn judge(program: &str, args: &[&str]) -> Option<Output> {
    let paths = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"].map(|dir| Path::new(dir).join(program));
    let Some(path) = paths.iter().find(|path| path.exists()) else {
        eprintln!("SKIPPED: {program} is not installed");
        return None;
    };
    Some(Command::new(path).args(args).output().unwrap())
}

#[test]
fn the_balancers_take_their_configurations() {
    let place = Place::new();
    let haproxy = place.file("haproxy.cfg", &["haproxy"], &[]);
    if let Some(output) = judge("haproxy", &["-c", "-f", haproxy.to_str().unwrap()]) {
        assert!(output.status.success(), "{}", shown(&output));
    }
    // Paths that only root may open.
    let own = place.path("own");
    let own = own.to_str().unwrap();
    let changes = [("/run/nginx.pid", own), ("/var/log/nginx/error.log", own)];
    let nginx = place.file("nginx.conf", &["nginx"], &changes);
    if Path::new("/usr/lib/nginx/modules/ngx_stream_module.so").exists() {
        let output = judge("nginx", &["-t", "-q", "-c", nginx.to_str().unwrap()]);
        let output = output.expect("nginx is there when its module is");
        assert!(output.status.success(), "{}", shown(&output));
    } else {
        eprintln!("SKIPPED: nginx's stream module is not installed");
    }
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: keepalived looks at its configuration for root only");
        return;
    }
    // keepalived looks for the interface, and takes none that is loopback.
    let interfaces = std::fs::read_dir("/sys/class/net").unwrap().flatten();
    let mut interfaces = interfaces.map(|entry| entry.file_name().into_string().unwrap());
    let Some(interface) = interfaces.find(|name| name.starts_with('e')) else {
        eprintln!("SKIPPED: no network interface for keepalived");
        return;
    };
    let interface = format!("loadbalancer_interface={interface}");
    let args = ["keepalived", "--host", "lb2", "--with-token", "-e", &interface];
    let keepalived = place.file("keepalived.conf", &args, &[]);
    if let Some(output) = judge("keepalived", &["-t", "-f", keepalived.to_str().unwrap()]) {
        assert!(output.status.success(), "{}", shown(&output));
    }
    // IPv6: no password is known to it, and none is written.
    let v6 = ["-e", "loadbalancer_vip=2001:db8::10/64", "-e", "node_ip=2001:db8::22"];
    let args = ["keepalived", "--host", "lb2", "-e", &interface];
    let keepalived = place.file("keepalived6.conf", &[&args[..], &v6].concat(), &[]);
    let text = std::fs::read_to_string(&keepalived).unwrap();
    assert!(text.contains("vrrp_version 3") && text.contains("2001:db8::10/64"), "{text}");
    assert!(!text.contains("auth_pass"), "{text}");
    if let Some(output) = judge("keepalived", &["-t", "-f", keepalived.to_str().unwrap()]) {
        assert!(output.status.success(), "{}", shown(&output));
    }
}

#[test]
fn balancers_with_ipv6_listen_on_it() {
    let place = Place::new();
    let v6 = ["--host", "lb1", "-e", "node_ip=2001:db8::21"];
    let haproxy = place.file("haproxy6.cfg", &[&["haproxy"][..], &v6].concat(), &[]);
    let text = std::fs::read_to_string(&haproxy).unwrap();
    assert!(text.contains("bind :::6443 v4v6"), "{text}");
    if let Some(output) = judge("haproxy", &["-c", "-f", haproxy.to_str().unwrap()]) {
        assert!(output.status.success(), "{}", shown(&output));
    }
    let nginx = place.file("nginx6.conf", &[&["nginx"][..], &v6].concat(), &[]);
    assert!(std::fs::read_to_string(&nginx).unwrap().contains("listen [::]:6443"));
}

#[test]
fn an_agent_gets_no_settings_of_servers() {
    let place = Place::new();
    let config = "{config: {etcd-arg: [quota-backend-bytes=4294967296], node-label: [rack=a], tls-san+: [x]}}";
    let of = |host: &str| {
        let file = place.file(host, &["config", "--host", host, "-e", config], &[]);
        std::fs::read_to_string(file).unwrap()
    };
    let (server, agent) = (of("server1"), of("agent1"));
    assert!(server.contains("quota-backend-bytes") && server.contains("rack=a"), "{server}");
    assert!(agent.contains("rack=a"), "{agent}");
    assert!(!agent.contains("quota-backend-bytes") && !agent.contains("tls-san"), "{agent}");
}

#[test]
fn systemd_and_cloud_init_take_what_is_for_them() {
    let place = Place::new();
    let binary = [("/usr/local/bin/k3sup-rs", support::BINARY)];
    for (name, host) in [("k3sup.service", "server1"), ("k3sup-agent.service", "agent1")] {
        let unit = place.file(name, &["systemd", "--host", host], &binary);
        if let Some(output) = judge("systemd-analyze", &["verify", unit.to_str().unwrap()]) {
            assert!(output.status.success(), "{}", shown(&output));
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(!said.contains(name), "{said}");
        }
    }
    let first = ["cloud-init", "--host", "server1", "--first"];
    for (name, args) in [
        ("first", first.as_slice()),
        ("server", &["cloud-init", "--host", "server2"]),
        ("k3s", &["cloud-init", "--host", "agent1", "--with-token", "-e", "distribution=k3s"]),
    ] {
        let data = place.file(name, args, &[]);
        if let Some(output) = judge("cloud-init", &["schema", "-c", data.to_str().unwrap()]) {
            assert!(output.status.success(), "{name}: {}", shown(&output));
        }
    }
}

#[test]
fn a_token_is_printed_only_when_asked_for_and_never_without_a_warning() {
    let place = Place::new();
    let k3s = ["k3os", "--host", "server2"];
    let plain = place.render(&k3s);
    assert!(!shown(&plain).contains("hunter22"), "{}", shown(&plain));
    let open = place.render(&[k3s.as_slice(), &["--with-token"]].concat());
    assert!(
        String::from_utf8_lossy(&open.stdout).contains("token: \"hunter22"),
        "{}",
        shown(&open)
    );
    assert!(String::from_utf8_lossy(&open.stderr).contains("warning: "), "{}", shown(&open));
    // A node of ours joins only a cluster that it can check.
    let bare = place.render(&["cloud-init", "--host", "server2", "--with-token"]);
    assert_eq!(bare.status.code(), Some(5), "{}", shown(&bare));
    assert!(String::from_utf8_lossy(&bare.stderr).contains("token show"), "{}", shown(&bare));
}

#[test]
fn who_is_meant_must_be_clear() {
    let place = Place::new();
    let two = place.render(&["keepalived"]);
    assert_eq!(two.status.code(), Some(5));
    assert!(String::from_utf8_lossy(&two.stderr).contains("--host: lb1, lb2"), "{}", shown(&two));
    let other = place.render(&["haproxy", "--host", "server1"]);
    assert_eq!(other.status.code(), Some(5));
    assert!(String::from_utf8_lossy(&other.stderr).contains("it is for lb1"), "{}", shown(&other));
}
