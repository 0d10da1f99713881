//! The numbers of clusters and members, made of URLs and the cluster's token exactly as etcd makes them
//! (`server/etcdserver/api/membership`): the same configuration gives the same numbers.

use sha1::{Digest, Sha1};

use crate::store::types::{ClusterId, MemberId};

/// The number of a member of a new cluster.
pub(crate) fn member(peer_urls: &[String], cluster_token: &str) -> MemberId {
    let mut sorted = peer_urls.to_vec();
    sorted.sort();
    let mut hash = Sha1::new();
    for url in &sorted {
        hash.update(url);
    }
    hash.update(cluster_token);
    number(hash)
}

/// The number of a new cluster.
pub(crate) fn cluster(members: &[MemberId]) -> ClusterId {
    let mut sorted = members.to_vec();
    sorted.sort_unstable();
    let mut hash = Sha1::new();
    for id in sorted {
        hash.update(id.to_be_bytes());
    }
    number(hash)
}

/// The first eight bytes, big endian.
fn number(hash: Sha1) -> u64 {
    hash.finalize().iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte))
}
