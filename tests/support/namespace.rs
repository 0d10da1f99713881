//! A network of its own, whose loopback addresses and ports nobody else has, with own names of hosts.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// Namespaces for network and mounts; gone when dropped.
pub struct Namespace {
    holder: Child,
    _hosts: tempfile::NamedTempFile,
}

impl Namespace {
    /// Makes one in which `/etc/hosts` is `hosts`. `None`, and a word about it, when this user may
    /// not make any.
    pub fn new(hosts: &str) -> Option<Self> {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        std::fs::write(file.path(), hosts).expect("a hosts file");
        // It ends with the test, however that ends: its input is closed then.
        let script = "mount --bind \"$0\" /etc/hosts && ip link set lo up && echo up && exec cat";
        let mut holder = Command::new("unshare")
            .args(["--net", "--mount", "sh", "-c", script])
            .arg(file.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("unshare");
        let mut said = String::new();
        let output = holder.stdout.take().expect("its output");
        BufReader::new(output).read_line(&mut said).expect("a line");
        let namespace = Self { holder, _hosts: file };
        if said != "up\n" {
            eprintln!("SKIPPED: this user may make no network namespaces");
            return None;
        }
        Some(namespace)
    }

    /// The words that start a program in it, in `directory`.
    pub fn prefix(&self, directory: &Path) -> Vec<String> {
        let of = |kind: &str| format!("/proc/{}/ns/{kind}", self.holder.id());
        vec![
            "/usr/bin/nsenter".to_owned(),
            format!("--net={}", of("net")),
            format!("--mount={}", of("mnt")),
            format!("--wd={}", directory.display()),
            "--".to_owned(),
        ]
    }

    /// A program in it.
    pub fn command(&self, directory: &Path, program: &Path) -> Command {
        let words = self.prefix(directory);
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).arg(program).stdin(Stdio::null());
        command
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}
