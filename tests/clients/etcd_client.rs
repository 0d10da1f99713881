//! The tests that the crate `etcd-client` ships with itself, as they are. They want a member at
//! `localhost:2379`, so each run has a network of its own.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::support::member::Member;
use crate::support::namespace::Namespace;
use crate::support::trio::Trio;
use crate::support::{shown, wait_for};

/// What the names are in the network: `node4` is one that a test adds.
const HOSTS: &str = "127.0.0.1 localhost\n127.0.0.4 node4\n";

/// Where `.ci/etcd-client` left them: `K3SUP_TEST_ETCD_CLIENT` names the directory, else it is
/// `target/etcd-client`. `None`, and a word about it, when they are not there.
fn shipped() -> Option<PathBuf> {
    let usual = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/etcd-client");
    let directory = std::env::var_os("K3SUP_TEST_ETCD_CLIENT").map_or(usual, PathBuf::from);
    if !directory.join("installed").is_file() {
        eprintln!(
            "SKIPPED: no tests of the crate etcd-client: run `.ci/etcd-client target/etcd-client`, or name their \
             directory in K3SUP_TEST_ETCD_CLIENT"
        );
        return None;
    }
    Some(directory)
}

/// Members in a network of their own.
struct Cluster {
    shipped: PathBuf,
    trio: Trio,
    namespace: Namespace,
    _members: Vec<Member>,
}

impl Cluster {
    fn begin(members: &[usize]) -> Option<Self> {
        let shipped = shipped()?;
        let namespace = Namespace::new(HOSTS)?;
        let trio = Trio::under("0.0", namespace.prefix(Path::new("/")));
        // What the tests say they expect.
        let members = trio.begin(members, &["--auth-token-ttl=2"]);
        Some(Self { shipped, trio, namespace, _members: members })
    }

    /// A call over JSON.
    fn ask(&self, path: &str, body: &str) -> String {
        let url = format!("http://localhost:2379/v3/{path}");
        let mut curl = self.namespace.command(Path::new("/"), Path::new("curl"));
        let output = curl.args(["-sS", "--fail-with-body", "-d", body, &url]).output().unwrap();
        assert!(output.status.success(), "{}", shown(&output));
        String::from_utf8(output.stdout).unwrap()
    }

    /// One of the shipped programs.
    fn program(&self, name: &str) -> Command {
        let program = self.shipped.join("tests").join(name);
        self.namespace.command(&self.shipped.join("source"), &program)
    }

    /// Runs one, and checks that it passes and that it ran something.
    #[track_caller]
    fn pass(&self, name: &str, arguments: &[&str]) {
        checked(&self.program(name).args(arguments).output().unwrap());
    }
}

#[track_caller]
fn checked(output: &Output) {
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && !said.contains(" 0 passed"), "{}", shown(output));
}

/// All that are not ignored, but `skip`; on the user that they log in as.
fn all(members: &[usize], skip: &[&str]) {
    let Some(cluster) = Cluster::begin(members) else { return };
    cluster.ask("auth/user/add", r#"{"name":"root","password":"rootpwd"}"#);
    cluster.ask("auth/user/grant", r#"{"user":"root","role":"root"}"#);
    cluster.pass("namespace", &[]);
    cluster.pass("client", skip);
}

#[test]
fn its_own_tests_pass_against_one_member() {
    all(&[1], &[]);
}

#[test]
fn its_own_tests_pass_against_three_members() {
    // With other members to move to, this one wants a header in the answer; no etcd sends one.
    all(&[1, 2, 3], &["--skip", "test_move_leader"]);
}

#[test]
fn its_learner_is_promoted_and_removed() {
    let all = [1, 2, 3];
    let Some(cluster) = Cluster::begin(&all) else { return };
    let mut test = cluster.program("client");
    test.args(["--exact", "test_cluster", "--ignored"]);
    let test = std::thread::spawn(move || test.output().unwrap());
    wait_for("the fourth member in the list", || {
        let members = cluster.ask("cluster/member/list", "{}");
        members.contains("http://node4:2380").then_some(())
    });
    let peers: Vec<String> =
        all.iter().map(|member| format!("m{member}={}", cluster.trio.url(*member, 2380))).collect();
    let initial = format!("{},m4=http://node4:2380", peers.join(","));
    let more = ["--initial-cluster", &initial, "--initial-cluster-state", "existing"];
    let advertise = ["--initial-advertise-peer-urls", "http://node4:2380"];
    let _fourth = cluster.trio.start(4, &all, &[&more[..], &advertise].concat());
    checked(&test.join().unwrap());
}
