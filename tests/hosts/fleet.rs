//! Machines that the product works on: an inventory, the binary, and what it says.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::{Command, Output};

use crate::machines::{Login, Machine, Network, tree};
use crate::support::{BINARY, shown, wait_for};

/// Machines by role, and the control machine beside them.
pub struct Fleet {
    // Dropped in this order: machines before what they stand on.
    machines: BTreeMap<String, Machine>,
    /// Their network.
    pub network: Network,
    /// Hosts of the inventory, by group.
    pub groups: BTreeMap<&'static str, Vec<String>>,
    /// Variables of a group, as YAML in braces.
    pub vars: BTreeMap<&'static str, String>,
    /// Lines of variables of all hosts.
    pub common: String,
    binary: PathBuf,
}

/// What a machine is called, the last octet of its address, and who logs in.
pub type Wanted = (&'static str, u8, Login);

impl Fleet {
    /// Boots machines and waits until all are up; `None` where there can be none.
    pub fn boot(wanted: &[Wanted]) -> Option<Self> {
        let network = Network::new(tree()?);
        let mut machines = BTreeMap::new();
        for (name, last, login) in wanted {
            machines.insert((*name).to_owned(), network.boot(name, *last, *login));
        }
        let binary = network.dir.path().join("k3sup-rs");
        // Debug information is most of the binary; pushing it takes time and shows nothing.
        let stripped =
            Command::new("strip").args(["--strip-debug", BINARY, "-o"]).arg(&binary).status();
        if !stripped.is_ok_and(|status| status.success()) {
            std::fs::copy(BINARY, &binary).expect("a copy of the binary");
        }
        let (groups, vars) = (BTreeMap::new(), BTreeMap::new());
        let fleet = Self { machines, network, groups, vars, common: String::new(), binary };
        fleet.machines().for_each(|machine| fleet.network.wait(machine));
        Some(fleet)
    }

    /// A machine by its name.
    #[track_caller]
    pub fn machine(&self, name: &str) -> &Machine {
        self.machines.get(name).unwrap_or_else(|| panic!("no machine {name}"))
    }

    /// All machines.
    pub fn machines(&self) -> impl Iterator<Item = &Machine> {
        self.machines.values()
    }

    /// Runs a script as root on a host; it must go well.
    #[track_caller]
    pub fn on(&self, name: &str, script: &str) -> String {
        self.network.must_on(self.machine(name), script)
    }

    /// Writes the inventory from `groups` and `vars`, and gives its path.
    pub fn inventory(&self) -> String {
        let mut text = format!(
            "all:\n  vars:\n    cluster_name: hosts\n    ansible_ssh_private_key_file: {}\n{}  children:\n",
            self.network.key().display(),
            self.common
        );
        for (group, hosts) in &self.groups {
            let vars = self.vars.get(group).map_or("{}", String::as_str);
            writeln!(text, "    {group}:\n      vars: {vars}\n      hosts:").expect("text");
            for host in hosts {
                let machine = self.machine(host);
                let login = match machine.login {
                    Login::Root => "ansible_user: root".to_owned(),
                    Login::Free => "ansible_user: ops, ansible_become: true".to_owned(),
                    Login::Password => format!(
                        "ansible_user: ops, ansible_become: true, ansible_become_password: {}",
                        self.network.password
                    ),
                };
                writeln!(text, "        {host}: {{ansible_host: {}, {login}}}", machine.address)
                    .expect("text");
            }
        }
        let path = self.network.dir.path().join("inventory.yaml");
        std::fs::write(&path, text).expect("inventory");
        path.to_str().expect("UTF-8 path").to_owned()
    }

    /// The product on the control machine, which is in the machines' network.
    pub fn command(&self, args: &[&str]) -> Command {
        let home = self.network.home();
        let mut command = self.network.command("env");
        // Playbooks of the working directory would win over the built-in ones.
        command.current_dir(&home);
        command.arg("-i").arg("PATH=/usr/sbin:/usr/bin:/sbin:/bin").arg("NO_COLOR=1");
        command.arg(format!("HOME={}", home.display())).arg(&self.binary).args(args);
        command
    }

    /// Runs the product to its end.
    pub fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().expect("the binary runs")
    }

    /// Runs it with the inventory; it must go well. Gives what it prints.
    #[track_caller]
    pub fn ok(&self, verb: &str, more: &[&str]) -> String {
        let output = self.run(&[&[verb, "-i", &self.inventory()], more].concat());
        assert!(output.status.success(), "{verb}: {}", shown(&output));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Boots a machine again: orderly, or after a power cut.
    #[track_caller]
    pub fn boot_again(&mut self, name: &str, orderly: bool) {
        let machine = self.machines.get_mut(name).expect("a machine");
        self.network.boot_again(machine, orderly);
    }

    /// Waits until `count` nodes are Ready.
    #[track_caller]
    pub fn wait_ready(&self, count: usize) {
        wait_for(&format!("{count} nodes to be ready"), || {
            let output = self.run(&["nodes", "-i", &self.inventory()]);
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            (text.matches(" Ready ").count() == count).then_some(())
        });
    }

    /// `etcdctl` on the control machine with the client bundle that `up` fetched.
    pub fn etcdctl(&self, line: &str) -> Output {
        let env = self.network.home().join(".config/k3sup-rs/clusters/hosts/etcdctl.env");
        let script = format!(". {} && etcdctl {line}", env.display());
        self.network.command("sh").args(["-c", &script]).output().expect("sh runs")
    }

    /// How much a service is exposed, in tenths, by systemd's own judgement.
    #[track_caller]
    pub fn exposure(&self, host: &str, unit: &str) -> u32 {
        let said = self.on(host, &format!("systemd-analyze security --no-pager {unit} | tail -1"));
        let number = said.split_whitespace().find_map(|word| {
            let (whole, tenth) = word.split_once('.')?;
            format!("{whole}{tenth}").parse().ok()
        });
        number.unwrap_or_else(|| panic!("{host}: {said}"))
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        for machine in self.machines.values() {
            let script = "journalctl --no-pager -q -o cat -n 25 -u 'k3sup*'; systemctl --failed";
            let output = self.network.on(machine, script);
            let console = self.network.dir.path().join(format!("{}.console", machine.name));
            let console = std::fs::read_to_string(console).unwrap_or_default();
            let last: Vec<_> = console.lines().rev().take(5).collect();
            eprintln!(
                "--- {}: {last:?}\n{}",
                machine.name,
                String::from_utf8_lossy(&output.stdout)
            );
        }
    }
}
