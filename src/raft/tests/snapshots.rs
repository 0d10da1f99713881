//! Snapshots: made, sent, started from.

use std::sync::Arc;

use super::cluster::{CLUSTER, Cluster, eventually};
use crate::raft::api::Consensus;
use crate::raft::checkpoint::Keeper;
use crate::store::state::State;

async fn fill(cluster: &Cluster, id: u64, from: u64, to: u64) {
    for number in from..to {
        cluster.put(id, &format!("k{number}"), &format!("v{number}")).await.unwrap();
    }
}

fn files(cluster: &Cluster, id: u64) -> Vec<String> {
    let dir = cluster.members[&id].dir.path().join("snap");
    let names = std::fs::read_dir(dir).unwrap();
    names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_member_starts_from_its_snapshot_and_the_log_after_it() {
    let mut cluster = Cluster::new();
    cluster.snapshot_count = 50;
    cluster.begin().await;
    fill(&cluster, 1, 0, 220).await;
    eventually("a snapshot", || files(&cluster, 1).iter().any(|name| name.contains(".snap"))).await;
    let revision = cluster.state(1).revision();
    cluster.kill(1);
    cluster.start(1).await;
    cluster.leader().await;
    for number in [0, 100, 219] {
        let value = cluster.read(1, &format!("k{number}")).await;
        assert_eq!(value, Some(format!("v{number}")));
    }
    assert_eq!(cluster.state(1).revision(), revision);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_snapshot_on_request_is_there_when_it_is_answered() {
    let cluster = Cluster::of_one().await;
    cluster.put(1, "k", "1").await.unwrap();
    let applied = cluster.status(1).applied_index;
    let node = cluster.node(1);
    cluster.on(1, async move { node.snapshot_now().await }).await.unwrap();
    let names = files(&cluster, 1);
    assert_eq!(names.len(), 1, "{names:?}");
    let index = names[0].strip_suffix(".snap").unwrap().split_once('-').unwrap().1;
    assert!(u64::from_str_radix(index, 16).unwrap() >= applied);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_new_member_and_one_that_was_away_get_the_snapshot() {
    let mut cluster = Cluster::new();
    cluster.snapshot_count = 50;
    cluster.begin().await;
    fill(&cluster, 1, 0, 200).await;
    cluster.join(2, true).await;
    cluster.until(1, |status| status.voters.contains(&2)).await;
    assert_eq!(cluster.read(2, "k7").await.as_deref(), Some("v7"));
    cluster.join(3, true).await;
    cluster.until(1, |status| status.voters.contains(&3)).await;
    assert!(
        cluster.told(1, "snapshots sent", 2) > 0 && cluster.told(2, "snapshots received", 1) > 0
    );

    cluster.kill(3);
    let leader = cluster.leader().await;
    fill(&cluster, leader, 200, 500).await;
    eventually("failures to be told", || cluster.told(leader, "send failed", 3) > 0).await;
    eventually("the loss to be told", || cluster.told(leader, "disconnected", 3) > 0).await;
    let connected = cluster.told(leader, "connected", 3);
    cluster.start(3).await;
    assert_eq!(cluster.read(3, "k499").await.as_deref(), Some("v499"));
    eventually("a connection again", || cluster.told(leader, "connected", 3) > connected).await;
    for (id, peer) in [(1, 2), (2, 1), (1, 3), (3, 1)] {
        let counted = || {
            ["bytes sent", "bytes received", "round trips"]
                .iter()
                .all(|what| cluster.told(id, what, peer) > 0)
        };
        eventually("all that passes to be counted", counted).await;
    }
    assert_eq!(cluster.state(3).revision(), cluster.state(leader).revision());
    assert_eq!(
        cluster.state(3).hash_kv(0).unwrap().hash,
        cluster.state(leader).hash_kv(0).unwrap().hash
    );
    assert_eq!(cluster.state(3).members().len(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn the_checkpoint_is_started_from_and_kept_up() {
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::of_one().await;
    fill(&cluster, 1, 0, 20).await;
    let source = cluster.state(1);
    let path = dir.path().to_owned();
    let state = Arc::new(State::new());
    let mut keeper = Keeper::open(&path, CLUSTER, source.clone()).unwrap();
    keeper.keep().await.unwrap();
    fill(&cluster, 1, 20, 30).await;
    keeper.keep().await.unwrap();
    drop(keeper);
    drop(Keeper::open(&path, CLUSTER, state.clone()).unwrap());
    assert_eq!(state.applied(), source.applied());
    assert_eq!(state.hash_kv(0).unwrap().hash, source.hash_kv(0).unwrap().hash);
    assert_eq!(state.members(), source.members());

    let other = Arc::new(State::new());
    drop(Keeper::open(&path, CLUSTER + 1, other.clone()).unwrap());
    assert_eq!(other.applied(), (0, 0));

    // A member goes on from it: nothing is applied twice.
    cluster.kill(1);
    let at = cluster.members[&1].dir.path().join("checkpoint");
    std::fs::remove_dir_all(&at).unwrap();
    std::fs::rename(dir.keep(), &at).unwrap();
    cluster.start(1).await;
    assert_eq!(cluster.state(1).revision(), source.revision());
    cluster.leader().await;
    assert_eq!(cluster.read(1, "k29").await.as_deref(), Some("v29"));
    assert_eq!(cluster.state(1).revision(), source.revision());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_damaged_snapshot_is_not_started_from() {
    let mut cluster = Cluster::of_one().await;
    cluster.put(1, "k", "1").await.unwrap();
    let node = cluster.node(1);
    cluster.on(1, async move { node.snapshot_now().await }).await.unwrap();
    cluster.kill(1);
    let path = cluster.members[&1].dir.path().join("snap").join(&files(&cluster, 1)[0]);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[60] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    // The log still has everything.
    cluster.start(1).await;
    cluster.leader().await;
    assert_eq!(cluster.read(1, "k").await.as_deref(), Some("1"));
    assert!(files(&cluster, 1).iter().any(|name| name.contains(".damaged")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_large_state_is_not_written_again_for_a_few_entries() {
    let mut cluster = Cluster::new();
    cluster.snapshot_count = 20;
    cluster.begin().await;
    let value = "v".repeat(512 * 1024);
    for number in 0..80 {
        cluster.put(1, &format!("large{number}"), &value).await.unwrap();
    }
    let snapshot = async || {
        let node = cluster.node(1);
        cluster.on(1, async move { node.snapshot_now().await }).await.unwrap();
        files(&cluster, 1)
    };
    let before = snapshot().await;
    // What is left in the log is less than half of the state.
    fill(&cluster, 1, 0, 200).await;
    assert_eq!(files(&cluster, 1), before);
    // Who wants one gets it.
    assert_ne!(snapshot().await, before);
}
