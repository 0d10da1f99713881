//! Clients that come through the load balancer without a pause: `etcdctl` and `curl`.

use std::process::{Command, Output};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::fleet::Fleet;
use crate::support::shown;

/// One client that asks again as soon as it has its answer.
struct Client {
    good: Arc<AtomicUsize>,
    failed: Arc<Mutex<Vec<Failed>>>,
    thread: JoinHandle<()>,
}

/// A request that failed.
struct Failed {
    /// How many went well before it.
    after: usize,
    said: String,
}

/// All clients.
pub struct Traffic {
    over: Arc<AtomicBool>,
    clients: Vec<(&'static str, Client)>,
}

impl Traffic {
    /// Begins: `etcdctl` writes, and `curl` asks a server for the cluster's health on both ports.
    pub fn start(fleet: &Fleet) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let bundle = fleet.bundle();
        let etcdctl = fleet.etcdctl_command("put traffic flows");
        let curl = |path: &str| {
            let mut curl = fleet.network.command("curl");
            curl.args(["--silent", "--show-error", "--fail", "--max-time", "60", "--cacert"]);
            curl.arg(bundle.join("ca.crt")).arg("--cert").arg(bundle.join("client.crt"));
            curl.arg("--key").arg(bundle.join("client.key"));
            curl.arg(format!("https://{}:{path}", fleet.machine("lb1").address));
            curl
        };
        let clients = vec![
            ("etcdctl", Client::start(etcdctl, "OK", &over)),
            ("curl, the store", Client::start(curl("2379/health"), r#""health":"true""#, &over)),
            ("curl, the supervisor", Client::start(curl("6443/readyz"), "ok", &over)),
        ];
        Self { over, clients }
    }

    /// Waits until each client had some more good answers.
    #[track_caller]
    pub fn goes_on(&self, when: &str) {
        for (name, client) in &self.clients {
            let before = client.good.load(Ordering::Relaxed);
            let started = Instant::now();
            while client.good.load(Ordering::Relaxed) < before + 8 {
                let hopeless = started.elapsed() > Duration::from_secs(600);
                assert!(!hopeless, "{name} has no answers {when}: {:?}", client.last());
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    }

    /// Ends it. No request may have failed twice in a row, and no more than `most` of each client.
    #[track_caller]
    pub fn end(self, most: usize) {
        self.over.store(true, Ordering::Relaxed);
        for (name, client) in self.clients {
            let good = client.good.load(Ordering::Relaxed);
            client.thread.join().expect("a client");
            let failed = client.failed.lock().expect("no panic");
            let said: Vec<_> = failed.iter().map(|failed| &failed.said).collect();
            eprintln!("{name}: {good} requests went well, {} did not: {said:#?}", failed.len());
            assert!(failed.len() <= most, "{name}: too many");
            let twice = failed.windows(2).any(|pair| pair[0].after == pair[1].after);
            assert!(!twice, "{name}: one more try was not enough");
        }
    }
}

impl Client {
    fn start(mut command: Command, expected: &'static str, over: &Arc<AtomicBool>) -> Self {
        let good = Arc::new(AtomicUsize::new(0));
        let failed = Arc::new(Mutex::new(Vec::new()));
        let (count, failures, over) = (Arc::clone(&good), Arc::clone(&failed), Arc::clone(over));
        let thread = std::thread::spawn(move || {
            while !over.load(Ordering::Relaxed) {
                let output = command.output().expect("a client runs");
                if is_good(&output, expected) {
                    count.fetch_add(1, Ordering::Relaxed);
                } else {
                    let (after, said) = (count.load(Ordering::Relaxed), shown(&output));
                    failures.lock().expect("no panic").push(Failed { after, said });
                }
                // Processor time is for those who are tested.
                std::thread::sleep(Duration::from_millis(50));
            }
        });
        Self { good, failed, thread }
    }

    /// What the last request that failed said.
    fn last(&self) -> Option<String> {
        self.failed.lock().expect("no panic").last().map(|failed| failed.said.clone())
    }
}

fn is_good(output: &Output, expected: &str) -> bool {
    output.status.success() && String::from_utf8_lossy(&output.stdout).contains(expected)
}
