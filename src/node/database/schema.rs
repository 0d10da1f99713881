//! Which bucket of etcd's database holds what, and how (etcd `server/storage/schema/bucket.go`).

use serde::Serialize;

use crate::rpc::convert;
use crate::rpc::pb::{authpb, mvccpb};
use crate::store::mvcc::Version;
use crate::store::types::{MemberId, Revision};

/// A revision each, with the pair that was put in it.
pub(super) const KEY: &str = "key";
/// Numbers of the whole.
pub(super) const META: &str = "meta";
/// Leases by number.
pub(super) const LEASE: &str = "lease";
/// Alarms; all of each is its key.
pub(super) const ALARM: &str = "alarm";
/// The cluster's version.
pub(super) const CLUSTER: &str = "cluster";
/// Members by number in hex.
pub(super) const MEMBERS: &str = "members";
/// Those that were removed.
pub(super) const MEMBERS_REMOVED: &str = "members_removed";
/// Whether users have to log in.
pub(super) const AUTH: &str = "auth";
/// Users by name.
pub(super) const USERS: &str = "authUsers";
/// Roles by name.
pub(super) const ROLES: &str = "authRoles";
/// What etcd does not know: see docs/storage.md.
pub(super) const OWN: &str = "k3sup";

/// In [`META`]: the last applied log entry's index and term, 8 bytes each.
pub(super) const INDEX: &str = "consistent_index";
pub(super) const TERM: &str = "term";
/// Raft's membership, JSON.
pub(super) const CONF_STATE: &str = "confState";
/// Revisions as in [`KEY`].
pub(super) const COMPACT_FINISHED: &str = "finishedCompactRev";
pub(super) const COMPACT_SCHEDULED: &str = "scheduledCompactRev";
/// In [`AUTH`].
pub(super) const AUTH_ENABLED: &str = "authEnabled";
pub(super) const AUTH_REVISION: &str = "authRevision";
/// In [`CLUSTER`].
pub(super) const CLUSTER_VERSION: &str = "clusterVersion";
pub(super) const DOWNGRADE: &str = "downgrade";
/// What etcd 3.5 writes there.
pub(super) const CLUSTER_VERSION_WRITTEN: &str = "3.5.0";
pub(super) const NO_DOWNGRADE: &str = r#"{"target-version":"","enabled":false}"#;
/// In [`OWN`]: the cluster's number, when the file was made, and before each of the system's records.
pub(super) const OWN_CLUSTER: &str = "cluster";
pub(super) const OWN_CREATED: &str = "created";
pub(super) const OWN_SYSTEM: &str = "system/";

/// A revision as a key.
const REVISION_BYTES: usize = 17;
/// Behind the revision of a deletion.
const TOMBSTONE: u8 = b't';

/// `main ‖ '_' ‖ sub`, and a `t` on a deletion (etcd `server/storage/mvcc/revision.go`).
pub(super) fn revision_key(main: Revision, sub: u32, is_tombstone: bool) -> Vec<u8> {
    let mut key = Vec::with_capacity(REVISION_BYTES + 1);
    key.extend_from_slice(&main.to_be_bytes());
    key.push(b'_');
    key.extend_from_slice(&u64::from(sub).to_be_bytes());
    if is_tombstone {
        key.push(TOMBSTONE);
    }
    key
}

/// Revision, place in it, and whether it is a deletion.
pub(super) fn parse_revision(key: &[u8]) -> Option<(Revision, u32, bool)> {
    let (main, rest) = key.split_first_chunk::<8>()?;
    let rest = rest.strip_prefix(b"_")?;
    let (sub, rest) = rest.split_first_chunk::<8>()?;
    let is_tombstone = match rest {
        [] => false,
        [TOMBSTONE] => true,
        _ => return None,
    };
    let main = Revision::from_be_bytes(*main);
    let sub = u32::try_from(u64::from_be_bytes(*sub)).ok()?;
    // Room is left for those to come.
    (0..=Revision::MAX / 2).contains(&main).then_some((main, sub, is_tombstone))
}

/// What stands under a revision. Of a deletion only the key.
pub(super) fn pair(version: &Version) -> mvccpb::KeyValue {
    if version.is_tombstone() {
        let key = version.key().to_bytes();
        return mvccpb::KeyValue { key, ..mvccpb::KeyValue::default() };
    }
    convert::key_value(version.to_pair())
}

/// `leasepb.Lease`.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct LeaseRecord {
    #[prost(int64, tag = "1")]
    pub(super) id: i64,
    #[prost(int64, tag = "2")]
    pub(super) ttl: i64,
    #[prost(int64, tag = "3")]
    pub(super) remaining: i64,
}

/// `authpb.User`.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct UserRecord {
    #[prost(bytes = "vec", tag = "1")]
    pub(super) name: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    pub(super) password: Vec<u8>,
    #[prost(string, repeated, tag = "3")]
    pub(super) roles: Vec<String>,
    #[prost(message, optional, tag = "4")]
    pub(super) options: Option<authpb::UserAddOptions>,
}

/// `authpb.Role`.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct RoleRecord {
    #[prost(bytes = "vec", tag = "1")]
    pub(super) name: Vec<u8>,
    #[prost(message, repeated, tag = "2")]
    pub(super) permissions: Vec<authpb::Permission>,
}

/// A member, as etcd writes it in JSON (etcd `server/etcdserver/api/membership/member.go`).
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct MemberJson<'a> {
    pub(super) id: MemberId,
    #[serde(rename = "peerURLs")]
    pub(super) peer_urls: &'a [String],
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(super) is_learner: bool,
    #[serde(skip_serializing_if = "str::is_empty")]
    pub(super) name: &'a str,
    #[serde(rename = "clientURLs", skip_serializing_if = "<[String]>::is_empty")]
    pub(super) client_urls: &'a [String],
}

/// Raft's membership, as etcd writes it in JSON (`raftpb.ConfState`).
#[derive(Debug, Serialize)]
pub(super) struct ConfState<'a> {
    pub(super) voters: &'a [MemberId],
    #[serde(skip_serializing_if = "<[MemberId]>::is_empty")]
    pub(super) learners: &'a [MemberId],
    pub(super) auto_leave: bool,
}
