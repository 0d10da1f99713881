//! When services of hosts ran, by their systemd: all hosts of a test share one monotonic clock.

use crate::fleet::Fleet;

/// A service at some moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unit {
    /// Its main process.
    pub pid: u64,
    /// When it was last told to stop, in microseconds; 0: never.
    pub stopped: u64,
    /// When it was last ready.
    pub ready: u64,
}

impl Unit {
    /// What systemd says of a host's service, which must run.
    #[track_caller]
    pub fn of(fleet: &Fleet, host: &str, unit: &str) -> Self {
        let names = "MainPID,ActiveExitTimestampMonotonic,ActiveEnterTimestampMonotonic";
        let said = fleet.on(host, &format!("systemctl show {unit} -p ActiveState,{names}"));
        assert!(said.contains("ActiveState=active"), "{host}: {said}");
        let value = |name: &str| {
            let line = said.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
            line.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("{name}: {said}"))
        };
        Self {
            pid: value("MainPID"),
            stopped: value("ActiveExitTimestampMonotonic"),
            ready: value("ActiveEnterTimestampMonotonic"),
        }
    }
}
