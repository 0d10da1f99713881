//! Is it safe to do what a step would do to all its hosts? Asked before anything is sent.
//!
//! The answer is inherently racy: a server may fail a moment later. It is asked again before each
//! step, with a fresh view.

use crate::cluster::quorum::quorum;
use crate::cluster::safety::{Rule, SafetyFinding, may_stop, node_of};
use crate::cluster::view::ClusterView;
use crate::host::protocol::{Change, ServiceAction};

/// What a change means for the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Danger {
    /// The node's service stops.
    Stops,
    /// The node's service stops and starts again.
    Restarts,
    /// A member is removed.
    Removes {
        /// Its number, hex.
        member_id: String,
    },
}

impl Danger {
    /// What `change` means on a host whose node's service is `service`.
    pub fn of(change: &Change, service: &str) -> Option<Self> {
        match change {
            Change::Service { name, action: ServiceAction::Stop, .. } if name == service => {
                Some(Self::Stops)
            }
            Change::Service { name, action: ServiceAction::Restart, .. } if name == service => {
                Some(Self::Restarts)
            }
            Change::RemoveMember { member_id, .. } => {
                Some(Self::Removes { member_id: member_id.clone() })
            }
            Change::RemoveK3sMember { member, .. } => {
                Some(Self::Removes { member_id: member.clone() })
            }
            _ => None,
        }
    }
}

/// Whether all `dangers` (a server's name with each) may happen at once; `view` is the cluster as a
/// live member sees it, `None` when none answers: then there is no quorum to lose.
pub fn check(dangers: &[(&str, Danger)], view: Option<&ClusterView>) -> Vec<SafetyFinding> {
    let Some(view) = view else { return Vec::new() };
    let mut findings = Vec::new();
    let mut stops: Vec<&str> = dangers
        .iter()
        .filter(|(_, danger)| matches!(danger, Danger::Stops | Danger::Restarts))
        .map(|(node, _)| *node)
        .collect();
    stops.sort_unstable();
    stops.dedup();
    let (voters, _) = healthy_voters(view);
    match stops.as_slice() {
        [] => {}
        // Two voters cannot keep their quorum while one restarts, and there is no other way to
        // change them; nothing is lost by it.
        [_] if voters <= 2 && dangers.iter().all(|(_, danger)| *danger == Danger::Restarts) => {}
        [node] => findings.extend(may_stop(view, node).err()),
        several => findings.extend(several_at_once(view, several)),
    }
    for (_, danger) in dangers {
        if let Danger::Removes { member_id } = danger {
            findings.extend(removal(view, member_id));
        }
    }
    findings
}

fn healthy_voters(view: &ClusterView) -> (usize, Vec<&str>) {
    let voters: Vec<_> = view.members.iter().filter(|member| member.voter).collect();
    let healthy = voters.iter().filter(|member| member.healthy);
    (voters.len(), healthy.map(|member| node_of(&member.name)).collect())
}

fn several_at_once(view: &ClusterView, nodes: &[&str]) -> Option<SafetyFinding> {
    let (voters, healthy) = healthy_voters(view);
    let stopped: Vec<&str> = nodes.iter().copied().filter(|node| healthy.contains(node)).collect();
    let left = healthy.len().saturating_sub(stopped.len());
    if stopped.len() < 2 || left >= quorum(voters) {
        return None;
    }
    let message = format!(
        "stopping {} at once would leave {left} of {voters} voters, {} are needed",
        stopped.join(", "),
        quorum(voters)
    );
    Some(SafetyFinding::new(Rule::QuorumRisk, message).hint("give the play `serial: 1`"))
}

fn removal(view: &ClusterView, member_id: &str) -> Option<SafetyFinding> {
    let member = view.members.iter().find(|member| member.id == member_id)?;
    if !member.voter {
        return None;
    }
    let (voters, healthy) = healthy_voters(view);
    let left = healthy.len() - usize::from(member.healthy);
    let needed = quorum(voters.saturating_sub(1));
    if left >= needed {
        return None;
    }
    let message = format!(
        "removing {} would leave {left} healthy of {} voters, {needed} are needed",
        member.name,
        voters.saturating_sub(1)
    );
    Some(
        SafetyFinding::new(Rule::QuorumRisk, message)
            .hint("bring the other servers up first: `k3sup-rs status` shows which are down"),
    )
}
