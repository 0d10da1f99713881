//! A cluster on real hosts, from nothing through restarts.

use crate::fleet::{Fleet, Wanted};
use crate::machines::Login;
use crate::secrets::Canaries;
use crate::support::shown;

const HOSTS: [Wanted; 5] = [
    ("server1", 11, Login::Root),
    ("server2", 12, Login::Free),
    ("server3", 13, Login::Password),
    ("agent1", 21, Login::Password),
    ("lb1", 31, Login::Free),
];

const SERVERS: [&str; 3] = ["server1", "server2", "server3"];

/// How often a recap says that a host did not change.
fn unchanged(recap: &str) -> usize {
    recap.matches("changed=0 ").count()
}

#[test]
fn a_cluster_lives_on_real_hosts() {
    let Some(mut fleet) = Fleet::boot(&HOSTS) else { return };
    fleet.groups.insert("servers", SERVERS.map(str::to_owned).to_vec());
    fleet.groups.insert("agents", vec!["agent1".to_owned()]);
    fleet.groups.insert("loadbalancers", vec!["lb1".to_owned()]);
    // As many connections as the machine that tests run on may have need not fit.
    fleet.vars.insert("loadbalancers", "{loadbalancer_maxconn: 1000}".to_owned());
    let canaries = Canaries::of(&mut fleet);
    let watch = canaries.watch();
    comes_up(&fleet, &canaries);
    survives_restarts(&mut fleet);
    watch.end();
}

fn comes_up(fleet: &Fleet, canaries: &Canaries) {
    let output = fleet.run(&["up", "-i", &fleet.inventory(), "--yes", "-vvv", "--diff"]);
    assert!(output.status.success(), "{}", shown(&output));
    canaries.look_at("up -vvv --diff", &[output.stdout.as_slice(), &output.stderr].concat());
    let first = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(first.contains("RECAP"), "{first}");
    fleet.wait_ready(4);
    let second = fleet.ok("up", &["--yes", "-v"]);
    assert_eq!(unchanged(&second), 5, "{second}");
    let put = fleet.etcdctl("put greeting hello");
    assert!(put.status.success(), "{}", shown(&put));
    for (host, unit) in [("server1", "k3sup"), ("agent1", "k3sup-agent")] {
        let tenths = fleet.exposure(host, unit);
        assert!(tenths <= 20, "{unit} is exposed by {tenths}/10");
        let mode = fleet.on(host, &format!("stat -c %a /etc/systemd/system/{unit}.service.env"));
        assert_eq!(mode, "600");
    }
}

/// A service is restarted by hand, a host boots again, another loses its power: all come back by
/// themselves.
fn survives_restarts(fleet: &mut Fleet) {
    fleet.on("server2", "systemctl restart k3sup");
    fleet.wait_ready(4);
    fleet.boot_again("server3", true);
    fleet.boot_again("agent1", false);
    fleet.wait_ready(4);
    let after = fleet.ok("up", &["--yes"]);
    assert_eq!(unchanged(&after), 5, "{after}");
}
