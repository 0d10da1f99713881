//! Patroni, which keeps a pair of database servers highly available, with its state in three
//! members, over JSON.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::support::trio::Trio;
use crate::support::{shown, wait_for};
use serde_json::Value;

/// The Python that has Patroni: `K3SUP_TEST_PATRONI` names it, else it is where
/// `.ci/patroni target/patroni` puts it. `None`, and a word about it, when there is none.
fn patroni() -> Option<PathBuf> {
    let usual = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/patroni/bin/python");
    let python = std::env::var_os("K3SUP_TEST_PATRONI").map_or(usual, PathBuf::from);
    if !python.is_file() {
        eprintln!(
            "SKIPPED: no Patroni: run `.ci/patroni target/patroni`, or name its Python in K3SUP_TEST_PATRONI"
        );
        return None;
    }
    Some(python)
}

/// Where the database's programs are.
fn postgresql() -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql").expect("PostgreSQL is installed");
    let bins = versions.flatten().map(|version| version.path().join("bin"));
    bins.filter(|bin| bin.join("initdb").is_file()).max().expect("PostgreSQL's server is installed")
}

/// One Patroni and its database server.
struct Node {
    name: &'static str,
    address: String,
    directory: PathBuf,
    python: PathBuf,
    process: Option<Child>,
}

impl Node {
    fn new(name: &'static str, address: &str, directory: &Path, python: &Path, etcd: &str) -> Self {
        let directory = directory.join(name);
        std::fs::create_dir(&directory).unwrap();
        let node = Self {
            name,
            address: address.to_owned(),
            directory,
            python: python.to_owned(),
            process: None,
        };
        std::fs::write(node.directory.join("patroni.yaml"), node.config(etcd)).unwrap();
        node
    }

    /// So patient that a machine that stands still for seconds is no loss of the store to it. Patroni wants
    /// `loop_wait` and twice `retry_timeout` to be within `ttl`.
    fn config(&self, etcd: &str) -> String {
        let Self { name, address, directory, .. } = self;
        let (directory, bin) = (directory.display(), postgresql());
        let bin = bin.display();
        format!(
            "scope: pair\n\
             name: {name}\n\
             restapi: {{listen: '{address}:8008', connect_address: '{address}:8008'}}\n\
             etcd3: {{hosts: '{etcd}'}}\n\
             bootstrap:\n\
             \x20 dcs:\n\
             \x20   ttl: 40\n\
             \x20   loop_wait: 2\n\
             \x20   retry_timeout: 18\n\
             \x20   synchronous_mode: true\n\
             \x20   postgresql: {{use_pg_rewind: true, parameters: {{wal_log_hints: 'on'}}}}\n\
             \x20 initdb: [{{encoding: UTF8}}, {{locale: C}}]\n\
             postgresql:\n\
             \x20 listen: '{address}:5432'\n\
             \x20 connect_address: '{address}:5432'\n\
             \x20 data_dir: {directory}/data\n\
             \x20 bin_dir: {bin}\n\
             \x20 pgpass: {directory}/pgpass\n\
             \x20 authentication:\n\
             \x20   superuser: {{username: postgres, password: secret}}\n\
             \x20   replication: {{username: replicator, password: secret}}\n\
             \x20 parameters: {{unix_socket_directories: {directory}, shared_buffers: 16MB}}\n\
             \x20 pg_hba:\n\
             \x20   - local all all trust\n\
             \x20   - host all all 127.0.0.0/8 trust\n\
             \x20   - host replication replicator 127.0.0.0/8 trust\n"
        )
    }

    fn start(&mut self) {
        let log = self.directory.join("log");
        let log = std::fs::File::options().create(true).append(true).open(log).unwrap();
        // PostgreSQL does not run as root: the user is called so, and stays who it is.
        let child = Command::new("unshare")
            .args(["--user", "--map-user=postgres", "--map-group=postgres", "--"])
            .arg(&self.python)
            .args(["-m", "patroni", "patroni.yaml"])
            .current_dir(&self.directory)
            .env("LC_ALL", "C.UTF-8")
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .expect("unshare");
        self.process = Some(child);
    }

    /// Cuts the power of both processes.
    fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            // It may have ended by itself.
            let _ = process.kill();
            let _ = process.wait();
        }
        if let Ok(file) = std::fs::read_to_string(self.directory.join("data/postmaster.pid")) {
            let pid = file.lines().next().unwrap_or_default().to_owned();
            let exe = std::fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
            if exe.ends_with("postgres") {
                let _ = Command::new("kill").args(["-9", &pid]).status();
            }
        }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.directory.join("log")).unwrap_or_default()
    }

    /// Whether Patroni answers 200 to `GET /PATH`.
    fn is(&self, path: &str) -> bool {
        let url = format!("http://{}:8008/{path}", self.address);
        let curl = Command::new("curl").args(["-sf", "-o", "/dev/null", &url]).status();
        curl.expect("curl").success()
    }

    #[track_caller]
    fn becomes(&self, path: &str) {
        wait_for(&format!("{} to be {path}", self.name), || self.is(path).then_some(()));
    }

    /// What Patroni says of itself.
    fn state(&self) -> Value {
        let url = format!("http://{}:8008/patroni", self.address);
        let output = Command::new("curl").args(["-s", &url]).output().expect("curl");
        serde_json::from_slice(&output.stdout).unwrap_or_default()
    }

    fn sql(&self, statement: &str) -> Output {
        let server = format!(
            "host={} user=postgres password=secret dbname=postgres connect_timeout=10",
            self.address
        );
        let mut psql = Command::new("psql");
        psql.args([&server, "-XAtqc", statement]).stdin(Stdio::null()).output().expect("psql")
    }

    #[track_caller]
    fn done(&self, statement: &str) -> String {
        let output = self.sql(statement);
        assert!(output.status.success(), "{}: {statement}: {}", self.name, shown(&output));
        String::from_utf8(output.stdout).unwrap()
    }

    /// All numbers that are in the table.
    #[track_caller]
    fn numbers(&self) -> BTreeSet<u64> {
        self.done("SELECT n FROM t").lines().map(|line| line.parse().unwrap()).collect()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            let tail = lines[lines.len().saturating_sub(60)..].join("\n");
            eprintln!("--- {}\n{tail}", self.name);
        }
    }
}

/// Writes numbers without a pause, until it is told to stop.
struct Writer {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<(Vec<u64>, Vec<String>)>,
}

impl Writer {
    fn start(address: &str, first: u64) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (told, address) = (stop.clone(), address.to_owned());
        let thread = std::thread::spawn(move || {
            let (mut written, mut failures) = (Vec::new(), Vec::new());
            let server = format!("host={address} user=postgres password=secret dbname=postgres");
            for number in first.. {
                if told.load(Ordering::SeqCst) {
                    break;
                }
                let insert = format!("INSERT INTO t VALUES ({number})");
                let output = Command::new("psql").args([&server, "-XAtqc", &insert]).output();
                let output = output.expect("psql");
                if output.status.success() {
                    written.push(number);
                } else {
                    failures.push(shown(&output));
                }
                std::thread::sleep(Duration::from_millis(50));
            }
            (written, failures)
        });
        Self { stop, thread }
    }

    /// What was acknowledged, and what was refused.
    fn stop(self) -> (Vec<u64>, Vec<String>) {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.join().expect("the writer")
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// The member that leads, by its number.
fn leader(trio: &Trio) -> usize {
    wait_for("a leader", || {
        [1, 2, 3].into_iter().find(|member| {
            let url = trio.url(*member, 2379) + "/v3/maintenance/status";
            let output =
                Command::new("curl").args(["-s", "-d", "{}", &url]).output().expect("curl");
            let status: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
            status["leader"].is_string() && status["leader"] == status["header"]["member_id"]
        })
    })
}

#[test]
fn a_pair_fails_over_and_survives_the_loss_of_our_leader() {
    let Some(python) = patroni() else { return };
    let trio = Trio::new("99.1");
    let all = [1, 2, 3];
    let mut members = trio.begin(&all, &[]);
    let endpoints: Vec<String> = all.iter().map(|member| trio.endpoint(*member, 2379)).collect();
    let endpoints = endpoints.join(",");
    let home = tempfile::tempdir().unwrap();
    let mut a = Node::new("a", "127.99.1.11", home.path(), &python, &endpoints);
    let mut b = Node::new("b", "127.99.1.12", home.path(), &python, &endpoints);
    a.start();
    a.becomes("primary");
    b.start();
    b.becomes("synchronous");
    a.done("CREATE TABLE t (n bigint)");

    // The primary and its Patroni die while clients write; what was acknowledged is on the other.
    let writer = Writer::start(&a.address, 0);
    wait_for("some writes", || (a.numbers().len() >= 20).then_some(()));
    a.kill();
    let (mut written, _) = writer.stop();
    assert!(written.len() >= 20);
    b.becomes("primary");
    let failed_over = b.numbers();
    assert!(written.iter().all(|number| failed_over.contains(number)), "{written:?}");

    // The old primary comes back behind the new one.
    a.start();
    a.becomes("synchronous");

    // Our leader dies while clients write to the new primary: it stays the primary.
    let before = b.state();
    let next = written.last().map_or(0, |last| last + 1000);
    let writer = Writer::start(&b.address, next);
    let killed = leader(&trio);
    members[killed - 1].kill();
    let since = now();
    for node in [&a, &b] {
        // Longer than Patroni waits for its store before it gives its primary up.
        wait_for(&format!("{} to see its store again and again", node.name), || {
            let seen = node.state()["dcs_last_seen"].as_u64()?;
            (seen > since + 25).then_some(())
        });
    }
    let (more, failures) = writer.stop();
    assert!(failures.is_empty(), "{failures:?}");
    written.extend(more);
    let after = b.state();
    assert!(b.is("primary") && a.is("replica"), "{before} {after}");
    assert_eq!(after["timeline"], before["timeline"], "somebody was promoted meanwhile");
    assert!(!b.log().contains("demot"), "{}", b.log());
    assert_ne!(leader(&trio), killed);
    members[killed - 1] = trio.start(killed, &all, &[]);
    members[killed - 1].ready();

    let kept = b.numbers();
    assert!(written.iter().all(|number| kept.contains(number)));
    wait_for("the replica to have them", || (a.numbers() == kept).then_some(()));
}
