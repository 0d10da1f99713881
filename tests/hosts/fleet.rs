//! Machines that the product works on: an inventory, the binary, and what it says.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Mutex;

use k3sup_rs::rpc::client::TlsFiles;

use crate::machines::{Login, Machine, Network, tree};
use crate::support::etcd::COMMAND_TIMEOUT;
use crate::support::store::Store;
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
    /// Everything that the product said so far.
    pub said: Mutex<Vec<u8>>,
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
        let (groups, vars, common) = (BTreeMap::new(), BTreeMap::new(), String::new());
        let fleet =
            Self { machines, network, groups, vars, common, said: Mutex::default(), binary };
        fleet.machines().for_each(|machine| fleet.network.wait(machine));
        Some(fleet)
    }

    /// HAProxy waits long for the answer of a server that took its connection: on a machine that stood still
    /// it would cut the connections of one that is well. Whose port is closed is found out as quickly.
    pub fn be_patient(&mut self) {
        self.vars.insert("loadbalancers", "{loadbalancer_check_timeout: 9s}".to_owned());
    }

    /// Boots more machines and waits until they are up.
    pub fn boot_more(&mut self, wanted: &[Wanted]) {
        for (name, last, login) in wanted {
            self.machines.insert((*name).to_owned(), self.network.boot(name, *last, *login));
        }
        for (name, ..) in wanted {
            self.network.wait(self.machine(name));
        }
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
        if args.first() == Some(&"up") {
            // All machines have one disk, which other tests use too: its speed says nothing.
            command.arg("--force");
        }
        command
    }

    /// Runs the product to its end.
    pub fn run(&self, args: &[&str]) -> Output {
        let output = self.command(args).output().expect("the binary runs");
        self.said.lock().expect("no panic").extend([&output.stdout[..], &output.stderr].concat());
        output
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

    /// Cuts a machine's power; it stays off.
    #[track_caller]
    pub fn switch_off(&mut self, name: &str) {
        self.machines.get_mut(name).expect("a machine").switch_off();
    }

    /// Boots a machine that is off; does not wait for it.
    #[track_caller]
    pub fn switch_on(&mut self, name: &str) {
        let machine = self.machines.get_mut(name).expect("a machine");
        self.network.switch_on(machine);
    }

    /// Another build of the product on the control machine.
    pub fn use_build(&mut self, binary: &Path) {
        binary.clone_into(&mut self.binary);
    }

    /// The build on the control machine.
    pub fn binary(&self) -> &Path {
        &self.binary
    }

    /// Data directory of a node, as this machine sees it.
    pub fn data(&self, name: &str) -> PathBuf {
        self.machine(name).root.join("var/lib/k3sup")
    }

    /// What `status` says; `None` when nobody answers.
    pub fn status(&self) -> Option<serde_json::Value> {
        let output = self.run(&["status", "-i", &self.inventory(), "--output", "json"]);
        serde_json::from_slice(&output.stdout).ok()
    }

    /// A client of these hosts with the client bundle, for a thread that is in their network.
    pub fn store(&self, hosts: &[&str]) -> Store {
        let url = |host: &&str| format!("https://{}:2379", self.machine(host).address);
        let tls = TlsFiles::in_bundle(&self.bundle());
        Store::with(&hosts.iter().map(url).collect::<Vec<_>>(), &tls)
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

    /// Where `up` put the client bundle on the control machine.
    pub fn bundle(&self) -> PathBuf {
        self.network.home().join(".config/k3sup-rs/clusters/hosts")
    }

    /// `etcdctl` on the control machine with the client bundle.
    pub fn etcdctl_command(&self, line: &str) -> Command {
        let env = self.bundle().join("etcdctl.env");
        let limits = format!("{COMMAND_TIMEOUT} --dial-timeout=60s");
        let script = format!(". {} && exec etcdctl {limits} {line}", env.display());
        let mut command = self.network.command("sh");
        command.args(["-c", &script]);
        command
    }

    /// Runs it; it must go well. Gives what it prints.
    #[track_caller]
    pub fn etcdctl(&self, line: &str) -> String {
        let output = self.etcdctl_command(line).output().expect("sh runs");
        assert!(output.status.success(), "etcdctl {line}: {}", shown(&output));
        String::from_utf8_lossy(&output.stdout).into_owned()
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
