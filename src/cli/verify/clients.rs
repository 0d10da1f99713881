//! The drill's clients: they write all the time, and note what was acknowledged and when. To what they
//! write they do not know.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::task::JoinHandle;

use super::door::Door;
use super::ways::Ways;
use crate::cluster::drill::Seen;
use crate::error::Failure;

/// After a try that failed.
const PAUSE: Duration = Duration::from_millis(10);

/// What all that goes on during a drill has in common.
#[derive(Clone)]
pub(super) struct Course {
    begun: Instant,
    over: Arc<AtomicBool>,
    leaders: Arc<Mutex<Leaders>>,
}

/// Who led.
#[derive(Default)]
struct Leaders {
    /// The newest term that anybody told of.
    term: u64,
    /// When which member was first seen to lead, by its number as a view of the cluster has it.
    seen: Vec<(u64, String)>,
}

impl Course {
    /// Begins now.
    pub(super) fn begin() -> Self {
        Self { begun: Instant::now(), over: Arc::default(), leaders: Arc::default() }
    }

    /// Milliseconds since it began.
    fn since(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Whether it has ended.
    pub(super) fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    /// Takes in who leads. Who is behind tells of an older term.
    pub(super) fn leads(&self, term: u64, leader: String) {
        let mut leaders = self.leaders.lock();
        if term < leaders.term {
            return;
        }
        leaders.term = term;
        if leaders.seen.last().is_none_or(|(_, known)| *known != leader) {
            leaders.seen.push((self.since(), leader));
        }
    }
}

/// The clients of a drill.
pub(super) struct Clients {
    course: Course,
    writers: Vec<JoinHandle<(Seen, Vec<String>)>>,
    watcher: JoinHandle<()>,
}

/// What they saw.
pub(super) struct Told {
    /// By client.
    pub(super) seen: Vec<Seen>,
    /// Keys that were acknowledged; the value is the key.
    pub(super) acknowledged: Vec<String>,
    /// When which member was first seen to lead.
    pub(super) leaders: Vec<(u64, String)>,
}

impl Clients {
    /// Starts all that [`Ways::of_clients`] has ways for. `watcher` notes who leads.
    pub(super) fn begin(
        course: Course,
        run: &str,
        ways: &Ways,
        watcher: impl Future<Output = ()> + Send + 'static,
    ) -> Result<Self, Failure> {
        let writers =
            ways.of_clients()?.into_iter().enumerate().map(|(number, (doors, balanced))| {
                let prefix = format!("{run}-{number}-");
                let seen = Seen { balanced, ..Seen::default() };
                tokio::spawn(write(doors, prefix, seen, course.clone()))
            });
        let writers = writers.collect();
        Ok(Self { course, writers, watcher: tokio::spawn(watcher) })
    }

    /// When the drill began.
    pub(super) fn begun(&self) -> Instant {
        self.course.begun
    }

    /// Ends them.
    pub(super) async fn end(self) -> Told {
        self.course.over.store(true, Ordering::Relaxed);
        self.watcher.abort();
        let leaders = self.course.leaders.lock().seen.clone();
        let mut told = Told { seen: Vec::new(), acknowledged: Vec::new(), leaders };
        for writer in self.writers {
            let (seen, keys) = writer.await.unwrap_or_default();
            told.seen.push(seen);
            told.acknowledged.extend(keys);
        }
        told
    }
}

/// Writes one key after another, each until it is acknowledged, at one door until that fails.
async fn write(
    doors: Vec<Door>,
    prefix: String,
    mut seen: Seen,
    course: Course,
) -> (Seen, Vec<String>) {
    let mut keys = Vec::new();
    let mut others = doors.iter().cycle();
    let Some(mut door) = others.next() else { return (seen, keys) };
    for number in 0_u64.. {
        let key = format!("{prefix}{number:010}");
        loop {
            if course.is_over() {
                return (seen, keys);
            }
            if door.put(&key).await {
                break;
            }
            seen.failed_ms.push(course.since());
            door = others.next().unwrap_or(door);
            tokio::time::sleep(PAUSE).await;
        }
        seen.acknowledged_ms.push(course.since());
        keys.push(key);
        tokio::time::sleep(door.pace()).await;
    }
    (seen, keys)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_behind_does_not_say_who_leads() {
        let course = Course::begin();
        for (term, leader) in [(2, "a"), (2, "a"), (3, "b"), (2, "a"), (3, "b"), (4, "a")] {
            course.leads(term, leader.to_owned());
        }
        let seen = course.leaders.lock().seen.clone();
        let names: Vec<&str> = seen.iter().map(|(_, name)| name.as_str()).collect();
        assert_eq!(names, ["a", "b", "a"]);
    }
}
