//! What must hold of a cluster whatever was done to it: no acknowledged write is lost, all members
//! hold the same, and there is one cluster.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use parking_lot::Mutex;

use super::store::{PASSING_MAX, Pairs, Store, is_passing};
use super::{Lab, wait_for};

/// A client that writes one key after the other, each once, and notes what was acknowledged.
/// It stops when dropped.
pub struct Writer {
    stop: Arc<AtomicBool>,
    written: Arc<Mutex<Written>>,
    thread: Option<JoinHandle<()>>,
}

/// What a [`Writer`] wrote.
#[derive(Clone, Debug, Default)]
pub struct Written {
    /// What its keys begin with.
    pub prefix: String,
    /// Acknowledged keys and the revision of each; the value of a key is the key.
    pub acknowledged: BTreeMap<String, i64>,
    /// Keys whose write failed, with the reason: they may be there or not.
    pub unsure: BTreeMap<String, String>,
}

impl Writer {
    /// Writes keys `<prefix>/<number>` through these servers (by number).
    pub fn start(lab: &Lab, servers: &[usize], prefix: &str) -> Self {
        Self::over(Store::of(lab, servers), prefix)
    }

    /// The same through a client of the caller's.
    pub fn over(store: Store, prefix: &str) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let first = Written { prefix: prefix.to_owned(), ..Written::default() };
        let written = Arc::new(Mutex::new(first));
        let thread = std::thread::spawn({
            let (stop, written, prefix) = (stop.clone(), written.clone(), prefix.to_owned());
            move || {
                for number in 0_u64.. {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    let key = format!("{prefix}/{number:08}");
                    let result = store.put(&key, &key);
                    let mut written = written.lock();
                    match result {
                        Ok(revision) => _ = written.acknowledged.insert(key, revision),
                        Err(error) => _ = written.unsure.insert(key, format!("{error:?}")),
                    }
                    drop(written);
                    // It shares two processors with the cluster that it writes to.
                    std::thread::sleep(std::time::Duration::from_millis(10));
                }
            }
        });
        Self { stop, written, thread: Some(thread) }
    }

    /// What was acknowledged so far.
    pub fn written(&self) -> Written {
        self.written.lock().clone()
    }

    /// Waits until `more` writes were acknowledged after this call.
    #[track_caller]
    pub fn wait_for_more(&self, more: usize) {
        let count = || self.written.lock().acknowledged.len();
        let before = count();
        wait_for("more acknowledged writes", || (count() >= before + more).then_some(()));
    }

    /// Ends it, once the write under way has its answer.
    pub fn stop(mut self) -> Written {
        self.end();
        self.written()
    }

    fn end(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the writer ends");
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // The cluster may not answer: the test's own failure is told at once.
            self.stop.store(true, Ordering::Relaxed);
        } else {
            self.end();
        }
    }
}

impl Written {
    /// The writes that failed, but for a few that did so for a [passing](is_passing) reason.
    pub fn failed(&self) -> BTreeMap<&str, &str> {
        let passing = self.unsure.values().filter(|said| is_passing(said)).count();
        let counts = |said: &str| passing > PASSING_MAX || !is_passing(said);
        let failed = self.unsure.iter().filter(|(_, said)| counts(said));
        failed.map(|(key, said)| (key.as_str(), said.as_str())).collect()
    }

    /// Fails unless each acknowledged write is there, and nothing that was never written.
    #[track_caller]
    pub fn assert_all_in(&self, pairs: &Pairs) {
        assert!(!self.acknowledged.is_empty(), "nothing was ever acknowledged");
        for (key, revision) in &self.acknowledged {
            let found = pairs.get(key);
            assert_eq!(found, Some(&(key.clone(), *revision)), "acknowledged and lost: {key}");
        }
        self.assert_nothing_else_in(pairs);
    }

    /// Fails unless what is there is exactly what was acknowledged up to `revision`: the state of a
    /// snapshot taken there. What was never answered may be there if it is not later.
    #[track_caller]
    pub fn assert_state_of(&self, revision: i64, pairs: &Pairs) {
        for (key, made) in &self.acknowledged {
            let expected = (*made <= revision).then(|| (key.clone(), *made));
            assert_eq!(pairs.get(key), expected.as_ref(), "{key} of {made}, state of {revision}");
        }
        self.assert_nothing_else_in(pairs);
        let later = self.unsure.keys().filter_map(|key| pairs.get(key));
        assert!(later.into_iter().all(|(_, made)| *made <= revision), "later than {revision}");
    }

    #[track_caller]
    fn assert_nothing_else_in(&self, pairs: &Pairs) {
        let own = format!("{}/", self.prefix);
        let mut others = pairs.keys().filter(|key| {
            key.starts_with(&own)
                && !self.acknowledged.contains_key(*key)
                && !self.unsure.contains_key(*key)
        });
        assert_eq!(others.next(), None, "never written");
    }
}

/// A member, and what is seen of it from outside.
pub struct Seen {
    /// What it is called in a test's output.
    pub name: String,
    /// A client of it alone.
    pub store: Store,
    /// Its data directory.
    pub data: PathBuf,
}

/// Fails unless these are the members of one cluster, all of them voters, nobody else is a member, and
/// all hold the same at one revision. Gives the cluster's number.
#[track_caller]
pub fn assert_one(seen: &[Seen]) -> u64 {
    let view = |one: &Seen| {
        wait_for(&format!("{} and all its members to vote", one.name), || {
            let (cluster, members) = one.store.members().ok()?;
            let voters = members.iter().all(|member| !member.is_learner);
            let ids: BTreeSet<u64> = members.iter().map(|member| member.id).collect();
            (voters && ids.len() == seen.len()).then_some((cluster, ids))
        })
    };
    let views: Vec<_> = seen.iter().map(view).collect();
    let (cluster, _) = &views[0];
    assert!(views.iter().all(|view| *view == views[0]), "not one cluster: {views:x?}");
    let on_disk: BTreeSet<_> = seen.iter().map(|one| cluster_of(&one.data)).collect();
    assert_eq!(on_disk, BTreeSet::from([Some(*cluster)]), "what the disks say");
    assert_same(seen);
    *cluster
}

/// Fails unless these members hold the same at one revision; gives the revision.
#[track_caller]
fn assert_same(seen: &[Seen]) -> i64 {
    let revision = wait_for("a revision", || seen[0].store.revision().ok());
    let hash = |one: &Seen| wait_for("a member's hash", || one.store.hash(revision).ok());
    let hashes: BTreeMap<&str, u32> =
        seen.iter().map(|one| (one.name.as_str(), hash(one))).collect();
    let different: BTreeSet<u32> = hashes.values().copied().collect();
    assert_eq!(different.len(), 1, "hashes at revision {revision} by server: {hashes:x?}");
    revision
}

/// The cluster that a data directory says it belongs to.
fn cluster_of(data: &Path) -> Option<u64> {
    let file = data.join("server/db/etcd/identity.json");
    let identity: serde_json::Value = serde_json::from_slice(&std::fs::read(file).ok()?).ok()?;
    u64::from_str_radix(identity["cluster_id"].as_str()?, 16).ok()
}

fn seen_in(lab: &Lab, servers: &[usize]) -> Vec<Seen> {
    let one = |number: &usize| {
        let name = format!("server{number}");
        let data = lab.host_dir(&name).join("var/lib/k3sup");
        Seen { name, store: Store::of(lab, &[*number]), data }
    };
    servers.iter().map(one).collect()
}

/// [`assert_one`] of servers of a lab, by number.
#[track_caller]
pub fn assert_one_cluster(lab: &Lab, servers: &[usize]) -> u64 {
    assert_one(&seen_in(lab, servers))
}

/// The cluster that a lab host's disk says it belongs to.
pub fn cluster_on_disk(lab: &Lab, host: &str) -> Option<u64> {
    cluster_of(&lab.host_dir(host).join("var/lib/k3sup"))
}

/// Fails unless these servers hold the same at one revision; gives the revision.
#[track_caller]
pub fn assert_same_everywhere(lab: &Lab, servers: &[usize]) -> i64 {
    assert_same(&seen_in(lab, servers))
}
