//! No acknowledged write is lost, whoever crashes when.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use rand::RngExt;

use super::cluster::{Cluster, put_command, revision};
use crate::raft::RaftNode;
use crate::raft::api::Consensus;

const ROUNDS: usize = 8;
const WRITERS: usize = 4;

/// Acknowledged writes: key to value and revision.
type Acknowledged = Arc<Mutex<BTreeMap<String, (String, i64)>>>;

/// Writes keys of its own through one member until told to stop; notes what was acknowledged.
async fn write(
    node: Arc<RaftNode>,
    prefix: String,
    acknowledged: Acknowledged,
    stop: Arc<AtomicBool>,
) {
    let mut number = 0;
    let mut before = 0;
    while !stop.load(Ordering::Relaxed) {
        let (key, value) = (format!("{prefix}-{number}"), format!("value of {number}"));
        number += 1;
        let Ok(applied) = node.propose(put_command(&key, &value)).await else { continue };
        let now = revision(&applied);
        assert!(now > before, "a later write has an earlier revision");
        before = now;
        acknowledged.lock().insert(key, (value, now));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn no_acknowledged_write_is_lost_over_repeated_crashes() {
    let mut cluster = Cluster::new();
    cluster.snapshot_count = 200;
    cluster.begin().await;
    for id in 2..=3 {
        cluster.join(id, true).await;
        cluster.until(1, |status| status.voters.contains(&id)).await;
    }
    let acknowledged = Acknowledged::default();
    for round in 0..ROUNDS {
        let stop = Arc::new(AtomicBool::new(false));
        for writer in 0..WRITERS {
            let id = u64::try_from(writer).unwrap() % 3 + 1;
            let prefix = format!("{round}-{writer}");
            let work = write(cluster.node(id), prefix, acknowledged.clone(), stop.clone());
            drop(cluster.spawn(id, work));
        }
        tokio::time::sleep(Duration::from_millis(rand::rng().random_range(50..400))).await;
        let victims: Vec<u64> = match round % 4 {
            0 => vec![cluster.leader().await],
            1 => vec![1, 2, 3],
            2 => vec![rand::rng().random_range(1..=3)],
            _ => vec![1, 3],
        };
        for id in &victims {
            cluster.kill(*id);
        }
        stop.store(true, Ordering::Relaxed);
        for id in victims {
            cluster.start(id).await;
        }
        cluster.leader().await;
        // A survivor's last write may be acknowledged any time from now on: what is so before a read is
        // there at the read.
        let so_far = acknowledged.lock().clone();
        let last = so_far.values().map(|(_, revision)| *revision).max();
        for id in 1..=3 {
            cluster.read(id, "any").await;
            assert!(Some(cluster.state(id).revision()) >= last, "the revision went back");
            for (key, (value, _)) in &so_far {
                assert_eq!(cluster.peek(id, key).as_ref(), Some(value), "{key} on member {id}");
            }
        }
    }
    assert!(!acknowledged.lock().is_empty(), "nothing was ever acknowledged");
    let revision = cluster.state(1).revision();
    // The last of it may be a survivor's late write, which the others have when they are read.
    for id in 1..=3 {
        cluster.read(id, "any").await;
    }
    let hash = |id| cluster.state(id).hash_kv(revision).unwrap().hash;
    assert!(hash(1) == hash(2) && hash(2) == hash(3), "members differ");
}
