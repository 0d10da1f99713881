//! Who may not join a cluster is told why, and the cluster is as it was.

use std::fs;

use crate::support::{Lab, shown};

/// What a server that wants to join says and ends with.
#[track_caller]
fn refused(lab: &Lab, token: &str, more: &[&str], code: i32, says: &str) {
    let dir = lab.dir.path().join("joiner");
    // What an earlier try left behind is not part of this one.
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir(&dir).unwrap();
    let file = |name: &str, text: &str| {
        let path = dir.join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (token, config) = (file("token", token), file("config.yaml", ""));
    let (data, bundle) = (dir.join("data"), dir.join("bundle.yaml"));
    let address = format!("{}.50", lab.net);
    let via = format!("https://{}:6443", lab.server_address(1));
    let mut args = vec!["server", "--server", &via, "--token-file", &token, "--config", &config];
    args.extend(["--data-dir", data.to_str().unwrap(), "-o", bundle.to_str().unwrap()]);
    args.extend(["--bind-address", &address, "--node-ip", &address]);
    args.extend(more);
    let output = lab.run(args);
    assert_eq!(output.status.code(), Some(code), "{}", shown(&output));
    assert!(String::from_utf8_lossy(&output.stderr).contains(says), "{}", shown(&output));
    assert!(!data.join("server/db/etcd/identity.json").exists(), "it is no member");
}

#[test]
fn a_wrong_token_a_name_that_is_taken_and_other_settings_are_refused() {
    let lab = Lab::new("78.60", 1, 0);
    lab.up(&[]);
    let token = lab.ok(["token", "show", "-i", lab.inventory_path()]);
    let token = token.trim();
    let (pin, secret) = token.split_once("::server:").unwrap();
    let name = ["--node-name", "server2"];

    refused(&lab, "K10xyz::server:abc", &name, 5, "invalid token CA hash length");
    refused(&lab, secret, &name, 5, "a token without a CA hash cannot prove which cluster it is");
    let other = format!("K10{}::server:{secret}", "a".repeat(64));
    let pinned = "token CA hash does not match the Cluster CA certificate hash";
    refused(&lab, &other, &name, 1, pinned);
    let wrong = format!("{pin}::server:wrong");
    refused(&lab, &wrong, &name, 1, "the token is not valid for this cluster");

    let slow = ["--etcd-arg", "heartbeat-interval=200", "--etcd-arg", "election-timeout=2000"];
    let differs = "etcd-arg=heartbeat-interval: the cluster has 100, this server has 200";
    refused(&lab, token, &[name.as_slice(), &slow].concat(), 1, differs);
    refused(&lab, token, &["--node-name", "server1"], 1, "server1 is member ");

    let status = lab.known_status();
    assert_eq!(status["members"].as_array().unwrap().len(), 1, "{status:#}");
    assert_eq!(status["nodes"].as_array().unwrap().len(), 1, "{status:#}");
}
