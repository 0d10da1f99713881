//! What holds when something breaks.

use std::time::Duration;

use super::cluster::{Cluster, eventually, in_one_round, revision};
use super::journal::MemJournal;
use crate::raft::api::{Consensus, ConsensusError, RaftStatus};
use crate::store::types::MemberRecord;

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_new_leader_takes_over_and_the_old_one_catches_up() {
    let mut cluster = Cluster::of(3).await;
    let old = cluster.leader().await;
    let before = cluster.put(old, "before", "1").await.unwrap();
    cluster.kill(old);
    let leader = cluster.leader().await;
    let after = cluster.put(leader, "after", "2").await.unwrap();
    assert!(after.term > before.term);
    assert!(revision(&after) > revision(&before));

    cluster.start(old).await;
    assert_eq!(cluster.read(old, "after").await.as_deref(), Some("2"));
    assert_eq!(cluster.read(old, "before").await.as_deref(), Some("1"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn without_a_quorum_nothing_is_answered_and_nothing_is_lost() {
    let mut cluster = Cluster::of(3).await;
    let leader = cluster.leader().await;
    cluster.put(leader, "kept", "1").await.unwrap();
    let others: Vec<u64> = (1..=3).filter(|id| *id != leader).collect();
    for id in &others {
        cluster.kill(*id);
    }
    assert_eq!(cluster.put(leader, "lost", "2").await.unwrap_err(), ConsensusError::Timeout);
    assert_eq!(cluster.get(leader, "kept").await.unwrap_err(), ConsensusError::Timeout);
    for id in &others {
        cluster.start(*id).await;
    }
    assert_eq!(cluster.read(others[0], "kept").await.as_deref(), Some("1"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_leader_that_is_cut_off_stops_answering_and_rejoins() {
    let cluster = Cluster::of(3).await;
    let old = cluster.leader().await;
    cluster.put(old, "k", "1").await.unwrap();
    cluster.isolate(old);
    let rest: Vec<u64> = (1..=3).filter(|id| *id != old).collect();
    let leader = cluster.leader_among(&rest).await;
    cluster.put(leader, "k", "2").await.unwrap();
    assert!(cluster.get(old, "k").await.is_err(), "a stale read from the old leader");
    cluster.heal();
    cluster.until(old, |status| status.leader.is_some_and(|id| id != old)).await;
    assert_eq!(cluster.read(old, "k").await.as_deref(), Some("2"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_follower_that_was_cut_off_does_not_disturb_the_term() {
    let cluster = Cluster::of(3).await;
    in_one_round("a term that goes on", async || {
        let leader = cluster.leader().await;
        let follower = (1..=3).find(|id| *id != leader).unwrap();
        let term = cluster.put(leader, "k", "1").await.unwrap().term;
        cluster.isolate(follower);
        // Long enough for several elections, if it held any.
        tokio::time::sleep(Duration::from_secs(5)).await;
        let written = cluster.put(leader, "k", "2").await.unwrap();
        cluster.heal();
        assert_eq!(cluster.read(follower, "k").await.as_deref(), Some("2"));
        assert!(written.term >= term);
        cluster.status(follower).term == written.term
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_broken_log_stops_the_member() {
    let mut cluster = Cluster::of_one().await;
    for id in 2..=3 {
        cluster.create(id).await;
        cluster.members.get_mut(&id).unwrap().journal = Some(MemJournal::default());
        cluster.join_created(id, true).await;
        cluster.until(1, |status| status.voters.contains(&id)).await;
    }
    let old = cluster.node(1);
    cluster.on(1, async move { old.transfer_leader(Some(2)).await }).await.unwrap();
    cluster.until(2, RaftStatus::is_leader).await;
    let leader = 2;
    cluster.members[&leader].journal.as_ref().unwrap().break_it();
    let _ = cluster.put(leader, "k", "1").await;
    cluster.until(leader, |status| status.failed.is_some()).await;
    assert_eq!(cluster.put(leader, "k", "2").await.unwrap_err(), ConsensusError::Stopped);
    let rest: Vec<u64> = (1..=3).filter(|id| *id != leader).collect();
    let next = cluster.leader_among(&rest).await;
    cluster.put(next, "k", "3").await.unwrap();
    eventually("the other to follow", || {
        rest.iter().all(|id| cluster.peek(*id, "k").as_deref() == Some("3"))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_leader_that_is_gone_is_named_no_more() {
    let mut cluster = Cluster::of(3).await;
    let leader = cluster.leader().await;
    let follower = (1..=3).find(|id| *id != leader).unwrap();
    let last = (1..=3).find(|id| ![leader, follower].contains(id)).unwrap();

    // A follower whose leader and whose quorum are gone.
    cluster.kill(last);
    cluster.kill(leader);
    cluster.until(follower, |status| status.leader.is_none()).await;
    let node = cluster.node(follower);
    let (renewed, added) = (node.clone(), cluster.record(last));
    let added = MemberRecord { id: 9, name: "new".to_owned(), ..added };
    let renewed = cluster.spawn(follower, async move { renewed.lease_renew(1).await });
    let added = cluster.on(follower, async move { node.member_add(added, true).await }).await;
    assert_eq!(added.unwrap_err(), ConsensusError::Unhealthy);
    assert_eq!(renewed.await.unwrap().unwrap_err(), ConsensusError::NoLeader);

    // All is right again when they are back, also for the one that led, which leads no more by itself.
    cluster.start(leader).await;
    cluster.until(follower, |status| status.leader.is_some()).await;
    cluster.until(leader, |status| status.leader.is_some()).await;
    cluster.start(last).await;
    cluster.until(last, |status| status.leader.is_some()).await;
    cluster.put(follower, "k", "1").await.unwrap();

    // A leader whose quorum is gone.
    let leader = cluster.leader().await;
    let term = cluster.status(leader).term;
    let others: Vec<u64> = (1..=3).filter(|id| *id != leader).collect();
    for id in &others {
        cluster.kill(*id);
    }
    cluster.until(leader, |status| status.leader.is_none()).await;
    assert_eq!(cluster.status(leader).term, term);
    cluster.start(others[0]).await;
    cluster.until(leader, |status| status.leader.is_some()).await;
    cluster.put(leader, "k", "2").await.unwrap();
}
