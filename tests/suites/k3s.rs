//! `distribution: k3s` on lab hosts: the real engine over real SSH, with a script in K3s's place that
//! behaves as its command line does; and with a real K3s when there is one.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::support::k3s::{beside, lab, state};
use crate::support::{Lab, shown, wait_for};
use serde_json::Value;

/// Adds servers by their numbers, before those that are there.
fn add_servers(lab: &Lab, numbers: &[usize]) {
    let text = std::fs::read_to_string(&lab.inventory).unwrap();
    let host =
        |n: &usize| format!("        server{n}: {{ansible_host: {}}}\n", lab.server_address(*n));
    let hosts: String = numbers.iter().map(host).collect();
    let head = "    servers:\n      hosts:\n";
    std::fs::write(&lab.inventory, text.replace(head, &format!("{head}{hosts}"))).unwrap();
}

fn members(lab: &Lab) -> Vec<String> {
    let status = lab.status().expect("a server answers");
    let members = status["members"].as_array().unwrap().iter();
    members.map(|member| member["name"].as_str().unwrap().to_owned()).collect()
}

fn config(lab: &Lab, host: &str, file: &str) -> String {
    let path = lab.host_dir(host).join("etc/rancher/k3s").join(file);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn kill_and_wipe(lab: &Lab, host: &str, directories: &[&str]) {
    lab.lab("stop", host);
    for directory in directories {
        std::fs::remove_dir_all(lab.host_dir(host).join(directory)).unwrap();
    }
    lab.lab("start", host);
}

#[test]
fn three_servers_and_an_agent_come_up_and_a_second_run_changes_nothing() {
    let vars = "    tls_san: [api.example.com]\n    config: {flannel-backend: none, node-label: [zone=a]}\n    \
                dedicated_control_plane: true\n    k3s_registries: {mirrors: {docker.io: {endpoint: [https://r]}}}\n";
    let Some(lab) = lab("88.1", 3, 1, vars) else { return };
    lab.up(&[]);
    let nodes = lab.ok(["nodes", "-i", lab.inventory_path()]);
    assert_eq!(nodes.matches(" Ready ").count(), 4, "{nodes}");
    assert_eq!(nodes.matches("control-plane,etcd").count(), 3, "{nodes}");
    assert_eq!(members(&lab).len(), 3);
    assert_eq!(state(&lab)["founded"], 1);

    // After the bring-up every server can be built anew: none would found a second cluster.
    for host in ["server1", "server2", "server3"] {
        let bootstrap = config(&lab, host, "config.yaml.d/bootstrap.yaml");
        assert!(!bootstrap.contains("cluster-init"), "{host}: {bootstrap}");
        let own = lab.server_address(host.trim_start_matches("server").parse().unwrap());
        assert!(bootstrap.contains("server: https://") && !bootstrap.contains(&own), "{bootstrap}");
        let text = config(&lab, host, "config.yaml");
        assert!(
            text.contains("api.example.com") && text.contains("flannel-backend: none"),
            "{text}"
        );
        assert!(text.contains("CriticalAddonsOnly=true:NoExecute"), "{text}");
    }
    let agent = config(&lab, "agent1", "config.yaml");
    assert!(agent.contains("zone=a") && !agent.contains("flannel"), "an agent dies of it: {agent}");
    private_and_complete(&lab);

    let second = lab.up(&["-v"]);
    assert_eq!(second.matches("changed=0").count(), 4, "{second}");
    let check = lab.run(["up", "-i", lab.inventory_path(), "--check"]);
    assert_eq!(check.status.code(), Some(0), "{}", shown(&check));
}

/// What K3s's own installer writes is there, and what is secret is nobody else's.
fn private_and_complete(lab: &Lab) {
    for (host, service) in [("server2", "k3s"), ("agent1", "k3s-agent")] {
        let dir = lab.host_dir(host);
        let mode = |path: &str| {
            let metadata = std::fs::metadata(dir.join(path));
            metadata.unwrap_or_else(|error| panic!("{path}: {error}")).permissions().mode() & 0o777
        };
        for link in ["kubectl", "crictl", "ctr"] {
            let target = std::fs::read_link(dir.join("usr/local/bin").join(link)).unwrap();
            assert_eq!(target, Path::new("k3s"));
        }
        assert_eq!(mode("usr/local/bin/k3s"), 0o755);
        assert_eq!(mode("usr/local/bin/k3s-killall.sh"), 0o755);
        assert_eq!(mode(&format!("usr/local/bin/{service}-uninstall.sh")), 0o755);
        assert_eq!(mode(&format!("etc/systemd/system/{service}.service.env")), 0o600);
        for file in ["config.yaml", "token", "config.yaml.d/bootstrap.yaml", "registries.yaml"] {
            assert_eq!(mode(&format!("etc/rancher/k3s/{file}")), 0o600, "{file}");
        }
        let unit = dir.join(format!("etc/systemd/system/{service}.service"));
        let unit = std::fs::read_to_string(unit).unwrap();
        assert!(unit.contains("Type=notify") && unit.contains("KillMode=process"), "{unit}");
    }
}

#[test]
fn a_server_and_an_agent_that_were_installed_anew_come_back_as_themselves() {
    let Some(lab) = lab("88.2", 3, 1, "") else { return };
    lab.up(&[]);
    let before = members(&lab);
    kill_and_wipe(&lab, "server1", &["var/lib/rancher", "etc/rancher"]);
    kill_and_wipe(&lab, "agent1", &["var/lib/rancher", "etc/rancher"]);
    lab.up(&[]);
    assert_eq!(state(&lab)["founded"], 1, "no second cluster");
    let after = members(&lab);
    assert_eq!(after.len(), 3, "{after:?}");
    assert_eq!(
        after.iter().filter(|name| before.contains(name)).count(),
        2,
        "{before:?} {after:?}"
    );
    let nodes = lab.ok(["nodes", "-i", lab.inventory_path()]);
    assert_eq!(nodes.matches(" Ready ").count(), 4, "{nodes}");
    let second = lab.up(&[]);
    assert_eq!(second.matches("changed=0").count(), 4, "{second}");
}

#[test]
fn all_servers_that_are_down_with_data_start_together() {
    let Some(lab) = lab("88.3", 3, 0, "") else { return };
    lab.up(&[]);
    for host in ["server1", "server2", "server3"] {
        lab.lab("kill", host);
    }
    lab.up(&[]);
    assert_eq!(members(&lab).len(), 3);
    assert_eq!(state(&lab)["founded"], 1);
}

#[test]
fn a_failed_join_is_diagnosed_from_the_log() {
    let Some(lab) = lab("88.4", 1, 0, "") else { return };
    lab.up(&[]);
    // A second server with another person's token.
    add_servers(&lab, &[2]);
    let wrong = lab.dir.path().join("wrong.yaml");
    std::fs::write(&wrong, "token: 00000000000000000000000000000000\n").unwrap();
    std::fs::set_permissions(&wrong, std::fs::Permissions::from_mode(0o600)).unwrap();
    let extra = format!("@{}", wrong.display());
    let output = lab.run(["up", "-i", lab.inventory_path(), "--yes", "-e", &extra]);
    assert_eq!(output.status.code(), Some(2), "{}", shown(&output));
    let all = shown(&output);
    assert!(all.contains("the token is not the cluster's"), "{all}");
    assert!(all.contains("encrypted with different token"), "the line itself: {all}");
    // With the right one it joins.
    lab.up(&[]);
    assert_eq!(members(&lab).len(), 2);
}

#[test]
fn what_cannot_work_is_refused_before_a_host_is_touched() {
    let Some(lab) = lab("88.5", 1, 0, "") else { return };
    for (line, code, expected) in [
        ("    config: {flanel-backend: none}\n", 5, "did you mean `flannel-backend`?"),
        ("    config: {cluster-init: true}\n", 5, "no second cluster"),
        ("    datastore_endpoint: etcd\n", 5, "must be like postgres://"),
        ("    k3s_version: v1.36.3+k3s1\n", 5, "give one of `k3s_binary`"),
    ] {
        lab.say(line);
        let output = lab.run(["up", "-i", lab.inventory_path(), "--yes"]);
        assert_eq!(output.status.code(), Some(code), "{line}{}", shown(&output));
        assert!(shown(&output).contains(expected), "{line}{}", shown(&output));
        lab.replace_in_inventory(line, "");
    }
    assert!(!lab.host_dir("server1").join("usr/local/bin/k3s").exists());
    // Data in Dqlite has no way into etcd.
    let dqlite = lab.host_dir("server1").join("var/lib/rancher/k3s/server/db/state.dqlite");
    std::fs::create_dir_all(&dqlite).unwrap();
    let output = lab.run(["up", "-i", lab.inventory_path(), "--yes"]);
    assert_eq!(output.status.code(), Some(6), "{}", shown(&output));
    assert!(shown(&output).contains("no way from Dqlite to etcd"), "{}", shown(&output));
}

#[test]
fn different_settings_are_a_row_of_the_table_and_stop_a_run() {
    let Some(lab) = lab("88.11", 2, 0, "") else { return };
    let text = std::fs::read_to_string(&lab.inventory).unwrap();
    let other = "server1: {config: {cluster-cidr: 10.50.0.0/16}, ";
    std::fs::write(&lab.inventory, text.replacen("server1: {", other, 1)).unwrap();
    let output = lab.run(["preflight", "-i", lab.inventory_path(), "--output", "json"]);
    assert_eq!(output.status.code(), Some(5), "{}", shown(&output));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let findings = report["findings"].as_array().unwrap();
    let row = |check: &str| findings.iter().find(|found| found["check"] == check).unwrap();
    assert_eq!(row("settings")["value"], "different");
    let message = row("settings")["message"].as_str().unwrap();
    assert!(message.contains("`cluster-cidr` must be equal"), "{message}");
    assert_eq!(row("reach")["value"], "yes", "the other checks are there, too");
    assert_eq!(row("servers")["value"], "even-servers");
    let up = lab.run(["up", "-i", lab.inventory_path(), "--yes"]);
    assert_eq!(up.status.code(), Some(5), "{}", shown(&up));
    assert!(!lab.host_dir("server1").join("usr/local/bin/k3s").exists());

    // Two servers are as good as three where the data is elsewhere, also before they answer.
    lab.say("    datastore_endpoint: postgres://k3s@db.example.com:5432/k3s\n");
    let output = lab.run(["preflight", "-i", lab.inventory_path(), "--output", "json"]);
    assert!(!shown(&output).contains("even-servers"), "{}", shown(&output));
}

#[test]
fn a_single_server_on_sqlite_becomes_three_with_etcd() {
    let Some(lab) = lab("88.6", 1, 0, "") else { return };
    lab.up(&[]);
    // As if it had been started alone, without a word of other servers.
    lab.lab("stop", "server1");
    let db = lab.host_dir("server1").join("var/lib/rancher/k3s/server/db");
    std::fs::remove_dir_all(db.join("etcd")).unwrap();
    std::fs::write(db.join("state.db"), "sqlite").unwrap();
    let settings = lab.host_dir("server1").join("etc/rancher/k3s/config.yaml.d/bootstrap.yaml");
    std::fs::write(settings, "# nothing\n").unwrap();
    let mut clusters = state(&lab);
    for cluster in clusters["clusters"].as_object_mut().unwrap().values_mut() {
        cluster["members"] = serde_json::json!([]);
    }
    std::fs::write(beside(&lab, "fake-k3s.json"), clusters.to_string()).unwrap();
    lab.lab("start", "server1");
    wait_for("K3s runs on SQLite", || lab.status().filter(|status| status["ready"] == true));
    assert_eq!(members(&lab).len(), 0);

    add_servers(&lab, &[0, 2]);
    // One of before 1.22 has no way there, and would found an empty cluster.
    let age = lab.host_dir("server1").join("fake-k3s-version");
    std::fs::write(&age, "v1.21.14+k3s1").unwrap();
    let output = lab.run(["up", "-i", lab.inventory_path(), "--yes"]);
    assert_eq!(output.status.code(), Some(2), "{}", shown(&output));
    assert!(shown(&output).contains("cannot copy SQLite to etcd"), "{}", shown(&output));
    assert!(db.join("state.db").exists() && !db.join("etcd").exists(), "nothing was touched");
    std::fs::remove_file(&age).unwrap();

    lab.up(&[]);
    assert_eq!(members(&lab).len(), 3);
    assert_eq!(state(&lab)["founded"], 1, "it is the cluster that it was");
    assert!(db.join("state.db.migrated").exists());
    let saved = std::fs::read_dir(db.parent().unwrap()).unwrap().flatten();
    let saved = saved.map(|entry| entry.path()).filter(|path| path.join("state.db").exists());
    assert_eq!(saved.filter(|path| path.to_string_lossy().contains("db-sqlite-")).count(), 1);
    let second = lab.up(&[]);
    assert_eq!(second.matches("changed=0").count(), 3, "{second}");
}

#[test]
fn an_external_datastore_has_no_founder_and_no_members() {
    let vars = "    datastore_endpoint: postgres://k3s@db.example.com:5432/k3s\n";
    let Some(lab) = lab("88.7", 2, 1, vars) else { return };
    lab.up(&[]);
    assert_eq!(state(&lab)["founded"], 1);
    assert_eq!(members(&lab).len(), 0);
    let nodes = lab.ok(["nodes", "-i", lab.inventory_path()]);
    assert_eq!(nodes.matches(" Ready ").count(), 3, "{nodes}");
    let datastore = config(&lab, "server1", "config.yaml.d/datastore.yaml");
    assert!(datastore.contains("postgres://k3s@db.example.com"), "{datastore}");
    assert!(!lab.host_dir("server1").join("etc/rancher/k3s/config.yaml.d/bootstrap.yaml").exists());
    let second = lab.up(&["--diff"]);
    assert_eq!(second.matches("changed=0").count(), 3, "{second}");
}

/// A tarball for hosts without a registry that is longer than any message to a host.
fn images(lab: &Lab) -> Vec<u8> {
    let bytes: Vec<u8> = (0..20_000_003_u32).map(|n| (n / 251).to_le_bytes()[0]).collect();
    let path = lab.dir.path().join("images.tar");
    std::fs::write(&path, &bytes).unwrap();
    lab.say(&format!("    k3s_airgap_images: {}\n", path.display()));
    bytes
}

#[test]
fn the_kubeconfig_is_fetched_and_merged() {
    let Some(lab) = lab("88.8", 1, 0, "    api_endpoint: api.example.com\n") else { return };
    let images = images(&lab);
    lab.up(&[]);
    let pushed = lab.host_dir("server1").join("var/lib/rancher/k3s/agent/images/images.tar");
    assert!(std::fs::read(&pushed).unwrap() == images, "a long file arrives as it is");
    assert!(!pushed.with_file_name("images.tar.k3sup-part").exists());
    let kept = lab.bundle().join("kubeconfig");
    let mode = std::fs::metadata(&kept).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o600);
    let own = lab.dir.path().join("kube/config");
    std::fs::create_dir(own.parent().unwrap()).unwrap();
    std::fs::write(&own, "kind: Config\ncurrent-context: mine\nclusters: []\n").unwrap();
    let file = own.to_str().unwrap();
    lab.ok(["kubeconfig", "-i", lab.inventory_path(), "--file", file, "--context", "prod"]);
    let text = std::fs::read_to_string(&own).unwrap();
    assert!(text.contains("server: https://api.example.com:6443"), "{text}");
    assert!(text.contains("current-context: mine") && text.contains("name: prod"), "{text}");
    assert_eq!(std::fs::read_dir(own.parent().unwrap()).unwrap().count(), 2, "the old one is kept");
}

#[test]
fn a_node_leaves_its_cluster_before_it_is_removed_and_reset_leaves_nothing() {
    let Some(lab) = lab("88.9", 3, 1, "") else { return };
    lab.up(&[]);
    lab.ok(["reset", "-i", lab.inventory_path(), "--yes", "--limit", "agent1,server3"]);
    for host in ["server1", "server2", "server3"] {
        assert!(!lab.host_dir(host).join("root/.kube").exists(), "kubectl left its cache");
    }
    assert_eq!(members(&lab).len(), 2);
    let nodes = lab.ok(["nodes", "-i", lab.inventory_path()]);
    assert!(!nodes.contains("server3") && !nodes.contains("agent1"), "{nodes}");
    lab.ok(["reset", "-i", lab.inventory_path(), "--yes"]);
    for host in ["server1", "server2", "server3", "agent1"] {
        let dir = lab.host_dir(host);
        for path in ["etc/rancher", "var/lib/rancher", "usr/local/bin/k3s"] {
            assert!(!dir.join(path).exists(), "{host} {path}");
        }
        let left = std::fs::read_dir(dir.join("usr/local/bin")).unwrap().flatten();
        let left: Vec<_> = left.map(|entry| entry.file_name()).collect();
        assert!(left.is_empty(), "{host}: {left:?}");
    }
}

/// With a real K3s that can run without containers: one server, its API and its store.
#[test]
fn a_real_k3s_comes_up() {
    let Some(binary) = std::env::var_os("K3SUP_TEST_K3S") else {
        eprintln!("SKIPPED: K3SUP_TEST_K3S does not name a K3s binary");
        return;
    };
    let lab = Lab::new("88.10", 1, 0);
    let binary = binary.to_string_lossy();
    lab.say(&format!(
        "    distribution: k3s\n    k3s_binary: {binary}\n    config: {{disable-agent: true}}\n"
    ));
    lab.up(&[]);
    wait_for("the member votes", || {
        let status = lab.status()?;
        let members = status["members"].as_array()?;
        (members.len() == 1 && members[0]["healthy"] == true).then_some(())
    });
    let second = lab.up(&[]);
    assert!(second.contains("changed=0"), "{second}");
}
