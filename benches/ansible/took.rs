//! What a run takes: time, and processor time of all that takes part in it.

use std::fs;
use std::time::{Duration, Instant};

/// What a run took.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Took {
    pub(crate) wall: Duration,
    /// Of the tool, what it started, and the hosts; `None` where nobody counts it.
    pub(crate) cpu: Option<Duration>,
}

/// Counts from now on.
pub(crate) struct Watch {
    begun: Instant,
    cpu: Option<Duration>,
}

impl Watch {
    pub(crate) fn start() -> Self {
        Self { begun: Instant::now(), cpu: cpu() }
    }

    pub(crate) fn stop(&self) -> Took {
        let wall = self.begun.elapsed();
        let cpu = cpu().zip(self.cpu).map(|(now, before)| now.saturating_sub(before));
        Took { wall, cpu }
    }
}

/// Processor time of this process's control group, in which the hosts are, too. Only of one of its own: in
/// the group of all processes everything would be counted.
fn cpu() -> Option<Duration> {
    let own = fs::read_to_string("/proc/self/cgroup").ok()?;
    own.lines().find_map(|line| {
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, path) = (parts.next()?, parts.next()?);
        if path == "/" || !controllers.split(',').any(|name| name == "cpuacct") {
            return None;
        }
        let usage = format!("/sys/fs/cgroup/{controllers}{path}/cpuacct.usage");
        fs::read_to_string(usage).ok()?.trim().parse().ok().map(Duration::from_nanos)
    })
}
