//! Real K3s on real hosts, of a binary that a variable names: kubelets, containerd, flannel, etcd.
//!
//! No image is needed: what K3s deploys by itself is disabled. Kubelets need control groups of the
//! old kind (v1) here, which [`crate::cgroups`] gives each machine.

use crate::fleet::{Fleet, Wanted};
use crate::machines::Login;
use crate::support::drill::verdict;
use crate::support::{shown, wait_for};

const HOSTS: [Wanted; 5] = [
    ("server1", 11, Login::Root),
    ("server2", 12, Login::Free),
    ("server3", 13, Login::Password),
    ("agent1", 21, Login::Free),
    ("lb1", 31, Login::Free),
];

const SERVERS: [&str; 3] = ["server1", "server2", "server3"];

/// Makes a machine one where a kubelet runs: groups that it may write to, a kernel log (an empty one),
/// and settings of the kernel that it finds as it wants them, for they are everybody's.
const KUBELET: &str = "
for group in /sys/fs/cgroup/*/; do mount -o remount,rw,bind $group; done
mknod /dev/kmsg c 1 3
mkdir /run/sysctls
while read -r name value; do
    echo $value >/run/sysctls/$(echo $name | tr / .)
    mount --bind /run/sysctls/$(echo $name | tr / .) /proc/sys/$name
done <<END
vm/overcommit_memory 1
vm/panic_on_oom 0
kernel/panic 10
kernel/panic_on_oops 1
kernel/keys/root_maxkeys 1000000
kernel/keys/root_maxbytes 25000000
END";

/// K3s's settings: overlays do not stand on the machines' own, and connection tracking is everybody's.
const SETTINGS: &str = "    config:
      flannel-backend: host-gw
      snapshotter: native
      kube-proxy-arg: [conntrack-max-per-core=0]
      disable: [coredns, traefik, metrics-server, local-storage, servicelb]
";

fn fleet() -> Option<Fleet> {
    let Some(binary) = std::env::var_os("K3SUP_TEST_K3S") else {
        eprintln!("SKIPPED: K3SUP_TEST_K3S does not name a K3s binary");
        return None;
    };
    let mut fleet = Fleet::boot(&HOSTS)?;
    fleet.common = format!(
        "    distribution: k3s\n    k3s_binary: {}\n{SETTINGS}",
        std::path::Path::new(&binary).display()
    );
    fleet.groups.insert("servers", SERVERS.map(str::to_owned).to_vec());
    fleet.groups.insert("agents", vec!["agent1".to_owned()]);
    fleet.groups.insert("loadbalancers", vec!["lb1".to_owned()]);
    for host in fleet.machines().filter(|machine| machine.name != "lb1") {
        fleet.on(&host.name, KUBELET);
    }
    Some(fleet)
}

#[test]
fn a_real_k3s_lives_on_real_hosts() {
    let Some(fleet) = fleet() else { return };
    fleet.ok("up", &["--yes"]);
    fleet.wait_ready(4);
    let second = fleet.ok("up", &["--yes"]);
    assert_eq!(second.matches("changed=0 ").count(), 5, "{second}");
    assert!(kubectl(&fleet, "create configmap before --from-literal=a=b").is_some());
    serves_while_each_server_is_stopped(&fleet);
    is_drilled(&fleet);
    goes_back_to_a_snapshot(&fleet);
    a_server_built_anew_joins(&fleet);
    leaves_nothing_running(&fleet);
}

/// `kubectl` by the kubeconfig that `up` fetched, so through HAProxy; from a machine that has K3s.
fn kubectl(fleet: &Fleet, line: &str) -> Option<String> {
    let kubeconfig = std::fs::read_to_string(fleet.bundle().join("kubeconfig")).expect("fetched");
    assert!(kubeconfig.contains(&format!("https://{}:6443", fleet.machine("lb1").address)));
    let script = format!(
        "umask 077; cat >/run/lb.yaml <<'END'\n{kubeconfig}\nEND\n\
         k3s kubectl --cache-dir=/dev/null --kubeconfig /run/lb.yaml --request-timeout=10s {line}"
    );
    let output = fleet.network.on(fleet.machine("agent1"), &script);
    let good = output.status.success();
    if !good {
        eprintln!("kubectl {line}: {}", shown(&output));
    }
    good.then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

fn members(fleet: &Fleet) -> Option<(usize, Vec<String>)> {
    let output = fleet.run(&["status", "-i", &fleet.inventory(), "--output", "json"]);
    let status: serde_json::Value = serde_json::from_slice(&output.stdout).ok()?;
    let members = status["members"].as_array()?;
    let healthy = members.iter().filter(|member| member["healthy"] == true).count();
    let names = members.iter().filter_map(|member| member["name"].as_str());
    Some((healthy, names.map(str::to_owned).collect()))
}

fn all_vote(fleet: &Fleet) {
    wait_for("all members to vote", || members(fleet).filter(|(healthy, _)| *healthy == 3));
}

fn serves_while_each_server_is_stopped(fleet: &Fleet) {
    for server in SERVERS {
        fleet.on(server, "systemctl stop k3s");
        wait_for(&format!("kubectl to answer without {server}"), || {
            kubectl(fleet, "get nodes --no-headers").filter(|nodes| nodes.lines().count() == 4)
        });
        fleet.on(server, "systemctl start k3s");
        all_vote(fleet);
    }
}

/// The failure drill loses nothing, the members hold the same, and all is as it was.
fn is_drilled(fleet: &Fleet) {
    let told = verdict(&fleet.ok("verify", &["--yes", "--seconds", "2", "--output", "json"]));
    assert_eq!(told["lost"], serde_json::json!([]), "{told:#}");
    assert!(told["acknowledged"].as_u64() > Some(0) && told["uncompared"].is_null(), "{told:#}");
    fleet.wait_ready(4);
    all_vote(fleet);
}

/// What was made after the snapshot is gone, what was there before is there, and nodes are the same.
fn goes_back_to_a_snapshot(fleet: &Fleet) {
    let said = fleet.run(&["snapshot", "save", "-i", &fleet.inventory(), "--name", "mine"]);
    assert!(said.status.success(), "{}", shown(&said));
    assert!(kubectl(fleet, "create configmap after --from-literal=a=b").is_some());
    fleet.ok("restore", &["--snapshot", "latest", "--yes"]);
    fleet.wait_ready(4);
    all_vote(fleet);
    let found = kubectl(fleet, "get configmaps -o name").expect("an answer");
    assert!(found.contains("/before\n") && !found.contains("/after\n"), "{found}");
    let again = fleet.ok("up", &["--yes"]);
    assert_eq!(again.matches("changed=0 ").count(), 5, "{again}");
}

/// The first server loses all that it had: it joins the cluster that is there.
fn a_server_built_anew_joins(fleet: &Fleet) {
    let (_, before) = members(fleet).expect("members");
    fleet.on("server1", "k3s-killall.sh >/run/killed 2>&1; rm -rf /var/lib/rancher /etc/rancher");
    fleet.ok("up", &["--yes"]);
    fleet.wait_ready(4);
    all_vote(fleet);
    let (_, after) = members(fleet).expect("members");
    assert_eq!(after.iter().filter(|name| before.contains(name)).count(), 2, "{after:?}");
    let kept = kubectl(fleet, "get configmap before -o jsonpath={.data.a}");
    assert_eq!(kept.as_deref(), Some("b"), "another cluster");
}

/// `reset`: no process, no mount, no interface and no file of K3s is left.
fn leaves_nothing_running(fleet: &Fleet) {
    fleet.ok("reset", &["--yes"]);
    let look = "ls -d /var/lib/rancher /etc/rancher /root/.kube /usr/local/bin/k3s* /usr/local/bin/kubectl /run/k3s \
                /var/lib/kubelet /etc/systemd/system/k3s* /etc/cni /var/lib/cni 2>/dev/null; \
                ps -e -o comm= | grep -e k3s -e containerd; ip -br link | grep -e cni -e flannel; \
                grep -e /rancher -e /kubelet -e /run/k3s /proc/mounts; iptables-save | grep -e KUBE -e CNI; true";
    for host in SERVERS.iter().chain(&["agent1"]) {
        assert_eq!(fleet.on(host, look), "", "{host}");
    }
}
