//! Looks at hosts and lets the checks judge: before a run changes anything, and for the commands
//! `preflight` and `doctor`.
//!
//! A run looks only at hosts whose node is not ready, so that one that changes nothing asks no more
//! than before; and only at fresh ones, which have no data yet, with what takes its time: every port
//! from host to host, and the speed of disks.

use super::Job;
use super::Run;
use super::address::Place;
use super::event::{Event, EventSink};
use super::host::HostRun;
use super::survey::Depth;
use crate::cluster::checks::{self, Check, Finding, Scene, Severity};
use crate::cluster::layout::Role;
use crate::error::Failure;
use crate::host::protocol::Observed;
use crate::playbook::Playbook;

/// What is looked at for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// To know whether a cluster can come up.
    Preflight,
    /// To know what is wrong with one.
    Doctor,
}

/// Looks at all hosts of a job as closely as can be, changes nothing, and gives what the checks say of
/// them and of the cluster. Servers outside of `--limit` are asked only what the cluster is.
/// `inventory` is the inventory's path, for commands to do now.
///
/// # Errors
/// The inventory or the token is wrong. Hosts that cannot be reached are findings.
pub async fn examine(
    job: Job<'_>,
    purpose: Purpose,
    inventory: &str,
    sink: &mut dyn EventSink,
) -> Result<(Scene, Vec<Finding>), Failure> {
    let mut run = Run::new(job, sink)?;
    let nothing = Playbook { file: String::new(), plays: Vec::new() };
    run.gather(&nothing).await?;
    let safety = run.safety();
    let external = run.cluster.external;
    let depth = |host: &HostRun| {
        if host.witness {
            return Depth::default();
        }
        Depth {
            basics: true,
            network: true,
            disk: host.fleet.role == Some(Role::Server) && !external,
            node: purpose == Purpose::Doctor,
        }
    };
    let depths: Vec<Depth> = run.hosts.iter().map(depth).collect();
    let mut scene = run.survey(&depths).await;
    scene.safety = safety;
    inventory.clone_into(&mut scene.inventory);
    let mut findings = match purpose {
        Purpose::Preflight => checks::preflight(&scene),
        Purpose::Doctor => checks::doctor(&scene),
    };
    let inside = |name: &String| run.limit.contains(name);
    findings.retain(|finding| finding.host.as_ref().is_none_or(inside));
    Ok((scene, findings))
}

impl Run<'_> {
    /// Looks at the hosts where a node will be started.
    ///
    /// # Errors
    /// All that would go wrong, each with its host.
    pub(super) async fn preflight(&mut self) -> Result<(), Failure> {
        let depths: Vec<Depth> = self.hosts.iter().map(|host| self.depth(host)).collect();
        let differences = self.differences();
        if depths.iter().all(|depth| !depth.basics) && differences.is_empty() {
            return Ok(());
        }
        let scene = self.survey(&depths).await;
        let looked_at: Vec<&str> = self
            .hosts
            .iter()
            .zip(&depths)
            .filter(|(host, depth)| depth.basics || (depth.network && !host.out))
            .map(|(host, _)| host.name())
            .collect();
        // A lab's hosts are one machine: what that is like is for `preflight` to tell, not for each run.
        let is_lab = scene.hosts.iter().any(checks::HostSeen::is_lab);
        let of_machine = [Check::Processors, Check::Memory, Check::Disk];
        let counts = |found: &Finding| match &found.host {
            _ if is_lab && found.severity < Severity::Bad && of_machine.contains(&found.check) => {
                false
            }
            // What is wrong with the others is no reason not to bring up these.
            Some(host) => looked_at.contains(&host.as_str()) && found.check != Check::Reach,
            None => found.check == Check::Settings,
        };
        let findings: Vec<Finding> = checks::preflight(&scene).into_iter().filter(counts).collect();
        self.judge(&findings)
    }

    /// Warns of what can be lived with, and refuses the rest.
    fn judge(&self, findings: &[Finding]) -> Result<(), Failure> {
        let force = self.context.options.force;
        let (stopping, rest): (Vec<&Finding>, Vec<&Finding>) =
            findings.iter().partition(|found| found.stops(force));
        for found in rest.iter().filter(|found| found.severity >= Severity::Warning) {
            self.context.emit(&Event::Warning { message: self.context.masker.text(&found.line()) });
        }
        if stopping.is_empty() { Ok(()) } else { Err(checks::refusal(&stopping)) }
    }

    /// How closely `host` is looked at.
    fn depth(&self, host: &HostRun) -> Depth {
        if !self.starts(host) {
            return Depth::default();
        }
        let place = self.cluster.places.get(host.name());
        let is_fresh =
            place.is_some_and(|place| !has_data(place, host)) && !self.context.options.check;
        let is_lab = host.facts().is_some_and(|facts| facts.lab_root.is_some());
        let has_store = host.fleet.role == Some(Role::Server) && !self.cluster.external;
        // A lab's hosts have one disk, and it is what it is.
        Depth {
            basics: true,
            network: is_fresh,
            disk: is_fresh && has_store && !is_lab,
            node: false,
        }
    }

    /// Whether a node will be started on `host`, as far as that is known.
    fn starts(&self, host: &HostRun) -> bool {
        let has_node = matches!(host.fleet.role, Some(Role::Server | Role::Agent));
        has_node && !host.out && !host.witness && !self.cluster.is_ready(host.name())
    }
}

/// Whether `host`, whose node is at `place`, has data of one.
fn has_data(place: &Place, host: &HostRun) -> bool {
    matches!(host.world.peek(&place.disk_read()), Some(Observed::Disk(Some(_))))
}
