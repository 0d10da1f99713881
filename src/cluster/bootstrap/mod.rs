//! Bootstrap or join: what each server must do, decided from disks and live members. Pure.
//!
//! Never from a host's place in a list: `cluster-init` only when no server has a datastore, and
//! only when every server could be looked at. Else whoever has data starts, and whoever has none
//! joins a live member; a member that the server's lost disk belonged to is removed first.

mod decide;
mod external;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod world;

use serde::{Deserialize, Serialize};

use super::safety::SafetyFinding;
use super::view::{ClusterView, DiskView};

pub use decide::decide;
pub use external::decide_external;

/// What was seen of one server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observation {
    /// Its node name, which is its inventory name.
    pub name: String,
    /// Whether it could be reached. When not, the rest is empty.
    pub reachable: bool,
    /// What its data directory says; `None` without data.
    pub disk: Option<DiskView>,
    /// What its running node says; `None` when none answers.
    pub view: Option<ClusterView>,
}

/// What a server must do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// It is a member and runs.
    None,
    /// It has the cluster's data and is started.
    Start,
    /// It founds the cluster.
    Init,
    /// It founds the cluster, and what it has in SQLite becomes the store.
    Migrate,
    /// It has no data and joins.
    Join,
    /// Its data belongs to a member that was removed: the data is set aside, then it joins.
    Rejoin,
    /// It cannot be reached and is left as it is.
    Absent,
}

/// What one server must do, and with whose help.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// The server.
    pub server: String,
    /// What it does.
    pub action: Action,
    /// For [`Action::Join`] and [`Action::Rejoin`]: the server to join through.
    pub via: Option<String>,
    /// Numbers (hex) of members to remove first: this server's own from an earlier life.
    pub remove: Vec<String>,
}

/// What all servers must do, in order: those with data start together, then the others join one
/// after another.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootstrapPlan {
    /// The cluster's number, hex; `None` before it is founded.
    pub cluster_id: Option<String>,
    /// The steps.
    pub steps: Vec<Step>,
    /// Findings that do not stop the run.
    pub warnings: Vec<SafetyFinding>,
}

impl BootstrapPlan {
    /// The step of a server.
    pub fn step(&self, server: &str) -> Option<&Step> {
        self.steps.iter().find(|step| step.server == server)
    }

    /// Whether nothing has to be done.
    pub fn is_settled(&self) -> bool {
        self.steps.iter().all(|step| step.action == Action::None && step.remove.is_empty())
    }
}
