//! What travels between nodes as JSON: join, registration, heartbeats.
//!
//! Secrets in here really travel, unlike [`Secret`] itself: these values are sent only over TLS to
//! a server whose CA was verified, and are never printed.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::cluster::snapshots::SnapshotStanding;
use crate::pki::KeyPairPem;
use crate::pki::tree::Authorities;
use crate::secret::Secret;

use super::identity::{hex_number, hex_numbers};

/// Version of these messages; a server refuses any other.
pub const PROTOCOL: u32 = 1;

/// Longest node name and version in a message, in bytes.
pub const TEXT_BYTES_MAX: usize = 253;

/// A secret that really is written.
#[derive(Clone, Debug)]
pub struct Sent(pub Secret);

impl Serialize for Sent {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0.expose())
    }
}

impl<'de> Deserialize<'de> for Sent {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Secret::deserialize(deserializer).map(Self)
    }
}

/// What a node says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    /// The node's name.
    pub name: String,
    /// Version of its binary.
    pub version: String,
    /// Its address in the cluster.
    pub internal_ip: String,
    /// `/etc/os-release`'s pretty name.
    pub os_image: String,
    /// Kernel release.
    pub kernel: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Taints as `key=value:effect`.
    pub taints: Vec<String>,
}

/// A server that wants to become a member.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct JoinRequest {
    /// [`PROTOCOL`].
    pub protocol: u32,
    /// The node.
    pub about: About,
    /// Proves the node's name.
    pub password: Sent,
    /// The number it chose by chance and keeps while it tries.
    #[serde(with = "hex_number")]
    pub member_id: u64,
    /// The name it chose.
    pub member_name: String,
    /// Where members reach it.
    pub peer_urls: Vec<String>,
    /// Where clients reach it.
    pub client_urls: Vec<String>,
    /// Its supervisor.
    pub supervisor_url: String,
    /// What must be equal on all servers: flag and value.
    pub critical: Vec<(String, String)>,
    /// The agents' token it was configured with.
    pub agent_token: Option<Sent>,
}

/// The answer to a [`JoinRequest`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct JoinAnswer {
    /// The cluster's number.
    #[serde(with = "hex_number")]
    pub cluster_id: u64,
    /// The CAs.
    pub authorities: SentAuthorities,
    /// Names of the members there are, for the log.
    pub members: Vec<String>,
    /// Clusters that this one took the place of.
    #[serde(default, with = "hex_numbers")]
    pub supersedes: Vec<u64>,
}

/// The CAs with their keys.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SentAuthorities {
    server: SentPair,
    client: SentPair,
    peer: SentPair,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct SentPair {
    certificate: String,
    key: Sent,
}

impl From<&Authorities> for SentAuthorities {
    fn from(authorities: &Authorities) -> Self {
        let pair = |pair: &KeyPairPem| SentPair {
            certificate: pair.certificate.clone(),
            key: Sent(pair.key.clone()),
        };
        Self {
            server: pair(authorities.server.pair()),
            client: pair(authorities.client.pair()),
            peer: pair(authorities.peer.pair()),
        }
    }
}

impl TryFrom<SentAuthorities> for Authorities {
    type Error = crate::pki::PkiError;

    fn try_from(sent: SentAuthorities) -> Result<Self, Self::Error> {
        let authority = |pair: SentPair| {
            crate::pki::Authority::from_pem(KeyPairPem {
                certificate: pair.certificate,
                key: pair.key.0,
            })
        };
        Ok(Self {
            server: authority(sent.server)?,
            client: authority(sent.client)?,
            peer: authority(sent.peer)?,
        })
    }
}

/// An agent that registers.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RegisterRequest {
    /// [`PROTOCOL`].
    pub protocol: u32,
    /// The node.
    pub about: About,
    /// Proves the node's name.
    pub password: Sent,
    /// PEM of the public key that the agent's certificate is to be for.
    pub public_key: String,
}

/// The answer to a [`RegisterRequest`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RegisterAnswer {
    /// The agent's certificate.
    pub certificate: String,
    /// The CAs to believe servers with; empty from older servers.
    #[serde(default)]
    pub ca: String,
    /// The servers there are.
    pub servers: Servers,
}

/// The servers there are; also the answer to a heartbeat.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Servers {
    /// Supervisors, `host:port`.
    pub supervisors: Vec<String>,
    /// A mark of the CAs that are believed and that signs agents' certificates; another one than at
    /// registration says that it is time to register again. Empty from older servers.
    #[serde(default)]
    pub trust: String,
}

/// How a member stands, as it tells other servers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MemberSelf {
    /// Member number.
    #[serde(with = "hex_number")]
    pub member_id: u64,
    /// Last applied index.
    pub applied_index: u64,
    /// Size of its store in bytes.
    pub db_bytes: u64,
    /// How its snapshots stand; older versions do not tell.
    #[serde(default)]
    pub snapshots: Option<SnapshotStanding>,
    /// Version of its binary.
    pub version: String,
}
