//! Clients of etcd that others wrote, used as applications use them, against one and three members.

mod etcd_client;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::support::shown;
use crate::support::trio::Trio;

/// Where the clients are: `K3SUP_TEST_CLIENTS` names the directory, else it is the one that
/// `.ci/clients target/clients` fills. `None`, and a word about it, when there is none.
fn clients() -> Option<PathBuf> {
    let usual = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/clients");
    let directory = std::env::var_os("K3SUP_TEST_CLIENTS").map_or(usual, PathBuf::from);
    if !directory.join("installed").is_file() {
        eprintln!(
            "SKIPPED: no client libraries: run `.ci/clients target/clients`, or name their directory in \
             K3SUP_TEST_CLIENTS"
        );
        return None;
    }
    Some(directory)
}

/// A script of `tests/suites/clients`.
fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/suites/clients").join(name)
}

/// The interpreter of one of the Python environments, with a script to run.
fn python(clients: &Path, environment: &str, name: &str) -> Command {
    let mut command = Command::new(clients.join(environment).join("bin/python"));
    // No compiled files in the source tree.
    command.arg("-B").arg(script(name));
    command
}

/// Runs what `command` makes of the client libraries against a cluster of one and one of three;
/// `last` are arguments that come after the members.
fn against_one_and_three(
    nets: [&'static str; 2],
    command: impl Fn(&Path) -> Command,
    last: &[&str],
) {
    let Some(clients) = clients() else { return };
    for (net, members) in nets.into_iter().zip([&[1][..], &[1, 2, 3]]) {
        let trio = Trio::new(net);
        let _members = trio.begin(members, &[]);
        let endpoints: Vec<String> =
            members.iter().map(|member| trio.endpoint(*member, 2379)).collect();
        let output = command(&clients)
            .arg(endpoints.join(","))
            .args(last)
            .stdin(Stdio::null())
            .output()
            .expect("it runs");
        assert!(output.status.success(), "{} members: {}", members.len(), shown(&output));
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(said.ends_with("all checks passed\n"), "{}", shown(&output));
    }
}

#[test]
fn python_over_grpc() {
    let command = |clients: &Path| python(clients, "etcd3", "python_grpc.py");
    against_one_and_three(["96.1", "96.2"], command, &["etcd3"]);
}

#[test]
fn python_over_grpc_with_the_maintained_client() {
    let command = |clients: &Path| python(clients, "python", "python_grpc.py");
    against_one_and_three(["96.3", "96.4"], command, &["pyetcd"]);
}

#[test]
fn python_over_json() {
    let command = |clients: &Path| python(clients, "python", "python_json.py");
    against_one_and_three(["96.5", "96.6"], command, &[]);
}

#[test]
fn node() {
    let command = |clients: &Path| {
        let mut command = Command::new("node");
        command.env("NODE_PATH", clients.join("node/node_modules")).arg(script("node.js"));
        command
    };
    against_one_and_three(["96.7", "96.8"], command, &[]);
}
