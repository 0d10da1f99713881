//! Processes by number and start time, so that a number that was used again is never taken for
//! the process it once named.

use std::fs;
use std::path::Path;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};

use super::LabError;
use crate::store::fs::write_atomic;

/// A process that a pid file names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Process {
    pub(super) pid: u32,
    started: u64,
}

impl Process {
    /// The running process with this number.
    pub(super) fn of(pid: u32) -> Option<Self> {
        Some(Self { pid, started: start_time(pid)? })
    }

    /// The process that a pid file names, if it still runs.
    pub(super) fn from_file(path: &Path) -> Option<Self> {
        let text = fs::read_to_string(path).ok()?;
        let (pid, started) = text.trim().split_once(' ')?;
        let process = Self { pid: pid.parse().ok()?, started: started.parse().ok()? };
        process.alive().then_some(process)
    }

    /// Writes the pid file.
    pub(super) fn write(self, path: &Path) -> Result<(), LabError> {
        let text = format!("{} {}\n", self.pid, self.started);
        write_atomic(path, text.as_bytes()).map_err(LabError::io(path))
    }

    /// Whether it still runs.
    pub(super) fn alive(self) -> bool {
        start_time(self.pid) == Some(self.started)
    }

    /// Sends a signal to it and all of its group; a process that is gone is fine.
    pub(super) fn signal_group(self, signal: Signal) {
        if let (true, Some(pid)) = (self.alive(), raw_pid(self.pid)) {
            // It may end between the check and the signal: then there is nothing left to do.
            let _ = kill_process_group(pid, signal);
        }
    }

    /// Sends a signal to it alone.
    pub(super) fn signal(self, signal: Signal) {
        if let (true, Some(pid)) = (self.alive(), raw_pid(self.pid)) {
            // As above.
            let _ = rustix::process::kill_process(pid, signal);
        }
    }

    /// Waits until it is gone; false when it still runs after `limit`.
    pub(super) fn wait_gone(self, limit: Duration) -> bool {
        let until = std::time::Instant::now() + limit;
        while self.alive() {
            if std::time::Instant::now() >= until {
                return false;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        true
    }
}

/// Ends what is left of the group that a process led which has ended just now.
pub(super) fn end_group(leader: u32) {
    if let Some(pid) = raw_pid(leader) {
        // Nothing left is the usual case.
        let _ = kill_process_group(pid, Signal::KILL);
    }
}

fn raw_pid(pid: u32) -> Option<Pid> {
    i32::try_from(pid).ok().and_then(Pid::from_raw)
}

/// Start time in clock ticks since boot: field 22 of `/proc/PID/stat` (proc(5)). The command name
/// in field 2 may hold blanks and brackets, so fields are counted from its last bracket on. A
/// zombie counts as gone.
fn start_time(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace();
    if fields.next()? == "Z" {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pid_file_names_this_very_process() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pid");
        let me = Process::of(std::process::id()).unwrap();
        me.write(&path).unwrap();
        assert_eq!(Process::from_file(&path), Some(me));
    }

    #[test]
    fn a_number_used_again_is_not_the_process() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pid");
        fs::write(&path, format!("{} 1\n", std::process::id())).unwrap();
        assert_eq!(Process::from_file(&path), None);
    }

    #[test]
    fn an_ended_process_is_gone() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let process = Process::of(child.id()).unwrap();
        assert!(process.alive());
        process.signal(Signal::KILL);
        assert!(process.wait_gone(Duration::from_secs(30)));
        child.wait().unwrap();
    }
}
