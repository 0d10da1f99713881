//! Machines for tests: systemd-nspawn on a bridge in a network namespace of their own. Knows
//! nothing of the product.
//!
//! The tree that they boot from is made by `.ci/hosts`; each machine has a writable layer above it,
//! in memory. Nothing outside the namespace and a temporary directory is touched.

use std::fs;
use std::io::Write as _;
use std::os::fd::AsFd as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::cgroups::Group;
use crate::support::{shown, wait_for};

/// Names the tree that machines boot from.
pub const TREE_VARIABLE: &str = "K3SUP_TEST_HOSTS";

/// First three octets of the machines' addresses, which exist only in the namespace.
pub const NET: &str = "10.77.0";

/// How `ops`, the user who logs in, may become root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Login {
    /// Root itself logs in.
    Root,
    /// sudo asks for nothing.
    Free,
    /// sudo asks for [`Network::password`].
    Password,
}

/// A namespace with a bridge, and what its machines share.
pub struct Network {
    /// Holds everything that is written. The machines' layers are on a tmpfs in it.
    pub dir: tempfile::TempDir,
    /// What `ops` types for sudo.
    pub password: String,
    name: String,
    number: u32,
    tree: PathBuf,
}

/// A booted machine.
pub struct Machine {
    /// Its host name.
    pub name: String,
    /// Its address.
    pub address: String,
    /// Who logs in.
    pub login: Login,
    /// Its root directory, as this machine sees it.
    pub root: PathBuf,
    /// What of it differs from `tree`: the layer that it writes to.
    pub written: PathBuf,
    /// The tree that it boots from.
    pub tree: PathBuf,
    /// The other end of its cable.
    cable: String,
    process: Child,
    // Dropped after the process has ended.
    group: Group,
}

/// The tree, when machines can be had here. Says why not; where the variable is set they must be.
pub fn tree() -> Option<PathBuf> {
    let Some(tree) = std::env::var_os(TREE_VARIABLE).map(PathBuf::from) else {
        eprintln!(
            "SKIPPED: {TREE_VARIABLE} names no tree to boot; as root: {TREE_VARIABLE}=$(.ci/hosts target/hosts)"
        );
        return None;
    };
    assert!(tree.join("lib/systemd/systemd").exists(), "{} is no tree to boot", tree.display());
    assert!(rustix::process::geteuid().is_root(), "machines need root");
    Some(tree.canonicalize().expect("a path"))
}

/// Runs a program to its end, which must be a good one.
#[track_caller]
fn must(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).stdin(Stdio::null()).output();
    let output = output.unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(output.status.success(), "{program} {args:?}: {}", shown(&output));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8 path")
}

fn write(path: &Path, content: &str, mode: u32) {
    fs::create_dir_all(path.parent().expect("a directory")).expect("directory");
    fs::write(path, content).expect("file");
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("mode");
}

impl Network {
    /// An empty one.
    pub fn new(tree: PathBuf) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("k3sup-{}-{number}", std::process::id());
        let dir = tempfile::tempdir().expect("temporary directory");
        let password = format!("become-{:016x}", rand::random::<u64>());
        let network = Self { dir, password, name, number, tree };
        must("ip", &["netns", "add", &network.name]);
        network.ip(&["link", "set", "lo", "up"]);
        network.ip(&["link", "add", "br0", "type", "bridge"]);
        network.ip(&["addr", "add", &format!("{NET}.1/24"), "dev", "br0"]);
        network.ip(&["link", "set", "br0", "up"]);
        fs::create_dir(network.layers()).expect("directory");
        let layers = network.layers();
        must("mount", &["-t", "tmpfs", "-o", "mode=0755", "tmpfs", text(&layers)]);
        fs::create_dir(network.home()).expect("directory");
        let key = network.key();
        must("ssh-keygen", &["-q", "-t", "ed25519", "-N", "", "-C", "test", "-f", text(&key)]);
        network
    }

    /// `ip` in the namespace.
    #[track_caller]
    pub fn ip(&self, args: &[&str]) -> String {
        must("ip", &[&["-n", &self.name], args].concat())
    }

    /// A command that runs in the namespace.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.name)).arg(program).stdin(Stdio::null());
        command
    }

    /// Network interfaces are called by it: short, and another one for each process and network.
    fn machine_name(&self, name: &str) -> String {
        format!("{name}-{}", std::process::id() % 1000 * 10 + self.number % 10)
    }

    fn layers(&self) -> PathBuf {
        self.dir.path().join("hosts")
    }

    /// The home directory of who runs the product.
    pub fn home(&self) -> PathBuf {
        self.dir.path().join("home")
    }

    /// The private key that `ops` and root accept.
    pub fn key(&self) -> PathBuf {
        self.dir.path().join("id")
    }

    /// Starts a machine; does not wait for it. `last` is the last octet of its address.
    pub fn boot(&self, name: &str, last: u8, login: Login) -> Machine {
        let layer = |kind: &str| {
            let path = self.layers().join(name).join(kind);
            fs::create_dir_all(&path).expect("directory");
            path
        };
        let (upper, work, root) = (layer("upper"), layer("work"), layer("root"));
        let layers = format!(
            "lowerdir={},upperdir={},workdir={}",
            self.tree.display(),
            upper.display(),
            work.display()
        );
        must("mount", &["-t", "overlay", "-o", &layers, "overlay", text(&root)]);
        let address = format!("{NET}.{last}");
        self.prepare(&root, name, &address, login);
        let group = Group::new(&self.machine_name(name));
        let process = self.start(name, &root, &group);
        let cable = format!("vb-{}", self.machine_name(name));
        let (name, tree) = (name.to_owned(), self.tree.clone());
        Machine { name, address, login, root, written: upper, tree, cable, process, group }
    }

    fn start(&self, name: &str, root: &Path, group: &Group) -> Child {
        let mut command = self.command("sh");
        let enter = "for door; do shift; [ \"$door\" = -- ] && break; echo $$ >\"$door\"; done; exec \"$@\"";
        command.args(["-ec", enter, "sh"]).args(group.doors()).args(["--", "setpriv"]);
        command
            // An orderly end, should the test be killed.
            .args(["--pdeathsig", "TERM", "systemd-nspawn", "--register=no", "--keep-unit", "-q"])
            .args([
                "--network-bridge=br0",
                "--boot",
                "-M",
                &self.machine_name(name),
                "-D",
                text(root),
            ]);
        let console = self.dir.path().join(format!("{name}.console"));
        let console = fs::File::options().create(true).append(true).open(console);
        let console = console.expect("a file");
        command.stderr(console.try_clone().expect("a file")).stdout(console);
        command.spawn().expect("systemd-nspawn starts")
    }

    /// Boots a machine again: orderly, or after a power cut.
    pub fn boot_again(&self, machine: &mut Machine, orderly: bool) {
        if orderly {
            // It does not answer: its SSH server is stopped, too.
            self.on(machine, "systemctl reboot");
        } else {
            cut_power(&machine.process);
        }
        self.switch_on(machine);
        self.wait(machine);
    }

    /// Boots a machine that is off; does not wait for it.
    pub fn switch_on(&self, machine: &mut Machine) {
        // systemd-nspawn leaves it to who runs it to start it again.
        machine.process.wait().expect("a machine that ran");
        machine.process = self.start(&machine.name, &machine.root, &machine.group);
    }

    /// From now on this thread, and those that it makes, are in the machines' network.
    pub fn enter(&self) {
        let path = Path::new("/run/netns").join(&self.name);
        let namespace = fs::File::open(path).expect("a namespace");
        let kind = Some(rustix::thread::LinkNameSpaceType::Network);
        rustix::thread::move_into_link_name_space(namespace.as_fd(), kind).expect("entered");
    }

    /// What makes the tree this machine.
    fn prepare(&self, root: &Path, name: &str, address: &str, login: Login) {
        write(&root.join("etc/hostname"), &format!("{name}\n"), 0o644);
        // No clones of each other.
        write(&root.join("etc/machine-id"), &format!("{:032x}\n", rand::random::<u128>()), 0o444);
        write(&root.join("etc/hosts"), &format!("127.0.0.1 localhost\n127.0.1.1 {name}\n"), 0o644);
        let unit = format!(
            "[Unit]\nDefaultDependencies=no\nBefore=network-pre.target ssh.service\n\
             Wants=network-pre.target\n[Service]\nType=oneshot\nRemainAfterExit=yes\n\
             Restart=on-failure\nExecStart=/sbin/ip link set host0 up\n\
             ExecStart=/sbin/ip addr replace {address}/24 dev host0\n\
             ExecStart=/sbin/ip route replace default via {NET}.1\n"
        );
        write(&root.join("etc/systemd/system/address.service"), &unit, 0o644);
        let wants = root.join("etc/systemd/system/multi-user.target.wants");
        std::os::unix::fs::symlink("../address.service", wants.join("address.service"))
            .expect("a link");
        let host_key = root.join("etc/ssh/ssh_host_ed25519_key");
        must("ssh-keygen", &["-q", "-t", "ed25519", "-N", "", "-f", text(&host_key)]);
        write(
            &root.join("etc/ssh/sshd_config.d/test.conf"),
            "HostKey /etc/ssh/ssh_host_ed25519_key\nPasswordAuthentication no\n",
            0o644,
        );
        let public = fs::read_to_string(self.key().with_extension("pub")).expect("a key");
        for home in ["root", "home/ops"] {
            let ssh = root.join(home).join(".ssh");
            write(&ssh.join("authorized_keys"), &public, 0o600);
            must(
                "chroot",
                &[
                    text(root),
                    "chown",
                    "-R",
                    "--reference",
                    &format!("/{home}"),
                    &format!("/{home}/.ssh"),
                ],
            );
        }
        let rule = match login {
            Login::Root => "",
            Login::Free => "ops ALL=(ALL:ALL) NOPASSWD: ALL\n",
            Login::Password => "ops ALL=(ALL:ALL) ALL\n",
        };
        write(&root.join("etc/sudoers.d/ops"), rule, 0o440);
        let mut chpasswd = Command::new("chroot");
        chpasswd.arg(root).arg("chpasswd").stdin(Stdio::piped());
        let mut chpasswd = chpasswd.spawn().expect("chpasswd starts");
        let mut input = chpasswd.stdin.take().expect("a pipe");
        writeln!(input, "ops:{}", self.password).expect("written");
        drop(input);
        assert!(chpasswd.wait().expect("chpasswd ends").success());
    }

    /// Runs a shell script on a machine as root, over its SSH server.
    pub fn on(&self, machine: &Machine, script: &str) -> Output {
        let mut ssh = self.command("ssh");
        ssh.arg("-i").arg(self.key()).args(["-F", "none", "-o", "BatchMode=yes"]);
        ssh.args(["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"]);
        ssh.args(["-o", "LogLevel=ERROR", "-o", "ConnectTimeout=20"]);
        ssh.arg(format!("root@{}", machine.address)).arg(script);
        ssh.output().expect("ssh runs")
    }

    /// Like [`Self::on`], and it must go well; gives what was printed.
    #[track_caller]
    pub fn must_on(&self, machine: &Machine, script: &str) -> String {
        let output = self.on(machine, script);
        assert!(output.status.success(), "{}: {script}: {}", machine.name, shown(&output));
        String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
    }

    /// Waits until a machine's systemd has started everything.
    #[track_caller]
    pub fn wait(&self, machine: &Machine) {
        wait_for(&format!("{} to boot", machine.name), || {
            let output = self.on(machine, "systemctl is-system-running");
            matches!(output.stdout.as_slice(), b"running\n" | b"degraded\n").then_some(())
        });
    }

    /// Pulls a machine's cable, or plugs it in again.
    pub fn cable(&self, machine: &Machine, plugged: bool) {
        let state = if plugged { "up" } else { "down" };
        self.ip(&["link", "set", &machine.cable, state]);
    }
}

/// Kills the machine's first process, and with it all that runs there; systemd-nspawn then ends.
/// Killed itself, it would leave them running.
fn cut_power(process: &Child) {
    let id = process.id();
    let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children"));
    for child in children.unwrap_or_default().split_whitespace() {
        if let Some(child) = child.parse().ok().and_then(rustix::process::Pid::from_raw) {
            // It may have ended by itself.
            let _ = rustix::process::kill_process(child, rustix::process::Signal::KILL);
        }
    }
}

impl Machine {
    /// Cuts its power; it stays off. What it wrote stays, synced or not.
    pub fn switch_off(&mut self) {
        cut_power(&self.process);
        self.process.wait().expect("a machine that ran");
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        cut_power(&self.process);
        let _ = self.process.wait();
        let _ = Command::new("umount").arg("--lazy").arg(&self.root).status();
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.layers()).status();
        let _ = Command::new("ip").args(["netns", "del", &self.name]).status();
    }
}
