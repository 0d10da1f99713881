//! A playbook of one's own, on hosts that are no cluster.

use crate::support;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use crate::support::{Lab, shown};

const INVENTORY: &str = "\
all:
  vars:
    cluster_name: play
    ansible_connection: lab
  children:
    web:
      hosts:
        web[1:2]:
      vars:
        greeting: hello
";

const PLAYBOOK: &str = "\
- hosts: web
  tasks:
    - name: A directory
      file: {path: \"{{ lab_root }}/srv\", state: directory, mode: '0750'}
    - name: A page
      template: {src: page.j2, dest: \"{{ lab_root }}/srv/page\"}
      notify: tell
    - name: A file
      copy: {src: plain.txt, dest: \"{{ lab_root }}/srv/plain\"}
    - name: A file of a command
      command: {cmd: \"touch {{ lab_root }}/srv/made\", creates: \"{{ lab_root }}/srv/made\"}
    - name: Units
      systemd: {daemon_reload: true}
  handlers:
    - name: tell
      debug: {msg: the page is new}
";

/// A lab of two hosts in group `web`, with the playbook beside the inventory. It has the name of the one that
/// `up` runs, which wants servers.
fn lab() -> Lab {
    let lab = Lab::new("78.40", 1, 0);
    let hosts = INVENTORY.replace(
        "web[1:2]:",
        "web1: {ansible_host: 127.78.40.31}\n        web2: {ansible_host: 127.78.40.32}",
    );
    fs::write(&lab.inventory, hosts).unwrap();
    let dir = lab.dir.path();
    for (name, text) in [
        ("site.yml", PLAYBOOK),
        ("templates/page.j2", "{{ greeting }} from {{ inventory_hostname }}\n"),
        ("files/plain.txt", "plain\n"),
    ] {
        let path = dir.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    lab
}

#[test]
fn a_playbook_of_ones_own_changes_hosts_once() {
    let lab = lab();
    let playbook = lab.dir.path().join("site.yml");
    let play = ["play", "-i", lab.inventory_path(), playbook.to_str().unwrap()];

    // A command's files are as on any host, also where a login's umask is narrow.
    let narrow = Command::new("sh")
        .args(["-c", "umask 077 && exec \"$@\"", "sh", support::BINARY])
        .args(play)
        .env("K3SUP_LAB_DIR", lab.dir.path().join("labs"))
        .env("XDG_CONFIG_HOME", lab.dir.path().join("config"))
        .env("XDG_STATE_HOME", lab.dir.path().join("state"))
        .output()
        .unwrap();
    assert!(narrow.status.success(), "{}", shown(&narrow));
    let first = String::from_utf8(narrow.stdout).unwrap();
    assert_eq!(first.matches("the page is new").count(), 2, "{first}");
    assert!(!first.contains("not the built-in one"), "{first}");
    let page = lab.dir.path().join("labs/play/web2/srv/page");
    assert_eq!(fs::read_to_string(page).unwrap(), "hello from web2\n");

    let made = lab.dir.path().join("labs/play/web2/srv/made");
    assert_eq!(fs::metadata(made).unwrap().permissions().mode() & 0o777, 0o644);

    let second = lab.ok(play);
    assert_eq!(second.matches("changed=0").count(), 2, "{second}");
    assert!(!second.contains("the page is new"), "{second}");
    assert!(!lab.dir.path().join("config/k3sup-rs/clusters/play/token").exists());
}

#[test]
fn a_playbook_that_is_not_there_is_named() {
    let lab = lab();
    let output = lab.run(["play", "-i", lab.inventory_path(), "/nowhere/site.yml"]);
    assert_eq!(output.status.code(), Some(5), "{}", shown(&output));
    assert!(String::from_utf8_lossy(&output.stderr).contains("/nowhere/site.yml"));
}
