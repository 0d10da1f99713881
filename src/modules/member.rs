//! `member`: the store's members: wait until a node's votes, can be spared or has caught up, let
//! another lead, or remove those that are gone.

use serde::Deserialize;
use serde_json::{Map, Value as Json};

use super::args::{Number, k3s_node, text};
use super::types::{Input, ModulePlan, PlanError, Spec, Until, Wait, World, odd, plain};
use crate::cluster::layout::K3sNode;
use crate::cluster::rolling;
use crate::cluster::view::{ClusterView, MemberView};
use crate::host::protocol::{Change, Observed, Read};

pub(super) static MEMBER: Spec = plain(
    "member",
    &["state", "node", "ids", "data_dir", "supervisor", "timeout"],
    &["state"],
    observe,
    plan,
);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Args {
    state: State,
    node: Option<String>,
    #[serde(default)]
    ids: Vec<String>,
    data_dir: String,
    supervisor: String,
    timeout: Option<Number>,
    /// The node is K3s's; the run fills it in.
    k3s: Option<K3sNode>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum State {
    /// It votes.
    Voter,
    /// It is a member no more.
    Absent,
    /// It does not lead.
    Follower,
    /// The others can do without it.
    Spare,
    /// It votes, is ready and has caught up.
    CaughtUp,
    /// The cluster knows no node of this name.
    Forgotten,
}

fn observe(args: &Map<String, Json>) -> Vec<Read> {
    match (text(args, &["data_dir"]), text(args, &["supervisor"])) {
        (Some(data_dir), Some(supervisor)) => {
            vec![look(data_dir, supervisor, k3s_node(args).as_ref())]
        }
        _ => Vec::new(),
    }
}

fn look(data_dir: &str, supervisor: &str, k3s: Option<&K3sNode>) -> Read {
    if let Some(node) = k3s {
        return Read::K3sCluster { node: node.clone() };
    }
    Read::Cluster { data_dir: data_dir.to_owned(), supervisor: supervisor.to_owned() }
}

/// Whether `member` belongs to `node`: its name is the node's and eight hex digits.
fn belongs(member: &MemberView, node: &str) -> bool {
    member.name.rsplit_once('-').is_some_and(|(name, _)| name == node)
}

/// Whether the member of `node` votes and answers; else what is missing.
pub(super) fn is_voter(view: Option<&ClusterView>, node: &str) -> Result<(), String> {
    let view = view.ok_or("the node does not answer")?;
    let own = view.members.iter().filter(|member| belongs(member, node));
    match own.max_by_key(|member| (member.voter, member.healthy)) {
        None => Err(format!("no member of the cluster belongs to {node}")),
        Some(member) if !member.voter => Err(format!("{node} does not vote yet")),
        Some(member) if !member.healthy => Err(format!("the member of {node} does not answer")),
        Some(_) => Ok(()),
    }
}

fn hand_over(args: &Args) -> Change {
    match &args.k3s {
        Some(node) => Change::HandOverK3s { node: node.clone() },
        None => Change::HandOver {
            data_dir: args.data_dir.clone(),
            supervisor: args.supervisor.clone(),
        },
    }
}

fn plan(input: &Input, world: &World) -> Result<ModulePlan, PlanError> {
    let args: Args = input.decode()?;
    let read = look(&args.data_dir, &args.supervisor, args.k3s.as_ref());
    let seen = world.get(&read)?;
    let Observed::Cluster(view) = seen else { return Err(odd(seen)) };
    let mut plan = ModulePlan::default();
    let node = || args.node.clone().ok_or_else(|| PlanError::failed("`node` is missing"));
    let timeout_ms = args.timeout.as_ref().map_or(300, |number| number.0) * 1000;
    let wait = |plan: &mut ModulePlan, seen: &Observed, what: &str, until: Until| {
        if until.check(seen).is_err() {
            let (what, read) = (what.to_owned(), read.clone());
            plan.wait = Some(Wait { what, read, until, timeout_ms, interval_ms: 200 });
        }
    };
    match args.state {
        State::Voter => {
            let until = Until::Voter { node: node()? };
            wait(&mut plan, seen, "the node's member to vote and answer", until);
        }
        State::Spare => {
            let until = Until::Spare { node: node()? };
            wait(&mut plan, seen, "the other servers to be enough without this one", until);
        }
        State::CaughtUp => {
            let until = Until::CaughtUp { node: node()? };
            wait(&mut plan, seen, "the node to vote and to have caught up", until);
        }
        State::Forgotten => {
            let node = node()?;
            let known = view.iter().flat_map(|view| &view.nodes).any(|seen| seen.name == node);
            if known {
                let change = Change::ForgetNode {
                    data_dir: args.data_dir.clone(),
                    supervisor: args.supervisor.clone(),
                    name: node.clone(),
                };
                plan.change(change, format!("the cluster knows a node {node}"));
            }
        }
        State::Follower => {
            let node = node()?;
            if rolling::hands_over(view.as_deref(), &node) {
                plan.change(hand_over(&args), format!("{node} leads"));
            }
        }
        State::Absent => {
            let members = view.as_ref().map(|view| view.members.as_slice()).unwrap_or_default();
            let named = members
                .iter()
                .filter(|member| args.node.as_deref().is_some_and(|node| belongs(member, node)));
            let named: Vec<String> = named.map(|member| member.id.clone()).collect();
            for id in args.ids.iter().cloned().chain(named) {
                let Some(member) = members.iter().find(|member| member.id == id) else { continue };
                let reason = format!("the member {} ({id}) is gone for good", member.name);
                let change = match &args.k3s {
                    Some(node) => Change::RemoveK3sMember { node: node.clone(), member: id },
                    None => Change::RemoveMember {
                        data_dir: args.data_dir.clone(),
                        supervisor: args.supervisor.clone(),
                        member_id: id,
                    },
                };
                plan.change(change, reason);
            }
        }
    }
    Ok(plan)
}
