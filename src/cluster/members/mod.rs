//! May a node leave the cluster, or be replaced in it? Pure: from a view to a plan or a refusal.

#[cfg(test)]
mod tests;

use super::quorum::{quorum, survives};
use super::safety::{Rule, SafetyFinding, node_of};
use super::view::{ClusterView, MemberView};

/// What leaving means for the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Leaving {
    /// It is a server: its member's name. `None` for an agent, and for a server that is a member no more.
    pub member: Option<String>,
    /// Its member answers.
    pub healthy: bool,
    /// A node of this name is known to the cluster.
    pub node: bool,
    /// How many voters are left.
    pub voters_left: usize,
    /// How many more of them may fail.
    pub survives: usize,
}

/// What it means that `node` leaves the cluster of `view`.
///
/// # Errors
/// It would cost quorum, or there is none: the arithmetic and what to do instead.
pub fn leave(view: &ClusterView, node: &str) -> Result<Leaving, SafetyFinding> {
    let own: Vec<&MemberView> =
        view.members.iter().filter(|member| node_of(&member.name) == node).collect();
    let voters: Vec<&MemberView> = view.members.iter().filter(|member| member.voter).collect();
    let stay = || voters.iter().filter(|member| node_of(&member.name) != node);
    let left = stay().count();
    let up = stay().filter(|member| member.healthy).count();
    let leaving = Leaving {
        member: own.first().map(|member| member.name.clone()),
        healthy: own.iter().any(|member| member.healthy),
        node: view.nodes.iter().any(|seen| seen.name == node),
        voters_left: left,
        survives: survives(left, up).unwrap_or(0),
    };
    if !own.iter().any(|member| member.voter) {
        return Ok(leaving);
    }
    if left == 0 {
        let message = format!("{node} is the only server: the cluster would end");
        return Err(SafetyFinding::new(Rule::QuorumLost, message).hint(
            "`k3sup-rs reset` ends a cluster; to move it to another host, add that as a server, run \
             `k3sup-rs up`, and then remove this one",
        ));
    }
    if view.leader_id.is_none() {
        let message = format!(
            "the cluster has no leader: {up} of {} voters beside {node} answer, and nothing can be decided",
            voters.len()
        );
        return Err(SafetyFinding::new(Rule::QuorumLost, message).hint(
            "bring a server back (`k3sup-rs up`); when too many are gone for good, `k3sup-rs recover`",
        ));
    }
    let needed = quorum(left);
    if up < needed {
        let down: Vec<&str> =
            stay().filter(|member| !member.healthy).map(|member| node_of(&member.name)).collect();
        let message = format!(
            "without {node}, {up} of {left} voters are left and {needed} are needed: {} is down",
            down.join(", ")
        );
        return Err(SafetyFinding::new(Rule::QuorumRisk, message).hint(format!(
            "bring {} back (`k3sup-rs up`), or replace that one first",
            down.join(", ")
        )));
    }
    Ok(leaving)
}

/// Whether a member on a new host is better added before the old one leaves: while the old one works,
/// there is never one voter fewer than before.
pub const fn adds_first(leaving: &Leaving) -> bool {
    leaving.member.is_some() && leaving.healthy
}
