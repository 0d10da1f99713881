//! The store: quorum, members, learners, lag, alarms, quota.

use super::finding::{Check, Finding, Severity};
use super::limits::{LAG_BAD, LAG_WARNED, LEARNER_AGE_S, QUOTA_BAD_PERCENT, QUOTA_WARNED_PERCENT};
use super::nodes::stopped;
use super::scene::{HostSeen, Scene};
use super::symptoms::{SLOWING, Symptoms, because};
use super::text::{percent, size, time};
use crate::cluster::quorum::{quorum, survives};
use crate::cluster::safety::node_of;
use crate::cluster::view::{ClusterView, MemberView};

/// All of it.
pub(super) fn check(scene: &Scene, symptoms: &Symptoms<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    match best_view(scene) {
        None => findings.push(silence(scene)),
        // With an external datastore there are no members.
        Some(view) if view.members.is_empty() => {}
        Some(view) => {
            findings.push(voters(scene, view));
            let members = view.members.iter();
            findings.extend(members.flat_map(|member| judge(scene, view, member, symptoms)));
        }
    }
    findings.extend(alarms(scene));
    findings.extend(scene.servers().filter_map(quota));
    findings
}

/// What the servers that answer see; one that sees a leader counts more.
pub(super) fn best_view(scene: &Scene) -> Option<&ClusterView> {
    let views = || scene.servers().filter_map(|host| host.view.as_ref());
    views().find(|view| view.leader_id.is_some()).or_else(|| views().next())
}

/// No server answers.
fn silence(scene: &Scene) -> Finding {
    if scene.servers().all(|host| host.disk.is_none() && host.lost.is_none()) {
        let why = "no server has data: there is no cluster yet";
        return Finding::unknown(Check::Quorum, why).action(scene.command("up"));
    }
    let message = "no server answers: nothing can be read or written";
    Finding::bad(Check::Quorum, "none", message).action(scene.command("up"))
}

fn voters(scene: &Scene, view: &ClusterView) -> Finding {
    let voters = view.members.iter().filter(|member| member.voter);
    let healthy = voters.clone().filter(|member| member.healthy).count();
    let voters = voters.count();
    let value = format!("{healthy}/{voters}");
    let needed = quorum(voters);
    let arithmetic = format!("{healthy} of {voters} voters are healthy, {needed} are needed");
    match survives(voters, healthy) {
        None => Finding::bad(Check::Quorum, value, format!("the quorum is lost: {arithmetic}"))
            .action(format!(
                "bring back the servers that still have their data: {}; if their disks are gone, \
                 restore a snapshot",
                scene.command("up")
            )),
        Some(0) if voters > 1 => {
            let message = format!("no further failure is survived: {arithmetic}");
            Finding::warning(Check::Quorum, value, message).action(scene.command("up"))
        }
        Some(_) => Finding::good(Check::Quorum, value),
    }
}

fn judge(
    scene: &Scene,
    view: &ClusterView,
    member: &MemberView,
    symptoms: &Symptoms<'_>,
) -> Vec<Finding> {
    let node = node_of(&member.name);
    let host = scene.hosts.iter().find(|host| host.name == node);
    let mut findings = Vec::new();
    if member.voter {
        findings.push(if member.healthy {
            Finding::good(Check::Members, "healthy")
        } else {
            down(scene, member, host, symptoms)
        });
    } else {
        findings.push(learner(scene, view, member, symptoms));
    }
    findings.extend(member.lag.filter(|_| member.healthy).map(|lag| behind(node, lag, symptoms)));
    let place = |found: Finding| if host.is_some() { found.on(node) } else { found };
    findings.into_iter().map(place).collect()
}

fn name_of(member: &MemberView) -> &str {
    if member.name.is_empty() { &member.id } else { &member.name }
}

fn down(
    scene: &Scene,
    member: &MemberView,
    host: Option<&HostSeen>,
    symptoms: &Symptoms<'_>,
) -> Finding {
    let name = name_of(member);
    let (cause, action) = match host {
        None => (
            "its host is not in the inventory".to_owned(),
            format!("add its host to the inventory, or `etcdctl member remove {}`", member.id),
        ),
        Some(HostSeen { lost: Some(why), .. }) => (
            format!("its host cannot be reached: {why}"),
            format!("start the machine or mend the way to it; then {}", scene.command("up")),
        ),
        Some(host) if host.view.is_none() => {
            (stopped(host, symptoms).1, super::nodes::look_and_mend(scene, host))
        }
        Some(host) => {
            let cause = symptoms.of(&host.name, SLOWING);
            let cause = cause
                .unwrap_or_else(|| "its node answers here: the others do not reach it".to_owned());
            (cause, super::nodes::look_and_mend(scene, host))
        }
    };
    let message = format!("its member {name} is down: {cause}");
    Finding::bad(Check::Members, "down", message).action(action)
}

fn learner(
    scene: &Scene,
    view: &ClusterView,
    member: &MemberView,
    symptoms: &Symptoms<'_>,
) -> Finding {
    let name = name_of(member);
    let node = node_of(&member.name);
    let age_s = view.nodes.iter().find(|seen| seen.name == node);
    let age_s = age_s.map(|seen| scene.now_unix_s.saturating_sub(seen.created_unix_s));
    let action = format!(
        "let its server come up: {}; or take it out, so that others can join: `etcdctl member remove {}`",
        scene.command("up"),
        member.id
    );
    if !member.healthy {
        let message = format!("its member {name} is a learner that does not answer: it is stuck");
        return Finding::bad(Check::Learners, "stuck", message).action(action);
    }
    if age_s.is_some_and(|age| age > LEARNER_AGE_S) {
        let cause = symptoms.of(node, SLOWING);
        let message = format!(
            "its member {name} is still a learner, {} entries behind, {} after its node came{}",
            member.lag.unwrap_or(0),
            time(age_s.unwrap_or(0)),
            because(cause.as_deref())
        );
        return Finding::bad(Check::Learners, "stuck", message).action(action);
    }
    Finding::good(Check::Learners, "catching up")
}

fn behind(node: &str, lag: u64, symptoms: &Symptoms<'_>) -> Finding {
    let value = lag.to_string();
    if lag < LAG_WARNED {
        return Finding::good(Check::Lag, value);
    }
    let cause = symptoms.of(node, SLOWING);
    let message = format!("its member is {lag} entries behind{}", because(cause.as_deref()));
    let found = if lag < LAG_BAD {
        Finding::warning(Check::Lag, value, message)
    } else {
        Finding::bad(Check::Lag, value, message)
    };
    found.action("look again in a minute: a member that was away catches up by itself")
}

/// Each alarm once, whoever tells of it.
fn alarms(scene: &Scene) -> Vec<Finding> {
    let mut alarms: Vec<&str> = scene
        .servers()
        .filter_map(|host| host.view.as_ref())
        .flat_map(|view| view.alarms.iter().map(String::as_str))
        .collect();
    alarms.sort_unstable();
    alarms.dedup();
    let finding = |alarm: &&str| {
        let message = format!("the alarm {alarm} stands");
        let found = Finding::bad(Check::Alarms, *alarm, message);
        if alarm.starts_with("NOSPACE") {
            let sizes = scene.servers().filter_map(|host| host.counters.as_ref());
            let largest = sizes.max_by_key(|counters| counters.store_bytes);
            let evidence = largest.filter(|counters| counters.quota_bytes > 0).map(|counters| {
                let (used, quota) = (counters.store_bytes, counters.quota_bytes);
                format!(": the store has {} of {}", size(used), size(quota))
            });
            let message = format!("{}{}", found.message, evidence.unwrap_or_default());
            let found = Finding { message, ..found };
            return found.action(
                "delete what is not needed, then `etcdctl compact REVISION`, `etcdctl defrag` and \
                 `etcdctl alarm disarm`; or raise `etcd-arg: [quota-backend-bytes=…]` on all servers",
            );
        }
        found.action("replace the member that is named: its data differs from the others'")
    };
    let found: Vec<Finding> = alarms.iter().map(finding).collect();
    if found.is_empty() && best_view(scene).is_some() {
        return vec![Finding::good(Check::Alarms, "none")];
    }
    found
}

fn quota(host: &HostSeen) -> Option<Finding> {
    let counters = host.counters.as_ref().filter(|counters| counters.quota_bytes > 0)?;
    let share = percent(counters.store_bytes, counters.quota_bytes);
    let value = format!("{share}% of {}", size(counters.quota_bytes));
    let severity = match share {
        QUOTA_BAD_PERCENT.. => Severity::Bad,
        QUOTA_WARNED_PERCENT.. => Severity::Warning,
        _ => return Some(Finding::good(Check::Quota, value).on(&host.name)),
    };
    let message = format!(
        "its store has {} of its quota of {}",
        size(counters.store_bytes),
        size(counters.quota_bytes)
    );
    let found = Finding { severity, ..Finding::warning(Check::Quota, value, message) };
    let action = "`etcdctl compact REVISION` and `etcdctl defrag`, one member after another; or raise \
                  `etcd-arg: [quota-backend-bytes=…]` on all servers";
    Some(found.action(action).on(&host.name))
}

#[cfg(test)]
mod tests;
