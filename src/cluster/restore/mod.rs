//! Restore, recovery and the way back, as steps decided from what is seen on the hosts. Pure.
//!
//! There is no state but that of the hosts: whoever was killed looks again and is told what is left.
//! Three rules make it safe:
//!
//! - **Nothing is changed before every server that takes part is fenced and stopped**: from then on no
//!   server can come back with old data, whoever starts it.
//! - **One server is reset, all others join it with empty hands.** Their data is set aside before any
//!   server of the new cluster runs.
//! - **Old data is moved, never removed**, so that the way back stays open.

mod k3s;
mod steps;
#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

use super::fence::{Fence, Operation, Stage};
use super::view::DiskView;

pub use k3s::cluster_of_k3s;
pub use steps::next;

/// What was seen of a server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Its name.
    pub name: String,
    /// Whether it could be reached. When not, the rest is empty.
    pub reachable: bool,
    /// Its fence.
    pub fence: Option<Fence>,
    /// What its data directory says.
    pub disk: Option<DiskView>,
    /// Its service runs.
    pub running: bool,
    /// Its node is ready.
    pub ready: bool,
    /// What this restore moved aside is there.
    pub aside: bool,
}

impl Seen {
    /// The cluster that its data is of.
    pub fn cluster(&self) -> Option<&str> {
        self.disk.as_ref().map(|disk| disk.cluster_id.as_str()).filter(|id| !id.is_empty())
    }
}

/// How far a log goes. The one that is further, by Raft's rule, has all that a quorum acknowledged to
/// anybody, if any of those that are left has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LogEnd {
    /// Term of its last entry.
    pub term: u64,
    /// Index of its last entry.
    pub index: u64,
}

/// What is to be done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Intent {
    /// Its name: see [`Fence::restore_id`].
    pub id: String,
    /// What it is.
    pub operation: Operation,
    /// The server that is reset.
    pub first: String,
    /// The new cluster, when it is there already; for a rollback, the one to be undone.
    pub cluster: Option<String>,
    /// The servers that take part, in the inventory's order.
    pub servers: Vec<String>,
}

/// One step on one server, or on all.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "step", content = "server")]
pub enum Step {
    /// Close its fence.
    Fence(String),
    /// Stop its node.
    Stop(String),
    /// Make it the only member of a new cluster; its old data is kept aside.
    Reset(String),
    /// Move its old data aside.
    SetAside(String),
    /// Move aside what the restore made, and what it had set aside back.
    BringBack(String),
    /// Open its fence: the node may start.
    Open(String),
    /// Start its node and wait until it is ready.
    Start(String),
    /// Bring up all that is not up: servers join one after another, agents find them.
    Join,
    /// Take its fence away.
    Finish(String),
}

impl Step {
    /// Whether it can be done before anything stops.
    pub fn is_harmless(&self) -> bool {
        matches!(self, Self::Fence(_))
    }

    /// The server that it is about; `None`: all of them.
    pub fn host(&self) -> Option<&str> {
        match self {
            Self::Fence(server)
            | Self::Stop(server)
            | Self::Reset(server)
            | Self::SetAside(server)
            | Self::BringBack(server)
            | Self::Open(server)
            | Self::Start(server)
            | Self::Finish(server) => Some(server),
            Self::Join => None,
        }
    }

    /// In words.
    pub fn words(&self, intent: &Intent) -> String {
        match self {
            Self::Fence(server) => {
                format!("{server}: fence it, so that it cannot come back by itself")
            }
            Self::Stop(server) => format!("{server}: stop the node"),
            Self::Reset(server) if intent.operation == Operation::Recover => {
                format!("{server}: make it the only member of a new cluster, with its own data")
            }
            Self::Reset(server) => {
                format!(
                    "{server}: make it the only member of a new cluster, with the snapshot's data"
                )
            }
            Self::SetAside(server) => format!("{server}: move the old data aside (kept)"),
            Self::BringBack(server) => format!("{server}: bring the old data back"),
            Self::Open(server) => format!("{server}: open the fence"),
            Self::Start(server) => format!("{server}: start the node, wait until it is ready"),
            Self::Join => {
                "all: bring up what is not up, servers one after another, then agents".to_owned()
            }
            Self::Finish(server) => format!("{server}: take the fence away"),
        }
    }
}

/// Why it cannot go on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Halt {
    /// A server that takes part cannot be reached.
    #[error("{} cannot be reached", .0.join(", "))]
    Unreachable(Vec<String>),
    /// A server has the fence of another restore.
    #[error("{server} is fenced by another run ({id})")]
    OtherFence {
        /// Which server.
        server: String,
        /// Whose fence.
        id: String,
    },
}

/// What a run that died, or a server that came back late, left to be done. `now` names it when it has
/// no name yet.
pub fn unfinished(seen: &[Seen], now: &str) -> Option<Intent> {
    let own = |fence: &&Fence| fence.operation != Operation::Superseded;
    let fences = seen.iter().filter_map(|host| host.fence.as_ref());
    if let Some(fence) = fences
        .filter(own)
        .max_by_key(|fence| (fence.since_unix_s, fence.operation == Operation::Rollback))
    {
        let undone = (!fence.cluster.is_empty()).then(|| fence.cluster.clone());
        return Some(Intent {
            id: fence.restore_id.clone(),
            operation: fence.operation,
            first: fence.first.clone(),
            cluster: undone,
            servers: fence.servers.clone(),
        });
    }
    late(seen, now)
}

/// Servers whose data is of a cluster that the others' took the place of.
fn late(seen: &[Seen], now: &str) -> Option<Intent> {
    let old: Vec<&str> = seen
        .iter()
        .filter_map(|host| host.disk.as_ref())
        .flat_map(|disk| disk.supersedes.iter().map(String::as_str))
        .collect();
    let home = seen.iter().find(|host| {
        host.fence.is_none() && host.ready && host.cluster().is_some_and(|id| !old.contains(&id))
    })?;
    let is_late = |host: &&Seen| {
        let superseded = host.fence.is_some();
        superseded || host.cluster().is_some_and(|id| old.contains(&id))
    };
    let servers: Vec<String> = seen.iter().filter(is_late).map(|host| host.name.clone()).collect();
    if servers.is_empty() {
        return None;
    }
    Some(Intent {
        id: format!("{now}-late"),
        operation: Operation::Restore,
        first: home.name.clone(),
        cluster: home.cluster().map(str::to_owned),
        servers,
    })
}

/// The way back from what a restore did, or began to do.
pub fn undo(intent: Intent, seen: &[Seen]) -> Intent {
    let cluster = intent.cluster.or_else(|| steps::made(&intent.id, &intent.first, seen));
    Intent { operation: Operation::Rollback, cluster, ..intent }
}

/// The fence that belongs to an intent.
pub fn fence_of(intent: &Intent, stage: Stage, before: &Fence) -> Fence {
    let cluster =
        if intent.operation == Operation::Rollback { intent.cluster.clone() } else { None };
    Fence {
        restore_id: intent.id.clone(),
        operation: intent.operation,
        stage,
        first: intent.first.clone(),
        servers: intent.servers.clone(),
        cluster: cluster.unwrap_or_default(),
        ..before.clone()
    }
}
