//! Leases end, are renewed, and outlive their leader.

use bytes::Bytes;

use super::cluster::{Cluster, eventually, in_one_round};
use crate::raft::api::{Consensus, LeaseView};
use crate::store::types::{Command, Put, StoreError};

/// A lease with a key. On a machine that has much to do a short one may end before it has its key: then
/// another one is granted.
async fn grant(cluster: &Cluster, id: u64, lease: i64, ttl: i64) {
    let propose = async |command: Command| {
        let node = cluster.node(id);
        cluster.on(id, async move { node.propose(command).await }).await.unwrap().outcome
    };
    in_one_round("a lease with its key", async || {
        propose(Command::LeaseGrant { id: lease, ttl }).await.unwrap();
        let key = Bytes::from(format!("leased{lease}"));
        let put = propose(Command::Put(Put { key, lease, ..Put::default() })).await;
        assert!(put.is_ok() || put == Err(StoreError::LeaseNotFound), "{put:?}");
        put.is_ok()
    })
    .await;
}

async fn renew(cluster: &Cluster, id: u64, lease: i64) -> i64 {
    let node = cluster.node(id);
    cluster.on(id, async move { node.lease_renew(lease).await }).await.unwrap()
}

async fn view(cluster: &Cluster, id: u64, lease: i64) -> LeaseView {
    let node = cluster.node(id);
    cluster.on(id, async move { node.lease_view(lease, true).await }).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_lease_that_is_not_renewed_ends_with_its_keys() {
    let cluster = Cluster::of(3).await;
    let follower = (1..=3).find(|id| !cluster.status(*id).is_leader()).unwrap();
    grant(&cluster, follower, 7, 1).await;
    grant(&cluster, follower, 8, 1000).await;
    eventually("the short one to end", || {
        cluster.state(follower).lease(7).is_none() && cluster.peek(follower, "leased7").is_none()
    })
    .await;
    assert_eq!(renew(&cluster, follower, 7).await, 0);
    assert_eq!(view(&cluster, follower, 7).await.ttl, -1);
    assert_eq!(renew(&cluster, follower, 8).await, 1000);
    let left = view(&cluster, follower, 8).await;
    assert_eq!((left.granted_ttl, left.keys), (1000, vec![Bytes::from_static(b"leased8")]));
    assert!((900..=1000).contains(&left.ttl));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_new_leader_goes_on_with_the_leases() {
    let mut cluster = Cluster::of(3).await;
    let old = cluster.leader().await;
    grant(&cluster, old, 1, 3).await;
    grant(&cluster, old, 2, 1000).await;
    cluster.kill(old);
    let leader = cluster.leader().await;
    assert_eq!(renew(&cluster, leader, 2).await, 1000);
    eventually("the short one to end under the new leader", || {
        cluster.state(leader).lease(1).is_none()
    })
    .await;
    assert!(cluster.peek(leader, "leased2").is_some());
}
