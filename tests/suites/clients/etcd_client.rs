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

    /// A call of a member, over JSON.
    fn ask(&self, member: usize, path: &str, body: &str) -> String {
        let url = format!("{}/v3/{path}", self.trio.url(member, 2379));
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

    /// Runs one.
    fn run(&self, name: &str, arguments: &[&str]) -> Result<(), String> {
        verdict(&self.program(name).args(arguments).output().unwrap())
    }
}

/// Whether a program passed and ran something; else what it said.
fn verdict(output: &Output) -> Result<(), String> {
    let said = String::from_utf8_lossy(&output.stdout);
    let passed = output.status.success() && !said.contains(" 0 passed");
    if passed { Ok(()) } else { Err(shown(output)) }
}

/// Runs shipped programs on a cluster. Their tokens end after two seconds and their calls with every election,
/// so they fail on a machine that stands still: then once more on a new cluster, three times in all.
fn passes(members: &[usize], run: impl Fn(&Cluster) -> Result<(), String>) {
    for left in (0..3).rev() {
        let Some(cluster) = Cluster::begin(members) else { return };
        let Err(said) = run(&cluster) else { return };
        assert!(left > 0, "{said}");
        eprintln!("FAILED, and is run once more: {said}");
    }
}

/// All that are not ignored, but `skip`; on the user that they log in as.
fn all(members: &[usize], skip: &[&str]) {
    passes(members, |cluster| {
        cluster.ask(1, "auth/user/add", r#"{"name":"root","password":"rootpwd"}"#);
        cluster.ask(1, "auth/user/grant", r#"{"user":"root","role":"root"}"#);
        cluster.run("namespace", &[])?;
        cluster.run("client", skip)
    });
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
    passes(&all, |cluster| {
        let mut test = cluster.program("client");
        test.args(["--exact", "test_cluster", "--ignored"]);
        let test = std::thread::spawn(move || test.output().unwrap());
        // The fourth asks any of them when it starts.
        wait_for("the fourth member in each list", || {
            let listed = |member: &usize| {
                cluster.ask(*member, "cluster/member/list", "{}").contains("http://node4:2380")
            };
            (all.iter().all(listed) || test.is_finished()).then_some(())
        });
        let initial = format!("{},m4=http://node4:2380", cluster.trio.initial(&all));
        let more = ["--initial-cluster", &initial, "--initial-cluster-state", "existing"];
        let advertise = ["--initial-advertise-peer-urls", "http://node4:2380"];
        let _fourth = cluster.trio.start(4, &all, &[&more[..], &advertise].concat());
        verdict(&test.join().unwrap())
    });
}
