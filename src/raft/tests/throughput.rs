//! How fast it is: not a test, but run by hand with `--ignored`, in a release build.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use super::cluster::{Cluster, put_command};
use crate::raft::api::Consensus;

/// Puts of 256 bytes at the leader of three members in this process, over TLS, with logs on disk.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
#[ignore = "a measurement"]
#[expect(clippy::cast_precision_loss, reason = "it tells a person a figure")]
async fn puts_per_second() {
    let cluster = Cluster::of(3).await;
    let leader = cluster.leader().await;
    for (writers, puts) in [(1, 2_000), (64, 50_000), (512, 100_000)] {
        let left = Arc::new(AtomicUsize::new(puts));
        let began = Instant::now();
        let mut tasks = Vec::new();
        for writer in 0..writers {
            let (node, left) = (cluster.node(leader), left.clone());
            tasks.push(cluster.spawn(leader, async move {
                let value = "v".repeat(256);
                let more = |left: usize| left.checked_sub(1);
                while let Ok(number) = left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more)
                {
                    let command = put_command(&format!("{writer}/{}", number % 10_000), &value);
                    node.propose(command).await.unwrap().outcome.unwrap();
                }
            }));
        }
        for task in tasks {
            task.await.unwrap();
        }
        let rate = puts as f64 / began.elapsed().as_secs_f64();
        eprintln!("{writers} writers: {rate:.0} puts/s");
    }
}

/// Linearizable reads at a follower.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
#[ignore = "a measurement"]
async fn barriers_per_second() {
    let cluster = Cluster::of(3).await;
    let follower = (1..=3).find(|id| !cluster.status(*id).is_leader()).unwrap();
    for (readers, each) in [(1, 2_000), (64, 1_000)] {
        let began = Instant::now();
        let mut tasks = Vec::new();
        for _ in 0..readers {
            let node = cluster.node(follower);
            tasks.push(cluster.spawn(follower, async move {
                for _ in 0..each {
                    node.read_barrier().await.unwrap();
                }
            }));
        }
        for task in tasks {
            task.await.unwrap();
        }
        let rate = f64::from(readers * each) / began.elapsed().as_secs_f64();
        eprintln!("{readers} readers: {rate:.0} reads/s");
    }
}
