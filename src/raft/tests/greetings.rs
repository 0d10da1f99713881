//! What members that start say to each other.

use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::cluster::{CLUSTER, Cluster, in_one_round, name};
use super::tls::Ca;
use crate::raft::api::{Consensus, ConsensusError};
use crate::raft::net::identity::{Context, Roster};
use crate::raft::net::{link, server};
use crate::store::state::State;
use crate::store::types::{ClusterId, MemberId};

fn context(ca: &Ca, id: MemberId, cluster: ClusterId, supersedes: &[ClusterId]) -> Arc<Context> {
    Arc::new(Context {
        id,
        name: name(id),
        cluster,
        tls: Some(ca.member(&format!("server{id}"), id)),
        roster: ArcSwap::from_pointee(Roster::default()),
        removed: watch::Sender::new(false),
        supersedes: supersedes.to_vec(),
        superseded: watch::Sender::new(None),
        traffic: Arc::new(()),
    })
}

#[tokio::test]
async fn one_that_starts_tells_another_that_starts_of_its_cluster() {
    let ca = Ca::new();
    let asking = context(&ca, 1, CLUSTER, &[]);
    for (cluster, supersedes, told) in
        [(CLUSTER, vec![], None), (CLUSTER + 1, vec![CLUSTER], Some(CLUSTER + 1))]
    {
        let greeting = context(&ca, 2, cluster, &supersedes);
        in_one_round("an answer in time", async || {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap().to_string();
            let state = State::new();
            let asked = link::probe(&asking, vec![(2, vec![address])]);
            let greeted = async {
                tokio::select! {
                    () = asked => {}
                    () = server::greet_all(&listener, &greeting, &state) => {}
                }
            };
            // Well before one that does not answer is given up.
            tokio::time::timeout(link::PROBE_TIMEOUT / 2, greeted).await.is_ok()
        })
        .await;
        assert_eq!(*asking.superseded.borrow(), told);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_leader_that_is_left_alone_gives_up_to_look_for_an_heir() {
    in_one_round("a leader that gives up in time", async || {
        let mut cluster = Cluster::of(3).await;
        let leader = cluster.leader().await;
        for id in (1..=3).filter(|id| *id != leader) {
            cluster.kill(id);
        }
        let node = cluster.node(leader);
        let answer = cluster.on(leader, async move { node.transfer_leader(None).await }).await;
        let refused = answer.unwrap_err();
        // It began so late that it led no more, or was held up until its time was over.
        let is_late = [ConsensusError::NotLeader, ConsensusError::Timeout].contains(&refused);
        assert!(is_late || refused == ConsensusError::Unhealthy, "{refused}");
        !is_late
    })
    .await;
}
