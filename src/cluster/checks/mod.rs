//! Judges what was measured: facts in, findings out. Behind `preflight`, which looks before anything
//! is changed, and `doctor`, which looks at a living cluster.
//!
//! Pure: it measures nothing itself and knows nothing of how it was measured.

mod certificates;
mod clock;
pub mod counters;
mod data;
mod disks;
mod finding;
mod identity;
mod leader;
mod limits;
mod machine;
mod network;
mod nodes;
mod scene;
mod store;
mod symptoms;
mod text;

pub use finding::{Check, Finding, Severity, exit_code, refusal};
pub use network::{Need, Wiring};
pub use scene::{ClockSeen, HostSeen, PortSeen, ProbeSeen, Scene, SpaceSeen};

/// What stands in the way of a cluster, or will.
pub fn preflight(scene: &Scene) -> Vec<Finding> {
    let mut findings = common(scene);
    findings.extend(data::check(scene));
    sorted(scene, findings)
}

/// What is wrong with a living cluster, with likely causes.
pub fn doctor(scene: &Scene) -> Vec<Finding> {
    let mut findings = common(scene);
    findings.extend(data::check(scene));
    findings.extend(certificates::check(scene));
    findings.extend(leader::disks(scene));
    // What was found so far may be the cause of what is found next.
    let symptoms = symptoms::Symptoms(&findings);
    let effects = [
        nodes::check(scene, &symptoms),
        store::check(scene, &symptoms),
        leader::check(scene, &symptoms),
    ];
    findings.extend(effects.into_iter().flatten());
    sorted(scene, findings)
}

/// What is looked at in both.
fn common(scene: &Scene) -> Vec<Finding> {
    let mut findings = Vec::new();
    for host in &scene.hosts {
        if let Some(why) = &host.lost {
            findings.push(lost(scene, why).on(&host.name));
            continue;
        }
        let own = [machine::check(scene, host), disks::check(host), network::check(host)];
        findings.push(Finding::good(Check::Reach, "yes").on(&host.name));
        findings.extend(own.into_iter().flatten().map(|found| found.on(&host.name)));
    }
    findings.extend(clock::check(scene));
    findings.extend(identity::check(scene));
    findings
}

fn lost(scene: &Scene, why: &str) -> Finding {
    Finding::bad(Check::Reach, "no", format!("it cannot be reached: {why}"))
        .action(format!("start the machine, or mend the way to it; then {}", scene.command("up")))
}

/// By host as in the inventory, the cluster's own first; then in the order of the checks.
fn sorted(scene: &Scene, mut findings: Vec<Finding>) -> Vec<Finding> {
    let place = |found: &Finding| {
        let name = found.host.as_ref()?;
        scene.hosts.iter().position(|host| host.name == *name)
    };
    findings.sort_by_key(|found| (place(found), found.check));
    findings
}
