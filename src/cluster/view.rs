//! The cluster as a node tells it: the value behind `status`, `nodes` and every safety check.
//!
//! The node's supervisor serves it as JSON at `/v1-k3sup/status`; the executor reads it there. The two may
//! be of different versions: what one does not say the other takes as not known, and what it does not
//! know it passes over.

use serde::{Deserialize, Serialize};

use super::snapshots::SnapshotStanding;

/// What a data directory says about the member it belongs to, read without a running node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskView {
    /// Cluster number, hex.
    pub cluster_id: String,
    /// Member number, hex.
    pub member_id: String,
    /// Member name (`<node>-<8 hex>`).
    pub member_name: String,
    /// The member was removed from its cluster (K3s's tombstone).
    pub removed: bool,
    /// `sha256` of the cluster's CA as the token has it, if the CA is on disk.
    pub ca_hash: Option<String>,
    /// What the data is in.
    pub datastore: Datastore,
    /// The restore or reset that made this member.
    #[serde(default)]
    pub restore_id: Option<String>,
    /// Clusters that its cluster took the place of, hex.
    #[serde(default)]
    pub supersedes: Vec<String>,
}

/// What keeps a server's data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Datastore {
    /// A member of the replicated store.
    #[default]
    Etcd,
    /// K3s's file for a single server, which becomes a store by `cluster-init`.
    Sqlite,
    /// What K3s had before 1.19, from which no way leads to etcd.
    Dqlite,
}

/// The cluster as one node sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ClusterView {
    /// Cluster number, hex.
    pub cluster_id: String,
    /// The answering member's number, hex; empty on an agent.
    pub member_id: String,
    /// The answering node's name.
    pub node_name: String,
    /// The answering node is ready to serve: a voter that sees a leader and has caught up, or an
    /// agent that is registered and reaches a server.
    pub ready: bool,
    /// Why it is not ready.
    pub not_ready_reason: Option<String>,
    /// Current term.
    pub term: u64,
    /// The leader's number, hex, if one is known and a quorum still acknowledges it.
    pub leader_id: Option<String>,
    /// `sha256` of the cluster's CA, as the token has it.
    pub ca_hash: String,
    /// The members.
    pub members: Vec<MemberView>,
    /// The nodes.
    pub nodes: Vec<NodeView>,
    /// The store's revision.
    pub revision: i64,
    /// This member's certificates.
    pub certificates: Vec<CertificateView>,
    /// Alarms that stand, in words.
    pub alarms: Vec<String>,
    /// How the snapshots of the servers stand that told.
    #[serde(default)]
    pub snapshots: Vec<SnapshotStanding>,
}

/// A member of the store.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MemberView {
    /// Number, hex.
    pub id: String,
    /// Name (`<node>-<8 hex>`); empty until it started.
    pub name: String,
    /// Peer URLs.
    pub peer_urls: Vec<String>,
    /// Client URLs.
    pub client_urls: Vec<String>,
    /// It votes.
    pub voter: bool,
    /// It answers (asked by the node that gives this view).
    pub healthy: bool,
    /// How many log entries it is behind the leader, when known.
    pub lag: Option<u64>,
    /// Size of its store in bytes, when known.
    pub db_bytes: Option<u64>,
    /// Version of its binary, when known.
    pub version: Option<String>,
}

/// A node, as `kubectl get nodes` would list it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NodeView {
    /// Name.
    pub name: String,
    /// `control-plane,etcd`, or empty for an agent.
    pub roles: Vec<String>,
    /// It sent a heartbeat lately.
    pub ready: bool,
    /// Version of its binary.
    pub version: String,
    /// Its address in the cluster.
    pub internal_ip: String,
    /// When it registered, seconds since 1970.
    pub created_unix_s: u64,
    /// Its last heartbeat, seconds since 1970.
    pub heartbeat_unix_s: u64,
    /// `/etc/os-release`'s pretty name.
    pub os_image: String,
    /// Kernel release.
    pub kernel: String,
    /// Labels.
    pub labels: std::collections::BTreeMap<String, String>,
    /// Taints as `key=value:effect`.
    pub taints: Vec<String>,
}

/// A certificate on a node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CertificateView {
    /// File, relative to the data directory.
    pub file: String,
    /// Subject's common name.
    pub subject: String,
    /// Issuer's common name.
    pub issuer: String,
    /// End of validity, seconds since 1970.
    pub not_after_unix_s: u64,
}
