//! The decision itself.

use std::collections::BTreeSet;

use super::{Action, BootstrapPlan, Observation, Step};
use crate::cluster::quorum::quorum;
use crate::cluster::safety::{Rule, SafetyFinding, node_of};
use crate::cluster::view::{ClusterView, Datastore, DiskView};

/// Decides what each server must do. `servers` are all servers of the inventory, in its order;
/// `trust_absent` says that a person vouches for the unreachable ones having no data.
///
/// # Errors
/// It would not be safe; all findings at once.
pub fn decide(
    servers: &[Observation],
    trust_absent: bool,
) -> Result<BootstrapPlan, Vec<SafetyFinding>> {
    let checks = [one_cluster(servers), one_ca(servers), dqlite(servers)];
    let refusals: Vec<SafetyFinding> = checks.into_iter().flatten().collect();
    if !refusals.is_empty() {
        return Err(refusals);
    }
    let mut plan = match cluster_id(servers) {
        None => found(servers, trust_absent)?,
        Some(id) => rebuild(servers, id)?,
    };
    plan.warnings.extend(warnings(servers));
    Ok(plan)
}

/// Data that still counts: of a member that was not removed.
pub(super) fn data(server: &Observation) -> Option<&DiskView> {
    server.disk.as_ref().filter(|disk| !disk.removed && !disk.cluster_id.is_empty())
}

/// The cluster that a server belongs to, by its running node or else by its disk.
fn cluster_of(server: &Observation) -> Option<&str> {
    let live = server.view.as_ref().map(|view| view.cluster_id.as_str());
    live.filter(|id| !id.is_empty()).or_else(|| data(server).map(|disk| disk.cluster_id.as_str()))
}

fn cluster_id(servers: &[Observation]) -> Option<String> {
    servers.iter().find_map(cluster_of).map(str::to_owned)
}

fn one_cluster(servers: &[Observation]) -> Option<SafetyFinding> {
    let ids: BTreeSet<&str> = servers.iter().filter_map(cluster_of).collect();
    if ids.len() < 2 {
        return None;
    }
    let of = |id: &str| names(servers.iter().filter(|server| cluster_of(server) == Some(id)));
    let parts: Vec<String> = ids.iter().map(|id| format!("{} of cluster {id}", of(id))).collect();
    let message = format!("servers hold data of different clusters: {}", parts.join(", "));
    Some(SafetyFinding::new(Rule::TwoClusters, message).hint(
        "nothing was touched; keep the cluster that has your data, and set the data directory of the \
         other servers aside (or `k3sup-rs reset --limit` them)",
    ))
}

pub(super) fn one_ca(servers: &[Observation]) -> Option<SafetyFinding> {
    let hash = |server: &Observation| {
        let live = server.view.as_ref().map(|view| view.ca_hash.clone());
        live.filter(|hash| !hash.is_empty()).or_else(|| data(server)?.ca_hash.clone())
    };
    let hashes: BTreeSet<String> = servers.iter().filter_map(hash).collect();
    if hashes.len() < 2 {
        return None;
    }
    let message = "servers of one cluster trust different CAs".to_owned();
    Some(
        SafetyFinding::new(Rule::DifferentCa, message)
            .hint("compare server/tls/server-ca.crt in the servers' data directories"),
    )
}

/// K3s before 1.19 kept its data in Dqlite, and no later K3s can read that (K3s's documentation of
/// embedded etcd).
pub(super) fn dqlite(servers: &[Observation]) -> Option<SafetyFinding> {
    let has = |server: &&Observation| {
        server.disk.as_ref().is_some_and(|disk| disk.datastore == Datastore::Dqlite)
    };
    let found: Vec<&Observation> = servers.iter().filter(has).collect();
    if found.is_empty() {
        return None;
    }
    let message = format!(
        "{} has data in Dqlite, and there is no way from Dqlite to etcd: it would be lost",
        names(found.into_iter())
    );
    Some(SafetyFinding::new(Rule::UnsupportedData, message).hint(
        "nothing was touched; save the cluster's objects with kubectl, set server/db aside in the data \
         directory, run again, and apply them to the new cluster",
    ))
}

/// Nobody has data: the first server founds, the others join it.
fn found(servers: &[Observation], trust_absent: bool) -> Result<BootstrapPlan, Vec<SafetyFinding>> {
    let absent: Vec<&Observation> = servers.iter().filter(|server| !server.reachable).collect();
    if !absent.is_empty() && !trust_absent {
        let message = format!(
            "no reachable server has data, but {} cannot be looked at and may hold the cluster's",
            names(absent.iter().copied())
        );
        return Err(vec![SafetyFinding::new(Rule::MayHaveData, message).hint(
            "make it reachable, or take it out of the inventory if it never was part of the cluster",
        )]);
    }
    if let Some(refusal) = removed_from_elsewhere(servers) {
        return Err(vec![refusal]);
    }
    let founder = servers.iter().find(|server| server.reachable).map(|server| server.name.clone());
    let step = |server: &Observation| {
        let (action, via) = match (server.reachable, founder.as_ref() == Some(&server.name)) {
            (false, _) => (Action::Absent, None),
            (true, true) => (Action::Init, None),
            (true, false) if server.disk.is_some() => (Action::Rejoin, founder.clone()),
            (true, false) => (Action::Join, founder.clone()),
        };
        Step { server: server.name.clone(), action, via, remove: Vec::new() }
    };
    Ok(BootstrapPlan { steps: servers.iter().map(step).collect(), ..BootstrapPlan::default() })
}

/// A member was removed from a cluster that none of the servers has: it lives on elsewhere, and what
/// looks like a new cluster here may be a wrong inventory.
fn removed_from_elsewhere(servers: &[Observation]) -> Option<SafetyFinding> {
    let removed = |server: &&Observation| server.disk.as_ref().is_some_and(|disk| disk.removed);
    let server = servers.iter().find(removed)?;
    let cluster = server.disk.as_ref().map(|disk| disk.cluster_id.as_str()).unwrap_or_default();
    let message = format!(
        "{} was removed from cluster {cluster}, which no server of the inventory has",
        server.name
    );
    Some(SafetyFinding::new(Rule::MayHaveData, message).hint(
        "add that cluster's servers to the inventory, or `k3sup-rs reset --limit` this server to found \
         a new cluster",
    ))
}

/// There is a cluster: start what has data, then let the others join.
fn rebuild(servers: &[Observation], id: String) -> Result<BootstrapPlan, Vec<SafetyFinding>> {
    let view = best_view(servers);
    if let Some(refusal) = view.and_then(|view| lost_for_good(servers, view)) {
        return Err(vec![refusal]);
    }
    let actions: Vec<(&Observation, Action)> =
        servers.iter().map(|server| (server, action(server, view))).collect();
    let alive = |wanted: &str| {
        let lives = |(server, action): &&(&Observation, Action)| {
            matches!(action, Action::None | Action::Start | Action::Migrate)
                && server.name != wanted
        };
        actions.iter().find(lives).map(|(server, _)| server.name.clone())
    };
    let step = |(server, action): &(&Observation, Action)| {
        let joins = matches!(action, Action::Join | Action::Rejoin);
        Step {
            server: server.name.clone(),
            action: *action,
            via: if joins { alive(&server.name) } else { None },
            remove: if joins { earlier_lives(server, view) } else { Vec::new() },
        }
    };
    let mut steps: Vec<Step> = actions.iter().map(step).collect();
    // Stable: within a kind the inventory's order is kept.
    steps.sort_by_key(|step| matches!(step.action, Action::Join | Action::Rejoin));
    Ok(BootstrapPlan { cluster_id: Some(id), steps, warnings: Vec::new() })
}

/// The view of a server whose leader has a quorum, else any.
fn best_view(servers: &[Observation]) -> Option<&ClusterView> {
    let views = || servers.iter().filter_map(|server| server.view.as_ref());
    views().find(|view| view.leader_id.is_some()).or_else(|| views().next())
}

fn action(server: &Observation, view: Option<&ClusterView>) -> Action {
    if !server.reachable {
        return Action::Absent;
    }
    if data(server).is_some_and(|disk| disk.datastore == Datastore::Sqlite) {
        return Action::Migrate;
    }
    if let (Some(live), Some(_)) = (&server.view, &server.disk) {
        // A node that runs but is not ready yet is waited for as one that is started. One that runs
        // although its disk was taken away under it is none.
        return if live.ready { Action::None } else { Action::Start };
    }
    match (&server.disk, data(server)) {
        (None, _) => Action::Join,
        (Some(_), None) => Action::Rejoin,
        (Some(_), Some(disk)) => {
            let quorate = view.filter(|view| view.leader_id.is_some());
            let member =
                |view: &ClusterView| view.members.iter().any(|member| member.id == disk.member_id);
            if quorate.is_none_or(member) { Action::Start } else { Action::Rejoin }
        }
    }
}

/// Members of this server's earlier lives. The node removes them when it joins, through whichever
/// server it joins by; they are named here so that the plan shows it.
fn earlier_lives(server: &Observation, view: Option<&ClusterView>) -> Vec<String> {
    let members = view.map(|view| view.members.as_slice()).unwrap_or_default();
    let own = members.iter().filter(|member| node_of(&member.name) == server.name);
    own.map(|member| member.id.clone()).collect()
}

/// A cluster without a leader that cannot get one back: fewer voters are left than a quorum, even
/// when every server that has data is started.
fn lost_for_good(servers: &[Observation], view: &ClusterView) -> Option<SafetyFinding> {
    if view.leader_id.is_some() {
        return None;
    }
    let voters: Vec<_> = view.members.iter().filter(|member| member.voter).collect();
    let back = |id: &str| {
        servers.iter().any(|server| data(server).is_some_and(|disk| disk.member_id == id))
    };
    let left = voters.iter().filter(|member| member.healthy || back(&member.id)).count();
    let needed = quorum(voters.len());
    if voters.is_empty() || left >= needed {
        return None;
    }
    let message = format!(
        "the cluster has {} voters and needs {needed} of them; only {left} can be brought back",
        voters.len()
    );
    Some(SafetyFinding::new(Rule::QuorumLost, message).hint(
        "bring back the disks of the missing servers; nothing was touched, and what is left is not lost",
    ))
}

fn warnings(servers: &[Observation]) -> Vec<SafetyFinding> {
    let mut warnings = Vec::new();
    if servers.len().is_multiple_of(2) {
        let message = format!(
            "{} servers survive no more failures than {}",
            servers.len(),
            servers.len().saturating_sub(1)
        );
        warnings.push(SafetyFinding::new(Rule::EvenServers, message).hint("use 1, 3 or 5 servers"));
    }
    let absent: Vec<&Observation> = servers.iter().filter(|server| !server.reachable).collect();
    if !absent.is_empty() {
        warnings.push(left_out(absent.into_iter()));
    }
    let members = best_view(servers).map(|view| view.members.as_slice()).unwrap_or_default();
    for member in members.iter().filter(|member| !member.name.is_empty()) {
        if !servers.iter().any(|server| server.name == node_of(&member.name)) {
            let message = format!("member {} is not in the inventory and is kept", member.name);
            warnings.push(SafetyFinding::new(Rule::UnknownMember, message));
        }
    }
    warnings
}

pub(super) fn left_out<'a>(absent: impl Iterator<Item = &'a Observation>) -> SafetyFinding {
    let message = format!("{} cannot be reached and is left as it is", names(absent));
    SafetyFinding::new(Rule::LeftOut, message)
}

pub(super) fn names<'a>(servers: impl Iterator<Item = &'a Observation>) -> String {
    servers.map(|server| server.name.as_str()).collect::<Vec<_>>().join(", ")
}
