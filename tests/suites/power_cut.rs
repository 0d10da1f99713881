//! All servers are killed at once while they are written to, again and again: nothing that was
//! acknowledged is lost, and revisions never go back.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use crate::support::seed::Random;
use crate::support::store::{Pairs, Store};
use crate::support::{Lab, wait_for};
use rustix::process::{Pid, Signal, kill_process};

/// How often the power is cut.
const CUTS: usize = 30;

/// Clients that write at the same time.
const WRITERS: usize = 4;

/// What was acknowledged: key → value and revision. Each key is written once.
type Acknowledged = Mutex<Pairs>;

/// Writes while `going` is; notes what was acknowledged. No acknowledgement is older than what was
/// acknowledged before its write began.
fn write(
    lab: &Lab,
    cut: usize,
    writer: usize,
    acknowledged: &Acknowledged,
    newest: &AtomicI64,
    going: &Weak<()>,
) {
    let store = Store::of(lab, &[writer % 3 + 1]);
    for number in 0.. {
        if going.strong_count() == 0 {
            return;
        }
        let key = format!("cut-{cut:02}/writer-{writer}/{number:05}");
        let value = format!("{number} of {writer} before cut {cut}");
        let seen = newest.load(Ordering::SeqCst);
        if let Ok(revision) = store.put(&key, &value) {
            assert!(revision > seen, "{key} has revision {revision}, after {seen}");
            newest.fetch_max(revision, Ordering::SeqCst);
            acknowledged.lock().unwrap().insert(key, (value, revision));
        }
    }
}

/// The processes of the servers' nodes that run.
fn processes(lab: &Lab) -> Vec<Pid> {
    let pid = |number: usize| {
        let file = lab.host_dir(&format!("server{number}")).join("run/k3sup.pid");
        let text = std::fs::read_to_string(file).ok()?;
        Pid::from_raw(text.split_whitespace().next()?.parse().ok()?)
    };
    (1..=3).filter_map(pid).collect()
}

/// SIGKILL to all nodes at once; the hosts stay up and start them again.
fn kill_nodes(lab: &Lab) {
    // Two that are back are enough to write; the third may be on its way.
    let pids = wait_for("three nodes", || Some(processes(lab)).filter(|pids| pids.len() == 3));
    for pid in pids {
        // One that died by itself would be seen by what follows.
        let _ = kill_process(pid, Signal::KILL);
    }
}

/// Everything acknowledged is there, as it was acknowledged.
fn check(all: &Store, acknowledged: &Acknowledged, newest: &AtomicI64) {
    let (revision, pairs) = wait_for("the cluster to be back", || all.all().ok());
    assert!(revision >= newest.load(Ordering::SeqCst), "{revision} < {newest:?}");
    newest.fetch_max(revision, Ordering::SeqCst);
    for (key, written) in acknowledged.lock().unwrap().iter() {
        assert_eq!(pairs.get(key), Some(written), "{key} was acknowledged");
    }
}

#[test]
fn no_acknowledged_write_is_lost_when_all_servers_are_killed() {
    let mut random = Random::new();
    let lab = Lab::new("81.1", 3, 0);
    lab.up(&[]);
    let all = Store::of(&lab, &[1, 2, 3]);
    let (acknowledged, newest) = (Acknowledged::default(), AtomicI64::new(0));
    for cut in 1..=CUTS {
        let going = Arc::new(());
        let before = acknowledged.lock().unwrap().len();
        // What fails here drops it too, or the writers would be waited for, for ever.
        std::thread::scope(|scope| {
            let going = going;
            for writer in 0..WRITERS {
                let (lab, acknowledged, newest) = (&lab, &acknowledged, &newest);
                let going = Arc::downgrade(&going);
                scope.spawn(move || write(lab, cut, writer, acknowledged, newest, &going));
            }
            wait_for("some writes", || {
                (acknowledged.lock().unwrap().len() > before + WRITERS).then_some(())
            });
            std::thread::sleep(random.upto(Duration::from_millis(700)));
            kill_nodes(&lab);
            drop(going);
            // The nodes alone, which their hosts start again, or the hosts too.
            if random.below(2) == 0 {
                lab.ok(["lab", "kill"]);
                lab.ok(["lab", "start"]);
            }
        });
        check(&all, &acknowledged, &newest);
    }
    let revision = wait_for("a revision", || all.revision().ok());
    let hash = |number| wait_for("a hash", || Store::of(&lab, &[number]).hash(revision).ok());
    let hashes: Vec<u32> = (1..=3).map(hash).collect();
    assert!(hashes.iter().all(|hash| *hash == hashes[0]), "{hashes:?} at revision {revision}");
    eprintln!("{} acknowledged writes over {CUTS} cuts", acknowledged.lock().unwrap().len());
}
