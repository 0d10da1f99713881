//! The hosts of the site, and the tools that work on them.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use crate::machines::{Login, Machine, Network, tree};
use crate::support::{BINARY, shown};
use crate::took::{Took, Watch};

/// The playbook with its templates and files.
const PLAYBOOK: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/ansible/web/notes.yml");

/// Length of the file that is pushed.
const FILE_BYTES: usize = 64 * 1024 * 1024;

/// What makes a host as if nothing had been there.
const CLEAN: &str = "\
systemctl disable --now -q notes.service 2>/dev/null
rm -rf /etc/notes /srv/notes /var/log/notes /usr/local/bin/notes /etc/systemd/system/notes.service \
/root/.ansible /srv/big
: >/etc/motd
systemctl daemon-reload; systemctl reset-failed -q notes.service 2>/dev/null; true";

/// What the playbook is about, as it is.
const STATE: &str = "\
cd / && find etc/notes srv/notes var/log/notes usr/local/bin/notes etc/motd \
etc/systemd/system/notes.service -printf '%M %u %g %p %l\n' | sort
find etc/notes srv/notes var/log/notes usr/local/bin/notes etc/motd \
etc/systemd/system/notes.service -type f -exec sha256sum {} + | sort
systemctl is-enabled notes; systemctl is-active notes";

/// Who works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tool {
    Ansible,
    Scp,
    Ours,
}

/// Hosts in a network of their own.
pub struct Site {
    // Dropped before what they stand on.
    machines: Vec<Machine>,
    network: Network,
    binary: PathBuf,
}

impl Site {
    /// Boots hosts and waits until all are up; `None` where there can be none.
    pub fn boot(count: u8) -> Option<Self> {
        let network = Network::new(tree()?);
        let machines: Vec<Machine> = (1..=count)
            .map(|number| network.boot(&format!("web{number}"), 10 + number, Login::Root))
            .collect();
        for machine in &machines {
            network.wait(machine);
        }
        let binary = network.dir.path().join("k3sup-rs");
        let from = std::env::var_os("BENCH_BINARY").unwrap_or_else(|| BINARY.into());
        done("strip", Command::new("strip").arg(from).arg("-o").arg(&binary));
        let site = Self { machines, network, binary };
        site.prepare();
        Some(site)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.network.dir.path().join(name)
    }

    /// Writes what the tools need here.
    fn prepare(&self) {
        let known: String = self.machines.iter().map(known_host).collect();
        fs::write(self.path("known_hosts"), known).expect("a file");
        let bytes: Vec<u8> = (0..FILE_BYTES).map(|_| rand::random()).collect();
        fs::write(self.path("big"), bytes).expect("a file");
        let push = format!(
            "- hosts: web\n  tasks:\n    - copy: {{src: {}, dest: /srv/big, mode: '0644'}}\n",
            self.path("big").display()
        );
        fs::write(self.path("push.yml"), push).expect("a file");
        let config = format!(
            "[defaults]\nforks = 10\ninterpreter_python = /usr/bin/python3\nlocal_tmp = {dir}/tmp\n\
             [ssh_connection]\npipelining = True\ncontrol_path_dir = {dir}/cp\n\
             ssh_args = -o ControlMaster=auto -o ControlPersist=60s\n",
            dir = self.network.dir.path().display()
        );
        fs::write(self.path("ansible.cfg"), config).expect("a file");
    }

    /// The inventory of the first `count` hosts, which both tools read.
    fn inventory(&self, count: usize) -> PathBuf {
        let mut text = format!(
            "web:\n  vars:\n    ansible_user: root\n    ansible_ssh_private_key_file: {}\n    \
             ansible_ssh_common_args: -F none -o StrictHostKeyChecking=yes -o UserKnownHostsFile={}\n  hosts:\n",
            self.network.key().display(),
            self.path("known_hosts").display(),
        );
        for machine in &self.machines[..count] {
            writeln!(text, "    {}: {{ansible_host: {}}}", machine.name, machine.address)
                .expect("text");
        }
        let path = self.path("inventory.yaml");
        fs::write(&path, text).expect("a file");
        path
    }

    /// A program here, in the hosts' network.
    fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = self.network.command("env");
        command.current_dir(self.network.home()).args(["-i", "LANG=C.UTF-8", "NO_COLOR=1"]);
        command.arg("PATH=/usr/sbin:/usr/bin:/sbin:/bin");
        command.arg(format!("HOME={}", self.network.home().display()));
        command.arg(format!("ANSIBLE_CONFIG={}", self.path("ansible.cfg").display()));
        command.arg(program.as_ref());
        command
    }

    /// Runs the playbook; every host must say that something was changed, or that nothing was.
    pub fn play(&self, tool: Tool, count: usize, changes: bool) -> Took {
        let inventory = self.inventory(count);
        let mut command = match tool {
            Tool::Ansible => self.command("ansible-playbook"),
            _ => self.command(&self.binary),
        };
        if tool == Tool::Ours {
            command.args(["play", "--yes", "--forks", "10"]);
        }
        command.arg("-i").arg(inventory).arg(PLAYBOOK);
        let watch = Watch::start();
        let output = done("the playbook", &mut command);
        let took = watch.stop();
        let said = String::from_utf8_lossy(&output.stdout);
        let quiet = said.lines().filter(|line| line.contains("changed=0 ")).count();
        assert_eq!(quiet, if changes { 0 } else { count }, "{tool:?}: {}", shown(&output));
        took
    }

    /// Pushes the long file; it must arrive.
    pub fn push(&self, tool: Tool, count: usize) -> Took {
        let mut commands = Vec::new();
        if tool == Tool::Ours {
            let mut command = self.command(&self.binary);
            command.args(["play", "--yes", "--forks", "10", "-i"]).arg(self.inventory(count));
            command.arg(self.path("push.yml"));
            commands.push(command);
        } else {
            for machine in &self.machines[..count] {
                let mut command = self.command("scp");
                command.args(["-q", "-F", "none", "-o", "StrictHostKeyChecking=yes", "-o"]);
                command.arg(format!("UserKnownHostsFile={}", self.path("known_hosts").display()));
                command.arg("-i").arg(self.network.key()).arg(self.path("big"));
                command.arg(format!("root@{}:/srv/big", machine.address));
                commands.push(command);
            }
        }
        let watch = Watch::start();
        let all: Vec<_> = commands
            .iter_mut()
            .map(|command| command.stdout(Stdio::null()).spawn().expect("a process"))
            .collect();
        for mut process in all {
            assert!(process.wait().expect("a process").success(), "{tool:?} fails");
        }
        let took = watch.stop();
        let here = done("cksum", Command::new("cksum").arg(self.path("big"))).stdout;
        let sum = String::from_utf8_lossy(&here);
        let sum = sum.split(' ').next().expect("a sum");
        for machine in &self.machines[..count] {
            let there = self.network.must_on(machine, "cksum /srv/big");
            assert!(there.starts_with(sum), "{tool:?}: {there}");
        }
        took
    }

    /// Removes what was made; with `executor` also the executor, and Ansible's open connections.
    pub fn clean(&self, count: usize, executor: bool) {
        for machine in &self.machines[..count] {
            self.network.must_on(machine, CLEAN);
            if executor {
                self.network.must_on(machine, "rm -rf /root/.cache/k3sup-rs");
            }
        }
        let sockets = fs::read_dir(self.path("cp")).into_iter().flatten().flatten();
        for socket in sockets {
            let mut ssh = self.command("ssh");
            ssh.args(["-O", "exit", "-S"]).arg(socket.path()).arg("host");
            // A connection that has ended by itself is fine.
            let _ = ssh.stdin(Stdio::null()).output();
        }
    }

    /// Removes what our runs left here: the next packs the executor anew.
    pub fn forget(&self) {
        // Nothing is there before the first.
        let _ = fs::remove_dir_all(self.network.home().join(".cache/k3sup-rs"));
    }

    /// What hosts are after a run.
    pub fn state(&self, count: usize) -> Vec<String> {
        let machines = &self.machines[..count];
        machines.iter().map(|machine| self.network.must_on(machine, STATE)).collect()
    }

    /// What is compared.
    pub fn about(&self) -> String {
        let version = |program: &str, argument: &str| {
            let output = done(program, Command::new(program).arg(argument));
            let said = [output.stdout, output.stderr].concat();
            String::from_utf8_lossy(&said).lines().next().unwrap_or_default().to_owned()
        };
        let size = fs::metadata(&self.binary).expect("the binary").len() >> 20;
        format!(
            "{}; {}; {}, {size} MiB",
            version("ansible", "--version"),
            version("ssh", "-V"),
            version(self.binary.to_str().expect("UTF-8 path"), "version")
        )
    }
}

/// A line of `known_hosts`.
fn known_host(machine: &Machine) -> String {
    let public = fs::read_to_string(machine.root.join("etc/ssh/ssh_host_ed25519_key.pub"));
    format!("{} {}", machine.address, public.expect("a host key"))
}

/// Runs a program to its end, which must be a good one.
#[track_caller]
fn done(what: &str, command: &mut Command) -> Output {
    let output = command.stdin(Stdio::null()).output();
    let output = output.unwrap_or_else(|error| panic!("{what}: {error}"));
    assert!(output.status.success(), "{what}: {}", shown(&output));
    output
}
