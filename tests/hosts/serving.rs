//! How many servers run while something goes on: each is asked again and again whether it is there,
//! past the load balancer. (`/readyz` would say no while a new leader is elected, with no server
//! away.)

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::fleet::Fleet;

/// The looking at it.
pub struct Serving {
    over: Arc<AtomicBool>,
    thread: JoinHandle<Vec<Look>>,
}

/// One look at all hosts.
#[derive(Debug)]
pub struct Look {
    /// How many answered.
    pub count: usize,
    took: Duration,
}

impl Look {
    /// Whether it tells of one moment. A slow one may have met one host before its restart was over, and another
    /// after its own had begun: from the one to the other it is longer than this.
    pub fn is_quick(&self) -> bool {
        self.took < Duration::from_millis(500)
    }
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
            let mut looks = Vec::new();
            while !done.load(Ordering::Relaxed) {
                let begun = Instant::now();
                // One that is stopped makes it fail.
                let output = curl.output().expect("curl runs");
                let took = begun.elapsed();
                let count = String::from_utf8_lossy(&output.stdout).matches(" 200 ").count();
                looks.push(Look { count, took });
            }
            looks
        });
        Self { over, thread }
    }

    /// Ends it, and gives what was seen.
    pub fn end(self) -> Vec<Look> {
        self.over.store(true, Ordering::Relaxed);
        self.thread.join().expect("the one who asks")
    }
}
