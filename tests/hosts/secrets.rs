//! Canaries: secrets that must not be seen, and where they are looked for.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use regex::bytes::Regex;

use crate::fleet::Fleet;
use crate::machines::Machine;
use crate::trees::Tree;

/// Secrets, each with what it is and what finds it.
#[derive(Clone)]
pub struct Canaries(Arc<Mutex<Vec<(String, Regex)>>>);

/// A look at every process of this machine, and so of all test hosts, again and again.
pub struct Watch {
    over: Arc<AtomicBool>,
    thread: JoinHandle<Vec<String>>,
}

impl Canaries {
    /// The fleet's token, which is put into the inventory, the password for sudo, and the key for
    /// SSH.
    pub fn of(fleet: &mut Fleet) -> Self {
        let token = format!("token{:032x}", rand::random::<u128>());
        fleet.common = format!("    token: {token}\n");
        let canaries = Self(Arc::default());
        canaries.add("the token", &token);
        canaries.add("the password for sudo", &fleet.network.password);
        canaries.add_key("the key for SSH", &fleet.network.key());
        canaries
    }

    fn add(&self, what: &str, secret: &str) {
        let pattern = Regex::new(&regex::escape(secret)).unwrap();
        self.0.lock().unwrap().push((what.to_owned(), pattern));
    }

    /// A key in PEM's form: one of its lines.
    fn add_key(&self, what: &str, path: &Path) {
        let key = fs::read_to_string(path).unwrap();
        assert!(key.contains("PRIVATE KEY"), "{}", path.display());
        // The last full one: the first ones are the same in all keys of a kind.
        let line =
            key.lines().filter(|line| !line.starts_with("---")).rfind(|line| line.len() >= 60);
        self.add(what, line.unwrap());
    }

    /// Every private key that a host wrote.
    pub fn add_keys_of(&self, machine: &Machine, tree: &Tree) {
        let keys: Vec<_> = tree.ending(".key").collect();
        assert!(!keys.is_empty(), "{} has no keys", machine.name);
        for key in keys {
            let what = format!("{}'s {}", machine.name, key.display());
            self.add_key(&what, &machine.root.join(key));
        }
    }

    fn found(&self, text: &[u8]) -> Option<String> {
        let all = self.0.lock().unwrap();
        all.iter().find(|(_, secret)| secret.is_match(text)).map(|(what, _)| what.clone())
    }

    /// None may be in `text`.
    #[track_caller]
    pub fn look_at(&self, place: &str, text: &[u8]) {
        if let Some(what) = self.found(text) {
            panic!("{what} is in {place}:\n{}", String::from_utf8_lossy(text));
        }
    }

    /// None may be in what everybody on the host may read, or in its journal.
    #[track_caller]
    pub fn look_over(&self, fleet: &Fleet, machine: &Machine, tree: &Tree) {
        for path in tree.open_to_all() {
            let Ok(text) = fs::read(machine.root.join(path)) else { continue };
            let place = format!("{}:/{}", machine.name, path.display());
            if let Some(what) = self.found(&text) {
                panic!("{what} is in {place}, which everybody may read");
            }
        }
        let journal = fleet.on(&machine.name, "journalctl -q --no-pager -o cat");
        assert!(!journal.is_empty());
        self.look_at(&format!("{}'s journal", machine.name), journal.as_bytes());
    }

    /// None may be in a file of the control machine that others may read.
    #[track_caller]
    pub fn look_over_control(&self, directory: &Path) {
        for entry in fs::read_dir(directory).unwrap().flatten() {
            let (path, meta) = (entry.path(), entry.metadata().unwrap());
            if meta.is_dir() {
                self.look_over_control(&path);
            } else if meta.is_file() && meta.mode() & 0o077 != 0 {
                let what = self.found(&fs::read(&path).unwrap());
                assert!(what.is_none(), "{what:?} is in {}", path.display());
            }
        }
    }

    /// Begins to look at all processes' arguments and environments.
    pub fn watch(&self) -> Watch {
        let over = Arc::new(AtomicBool::new(false));
        let (canaries, done) = (self.clone(), Arc::clone(&over));
        let thread = std::thread::spawn(move || {
            let mut seen = Vec::new();
            while !done.load(Ordering::Relaxed) {
                canaries.processes(&mut seen);
                std::thread::sleep(Duration::from_millis(50));
            }
            seen
        });
        Watch { over, thread }
    }

    fn processes(&self, seen: &mut Vec<String>) {
        for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
            for name in ["cmdline", "environ"] {
                // Most of what is in /proc is no process, and a process may be gone already.
                let Ok(text) = fs::read(entry.path().join(name)) else { continue };
                if let Some(what) = self.found(&text) {
                    let argv = fs::read(entry.path().join("cmdline")).unwrap_or_default();
                    seen.push(format!("{what}: {name} of {}", String::from_utf8_lossy(&argv)));
                }
            }
        }
    }
}

impl Watch {
    /// Ends it; nothing may have been seen.
    pub fn end(self) {
        self.over.store(true, Ordering::Relaxed);
        let seen = self.thread.join().unwrap();
        assert!(seen.is_empty(), "secrets of processes: {seen:#?}");
    }
}
