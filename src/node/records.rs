//! The node's own records in the replicated state: who the nodes are, when they were last heard
//! of, and what the cluster agreed on when it began.
//!
//! Records stand outside etcd's key space. A heartbeat is one record per server, for itself and all
//! its agents, so that their number does not multiply writes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::config::ServerConfig;
use super::join::plain;
use super::secrets;
use crate::cluster::view::NodeView;
use crate::pki::TokenError;
use crate::raft::api::{Consensus, ConsensusError};
use crate::secret::Secret;
use crate::store::state::State;
use crate::store::types::{Command, Reply, StoreError};

/// A node counts as ready for so long after its last heartbeat, in seconds: Kubernetes'
/// `node-monitor-grace-period` of 40 s.
pub const GRACE_SECONDS: u64 = 40;

/// What the roles of a server are, as `kubectl get nodes` shows them.
pub const SERVER_ROLES: [&str; 2] = ["control-plane", "etcd"];

/// The system record with [`Settings`].
pub(crate) const SETTINGS: &str = "cluster/settings";
const NODES: &str = "nodes/";
const HEARTBEATS: &str = "heartbeats/";

/// What the cluster agreed on when it began.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// Hash of the secret that admits servers and agents.
    pub server_secret: String,
    /// Hash of the secret that admits agents only, when it is another.
    pub agent_secret: Option<String>,
    /// What must be equal on all servers: flag and value.
    pub critical: Vec<(String, String)>,
}

impl Settings {
    /// What a new cluster agrees on whose first server has this configuration and secret.
    pub(crate) fn first(config: &ServerConfig, secret: &Secret) -> Result<Self, TokenError> {
        let agent = config.agent_token.as_ref().map(|token| secrets::hash(&plain(token)));
        Ok(Self {
            server_secret: secrets::hash(secret)?,
            agent_secret: agent.transpose()?,
            critical: config.critical(),
        })
    }
}

/// A node, as it registered.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRecord {
    /// Its member, hex; empty on an agent.
    pub member_id: String,
    /// Its supervisor's URL; empty on an agent.
    pub supervisor_url: String,
    /// Hash of the secret that proves the node's name.
    pub password: String,
    /// Version of its binary.
    pub version: String,
    /// Its address in the cluster.
    pub internal_ip: String,
    /// When it registered first, seconds since 1970.
    pub created_unix_s: u64,
    /// `/etc/os-release`'s pretty name.
    pub os_image: String,
    /// Kernel release.
    pub kernel: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Taints as `key=value:effect`.
    pub taints: Vec<String>,
}

impl NodeRecord {
    /// Whether it is a server.
    pub fn is_server(&self) -> bool {
        !self.member_id.is_empty()
    }
}

/// Why a record was not written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// Consensus could not.
    #[error(transparent)]
    Consensus(#[from] ConsensusError),
    /// The store refused.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Another was faster.
    #[error("the record was changed at the same time")]
    Changed,
    /// It cannot be encoded.
    #[error("cannot encode a record: {0}")]
    Encode(String),
}

/// When a record is written.
enum When {
    Always,
    /// Only if there is none.
    Absent,
    /// Only if it is still this.
    Equal(Bytes),
}

/// Reads and writes the records.
#[derive(Clone)]
pub struct Records {
    consensus: Arc<dyn Consensus>,
    state: Arc<State>,
}

impl Records {
    /// Reads from `state`, writes through `consensus`.
    pub fn new(consensus: Arc<dyn Consensus>, state: Arc<State>) -> Self {
        Self { consensus, state }
    }

    /// What the cluster agreed on; `None` until its first server wrote it.
    pub fn settings(&self) -> Option<Settings> {
        decode(&self.state.system(SETTINGS)?)
    }

    /// Writes the settings unless there are some.
    pub async fn begin(&self, settings: &Settings) -> Result<(), RecordError> {
        match self.write(SETTINGS.to_owned(), Some(settings), When::Absent).await {
            Err(RecordError::Changed) => Ok(()),
            other => other,
        }
    }

    /// Writes other settings, unless somebody changed them since they were `seen`.
    pub async fn replace_settings(
        &self,
        settings: &Settings,
        seen: &Settings,
    ) -> Result<(), RecordError> {
        self.write(SETTINGS.to_owned(), Some(settings), When::Equal(encode(seen)?)).await
    }

    /// The node of this name.
    pub fn node(&self, name: &str) -> Option<NodeRecord> {
        decode(&self.state.system(&format!("{NODES}{name}"))?)
    }

    /// All nodes by name.
    pub fn nodes(&self) -> BTreeMap<String, NodeRecord> {
        let found = self.state.system_prefix(NODES);
        let named = |(key, value): (String, Bytes)| {
            Some((key.strip_prefix(NODES)?.to_owned(), decode(&value)?))
        };
        found.into_iter().filter_map(named).collect()
    }

    /// Writes a node, unless somebody changed it since it was `seen`.
    pub async fn put_node(
        &self,
        name: &str,
        node: &NodeRecord,
        seen: Option<&NodeRecord>,
    ) -> Result<(), RecordError> {
        let when = seen.map(encode).transpose()?.map_or(When::Absent, When::Equal);
        self.write(format!("{NODES}{name}"), Some(node), when).await
    }

    /// Deletes a node. Nothing there is fine.
    pub async fn delete_node(&self, name: &str) -> Result<(), RecordError> {
        self.write::<NodeRecord>(format!("{NODES}{name}"), None, When::Always).await
    }

    /// When each node was last heard of, by any server; seconds since 1970.
    pub fn heartbeats(&self) -> BTreeMap<String, u64> {
        let mut latest = BTreeMap::new();
        for (_, value) in self.state.system_prefix(HEARTBEATS) {
            for (name, time) in decode::<BTreeMap<String, u64>>(&value).unwrap_or_default() {
                let known = latest.entry(name).or_insert(0);
                *known = time.max(*known);
            }
        }
        latest
    }

    /// Writes whom the server `server` heard of.
    pub async fn put_heartbeats(
        &self,
        server: &str,
        heard: &BTreeMap<String, u64>,
    ) -> Result<(), RecordError> {
        self.write(format!("{HEARTBEATS}{server}"), Some(heard), When::Always).await
    }

    /// Forgets what a server heard; for a server that was deleted.
    pub async fn delete_heartbeats(&self, server: &str) -> Result<(), RecordError> {
        self.write::<NodeRecord>(format!("{HEARTBEATS}{server}"), None, When::Always).await
    }

    /// The nodes as people are shown them, at `now_unix_s`.
    pub fn views(&self, now_unix_s: u64) -> Vec<NodeView> {
        let heard = self.heartbeats();
        let view = |(name, node): (String, NodeRecord)| {
            let heartbeat = heard.get(&name).copied().unwrap_or(0);
            let is_server = node.is_server();
            NodeView {
                roles: if is_server {
                    SERVER_ROLES.map(str::to_owned).to_vec()
                } else {
                    Vec::new()
                },
                ready: heartbeat > 0 && now_unix_s.saturating_sub(heartbeat) <= GRACE_SECONDS,
                version: node.version,
                internal_ip: node.internal_ip,
                created_unix_s: node.created_unix_s,
                heartbeat_unix_s: heartbeat,
                os_image: node.os_image,
                kernel: node.kernel,
                labels: node.labels,
                taints: node.taints,
                name,
            }
        };
        self.nodes().into_iter().map(view).collect()
    }

    /// The supervisors of all servers, `host:port`.
    pub fn supervisors(&self) -> Vec<String> {
        let address =
            |node: NodeRecord| node.supervisor_url.strip_prefix("https://").map(str::to_owned);
        self.nodes().into_values().filter_map(address).collect()
    }

    async fn write<T: Serialize>(
        &self,
        key: String,
        value: Option<&T>,
        when: When,
    ) -> Result<(), RecordError> {
        let value = value.map(encode).transpose()?;
        let expect = match when {
            When::Always => None,
            When::Absent => Some(None),
            When::Equal(seen) => Some(Some(seen)),
        };
        let applied = self.consensus.propose(Command::SystemPut { key, value, expect }).await?;
        match applied.outcome? {
            Reply::SystemPut { made: false, .. } => Err(RecordError::Changed),
            _ => Ok(()),
        }
    }
}

/// Seconds since 1970.
pub fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

fn encode<T: Serialize>(value: &T) -> Result<Bytes, RecordError> {
    serde_json::to_vec(value)
        .map(Bytes::from)
        .map_err(|error| RecordError::Encode(error.to_string()))
}

/// A record that cannot be read counts as absent; it was written by a newer version.
fn decode<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    serde_json::from_slice(bytes).ok()
}
