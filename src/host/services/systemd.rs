//! systemd, through `systemctl` and `journalctl`: both are there wherever systemd is.

use std::collections::HashMap;

use super::{ask, judge, run};
use crate::host::error::HostResult;
use crate::host::files::unix_ms;
use crate::host::protocol::{HostError, HostErrorKind, ServiceAction, ServiceFacts};

/// What is asked of a unit (systemctl(1), `show`).
const PROPERTIES: &str =
    "LoadState,ActiveState,UnitFileState,MainPID,ActiveEnterTimestampMonotonic";

pub(super) async fn facts(name: &str) -> HostResult<ServiceFacts> {
    let unit = format!("{name}.service");
    let properties = format!("--property={PROPERTIES}");
    let output = ask(&["systemctl", "show", "--no-pager", &properties, "--", &unit]).await?;
    if output.status != 0 {
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        let message = format!("cannot ask systemd about {unit}: {said}");
        return Err(HostError::new(HostErrorKind::Service, message));
    }
    let uptime = std::fs::read_to_string("/proc/uptime").unwrap_or_default();
    let uptime_ms = uptime.split_whitespace().next().and_then(seconds_to_ms).unwrap_or(0);
    Ok(parse(&String::from_utf8_lossy(&output.stdout), unix_ms().saturating_sub(uptime_ms)))
}

/// `12.34` seconds as milliseconds; the kernel prints two digits after the point.
fn seconds_to_ms(text: &str) -> Option<u64> {
    let (whole, part) = text.split_once('.')?;
    Some(whole.parse::<u64>().ok()? * 1000 + part.parse::<u64>().ok()? * 10)
}

/// `boot_unix_ms`: when the machine started, milliseconds since 1970.
fn parse(text: &str, boot_unix_ms: u64) -> ServiceFacts {
    let values: HashMap<&str, &str> =
        text.lines().filter_map(|line| line.split_once('=')).collect();
    let value = |name: &str| values.get(name).copied().unwrap_or_default();
    let active = matches!(value("ActiveState"), "active" | "reloading");
    let entered = value("ActiveEnterTimestampMonotonic").parse::<u64>().ok().filter(|us| *us > 0);
    ServiceFacts {
        exists: !matches!(value("LoadState"), "" | "not-found"),
        active,
        starting: value("ActiveState") == "activating",
        failed: value("ActiveState") == "failed",
        enabled: matches!(value("UnitFileState"), "enabled" | "enabled-runtime" | "static"),
        pid: value("MainPID").parse().ok().filter(|pid| *pid != 0),
        active_since_unix_ms: entered.filter(|_| active).map(|us| boot_unix_ms + us / 1000),
    }
}

pub(super) async fn act(name: &str, action: ServiceAction, timeout_ms: u64) -> HostResult<()> {
    let unit = format!("{name}.service");
    let state = ["systemctl", "show", "--property=NeedDaemonReload,LoadState", "--", &unit];
    if is_stale(&String::from_utf8_lossy(&ask(&state).await?.stdout)) {
        reload().await?;
    }
    let output =
        run(&["systemctl", action.verb(), "--no-ask-password", "--", &unit], timeout_ms).await?;
    let see = format!("`journalctl -u {name}` on the host has its log");
    judge(name, action, &output, &see)
}

/// A unit that was written since systemd read it would be started as it was. One whose file went away while it
/// was failed, and is there again, cannot be loaded (EBUSY) before all are read anew.
fn is_stale(text: &str) -> bool {
    let is = |line: &str| {
        matches!(
            line,
            "NeedDaemonReload=yes"
                | "LoadState=not-found"
                | "LoadState=error"
                | "LoadState=bad-setting"
        )
    };
    text.lines().any(is)
}

pub(super) async fn reload() -> HostResult<()> {
    let output = ask(&["systemctl", "daemon-reload"]).await?;
    if output.status == 0 {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    let message = format!("systemd cannot read its units again: {said}");
    Err(HostError::new(HostErrorKind::Service, message))
}

pub(super) async fn log(name: &str, lines: u32) -> HostResult<String> {
    let (unit, lines) = (format!("--unit={name}.service"), format!("--lines={lines}"));
    let output =
        ask(&["journalctl", "--no-pager", "--quiet", "--output=short-iso", &unit, &lines]).await?;
    Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_running_unit_is_understood() {
        let text = "LoadState=loaded\nActiveState=active\nUnitFileState=enabled\nMainPID=42\n\
                    ActiveEnterTimestampMonotonic=5000000\n";
        let facts = parse(text, 1_000_000);
        assert!(facts.exists && facts.active && facts.enabled && !facts.failed);
        assert_eq!((facts.pid, facts.active_since_unix_ms), (Some(42), Some(1_005_000)));
    }

    #[test]
    fn units_are_read_anew_when_what_systemd_knows_is_not_what_is_there() {
        assert!(!is_stale("LoadState=loaded\nNeedDaemonReload=no\n"));
        assert!(is_stale("LoadState=loaded\nNeedDaemonReload=yes\n"));
        assert!(is_stale("LoadState=error\nNeedDaemonReload=no\n"));
    }

    #[test]
    fn an_unknown_or_failed_unit_is_told_apart() {
        let unknown = "LoadState=not-found\nActiveState=inactive\nUnitFileState=\nMainPID=0\n";
        assert_eq!(parse(unknown, 0), ServiceFacts::default());
        let failed = parse("LoadState=loaded\nActiveState=failed\n", 0);
        assert!(failed.exists && failed.failed && !failed.active);
        assert_eq!(seconds_to_ms("12.34"), Some(12_340));
    }
}
