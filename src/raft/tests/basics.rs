//! What works when nothing breaks.

use super::cluster::{Cluster, eventually, revision};
use crate::raft::api::{Consensus, ConsensusError, RaftStatus};

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn one_member_writes_reads_and_starts_again() {
    let mut cluster = Cluster::of_one().await;
    let first = cluster.put(1, "a", "1").await.unwrap();
    let second = cluster.put(1, "b", "2").await.unwrap();
    assert_eq!(revision(&second), revision(&first) + 1);
    assert_eq!(cluster.read(1, "a").await.as_deref(), Some("1"));

    cluster.kill(1);
    cluster.start(1).await;
    cluster.leader().await;
    assert_eq!(cluster.read(1, "b").await.as_deref(), Some("2"));
    let third = cluster.put(1, "c", "3").await.unwrap();
    assert_eq!(revision(&third), revision(&second) + 1);
    assert!(third.term > second.term);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn one_member_that_was_killed_reads_all_it_acknowledged_at_once() {
    let mut cluster = Cluster::of_one().await;
    for run in 0..5 {
        let key = format!("key{run}");
        for number in 0..50 {
            cluster.put(1, &key, &number.to_string()).await.unwrap();
        }
        cluster.kill(1);
        cluster.start(1).await;
        // Whatever it says before it leads again is no answer.
        let read = async || cluster.get(1, &key).await.ok();
        let value = loop {
            if let Some(value) = read().await {
                break value;
            }
        };
        assert_eq!(value.as_deref(), Some("49"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_leader_asks_the_others_as_soon_as_there_are_any() {
    let mut cluster = Cluster::of_one().await;
    cluster.put(1, "a", "1").await.unwrap();
    assert_eq!(cluster.get(1, "a").await.unwrap().as_deref(), Some("1"));
    cluster.join(2, true).await;
    cluster.until(1, |status| status.voters.len() == 2).await;
    cluster.isolate(1);
    assert!(cluster.get(1, "a").await.is_err());
    cluster.heal();
    assert_eq!(cluster.read(1, "a").await.as_deref(), Some("1"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn followers_forward_writes_and_read_their_own() {
    let cluster = Cluster::of(3).await;
    for id in 1..=3 {
        let key = format!("from{id}");
        cluster.put(id, &key, "x").await.unwrap();
        assert_eq!(cluster.peek(id, &key).as_deref(), Some("x"), "applied where it was asked");
        for reader in 1..=3 {
            assert_eq!(cluster.read(reader, &key).await.as_deref(), Some("x"));
        }
    }
    eventually("all records", || {
        cluster.state(3).members().iter().all(|record| *record == cluster.record(record.id))
            && cluster.state(3).members().len() == 3
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn leadership_moves_on_request_and_on_shutdown() {
    let mut cluster = Cluster::of(3).await;
    let leader = cluster.leader().await;
    let to = (1..=3).find(|id| *id != leader).unwrap();
    let node = cluster.node(leader);
    cluster.on(leader, async move { node.transfer_leader(Some(to)).await }).await.unwrap();
    cluster.until(to, RaftStatus::is_leader).await;
    let follower = cluster.node(leader);
    let refused = cluster.on(leader, async move { follower.transfer_leader(None).await }).await;
    assert_eq!(refused, Err(ConsensusError::NotLeader));

    let node = cluster.node(to);
    cluster.on(to, async move { node.shutdown().await }).await;
    let rest: Vec<u64> = (1..=3).filter(|id| *id != to).collect();
    let next = cluster.leader_among(&rest).await;
    cluster.put(next, "after", "shutdown").await.unwrap();
    let stopped = cluster.put(to, "x", "y").await;
    assert_eq!(stopped.unwrap_err(), ConsensusError::Stopped);
    cluster.kill(to);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn leadership_goes_to_who_is_left_when_another_went_away_just_before() {
    for gone_at in [0, 1] {
        let mut cluster = Cluster::of(3).await;
        let leader = cluster.leader().await;
        let others: Vec<u64> = (1..=3).filter(|id| *id != leader).collect();
        cluster.kill(others[gone_at]);
        let node = cluster.node(leader);
        cluster.on(leader, async move { node.transfer_leader(None).await }).await.unwrap();
        cluster.until(others[1 - gone_at], RaftStatus::is_leader).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn many_writers_at_once_get_revisions_of_their_own() {
    let cluster = Cluster::of(3).await;
    let mut writes = Vec::new();
    for number in 0..200_u64 {
        let node = cluster.node(number % 3 + 1);
        let command = super::cluster::put_command(&format!("k{number}"), "v");
        writes.push(cluster.spawn(number % 3 + 1, async move { node.propose(command).await }));
    }
    let mut revisions = std::collections::BTreeSet::new();
    for write in writes {
        revisions.insert(revision(&write.await.unwrap().unwrap()));
    }
    assert_eq!(revisions.len(), 200);
}
