//! One server at a time: in which order, and what must hold before one stops and after it is back.
//!
//! Pure: from a view of the cluster to an order, a reason to wait, or a refusal.

pub mod skew;
#[cfg(test)]
mod tests;

use super::quorum::quorum;
use super::safety::{Rule, SafetyFinding, node_of};
use super::view::{ClusterView, MemberView};

/// How many log entries a member may be behind the leader and still count as caught up: while clients
/// write, a follower is always a little behind.
pub const LAG_ENTRIES_MAX: u64 = 1_000;

/// Orders servers for a change of one after another: those that do not answer first (they cost
/// nothing, and may come back by it), then followers, the leader last. Stable within a kind.
pub fn order(view: Option<&ClusterView>, servers: &mut [String]) {
    let key = |server: &String| {
        let member = view.and_then(|view| member_of(view, server));
        let leads = member.is_some_and(|member| view.is_some_and(|view| leads(view, member)));
        (leads, member.is_some_and(|member| member.healthy))
    };
    servers.sort_by_cached_key(key);
}

/// Whether each of `servers` can be stopped in its turn, as far as that can be known before the
/// first: those of them that are down count as back, for their turn comes first.
///
/// # Errors
/// It cannot, with the arithmetic and what to do instead.
pub fn feasible(view: Option<&ClusterView>, servers: &[String]) -> Result<(), SafetyFinding> {
    let Some(view) = view.filter(|view| !view.members.is_empty()) else { return Ok(()) };
    if view.leader_id.is_none() {
        let message = "the cluster has no leader that a quorum follows";
        let hint = "`k3sup-rs up` starts what is down; `k3sup-rs status` shows which are missing";
        return Err(SafetyFinding::new(Rule::QuorumLost, message).hint(hint));
    }
    let voters: Vec<&MemberView> = view.members.iter().filter(|member| member.voter).collect();
    let ours = |member: &MemberView| servers.iter().any(|name| name == node_of(&member.name));
    let up = voters.iter().filter(|member| member.healthy || ours(member)).count();
    let stops = voters.iter().find(|member| member.healthy && ours(member));
    let Some(first) = stops.filter(|_| voters.len() > 1) else { return Ok(()) };
    let needed = needed_without_one(voters.len());
    if up > needed {
        return Ok(());
    }
    let down = voters.iter().filter(|member| !member.healthy && !ours(member));
    let down: Vec<&str> = down.map(|member| node_of(&member.name)).collect();
    let message = format!(
        "stopping {} would leave {} of {} voters, {needed} are needed: {} is down",
        node_of(&first.name),
        up.saturating_sub(1),
        voters.len(),
        down.join(", ")
    );
    Err(SafetyFinding::new(Rule::QuorumRisk, message).hint(
        "bring it back (`k3sup-rs up`), or `k3sup-rs replace` or `remove` it, and run this again",
    ))
}

/// The gate before the server `node` stops: a leader, no learner, and enough of the other voters up and
/// caught up. `view` is the node's own; one that does not answer is missed by nobody.
///
/// # Errors
/// What to wait for.
pub fn spare(view: Option<&ClusterView>, node: &str) -> Result<(), String> {
    let Some(view) = view.filter(|view| !view.members.is_empty()) else { return Ok(()) };
    settled(view)?;
    let voters = view.members.iter().filter(|member| member.voter).count();
    if voters < 2 {
        return Ok(());
    }
    let others =
        || view.members.iter().filter(|member| member.voter && node_of(&member.name) != node);
    let missing: Vec<String> = others().filter_map(|member| complaint(member).err()).collect();
    let good = others().count() - missing.len();
    let needed = needed_without_one(voters);
    if good >= needed {
        return Ok(());
    }
    Err(format!(
        "without {node}, {good} of {voters} voters are left and {needed} are needed: {}",
        missing.join(", ")
    ))
}

/// The gate after the server `node` is back: it votes, answers, is ready and has caught up, and there is
/// a leader and no learner.
///
/// # Errors
/// What to wait for.
pub fn caught_up(view: Option<&ClusterView>, node: &str) -> Result<(), String> {
    let view = view.ok_or("the node does not answer")?;
    if !view.ready {
        let reason = view.not_ready_reason.as_deref().unwrap_or("it gives no reason");
        return Err(format!("{node} is not ready: {reason}"));
    }
    if view.members.is_empty() {
        return Ok(());
    }
    settled(view)?;
    let member = member_of(view, node)
        .ok_or_else(|| format!("no member of the cluster belongs to {node}"))?;
    complaint(member)
}

/// The members' one that leads, if it is that of `node`: another voter can lead in its place.
pub fn hands_over(view: Option<&ClusterView>, node: &str) -> bool {
    let Some(view) = view else { return false };
    let others = view
        .members
        .iter()
        .any(|member| member.voter && member.healthy && node_of(&member.name) != node);
    others && member_of(view, node).is_some_and(|member| leads(view, member))
}

/// A leader, and nobody who only learns.
fn settled(view: &ClusterView) -> Result<(), String> {
    if view.leader_id.is_none() {
        return Err("the cluster has no leader".to_owned());
    }
    match view.members.iter().find(|member| !member.voter) {
        Some(learner) if learner.name.is_empty() => {
            Err(format!("member {} has not started", learner.id))
        }
        Some(learner) => Err(format!("{} does not vote yet", node_of(&learner.name))),
        None => Ok(()),
    }
}

/// What is missing of a voter.
fn complaint(member: &MemberView) -> Result<(), String> {
    let name = node_of(&member.name);
    match member.lag {
        _ if !member.healthy => Err(format!("{name} does not answer")),
        Some(lag) if lag > LAG_ENTRIES_MAX => Err(format!("{name} is {lag} entries behind")),
        _ => Ok(()),
    }
}

/// How many of the others must be there while one of `voters` is away. Of two, one cannot be a quorum:
/// the other has to be there when the first comes back.
fn needed_without_one(voters: usize) -> usize {
    if voters == 2 { 1 } else { quorum(voters) }
}

fn leads(view: &ClusterView, member: &MemberView) -> bool {
    view.leader_id.as_deref() == Some(member.id.as_str())
}

fn member_of<'a>(view: &'a ClusterView, node: &str) -> Option<&'a MemberView> {
    let own = view.members.iter().filter(|member| node_of(&member.name) == node);
    own.max_by_key(|member| (member.voter, member.healthy))
}
