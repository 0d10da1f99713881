//! The inventory as it will be when a person has edited it: without a host, or with a host elsewhere.
//! Says which lines that is about.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::connection::Connection;
use super::model::Inventory;
use crate::template::Var;

/// Files of an inventory that are looked through for a name, at most.
const FILES_MAX: usize = 1_000;

/// Longest file that is looked through, in bytes.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// A line of the inventory that names a host.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Place {
    /// The file.
    pub file: String,
    /// The line's number, from 1.
    pub line: usize,
    /// The line, without space around it.
    pub text: String,
}

impl Inventory {
    /// The inventory without the host called `name`.
    #[must_use]
    pub fn without(mut self, name: &str) -> Self {
        self.hosts.retain(|host| host.name != name);
        for hosts in self.groups.values_mut() {
            hosts.retain(|host| host != name);
        }
        self
    }

    /// The inventory with the host called `name` at another address.
    ///
    /// # Errors
    /// Its address in the cluster is set apart from where it is reached, or it is this machine.
    pub fn moved(mut self, name: &str, address: &str) -> Result<Self, String> {
        let Some(host) = self.hosts.iter_mut().find(|host| host.name == name) else {
            return Err(format!("{name} is not in the inventory"));
        };
        if let Some(mark) = host.marks.get("node_ip") {
            return Err(format!(
                "{mark}: node_ip of {name} is set: change it there, and ansible_host"
            ));
        }
        match &mut host.connection {
            Connection::Ssh(ssh) => address.clone_into(&mut ssh.address),
            Connection::Lab { address: at } => {
                *at = address.parse().map_err(|_| {
                    format!("{address} is not an address of this machine's loopback")
                })?;
            }
            Connection::Local => {
                return Err(format!("{name} is this machine and cannot be elsewhere"));
            }
        }
        host.vars.set("ansible_host", Var::Plain(address.into()));
        Ok(self)
    }

    /// The lines that name the host called `name`. A file that cannot be read has none.
    pub fn places_of(&self, name: &str) -> Vec<Place> {
        let root = Path::new(&self.file);
        let mut files = Vec::new();
        if self.built_in {
            return Vec::new();
        }
        if root.is_dir() {
            files_below(root, 3, &mut files);
        } else {
            files.push(root.to_owned());
            for kind in ["host_vars", "group_vars"] {
                let beside = root.parent().unwrap_or(Path::new(".")).join(kind);
                files_below(&beside, 2, &mut files);
            }
        }
        let mut places = Vec::new();
        for file in files {
            let short = file.metadata().is_ok_and(|facts| facts.len() <= FILE_BYTES_MAX);
            let Some(text) = short.then(|| std::fs::read_to_string(&file).ok()).flatten() else {
                continue;
            };
            for (at, line) in text.lines().enumerate().filter(|(_, line)| names(line, name)) {
                let file = file.display().to_string();
                places.push(Place { file, line: at + 1, text: line.trim().to_owned() });
            }
        }
        places
    }

    /// The variables of the command line, with one more.
    pub fn set_extra(&mut self, name: &str, value: impl Into<serde_json::Value>) {
        let mut extra = self.extra.as_ref().clone();
        extra.insert(name.to_owned(), Var::Plain(value.into()));
        self.extra = Arc::new(extra);
    }
}

fn files_below(directory: &Path, depth: usize, found: &mut Vec<PathBuf>) {
    let Ok(entries) = std::fs::read_dir(directory) else { return };
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    for path in paths {
        if path.is_dir() && depth > 1 {
            files_below(&path, depth - 1, found);
        } else if path.is_file() && found.len() < FILES_MAX {
            found.push(path);
        }
    }
}

/// Whether `line` has `name` as a word of its own, outside a comment.
fn names(line: &str, name: &str) -> bool {
    let line = line.split('#').next().unwrap_or_default();
    let word = |each: char| each.is_ascii_alphanumeric() || "-_.".contains(each);
    line.match_indices(name).any(|(at, _)| {
        let before = line.get(..at).and_then(|text| text.chars().next_back());
        let after = line.get(at + name.len()..).and_then(|text| text.chars().next());
        !before.is_some_and(word) && !after.is_some_and(word)
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn a_name_is_a_word_outside_comments() {
        assert!(names("    server1: {ansible_host: 10.0.0.1}", "server1"));
        assert!(names("server1 ansible_host=10.0.0.1", "server1"));
        for other in ["server10:", "my-server1:", "x: 1  # server1", "server1.lan"] {
            assert!(!names(other, "server1"), "{other}");
        }
    }

    #[test]
    fn a_host_leaves_and_moves_and_its_lines_are_known() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("inventory.yaml");
        let text = "all:\n  children:\n    servers:\n      hosts:\n        server1: {ansible_host: 10.0.0.1}\n        server2:\n          ansible_host: 10.0.0.2\n";
        std::fs::write(&path, text).unwrap();
        let inventory = Inventory::load(&path, BTreeMap::default()).unwrap();
        let places = inventory.places_of("server2");
        assert_eq!(places.len(), 1);
        assert_eq!((places[0].line, places[0].text.as_str()), (6, "server2:"));
        let moved = inventory.clone().moved("server2", "10.0.0.9").unwrap();
        let host = moved.host("server2").unwrap();
        assert!(matches!(host.connection(), Connection::Ssh(ssh) if ssh.address == "10.0.0.9"));
        let less = inventory.without("server2");
        assert!(less.host("server2").is_none());
        assert_eq!(less.groups["servers"], ["server1"]);
    }
}
