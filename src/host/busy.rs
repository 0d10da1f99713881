//! Whether an executor is changing this host right now. Each holds a shared lock on the file of its
//! own binary while it makes changes: the lock ends with the process, whatever became of who called
//! it, and a caller that lost its link can wait until the executor it left behind is through.

use std::fs::File;
use std::time::{Duration, Instant};

use rustix::fs::FlockOperation;

/// How often is looked whether the others are through.
const INTERVAL: Duration = Duration::from_millis(50);

/// Says that changes are being made, until it is dropped. `None` where that cannot be said.
pub(crate) fn begin() -> Option<File> {
    let file = own()?;
    rustix::fs::flock(&file, FlockOperation::LockShared).ok()?;
    Some(file)
}

/// Waits until no executor makes changes; whether that was so within `limit`.
pub(crate) fn wait(limit: Duration) -> bool {
    let Some(file) = own() else { return true };
    let begun = Instant::now();
    loop {
        // Given back at once, with the file.
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Err(rustix::io::Errno::WOULDBLOCK | rustix::io::Errno::INTR) => {}
            Ok(()) | Err(_) => return true,
        }
        if begun.elapsed() >= limit {
            return false;
        }
        std::thread::sleep(INTERVAL);
    }
}

/// The file of this binary, the same for all executors that were pushed to one place.
fn own() -> Option<File> {
    File::open("/proc/self/exe").ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_makes_changes_is_waited_for() {
        let busy = begin().unwrap();
        let second = begin();
        assert!(second.is_some(), "two may make changes");
        assert!(!wait(Duration::ZERO));
        drop(second);
        let waiting = std::thread::spawn(|| wait(Duration::from_secs(600)));
        drop(busy);
        assert!(waiting.join().unwrap());
    }
}
