//! `token rotate` with `distribution: k3s` on lab hosts: the real engine, and the script of `tests/k3s` in
//! K3s's place, which answers on the servers' own port as K3s does and starts with no other token than the
//! one that its store knows.

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::Duration;

use crate::support::k3s::{self, beside, state};
use crate::support::{Lab, shown, wait_for};
use k3sup_rs::node::http::{Connector, basic};
use k3sup_rs::pki::{Authority, Leaf, Purpose, Token, tls};

const HOSTS: [&str; 4] = ["server1", "server2", "server3", "agent1"];

/// After how many changes the control machine is killed, run by run: the new token is the cluster's and no
/// host has it; servers have it; two of them were restarted; all were, and the agent has it.
const KILLED_AFTER: [usize; 4] = [1, 2, 2, 4];

/// Three servers that can be asked, and an agent.
fn lab(net: &str, vars: &str) -> Option<Lab> {
    let lab = k3s::lab(net, 3, 1, vars)?;
    let authority = Authority::create("fake-k3s").unwrap();
    let leaf = Leaf {
        common_name: "k3s".to_owned(),
        organization: None,
        sans: (1..=3).map(|number| lab.server_address(number)).collect(),
        purpose: Purpose::Server,
    };
    let pair = authority.issue(&leaf).unwrap();
    std::fs::create_dir_all(beside(&lab, "")).unwrap();
    for (name, text) in
        [("ca", authority.certificate()), ("crt", &pair.certificate), ("key", pair.key.expose())]
    {
        std::fs::write(beside(&lab, &format!("fake-k3s.{name}")), text).unwrap();
    }
    Some(lab)
}

fn rotate<'a>(lab: &'a Lab, more: &[&'a str]) -> Vec<&'a str> {
    [&["token", "rotate", "-i", lab.inventory_path(), "--yes"], more].concat()
}

fn token(lab: &Lab) -> String {
    let token = Token::parse(&lab.ok(["token", "show", "-i", lab.inventory_path()])).unwrap();
    token.password.expose().to_owned()
}

/// What a server answers to a token.
fn answer(lab: &Lab, server: usize, secret: &str) -> u16 {
    let host = lab.host_dir(&format!("server{server}"));
    let ca = host.join("var/lib/rancher/k3s/server/tls/server-ca.crt");
    let tls = tls::client(&std::fs::read_to_string(ca).unwrap(), None, &[]).unwrap();
    let authority = format!("{}:6443", lab.server_address(server));
    let authorization = basic("server", &secret.to_owned().into());
    let connector = Connector::tls(tls, Duration::from_secs(60));
    let path = "/v1-k3s/server-bootstrap";
    let asked = connector.ask(&authority, "GET", path, Some(&authorization), b"");
    tokio::runtime::Runtime::new().unwrap().block_on(asked).unwrap().status
}

/// Three members and four ready nodes.
#[track_caller]
fn whole(lab: &Lab) {
    wait_for("members and ready nodes", || {
        let status = lab.status()?;
        let ready = status["nodes"].as_array()?.iter().filter(|node| node["ready"] == true);
        (ready.count() == 4 && status["members"].as_array()?.len() == 3).then_some(())
    });
}

/// Every server takes this token and not the other; the hosts' files have it, and `up` finds nothing to do.
#[track_caller]
fn taken(lab: &Lab, new: &str, old: &str) {
    whole(lab);
    for server in 1..=3 {
        assert_eq!(answer(lab, server, new), 200, "server{server}");
        assert_eq!(answer(lab, server, old), 401, "server{server}");
    }
    for host in HOSTS {
        let file = lab.host_dir(host).join("etc/rancher/k3s/token");
        let text = std::fs::read_to_string(file).unwrap();
        assert_eq!(Token::parse(&text).unwrap().password.expose(), new, "{host}");
    }
    let again = lab.up(&[]);
    assert_eq!(again.matches("changed=0").count(), HOSTS.len(), "{again}");
}

/// Starts it and kills it when it has made so many changes.
fn killed_after(lab: &Lab, args: &[&str], steps: usize) {
    let mut child = lab.command(args).stdout(Stdio::piped()).spawn().unwrap();
    let out = BufReader::new(child.stdout.take().unwrap());
    let changed = out.lines().map_while(Result::ok).filter(|line| line.starts_with("changed: "));
    assert_eq!(changed.take(steps).count(), steps, "it was over before");
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_new_token_reaches_all_nodes_however_often_it_is_killed_and_the_old_one_ends() {
    let Some(lab) = lab("89.1", "") else { return };
    lab.up(&[]);
    whole(&lab);
    let old = token(&lab);
    let check = lab.run(rotate(&lab, &["--check"]));
    assert_eq!(check.status.code(), Some(7), "{}", shown(&check));
    assert!(state(&lab)["rotations"].is_null(), "a check asks for nothing");

    for (run, steps) in KILLED_AFTER.into_iter().enumerate() {
        killed_after(&lab, &rotate(&lab, &[]), steps);
        assert!(lab.bundle().join("token.next").exists());
        let up = lab.run(["up", "-i", lab.inventory_path(), "--yes"]);
        assert_eq!(up.status.code(), Some(6), "{}", shown(&up));
        if run == 0 {
            // It boots while its file has a token that is over: K3s starts again and again.
            lab.lab("kill", "server2");
            lab.lab("start", "server2");
        }
    }
    let told = lab.ok(rotate(&lab, &[]));
    assert!(told.contains("Token rotated"), "{told}");
    let new = token(&lab);
    assert_ne!(new, old);
    assert!(!told.contains(&new) && !told.contains(&old), "{told}");
    taken(&lab, &new, &old);
    let state = state(&lab);
    assert_eq!(state["founded"], 1);
    let asked = state["rotations"].as_array().unwrap();
    assert_eq!(asked.len(), 1, "the cluster is asked once: {asked:?}");
    assert_eq!((asked[0]["token"].as_str(), asked[0]["wrong"].as_str()), (Some(&*new), Some("")));
    let kept = std::fs::read_dir(lab.bundle()).unwrap().flatten().map(|entry| entry.path());
    let mut kept = kept.filter(|path| path.to_string_lossy().contains("token.old-"));
    assert_eq!(std::fs::read_to_string(kept.next().unwrap()).unwrap().trim(), old);

    // Who comes anew comes with the new token.
    lab.lab("kill", "server3");
    std::fs::remove_dir_all(lab.host_dir("server3")).unwrap();
    lab.up(&[]);
    taken(&lab, &new, &old);
}

#[test]
fn what_k3s_cannot_go_over_to_is_refused_before_anything_is_touched() {
    let Some(lab) = lab("89.2", "    agent_token: agents-only-agents-only\n") else { return };
    lab.up(&[]);
    let old = token(&lab);
    let file = lab.dir.path().join("bootstrap");
    std::fs::write(&file, "abcdef.0123456789abcdef\n").unwrap();
    let refused = |more: &[&str], code: i32, expected: &str| {
        let output = lab.run(rotate(&lab, more));
        assert_eq!(output.status.code(), Some(code), "{}", shown(&output));
        assert!(shown(&output).contains(expected), "{}", shown(&output));
    };
    refused(&["--new-token-file", file.to_str().unwrap()], 5, "form of a bootstrap token");
    refused(&["--limit", "server1"], 5, "leave out --limit");
    // One server of an age that has no such command.
    let age = lab.host_dir("server2").join("fake-k3s-version");
    std::fs::write(&age, "v1.26.5+k3s1").unwrap();
    refused(&[], 2, "this server cannot replace a token");
    std::fs::remove_file(&age).unwrap();
    // One that is there and cannot be reached: it would start again with a token that is over.
    let inventory = std::fs::read_to_string(&lab.inventory).unwrap();
    let address = format!("ansible_host: {}", lab.server_address(3));
    let away = format!("{address}, ansible_connection: ssh, ansible_port: 1");
    std::fs::write(&lab.inventory, inventory.replace(&address, &away)).unwrap();
    refused(&[], 4, "cannot reach server3: nothing was changed");
    std::fs::write(&lab.inventory, inventory).unwrap();
    assert!(state(&lab)["rotations"].is_null(), "nothing was asked for");
    assert!(!lab.bundle().join("token.next").exists());
    assert_eq!(token(&lab), old);
    let again = lab.up(&[]);
    assert_eq!(again.matches("changed=0").count(), HOSTS.len(), "{again}");

    // Agents with a token of their own keep it, and go on.
    let agent = lab.host_dir("agent1").join("etc/rancher/k3s/token");
    let before = std::fs::read_to_string(&agent).unwrap();
    std::fs::write(&file, "a-token-of-my-own\n").unwrap();
    lab.ok(rotate(&lab, &["--new-token-file", file.to_str().unwrap()]));
    assert_eq!(token(&lab), "a-token-of-my-own");
    assert_eq!(std::fs::read_to_string(&agent).unwrap(), before);
    whole(&lab);
    for server in 1..=3 {
        assert_eq!(answer(&lab, server, &old), 401, "server{server}");
    }
    // Theirs is replaced by `up`, and the old one joins no agent any more.
    let inventory = std::fs::read_to_string(&lab.inventory).unwrap();
    std::fs::write(&lab.inventory, inventory.replace("agents-only", "of-agents")).unwrap();
    lab.up(&[]);
    assert!(std::fs::read_to_string(&agent).unwrap().contains("node:of-agents-of-agents"));
    let cluster = state(&lab)["clusters"].as_object().unwrap().values().next().unwrap().clone();
    assert_eq!(cluster["agent_password"], "of-agents-of-agents");
    lab.lab("kill", "agent1");
    std::fs::remove_dir_all(lab.host_dir("agent1")).unwrap();
    lab.up(&[]);
    whole(&lab);
}
