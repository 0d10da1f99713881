//! One host's disks: room, whether they can be written, and how fast.

use super::finding::{Check, Finding};
use super::limits::{
    DISK_FULL_PERCENT, DISK_LEFT_BYTES, DISK_LEFT_PERCENT, FSYNC_GOOD_US, FSYNC_REFUSED_US,
    STORE_ROOM_BYTES,
};
use super::scene::{HostSeen, SpaceSeen};
use super::text::{mib, ms, percent, size};
use crate::host::protocol::DiskSpeed;

/// All of it.
pub(super) fn check(host: &HostSeen) -> Vec<Finding> {
    let mut findings = room(host);
    findings.extend(host.disk_speed.as_ref().map(|speed| speed_of(host, speed)));
    findings
}

fn room(host: &HostSeen) -> Vec<Finding> {
    let mut findings: Vec<Finding> = Vec::new();
    let mut last = None;
    for space in &host.spaces {
        let Some(found) = shortage(space) else { continue };
        // The same file system is told of once.
        if space.not_writable.is_none() || space.not_writable != last {
            findings.push(found);
        }
        last.clone_from(&space.not_writable);
    }
    let grows = host.spaces.iter().find(|space| space.grows);
    if let Some(space) = grows.filter(|_| findings.is_empty()) {
        findings.push(filling(host, space));
    }
    findings
}

/// What keeps something from being written there.
fn shortage(space: &SpaceSeen) -> Option<Finding> {
    let path = &space.path;
    if let Some(why) = &space.not_writable {
        let message = format!("{why}; {path} cannot be written");
        return Some(Finding::bad(Check::Disk, "not writable", message).action(format!(
            "`findmnt -T {path}` shows the file system; remount it, or let `become` be root"
        )));
    }
    (space.free_bytes < space.needed_bytes).then(|| {
        let free = mib(space.free_bytes);
        let message = format!("{path} needs {} of space, {free} are free", mib(space.needed_bytes));
        Finding::bad(Check::Disk, format!("{free} free"), message)
            .action(format!("make room: `df -h {path}` and `du -xsh {path}` show what has it"))
    })
}

/// Where the data is, and grows.
fn filling(host: &HostSeen, space: &SpaceSeen) -> Finding {
    let left = percent(space.free_bytes, space.total_bytes);
    let value = format!("{} free", size(space.free_bytes));
    let action = format!("make room: `du -xh {} | sort -h | tail` shows what has it", space.path);
    let is_small = space.free_bytes < DISK_LEFT_BYTES;
    let message = if is_small && left < DISK_FULL_PERCENT && space.free_bytes < STORE_ROOM_BYTES {
        let message = format!("the disk under {} is full: {left}% are left", space.path);
        return Finding::bad(Check::Disk, value, message).forceable().action(action);
    } else if host.is_server() && space.free_bytes < STORE_ROOM_BYTES {
        format!("{} may grow to {}", space.path, size(STORE_ROOM_BYTES))
    } else if is_small && left < DISK_LEFT_PERCENT {
        format!("the disk under {} fills up: {left}% are left", space.path)
    } else {
        return Finding::good(Check::Disk, value);
    };
    Finding::warning(Check::Disk, value, message).action(action)
}

fn speed_of(host: &HostSeen, speed: &Result<DiskSpeed, String>) -> Finding {
    let speed = match speed {
        Ok(speed) => speed,
        Err(why) => return Finding::unknown(Check::DiskSpeed, why.clone()),
    };
    let value = format!("p99 {}", ms(speed.p99_us));
    if speed.p99_us <= FSYNC_GOOD_US {
        return Finding::good(Check::DiskSpeed, value);
    }
    let message = format!(
        "99 of 100 writes are on disk after {} (half of them after {}, the longest took {}), under {} \
         is good",
        ms(speed.p99_us),
        ms(speed.p50_us),
        ms(speed.max_us),
        ms(FSYNC_GOOD_US),
    );
    let finding = if speed.p99_us <= FSYNC_REFUSED_US || host.is_lab() {
        Finding::warning(Check::DiskSpeed, value, message)
    } else {
        Finding::bad(Check::DiskSpeed, value, message).forceable()
    };
    finding.action(format!(
        "put {} on an SSD with power-loss protection, or on a disk that nobody else writes to",
        host.data_dir
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::checks::Severity;
    use crate::cluster::checks::limits::MIB;
    use crate::cluster::layout::Role;
    use crate::host::protocol::Facts;

    const GIB: u64 = 1024 * MIB;

    fn space(path: &str, needed_bytes: u64, free_bytes: u64) -> SpaceSeen {
        let total_bytes = 100 * GIB;
        SpaceSeen {
            path: path.to_owned(),
            needed_bytes,
            free_bytes,
            total_bytes,
            ..SpaceSeen::default()
        }
    }

    fn server(spaces: Vec<SpaceSeen>) -> HostSeen {
        HostSeen {
            role: Some(Role::Server),
            data_dir: "/var/lib/k3sup".to_owned(),
            spaces,
            ..HostSeen::default()
        }
    }

    #[test]
    fn what_cannot_be_written_is_told_once_for_a_file_system() {
        let read_only = |path: &str| SpaceSeen {
            not_writable: Some("/etc is on a read-only file system".to_owned()),
            ..space(path, 0, 40 * GIB)
        };
        let host = server(vec![
            space("/var/lib/k3sup", 128 * MIB, MIB),
            read_only("/etc/k3sup"),
            read_only("/etc/systemd/system/k3sup.service"),
            space("/usr/local/bin/k3sup-rs", 30 * MIB, MIB),
        ]);
        let messages: Vec<String> = check(&host).into_iter().map(|found| found.message).collect();
        assert_eq!(
            messages,
            [
                "/var/lib/k3sup needs 128 MiB of space, 1 MiB are free",
                "/etc is on a read-only file system; /etc/k3sup cannot be written",
                "/usr/local/bin/k3sup-rs needs 30 MiB of space, 1 MiB are free",
            ]
        );
    }

    #[test]
    fn a_disk_that_fills_up_is_warned_of_before_it_is_full() {
        for (role, free, total, expected) in [
            (Role::Server, 50 * GIB, 100 * GIB, Severity::Good),
            (Role::Server, 5 * GIB, 100 * GIB, Severity::Warning),
            (Role::Server, 30 * GIB, 4000 * GIB, Severity::Good),
            (Role::Server, GIB, 4 * GIB, Severity::Warning),
            (Role::Agent, GIB, 4 * GIB, Severity::Good),
            (Role::Server, GIB, 100 * GIB, Severity::Bad),
            (Role::Agent, GIB, 100 * GIB, Severity::Bad),
        ] {
            let seen =
                SpaceSeen { grows: true, total_bytes: total, ..space("/var/lib/k3sup", 0, free) };
            let host = HostSeen { role: Some(role), spaces: vec![seen], ..HostSeen::default() };
            let findings = check(&host);
            assert_eq!(findings.len(), 1);
            assert_eq!(findings[0].severity, expected, "{role:?} {}", findings[0].message);
        }
    }

    #[test]
    fn a_slow_disk_is_warned_of_and_a_very_slow_one_refused_without_force() {
        let of = |p99_us: u64, lab: bool| {
            let mut host = server(Vec::new());
            host.disk_speed =
                Some(Ok(DiskSpeed { writes: 1000, p50_us: 400, p99_us, max_us: 40_000 }));
            let lab_root = lab.then(|| "/lab/s1".to_owned());
            host.facts = Some(Facts { lab_root, ..Facts::default() });
            check(&host).remove(0)
        };
        assert_eq!(of(10_000, false).severity, Severity::Good);
        assert_eq!(of(10_001, false).severity, Severity::Warning);
        assert_eq!(of(25_000, false).severity, Severity::Warning);
        let refused = of(25_001, false);
        assert!(refused.stops(false) && !refused.stops(true));
        assert_eq!(
            refused.message,
            "99 of 100 writes are on disk after 25.0 ms (half of them after 0.4 ms, the longest took \
             40.0 ms), under 10.0 ms is good"
        );
        assert_eq!(of(90_000, true).severity, Severity::Warning, "a lab's disk is what it is");
        let mut host = server(Vec::new());
        host.disk_speed = Some(Err("no space left".to_owned()));
        assert_eq!(check(&host)[0].severity, Severity::Unknown);
    }
}
