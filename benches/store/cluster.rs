//! Clusters to measure: this node and etcd, on loopback addresses and on the same disk, both with
//! mutual TLS for clients and peers. Each is ended when dropped.

use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use k3sup_rs::pki::{Authority, Leaf, Purpose};
use k3sup_rs::rpc::client::TlsFiles;

/// Where etcdctl looks when it is told nothing else, and etcd listens.
#[allow(dead_code, reason = "one bench has etcdctl ask")]
pub(crate) const ETCDCTL_DEFAULT: &str = "127.0.0.1:2379";

/// A running cluster.
pub(crate) struct Cluster {
    members: Vec<Member>,
    pub(crate) endpoints: Vec<String>,
    pub(crate) tls: TlsFiles,
    /// Holds the data; removed when dropped.
    dir: tempfile::TempDir,
}

/// A member's process, and how it is started again.
struct Member {
    command: Command,
    log: PathBuf,
    child: Child,
}

impl Member {
    fn start(mut command: Command, log: &Path) -> Self {
        let child = spawn(&mut command, log);
        Self { command, log: log.to_owned(), child }
    }
}

impl Cluster {
    /// Resident memory of all members, in MiB.
    #[allow(dead_code, reason = "one bench kills members, the other measures them")]
    pub(crate) fn rss_mib(&self) -> f64 {
        self.status_mib("VmRSS:")
    }

    /// The most that each member ever had resident, added up, in MiB.
    #[allow(dead_code, reason = "one bench kills members, the other measures them")]
    pub(crate) fn peak_mib(&self) -> f64 {
        self.status_mib("VmHWM:")
    }

    fn status_mib(&self, name: &str) -> f64 {
        self.members.iter().map(|member| status_kib(member.child.id(), name)).sum::<f64>() / 1024.0
    }

    /// Kills the member whose endpoint is at this place.
    #[allow(dead_code, reason = "one bench kills members, the other measures them")]
    pub(crate) fn kill(&mut self, at: usize) {
        let member = &mut self.members[at].child;
        member.kill().expect("killed");
        member.wait().expect("gone");
    }

    /// CPU time of all members so far.
    #[allow(dead_code, reason = "one bench kills members, the other measures them")]
    pub(crate) fn cpu(&self) -> Duration {
        self.members.iter().map(|member| cpu(member.child.id())).sum()
    }

    /// Bytes that all members had the kernel write to the disk so far.
    #[allow(dead_code, reason = "one bench kills members, the other measures them")]
    pub(crate) fn written(&self) -> u64 {
        self.members.iter().map(|member| written(member.child.id())).sum()
    }

    /// Bytes of all members' files, as far as blocks are taken by them.
    #[allow(dead_code, reason = "one bench kills members, the other measures them")]
    pub(crate) fn files_bytes(&self) -> u64 {
        blocks(self.dir.path())
    }

    /// Ends all members as `systemctl stop` does.
    #[allow(dead_code, reason = "one bench kills members, the other measures them")]
    pub(crate) fn stop(&mut self) {
        for member in &self.members {
            let pid = rustix::process::Pid::from_child(&member.child);
            rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("told");
        }
        for member in &mut self.members {
            member.child.wait().expect("gone");
        }
    }

    /// Starts all members again on what they have, and waits until they listen.
    #[allow(dead_code, reason = "one bench kills members, the other measures them")]
    pub(crate) fn start(&mut self) {
        for member in &mut self.members {
            member.child = spawn(&mut member.command, &member.log);
        }
        for endpoint in &self.endpoints {
            let address = endpoint.trim_start_matches("https://");
            wait("a member to listen", || TcpStream::connect(address).is_ok());
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for Member { child, .. } in &mut self.members {
            // Gone already is as good.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// CPU time that a process has used, user and system.
fn cpu(pid: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields: Vec<&str> =
        stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|n| n.parse::<u64>().ok()).unwrap_or(0);
    // `utime` and `stime`, counted from behind the name; Linux always tells them in 1/100 s.
    Duration::from_millis((ticks(11) + ticks(12)) * 10)
}

fn written(pid: u32) -> u64 {
    let io = std::fs::read_to_string(format!("/proc/{pid}/io")).unwrap_or_default();
    let line = io.lines().find_map(|line| line.strip_prefix("write_bytes: "));
    line.and_then(|bytes| bytes.parse().ok()).unwrap_or(0)
}

/// Bytes of the blocks of all files below `path`.
fn blocks(path: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    let Ok(facts) = path.symlink_metadata() else { return 0 };
    let below = std::fs::read_dir(path).into_iter().flatten().flatten();
    facts.blocks() * 512 + below.map(|entry| blocks(&entry.path())).sum::<u64>()
}

fn status_kib(pid: u32, name: &str) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with(name)).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).unwrap_or(0.0)
}

/// A directory on the disk under test: `BENCH_DIR`, else the target directory.
fn directory() -> tempfile::TempDir {
    let base = std::env::var_os("BENCH_DIR").map(PathBuf::from);
    let base = base.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("target"));
    tempfile::tempdir_in(base).expect("a directory for the data")
}

/// `count` members of this node.
pub(crate) fn ours(count: usize) -> Cluster {
    let dir = directory();
    let mut cluster = Cluster {
        members: Vec::new(),
        endpoints: (1..=count).map(|n| format!("https://127.76.0.1{n}:2379")).collect(),
        tls: TlsFiles { ca: PathBuf::new(), cert: PathBuf::new(), key: PathBuf::new() },
        dir,
    };
    let root = cluster.dir.path().to_owned();
    let tls = root.join("node1/server/tls");
    for n in 1..=count {
        let address = format!("127.76.0.1{n}");
        let data = root.join(format!("node{n}"));
        let mut command = Command::new(env!("CARGO_BIN_EXE_k3sup-rs"));
        command.args(["server", "--node-name", &format!("node{n}"), "--node-ip", &address]);
        command.args(["--bind-address", &address]).arg("--data-dir").arg(&data);
        let token = root.join("token");
        if n == 1 {
            command.arg("--cluster-init");
        } else {
            command.args(["--server", "https://127.76.0.11:6443"]).arg("--token-file").arg(&token);
        }
        cluster.members.push(Member::start(command, &root.join(format!("node{n}.log"))));
        let client = format!("{address}:2379");
        wait("a member to listen", || TcpStream::connect(&client).is_ok());
        if n == 1 {
            std::fs::copy(data.join("server/token"), &token).expect("the token");
        }
    }
    cluster.tls = TlsFiles {
        ca: tls.join("server-ca.crt"),
        cert: tls.join("client-admin.crt"),
        key: tls.join("client-admin.key"),
    };
    cluster
}

/// One member that needs no other, of this node or of etcd, without TLS and where etcdctl looks for it.
#[allow(dead_code, reason = "one bench has etcdctl ask")]
pub(crate) fn alone(mut command: Command) -> Cluster {
    let dir = directory();
    command.arg("--data-dir").arg(dir.path().join("data"));
    let member = Member::start(command, &dir.path().join("log"));
    wait("a member to listen", || TcpStream::connect(ETCDCTL_DEFAULT).is_ok());
    Cluster {
        members: vec![member],
        endpoints: vec![format!("http://{ETCDCTL_DEFAULT}")],
        tls: TlsFiles { ca: PathBuf::new(), cert: PathBuf::new(), key: PathBuf::new() },
        dir,
    }
}

/// `count` members of etcd; `None` when it is not installed.
pub(crate) fn etcd(count: usize) -> Option<Cluster> {
    Command::new("etcd").arg("--version").stdout(Stdio::null()).status().ok()?;
    let dir = directory();
    let tls = etcd_tls(dir.path(), count);
    let endpoints = (1..=count).map(|n| format!("https://127.76.1.1{n}:2379")).collect();
    let mut cluster = Cluster { members: Vec::new(), endpoints, tls, dir };
    cluster.start_etcd("etcd");
    Some(cluster)
}

/// The peers of etcd's members, as `--initial-cluster` takes them.
fn etcd_peers(count: usize) -> String {
    let one = |n| format!("etcd{n}=https://127.76.1.1{n}:2380");
    (1..=count).map(one).collect::<Vec<_>>().join(",")
}

impl Cluster {
    /// Starts all members of etcd on their data in `<data>1`, `<data>2`, …, and waits until they listen.
    fn start_etcd(&mut self, data: &str) {
        let (root, count) = (self.dir.path(), self.endpoints.len());
        for n in 1..=count {
            let (client, peer) =
                (format!("https://127.76.1.1{n}:2379"), format!("https://127.76.1.1{n}:2380"));
            let mut command = Command::new("etcd");
            command.args(["--name", &format!("etcd{n}"), "--initial-cluster", &etcd_peers(count)]);
            command.args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
            command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
            command.arg("--data-dir").arg(root.join(format!("{data}{n}")));
            command.args(["--client-cert-auth", "--peer-client-cert-auth", "--logger", "zap"]);
            for (flag, file) in [
                ("--trusted-ca-file", &self.tls.ca),
                ("--cert-file", &self.tls.cert),
                ("--key-file", &self.tls.key),
                ("--peer-trusted-ca-file", &self.tls.ca),
                ("--peer-cert-file", &self.tls.cert),
                ("--peer-key-file", &self.tls.key),
            ] {
                command.arg(flag).arg(file);
            }
            self.members.push(Member::start(command, &root.join(format!("{data}{n}.log"))));
        }
        for n in 1..=count {
            let address = format!("127.76.1.1{n}:2379");
            wait("etcd to listen", || TcpStream::connect(&address).is_ok());
        }
    }

    /// What etcd's manual says for a snapshot in the file `snapshot`, with no pause between the steps:
    /// all members stop, each gets its data from the file (all at once), all start.
    #[allow(dead_code, reason = "one bench restores")]
    pub(crate) fn restore_etcd(&mut self, snapshot: &Path) {
        for Member { mut child, .. } in self.members.drain(..) {
            child.kill().expect("killed");
            child.wait().expect("gone");
        }
        let (root, peers) = (self.dir.path(), etcd_peers(self.endpoints.len()));
        let restore = |n: usize| {
            let mut command = Command::new("etcdctl");
            command.env("ETCDCTL_API", "3").args(["snapshot", "restore"]).arg(snapshot);
            command.args(["--name", &format!("etcd{n}"), "--initial-cluster", &peers]);
            command.arg(format!("--initial-advertise-peer-urls=https://127.76.1.1{n}:2380"));
            command.arg("--data-dir").arg(root.join(format!("restored{n}")));
            spawn(&mut command, &root.join(format!("restore{n}.log")))
        };
        let running: Vec<Child> = (1..=self.endpoints.len()).map(restore).collect();
        for mut one in running {
            assert!(one.wait().expect("it ends").success(), "etcd's restore failed");
        }
        self.start_etcd("restored");
    }

    /// Where files of the members may be.
    #[allow(dead_code, reason = "one bench restores")]
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }
}

/// One certificate for everything: who is whom is not what is measured.
fn etcd_tls(dir: &Path, count: usize) -> TlsFiles {
    let authority = Authority::create("bench").expect("a CA");
    let leaf = Leaf {
        common_name: "bench".to_owned(),
        organization: None,
        // Members also look at where their peers call from, which is 127.0.0.1 on loopback.
        sans: (1..=count)
            .map(|n| format!("127.76.1.1{n}"))
            .chain(["127.0.0.1".to_owned()])
            .collect(),
        purpose: Purpose::Peer,
    };
    let pair = authority.issue(&leaf).expect("a leaf");
    let files =
        TlsFiles { ca: dir.join("ca.crt"), cert: dir.join("x.crt"), key: dir.join("x.key") };
    std::fs::write(&files.ca, authority.certificate()).expect("written");
    std::fs::write(&files.cert, &pair.certificate).expect("written");
    std::fs::write(&files.key, pair.key.expose()).expect("written");
    files
}

fn spawn(command: &mut Command, log: &Path) -> Child {
    let log = std::fs::File::options().create(true).append(true).open(log).expect("a log");
    let errors = log.try_clone().expect("a log");
    command.stdin(Stdio::null()).stdout(log).stderr(errors).spawn().expect("it starts")
}

pub(crate) fn wait(what: &str, mut done: impl FnMut() -> bool) {
    let started = Instant::now();
    while !done() {
        assert!(started.elapsed() < Duration::from_secs(60), "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(100));
    }
}
