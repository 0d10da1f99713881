//! Which steps are left.

use super::{Halt, Intent, Seen, Step};
use crate::cluster::fence::{Fence, Operation};

/// All steps that are left, in order, as far as is seen now. None: it is done.
///
/// # Errors
/// A server that takes part cannot be reached, or belongs to another run.
pub fn next(intent: &Intent, seen: &[Seen]) -> Result<Vec<Step>, Halt> {
    let hosts: Vec<&Seen> = intent
        .servers
        .iter()
        .filter_map(|name| seen.iter().find(|host| host.name == *name))
        .collect();
    let gone: Vec<String> =
        hosts.iter().filter(|host| !host.reachable).map(|host| host.name.clone()).collect();
    if !gone.is_empty() {
        return Err(Halt::Unreachable(gone));
    }
    for host in &hosts {
        if let Some(fence) = &host.fence
            && fence.restore_id != intent.id
            && fence.operation != Operation::Superseded
        {
            let (server, id) = (host.name.clone(), fence.restore_id.clone());
            return Err(Halt::OtherFence { server, id });
        }
    }
    Ok(match intent.operation {
        Operation::Rollback => back(intent, &hosts),
        _ => forth(intent, &hosts, seen),
    })
}

/// The cluster that this restore made, if it is there.
pub(super) fn made(id: &str, first: &str, seen: &[Seen]) -> Option<String> {
    let disk = seen.iter().find(|host| host.name == first)?.disk.as_ref()?;
    (disk.restore_id.as_deref() == Some(id)).then(|| disk.cluster_id.clone())
}

fn is_ours(intent: &Intent, fence: &Fence) -> bool {
    fence.restore_id == intent.id && fence.operation == intent.operation
}

fn is_closed(intent: &Intent, host: &Seen) -> bool {
    host.fence.as_ref().is_some_and(|fence| is_ours(intent, fence) && fence.is_closed())
}

fn is_open(intent: &Intent, host: &Seen) -> bool {
    host.fence.as_ref().is_some_and(|fence| is_ours(intent, fence) && fence.is_open())
}

/// Whether all still has to be brought up once, although everything may run already: what was started
/// by hand meanwhile runs under the settings of the reset.
fn is_unjoined(intent: &Intent, hosts: &[&Seen]) -> bool {
    let first = hosts.iter().find(|host| host.name == intent.first);
    let fence = first.and_then(|first| first.fence.as_ref());
    fence.is_some_and(|fence| is_ours(intent, fence) && !fence.joined)
}

fn forth(intent: &Intent, hosts: &[&Seen], seen: &[Seen]) -> Vec<Step> {
    let target = intent.cluster.clone().or_else(|| made(&intent.id, &intent.first, seen));
    let is_home = |host: &Seen| target.is_some() && host.cluster() == target.as_deref();
    // What has data of another cluster, or does not have the new one's yet, must not run.
    let foreign = |host: &&&Seen| match &target {
        None => true,
        Some(_) => !is_home(host) && host.cluster().is_some(),
    };
    let mut steps = barrier(intent, hosts.iter().filter(foreign).copied());
    if target.is_none() {
        steps.push(Step::Reset(intent.first.clone()));
    }
    let others = || hosts.iter().filter(|host| host.name != intent.first);
    for host in others().filter(|host| host.cluster().is_some() && !is_home(host)) {
        steps.push(Step::SetAside(host.name.clone()));
    }
    let first = hosts.iter().find(|host| host.name == intent.first);
    if let Some(first) = first {
        if !(is_home(first) && (first.fence.is_none() || is_open(intent, first))) {
            steps.push(Step::Open(first.name.clone()));
        }
        if !(is_home(first) && first.running && first.ready) {
            steps.push(Step::Start(first.name.clone()));
        }
    }
    for host in others() {
        let may_start = (host.fence.is_none() && !foreign(&host)) || is_open(intent, host);
        if !may_start || (host.cluster().is_some() && !is_home(host)) {
            steps.push(Step::Open(host.name.clone()));
        }
    }
    let is_up = |host: &&Seen| is_home(host) && host.running && host.ready;
    if !steps.is_empty() || !hosts.iter().all(is_up) || is_unjoined(intent, hosts) {
        steps.push(Step::Join);
    }
    finish(&mut steps, hosts);
    steps
}

fn back(intent: &Intent, hosts: &[&Seen]) -> Vec<Step> {
    let undone = |host: &&&Seen| {
        host.aside || (intent.cluster.is_some() && host.cluster() == intent.cluster.as_deref())
    };
    let any = hosts.iter().any(|host| undone(&host));
    let mut steps = Vec::new();
    if any {
        steps = barrier(intent, hosts.iter().copied());
        for host in hosts.iter().filter(undone) {
            steps.push(Step::BringBack(host.name.clone()));
        }
    }
    for host in hosts {
        if any || host.fence.as_ref().is_some_and(|fence| !fence.is_open()) {
            steps.push(Step::Open(host.name.clone()));
        }
    }
    // Hosts that were empty before are empty again: nothing is to be brought up there.
    let has_data = |host: &&Seen| host.aside || host.cluster().is_some() && !undone(&host);
    let all_up = !any && hosts.iter().all(|host| host.running && host.ready);
    if hosts.iter().any(has_data) && (!all_up || is_unjoined(intent, hosts)) {
        steps.push(Step::Join);
    }
    finish(&mut steps, hosts);
    steps
}

/// Every one of `hosts` fenced, and then every one stopped.
fn barrier<'a>(intent: &Intent, hosts: impl Iterator<Item = &'a Seen> + Clone) -> Vec<Step> {
    let open = hosts.clone().filter(|host| !is_closed(intent, host));
    let mut steps: Vec<Step> = open.map(|host| Step::Fence(host.name.clone())).collect();
    // A node that runs behind a closed fence was not stopped yet.
    steps.extend(hosts.filter(|host| host.running).map(|host| Step::Stop(host.name.clone())));
    steps
}

fn finish(steps: &mut Vec<Step>, hosts: &[&Seen]) {
    let fenced = |host: &&&Seen| {
        host.fence.is_some()
            || steps.iter().any(|step| matches!(step, Step::Fence(name) if *name == host.name))
    };
    let names: Vec<String> = hosts.iter().filter(fenced).map(|host| host.name.clone()).collect();
    steps.extend(names.into_iter().map(Step::Finish));
}
