//! How many servers run while something goes on: each is asked again and again whether it is there,
//! past the load balancer. (`/readyz` would say no while a new leader is elected, with no server
//! away.)

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use crate::fleet::Fleet;

/// The looking at it.
pub struct Serving {
    over: Arc<AtomicBool>,
    thread: JoinHandle<Vec<usize>>,
}

impl Serving {
    /// Begins to ask `hosts`, all at once.
    pub fn start(fleet: &Fleet, hosts: &[&str]) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let done = Arc::clone(&over);
        let mut curl = fleet.network.command("curl");
        // A server that is there but slow is waited for.
        curl.args(["--silent", "--insecure", "--parallel", "--parallel-immediate"]);
        curl.args(["--max-time", "30", "--write-out", " %{http_code} "]);
        for host in hosts {
            curl.args(["--output", "/dev/null"]);
            curl.arg(format!("https://{}:6443/ping", fleet.machine(host).address));
        }
        let thread = std::thread::spawn(move || {
            let mut counts = Vec::new();
            while !done.load(Ordering::Relaxed) {
                // One that is stopped makes it fail.
                let output = curl.output().expect("curl runs");
                counts.push(String::from_utf8_lossy(&output.stdout).matches(" 200 ").count());
            }
            counts
        });
        Self { over, thread }
    }

    /// Ends it, and gives how many answered at each look.
    pub fn end(self) -> Vec<usize> {
        self.over.store(true, Ordering::Relaxed);
        self.thread.join().expect("the one who asks")
    }
}
