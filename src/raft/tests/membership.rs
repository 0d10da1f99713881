//! Members come and go; strangers stay outside.

use super::cluster::{Cluster, eventually, in_one_round};
use crate::raft::api::{Consensus, ConsensusError};

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_learner_stays_one_until_it_is_promoted() {
    let mut cluster = Cluster::of_one().await;
    cluster.put(1, "k", "1").await.unwrap();
    cluster.join(2, false).await;
    cluster.until(2, |status| status.learners.contains(&2)).await;
    eventually("the learner to catch up", || cluster.peek(2, "k").as_deref() == Some("1")).await;
    assert_eq!(cluster.read(2, "k").await.as_deref(), Some("1"));
    assert_eq!(cluster.status(1).voters, vec![1]);

    let promote = async |id| {
        let node = cluster.node(2);
        cluster.on(2, async move { node.member_promote(id).await }).await
    };
    assert_eq!(promote(9).await, Err(ConsensusError::MemberNotFound));
    // It has caught up; the leader hears of that a moment later.
    while promote(2).await == Err(ConsensusError::LearnerNotReady) {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert_eq!(promote(2).await, Err(ConsensusError::NotLearner));
    cluster.until(2, |status| status.voters == vec![1, 2]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn what_is_taken_or_too_much_is_refused() {
    let mut cluster = Cluster::of_one().await;
    cluster.create(2).await;
    cluster.create(3).await;
    let add = async |member, voter| {
        let node = cluster.node(1);
        cluster.on(1, async move { node.member_add(member, voter).await }).await
    };
    assert_eq!(add(cluster.record(1), true).await, Err(ConsensusError::MemberExists));
    let mut same_urls = cluster.record(2);
    same_urls.peer_urls = cluster.record(1).peer_urls;
    eventually("the own record", || !cluster.state(1).members().is_empty()).await;
    assert_eq!(add(same_urls, true).await, Err(ConsensusError::PeerUrlExists));
    let mut same_name = cluster.record(2);
    same_name.name = cluster.record(1).name;
    assert_eq!(add(same_name, true).await, Err(ConsensusError::MemberExists));

    assert_eq!(add(cluster.record(2), false).await, Ok(()));
    assert_eq!(add(cluster.record(3), true).await, Err(ConsensusError::TooManyLearners));
    let node = cluster.node(1);
    let early = cluster.on(1, async move { node.member_promote(2).await }).await;
    assert_eq!(early, Err(ConsensusError::LearnerNotReady));
    let node = cluster.node(1);
    let last = cluster.on(1, async move { node.member_remove(1).await }).await;
    assert_eq!(last, Err(ConsensusError::NotEnoughStarted));
    let node = cluster.node(1);
    assert_eq!(cluster.on(1, async move { node.member_remove(2).await }).await, Ok(()));
    assert_eq!(add(cluster.record(2), false).await, Err(ConsensusError::MemberExists));
    assert_eq!(cluster.status(1).voters, vec![1]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_removed_member_learns_it_and_does_not_disturb() {
    let mut cluster = Cluster::of(3).await;
    let leader = cluster.leader().await;
    let gone = (1..=3).find(|id| *id != leader).unwrap();
    cluster.change(leader, move |node| async move { node.member_remove(gone).await }).await;
    cluster.until(leader, |status| !status.voters.contains(&gone)).await;
    assert!(cluster.state(leader).member(gone).is_none());

    in_one_round("a term that goes on", async || {
        let term = cluster.put(leader, "k", "1").await.unwrap().term;
        cluster.kill(gone);
        cluster.start(gone).await;
        cluster.until(gone, |status| status.removed).await;
        let written = cluster.put(leader, "k", "2").await.unwrap();
        written.term == term && cluster.status(leader).term == term
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_leader_can_remove_itself() {
    let cluster = Cluster::of(3).await;
    let old = cluster.leader().await;
    let asked = (1..=3).find(|id| *id != old).unwrap();
    cluster.change(asked, move |node| async move { node.member_remove(old).await }).await;
    let rest: Vec<u64> = (1..=3).filter(|id| *id != old).collect();
    cluster.until(asked, |status| status.voters == rest).await;
    cluster.until(old, |status| status.removed).await;
    cluster.put(asked, "k", "1").await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_dead_member_is_replaced_under_a_new_number() {
    let mut cluster = Cluster::of(3).await;
    cluster.put(1, "k", "1").await.unwrap();
    let leader = cluster.leader().await;
    let dead = (1..=3).find(|id| *id != leader).unwrap();
    cluster.kill(dead);
    cluster.change(leader, move |node| async move { node.member_remove(dead).await }).await;
    cluster.join(4, true).await;
    cluster.until(4, |status| status.voters.contains(&4) && status.voters.len() == 3).await;
    assert_eq!(cluster.read(4, "k").await.as_deref(), Some("1"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_member_is_found_at_its_new_address() {
    let mut cluster = Cluster::of(3).await;
    let leader = cluster.leader().await;
    let moved = (1..=3).find(|id| *id != leader).unwrap();
    cluster.kill(moved);
    let proxy = super::proxy::Proxy::start(moved, cluster.blocked.clone()).await;
    cluster.members.get_mut(&moved).unwrap().proxy = proxy;
    let urls = cluster.record(moved).peer_urls;
    let node = cluster.node(leader);
    let new = urls.clone();
    cluster.on(leader, async move { node.member_update(moved, new).await }).await.unwrap();
    assert_eq!(cluster.state(leader).member(moved).unwrap().peer_urls, urls);
    cluster.put(leader, "k", "1").await.unwrap();
    cluster.start(moved).await;
    assert_eq!(cluster.read(moved, "k").await.as_deref(), Some("1"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn another_cluster_and_anothers_certificate_are_kept_out() {
    let mut cluster = Cluster::of_one().await;
    let term = cluster.put(1, "k", "1").await.unwrap().term;
    for (id, foreign) in [(2, true), (3, false)] {
        cluster.create(id).await;
        let record = cluster.record(id);
        let node = cluster.node(1);
        cluster.on(1, async move { node.member_add(record, false).await }).await.unwrap();
        let mut options = cluster.options(id);
        if foreign {
            options.cluster += 1;
        } else {
            options.tls = Some(cluster.ca.member("somebody-else", id));
        }
        cluster.start_with(id, options).await;
        let node = cluster.node(id);
        // It can neither be reached by the leader nor reach it.
        let asked = cluster.on(id, async move { node.read_barrier().await }).await;
        assert!(asked.is_err());
        assert_eq!(cluster.peek(id, "k"), None);
        assert_eq!(cluster.status(id).last_log_index, 0);
        let node = cluster.node(1);
        cluster.on(1, async move { node.member_remove(id).await }).await.unwrap();
    }
    assert_eq!(cluster.put(1, "k", "2").await.unwrap().term, term);
}
