//! The fence: a file in a server's data directory that says that a restore, a recovery or its way back
//! goes on. Pure.
//!
//! While it is closed the node refuses to start, whoever starts it; so a server with old data cannot
//! come back in the middle, by a reboot or by hand. Each verb but those that it belongs to refuses while
//! there is one. It is also what a run that died left behind for the next one to go on with.

use serde::{Deserialize, Serialize};

/// What the fence belongs to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Operation {
    /// The cluster is restored from a snapshot.
    #[default]
    Restore,
    /// A lost quorum is recovered from the data of one server.
    Recover,
    /// What a restore set aside is brought back.
    Rollback,
    /// The node found that another cluster took the place of its own.
    Superseded,
}

/// Whether the node may start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// It may not.
    #[default]
    Closed,
    /// It may: its data is as it has to be. Others are not done yet.
    Open,
    /// The fence of a K3s server is more than one file, and is being closed or opened.
    Changing,
}

/// The fence of one server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fence {
    /// Which restore: `<unix seconds>-<random>`, the same on all servers.
    pub restore_id: String,
    /// What it belongs to.
    #[serde(default)]
    pub operation: Operation,
    /// Whether the node may start.
    pub stage: Stage,
    /// Why, in words.
    pub reason: String,
    /// Since when, seconds since 1970.
    pub since_unix_s: u64,
    /// Who set it: person, machine and process; or the node itself.
    pub by: String,
    /// The server that is restored, which the others join.
    #[serde(default)]
    pub first: String,
    /// What it is restored from, as it was asked for.
    #[serde(default)]
    pub snapshot: String,
    /// The snapshot file on the first server.
    #[serde(default)]
    pub path: String,
    /// The servers that take part.
    #[serde(default)]
    pub servers: Vec<String>,
    /// For a rollback: the cluster that is undone, hex.
    #[serde(default)]
    pub cluster: String,
    /// Clusters whose members must not come back, hex.
    #[serde(default)]
    pub supersedes: Vec<String>,
    /// Of the first server, once all that was to be brought up was: only now does every server's
    /// configuration say how it comes back, whatever ran before by itself.
    #[serde(default)]
    pub joined: bool,
    /// For K3s: the names of the members that the servers were before. K3s's store has no number that a
    /// reset would change; a member's name it always does.
    #[serde(default)]
    pub past: Vec<String>,
}

impl Fence {
    /// The number that stands in the names of what is set aside: the seconds of the restore's name.
    pub fn stamp(&self) -> &str {
        self.restore_id.split('-').next().unwrap_or_default()
    }

    /// What to do about it, from the control machine.
    pub fn advice(&self) -> String {
        match self.operation {
            Operation::Superseded => {
                "`k3sup-rs restore --resume` moves its old data aside, where it is \
                kept, and lets it join the restored cluster"
                    .to_owned()
            }
            Operation::Rollback => "`k3sup-rs restore --rollback` goes on with it".to_owned(),
            Operation::Restore | Operation::Recover => {
                "`k3sup-rs restore --resume` goes on with it, \
                `k3sup-rs restore --rollback` brings back what was there before"
                    .to_owned()
            }
        }
    }

    /// Whether the node must not start.
    pub fn is_closed(&self) -> bool {
        self.stage == Stage::Closed
    }

    /// Whether the node may start.
    pub fn is_open(&self) -> bool {
        self.stage == Stage::Open
    }
}

/// Where the fence is, under a data directory.
pub const FENCE: &str = "server/fence.json";

/// What a reset leaves in the store that it made on a K3s server, under its data directory: it goes where
/// the store goes.
pub const K3S_MARK: &str = "server/db/etcd/k3sup-reset.json";

/// The content of [`K3S_MARK`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct K3sMark {
    /// Which restore or recovery.
    pub restore_id: String,
}

/// Where what is known of the last restore stays, under a data directory: the fence as it last was.
pub const RESTORED: &str = "server/restored.json";

/// The name under `server/db` that a store's old directory gets.
pub fn aside(stamp: &str) -> String {
    format!("etcd-old-{stamp}")
}
