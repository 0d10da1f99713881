//! Whether there is a leader, how often it changed, and what most likely makes it change.

use super::counters::Counters;
use super::finding::{Check, Finding, Severity};
use super::limits::{
    COMMIT_GOOD_US, FSYNC_GOOD_US, FSYNC_REFUSED_US, LEADER_CHANGES_BAD,
    LEADER_CHANGES_WARNED_PER_HOUR, LEADER_WINDOW_S,
};
use super::scene::{HostSeen, Scene};
use super::store::best_view;
use super::symptoms::{SLOWING, Symptoms};
use super::text::{ms, time};
use crate::cluster::quorum::quorum;

/// The log of a living member is as fast as its own counters say.
pub(super) fn disks(scene: &Scene) -> Vec<Finding> {
    let of = |host: &HostSeen| {
        let counters = host.counters.as_ref()?;
        slow_log(host, counters).map(|found| found.on(&host.name))
    };
    scene.servers().filter_map(of).collect()
}

fn slow_log(host: &HostSeen, counters: &Counters) -> Option<Finding> {
    let fsync = counters.fsync.p99_us().filter(|p99| *p99 > FSYNC_GOOD_US);
    let commit = counters.commit.p99_us().filter(|p99| *p99 > COMMIT_GOOD_US);
    let (what, p99_us, good_us) = match (fsync, commit) {
        (Some(p99), _) => ("its log", p99, FSYNC_GOOD_US),
        (None, Some(p99)) => ("its applied state", p99, COMMIT_GOOD_US),
        (None, None) => return None,
    };
    let message = format!(
        "since its node started, 99 of 100 writes of {what} took up to {}, under {} is good",
        ms(p99_us),
        ms(good_us)
    );
    let is_bad = fsync.is_some_and(|p99| p99 > FSYNC_REFUSED_US) && !host.is_lab();
    let severity = if is_bad { Severity::Bad } else { Severity::Warning };
    let found = Finding::warning(Check::DiskSpeed, format!("p99 {}", ms(p99_us)), message);
    Some(Finding { severity, ..found }.action(format!(
        "`iostat -x 1` on {} shows who else writes; put {} on an SSD of its own",
        host.name, host.data_dir
    )))
}

/// Whether there is one, and how steady it is.
pub(super) fn check(scene: &Scene, symptoms: &Symptoms<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    findings.extend(missing(scene, symptoms));
    findings.extend(changes(scene, symptoms));
    findings
}

/// A majority is healthy, and still nobody leads.
fn missing(scene: &Scene, symptoms: &Symptoms<'_>) -> Option<Finding> {
    let view = best_view(scene).filter(|view| view.leader_id.is_none())?;
    let voters = view.members.iter().filter(|member| member.voter);
    let healthy = voters.clone().filter(|member| member.healthy).count();
    if view.members.is_empty() || healthy < quorum(voters.count()) {
        return None;
    }
    let message = format!("nobody leads although a majority answers; {}", causes(scene, symptoms));
    Some(Finding::bad(Check::Leader, "none", message).action(logs(scene)))
}

fn changes(scene: &Scene, symptoms: &Symptoms<'_>) -> Option<Finding> {
    // The first leader that a member sees is no change.
    let seen = |host: &HostSeen| {
        let counters = host.counters.as_ref().filter(|counters| counters.started_unix_s > 0)?;
        let up_s = scene.now_unix_s.saturating_sub(counters.started_unix_s).max(1);
        Some((counters.leader_changes.saturating_sub(1), up_s))
    };
    // Whose word is the worst; of these, who saw the most.
    let seen = scene.servers().filter_map(seen);
    let judged = seen.map(|(count, up_s)| (rate(count, up_s), count, up_s));
    let (severity, count, up_s) = judged.max_by_key(|(severity, count, _)| (*severity, *count))?;
    let value = format!("{count} changes in {}", time(up_s));
    if severity == Severity::Good {
        return Some(Finding::good(Check::Leader, value));
    }
    let message =
        format!("the leader changed {count} times in {}; {}", time(up_s), causes(scene, symptoms));
    let found = Finding::warning(Check::Leader, value, message).action(logs(scene));
    Some(Finding { severity, ..found })
}

/// What so many changes in so many seconds mean.
fn rate(count: u64, up_s: u64) -> Severity {
    let per_hour = LEADER_CHANGES_WARNED_PER_HOUR;
    if count >= LEADER_CHANGES_BAD && count * LEADER_WINDOW_S >= LEADER_CHANGES_BAD * up_s {
        Severity::Bad
    } else if count > 2 && count * 3600 > per_hour * up_s {
        Severity::Warning
    } else {
        Severity::Good
    }
}

/// What makes servers miss heartbeats, as far as it can be seen.
fn causes(scene: &Scene, symptoms: &Symptoms<'_>) -> String {
    let of = |host: &HostSeen| {
        let cause = symptoms.of(&host.name, SLOWING);
        cause.map(|cause| format!("{}: {cause}", host.name))
    };
    let mut causes: Vec<String> = scene.servers().filter_map(of).collect();
    let restarted = |host: &HostSeen| {
        let counters = host.counters.as_ref().filter(|counters| counters.started_unix_s > 0)?;
        let up_s = scene.now_unix_s.saturating_sub(counters.started_unix_s);
        (up_s < LEADER_WINDOW_S)
            .then(|| format!("{}: its node was started {} ago", host.name, time(up_s)))
    };
    causes.extend(scene.servers().filter_map(restarted));
    if causes.is_empty() {
        return "no cause is to be seen now: disks, network, load and restarts are fine".to_owned();
    }
    format!("likely because of {}", causes.join("; "))
}

fn logs(scene: &Scene) -> String {
    let service =
        scene.servers().map(|host| host.service_name.as_str()).find(|name| !name.is_empty());
    format!(
        "mend the cause; the servers' logs tell of each change: `journalctl -u {}`",
        service.unwrap_or("k3sup")
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::checks::counters::parse;
    use crate::cluster::layout::Role;
    use crate::cluster::view::{ClusterView, MemberView};

    const NOW: u64 = 1_800_000_000;

    fn server(name: &str, changes: u64, up_s: u64) -> HostSeen {
        let counters = Counters {
            leader_changes: changes + 1,
            started_unix_s: NOW - up_s,
            ..Counters::default()
        };
        HostSeen {
            name: name.to_owned(),
            role: Some(Role::Server),
            counters: Some(counters),
            ..HostSeen::default()
        }
    }

    fn scene(hosts: Vec<HostSeen>) -> Scene {
        Scene { hosts, now_unix_s: NOW, ..Scene::default() }
    }

    #[test]
    fn how_often_the_leader_changed_is_judged_by_the_time() {
        for (changes, up_s, expected) in [
            (0, 60, Severity::Good),
            (2, 60, Severity::Good),
            (3, 600, Severity::Warning),
            (4, 900, Severity::Bad),
            (4, 901, Severity::Warning),
            (5, 5 * 3600, Severity::Good),
            (6, 5 * 3600, Severity::Warning),
            (100, 100 * 86_400, Severity::Good),
        ] {
            let found = check(&scene(vec![server("s1", changes, up_s)]), &Symptoms(&[]));
            assert_eq!(found.len(), 1);
            assert_eq!(found[0].severity, expected, "{changes} in {up_s}");
        }
        assert!(check(&scene(Vec::new()), &Symptoms(&[])).is_empty());
    }

    #[test]
    fn the_likely_cause_is_named() {
        let hosts = vec![server("s1", 8, 3600), server("s2", 1, 300), server("s3", 0, 3600)];
        let slow = Finding::warning(Check::DiskSpeed, "", "its disk is slow").on("s3");
        let fine = Finding::good(Check::Network, "").on("s1");
        let elsewhere = Finding::bad(Check::Ports, "", "a port is taken").on("s1");
        let found = check(&scene(hosts), &Symptoms(&[slow, fine, elsewhere])).remove(0);
        assert_eq!(
            found.message,
            "the leader changed 8 times in 60 min; likely because of s3: its disk is slow; s2: its node \
             was started 5 min ago"
        );
        let found = check(&scene(vec![server("s1", 8, 3600)]), &Symptoms(&[])).remove(0);
        assert!(found.message.contains("no cause is to be seen now"), "{}", found.message);
    }

    #[test]
    fn a_majority_without_a_leader_is_bad_and_a_lost_quorum_is_anothers_business() {
        let of = |healthy: [bool; 3]| {
            let member = |healthy| MemberView { voter: true, healthy, ..MemberView::default() };
            let view =
                ClusterView { members: healthy.map(member).to_vec(), ..ClusterView::default() };
            let host =
                HostSeen { role: Some(Role::Server), view: Some(view), ..HostSeen::default() };
            check(&scene(vec![host]), &Symptoms(&[]))
        };
        assert_eq!(of([true, true, false])[0].value, "none");
        assert!(of([true, false, false]).is_empty());
    }

    #[test]
    fn a_slow_log_is_known_by_its_own_counters() {
        let of = |family: &str, under: &str, count: u64| {
            let text =
                format!("{family}_bucket{{le=\"{under}\"}} {count}\n{family}_count {count}\n");
            let host = HostSeen { counters: Some(parse(&text)), ..server("s1", 0, 60) };
            disks(&scene(vec![host])).first().map(|found| found.severity)
        };
        let (fsync, commit) =
            ("etcd_disk_wal_fsync_duration_seconds", "etcd_disk_backend_commit_duration_seconds");
        for (family, under, count, expected) in [
            (fsync, "0.008", 1000, None),
            (fsync, "0.016", 1000, Some(Severity::Warning)),
            (fsync, "0.064", 1000, Some(Severity::Bad)),
            (fsync, "0.064", 50, None),
            (commit, "0.016", 1000, None),
            (commit, "0.064", 1000, Some(Severity::Warning)),
        ] {
            assert_eq!(of(family, under, count), expected, "{family} {under} {count}");
        }
    }
}
