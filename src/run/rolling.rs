//! Plays with `order: rolling`: before each wave the cluster is looked at again, and who leads then
//! comes last.

use super::Run;
use super::event::Event;
use crate::cluster::layout::Role;
use crate::cluster::rolling;
use crate::cluster::safety::SafetyFinding;
use crate::cluster::view::ClusterView;
use crate::error::{ExitCode, Failure};

impl Run<'_> {
    /// Sorts the hosts that are left of a play. Before the first wave it is also asked whether the
    /// whole can be done.
    ///
    /// # Errors
    /// It cannot: nothing was stopped yet.
    pub(super) async fn sort_rolling(
        &mut self,
        places: &mut [usize],
        first: bool,
    ) -> Result<(), Failure> {
        if !first && !self.context.options.check {
            self.look_again().await;
        }
        let name = |place: &usize| self.hosts.get(*place).map(|host| host.name().to_owned());
        let mut names: Vec<String> = places.iter().filter_map(name).collect();
        if first && let Err(finding) = rolling::feasible(self.best_view(), &names) {
            return self.refuse(&[finding]);
        }
        rolling::order(self.best_view(), &mut names);
        places.sort_by_cached_key(|place| {
            let host = self.hosts.get(*place);
            host.and_then(|host| names.iter().position(|name| name == host.name()))
        });
        Ok(())
    }

    /// What the servers' disks and nodes say is asked again.
    pub(super) async fn look_again(&mut self) {
        for host in &mut self.hosts {
            if let Some(place) = self.cluster.places.get(host.name())
                && host.fleet.role == Some(Role::Server)
            {
                host.forget_reads(&place.reads());
            }
        }
        self.refresh_cluster().await;
    }

    /// The cluster as a server sees it that sees a leader, else as any sees it.
    pub(super) fn best_view(&self) -> Option<&ClusterView> {
        let views = || self.hosts.iter().filter_map(|host| self.cluster.view(host));
        views().find(|view| view.leader_id.is_some()).or_else(|| views().next())
    }

    /// Tells of findings.
    ///
    /// # Errors
    /// There are some.
    pub(super) fn refuse(&self, findings: &[SafetyFinding]) -> Result<(), Failure> {
        self.tell(findings, true);
        let Some(first) = findings.first() else { return Ok(()) };
        let mut failure = Failure::new(ExitCode::Refused, format!("not safe: {first}"));
        failure.hints.extend(first.hint.clone());
        Err(failure)
    }

    /// Tells of findings, which end the run or do not.
    pub(super) fn tell(&self, findings: &[SafetyFinding], refuses: bool) {
        for finding in findings {
            let message = self.context.masker.text(&finding.message);
            let rule = finding.rule.name().to_owned();
            self.context.emit(&Event::Safety { rule, message, refuses });
        }
    }
}
