//! Canaries: secrets that must not be seen, and where they are looked for.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::fleet::Fleet;

/// Secrets, each with what it is.
#[derive(Clone)]
pub struct Canaries(Vec<(String, String)>);

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
        let key = fs::read_to_string(fleet.network.key()).unwrap();
        let secret_part = key.lines().rev().nth(2).unwrap().to_owned();
        Self(vec![
            ("the token".to_owned(), token),
            ("the password for sudo".to_owned(), fleet.network.password.clone()),
            ("the key for SSH".to_owned(), secret_part),
        ])
    }

    fn found(&self, text: &[u8]) -> Option<&str> {
        let within = |needle: &[u8]| text.windows(needle.len()).any(|window| window == needle);
        self.0.iter().find(|(_, secret)| within(secret.as_bytes())).map(|(what, _)| what.as_str())
    }

    /// None may be in `text`.
    #[track_caller]
    pub fn look_at(&self, place: &str, text: &[u8]) {
        if let Some(what) = self.found(text) {
            panic!("{what} is in {place}:\n{}", String::from_utf8_lossy(text));
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
