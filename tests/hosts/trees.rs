//! A host's file system, and what differs between two moments.
//!
//! It is looked at from outside: what the host mounts over it, such as /run and /tmp, is not in it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use crate::machines::Machine;

/// What a host itself writes while it runs, with no word from anybody.
const ITS_OWN: [(&str, &str); 4] = [
    ("var/log", "what happened: journal, logins"),
    ("var/lib/systemd", "clock, random seed, when timers ran"),
    ("var/tmp", "services' private directories, others after each boot"),
    ("var/lib/haproxy/dev/log", "where the unit of HAProxy's package mounts the log's socket"),
];

/// What is at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    /// Kind and mode, as in an inode.
    mode: u32,
    owner: (u32, u32),
    /// Bytes of a file; 0 for everything else.
    size: u64,
    content: Content,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Content {
    /// Of a file that the host wrote.
    Hash(String),
    /// It is still that of the tree that hosts boot from.
    Untouched,
    /// Where a link leads.
    Link(PathBuf),
    None,
}

/// All of a host's files.
pub struct Tree(BTreeMap<PathBuf, Entry>);

impl Tree {
    /// Looks at a host's files now.
    pub fn of(machine: &Machine) -> Self {
        let mut entries = BTreeMap::new();
        walk(machine, Path::new(""), &mut entries);
        Self(entries)
    }

    /// One line for each difference to `later`, of the same machine.
    pub fn differences(&self, later: &Self, machine: &Machine) -> Vec<String> {
        let paths: BTreeSet<_> = self.0.keys().chain(later.0.keys()).collect();
        let differ = paths.into_iter().filter_map(|path| {
            let (before, after) = (self.0.get(path), later.0.get(path));
            let same = match (before, after) {
                (Some(before), Some(after)) => before.same(after, &machine.tree.join(path)),
                _ => false,
            };
            (!same).then(|| format!("/{}: {before:?} -> {after:?}", path.display()))
        });
        differ.collect()
    }

    /// Files that everybody on the host may read and that the host wrote.
    pub fn open_to_all(&self) -> impl Iterator<Item = &Path> {
        let written = |entry: &Entry| matches!(entry.content, Content::Hash(_));
        let open =
            self.0.iter().filter(move |(_, entry)| written(entry) && entry.mode & 0o004 != 0);
        open.map(|(path, _)| path.as_path())
    }

    /// Paths of files whose name ends so.
    pub fn ending(&self, end: &str) -> impl Iterator<Item = &Path> {
        let files = self.0.iter().filter(|(_, entry)| matches!(entry.content, Content::Hash(_)));
        files
            .map(|(path, _)| path.as_path())
            .filter(move |path| path.to_string_lossy().ends_with(end))
    }
}

impl Entry {
    fn of(machine: &Machine, path: &Path) -> Option<Self> {
        let full = machine.root.join(path);
        // It may be gone again.
        let meta = fs::symlink_metadata(&full).ok()?;
        let kind = meta.file_type();
        let content = if kind.is_symlink() {
            Content::Link(fs::read_link(&full).ok()?)
        } else if !kind.is_file() {
            Content::None
        } else if fs::symlink_metadata(machine.written.join(path)).is_ok() {
            Content::Hash(hash(&full)?)
        } else {
            Content::Untouched
        };
        let size = if kind.is_file() { meta.len() } else { 0 };
        Some(Self { mode: meta.mode(), owner: (meta.uid(), meta.gid()), size, content })
    }

    /// A file that was written again with what it held before is the same.
    fn same(&self, later: &Self, original: &Path) -> bool {
        let known = |entry: &Self| match &entry.content {
            Content::Untouched => hash(original).map_or(Content::None, Content::Hash),
            other => other.clone(),
        };
        let rest = |entry: &Self| (entry.mode, entry.owner, entry.size);
        let same = self.content == later.content || known(self) == known(later);
        same && rest(self) == rest(later)
    }
}

fn hash(path: &Path) -> Option<String> {
    Some(hex::encode(Sha256::digest(fs::read(path).ok()?)))
}

fn walk(machine: &Machine, directory: &Path, entries: &mut BTreeMap<PathBuf, Entry>) {
    for found in fs::read_dir(machine.root.join(directory)).into_iter().flatten().flatten() {
        let path = directory.join(found.file_name());
        if ITS_OWN.iter().any(|(own, _)| path == Path::new(own)) {
            continue;
        }
        if let Some(entry) = Entry::of(machine, &path) {
            entries.insert(path.clone(), entry);
        }
        if found.file_type().is_ok_and(|kind| kind.is_dir()) {
            walk(machine, &path, entries);
        }
    }
}
