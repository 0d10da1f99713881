//! What comes with the program for trying it out: inventories of virtual machines and the scripts that
//! make them (the machines themselves are not started here), and the example of a lab in CI, which is run.

use std::path::Path;
use std::process::Command;

use crate::support::{BINARY, Lab, shown};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// `k3sup-rs ARGUMENTS` on a machine where nothing else is configured.
#[track_caller]
fn ours(args: &[&str]) -> String {
    let home = tempfile::tempdir().expect("temporary directory");
    let mut command = Command::new(BINARY);
    for name in ["HOME", "XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_CACHE_HOME"] {
        command.env(name, home.path());
    }
    let output = command.args(args).current_dir(ROOT).output().expect("the binary runs");
    assert!(output.status.success(), "{args:?}: {}", shown(&output));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Runs a program on a file; `false` where the program is not installed.
#[track_caller]
fn checked(program: &str, args: &[&str], file: &str) -> bool {
    let path = Path::new(ROOT).join(file);
    let Ok(output) = Command::new(program).args(args).arg(path).output() else { return false };
    assert!(output.status.success(), "{program} {file}: {}", shown(&output));
    true
}

#[test]
fn inventories_of_virtual_machines_lead_to_three_servers_behind_a_balancer() {
    let addresses = "{addresses: {server1: 192.168.56.11, server2: 192.168.56.12, \
                     server3: 192.168.56.13, agent1: 192.168.56.21, lb1: 192.168.56.31}}";
    for (inventory, more) in [
        ("inventories/vagrant.yaml", &[][..]),
        ("inventories/multipass.yaml", &["-e", addresses][..]),
    ] {
        let run = |verb: &[&str]| ours(&[verb, &["-i", inventory], more].concat());
        let graph = run(&["inventory", "graph"]);
        for host in ["server1", "server2", "server3", "agent1", "lb1"] {
            assert!(graph.contains(host), "{inventory}: {graph}");
        }
        let balancer = run(&["render", "haproxy"]);
        for last in [11, 12, 13] {
            let server = format!(" 192.168.56.{last}:6443 ");
            assert!(balancer.contains(&server), "{inventory}: {balancer}");
        }
        let config = run(&["render", "config", "--host", "server1"]);
        assert!(config.contains("node-ip: 192.168.56.11"), "{inventory}: {config}");
    }
}

/// Whether each machine of the Vagrantfile is in the inventory, under the same address.
#[test]
fn the_vagrantfile_and_its_inventory_agree() {
    let read = |name: &str| std::fs::read_to_string(Path::new(ROOT).join(name)).expect("a file");
    let (machines, inventory) = (read("vagrant/Vagrantfile"), read("inventories/vagrant.yaml"));
    let mut count = 0;
    for line in machines.lines().filter(|line| line.contains("=> \"192.168.")) {
        let words: Vec<&str> = line.split('"').collect();
        let [_, name, _, address, ..] = words.as_slice() else { panic!("{line}") };
        let expected = format!("{name}: {{node_ip: {address}}}");
        assert!(inventory.contains(&expected), "{expected}");
        count += 1;
    }
    assert_eq!(count, 5);
    assert!(inventory.contains("vagrant/.vagrant/ssh-config"));
    assert!(read("vagrant/provision").contains("vagrant ssh-config >.vagrant/ssh-config"));
}

#[test]
fn scripts_are_well_formed() {
    for script in ["vagrant/provision", "multipass/provision", "examples/lab-in-ci"] {
        assert!(checked("bash", &["-n"], script), "bash is needed");
        checked("shellcheck", &[], script);
    }
    checked("ruby", &["-c"], "vagrant/Vagrantfile");
}

#[test]
fn the_example_of_a_lab_in_ci_runs() {
    let lab = Lab::new("78.41", 3, 1);
    let output = Command::new(Path::new(ROOT).join("examples/lab-in-ci"))
        .arg(&lab.inventory)
        .env("K3SUP", BINARY)
        .current_dir(lab.dir.path())
        .output()
        .expect("the script runs");
    assert!(output.status.success(), "{}", shown(&output));
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.trim_end().ends_with("the cluster is whole again"), "{}", shown(&output));
}
