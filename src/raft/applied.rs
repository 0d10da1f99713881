//! How far this member has applied the log, and who waits for it to get further.
//!
//! Those who wait for an entry stand in a queue ordered by index, so that each batch wakes exactly
//! those whose turn it is, however many wait.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{oneshot, watch};

/// Those who gave up are looked for when so many wait, and whenever that number has doubled.
const SWEEP_MIN: usize = 1024;

/// The member has stopped and will apply nothing more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stopped;

/// What is known of applied entries. Clones share it.
#[derive(Clone)]
pub(crate) struct Applied {
    index: watch::Receiver<u64>,
    queue: Arc<Mutex<Queue>>,
}

/// The side that applies. Dropping it tells all who wait that nothing more will come.
pub(crate) struct Applying {
    index: watch::Sender<u64>,
    queue: Arc<Mutex<Queue>>,
}

struct Queue {
    waiting: BinaryHeap<Reverse<Waiting>>,
    sweep_at: usize,
    stopped: bool,
}

struct Waiting {
    index: u64,
    reached: oneshot::Sender<()>,
}

/// Both sides, at index 0.
pub(crate) fn applied() -> (Applying, Applied) {
    let (sender, index) = watch::channel(0);
    let queue = Queue { waiting: BinaryHeap::new(), sweep_at: SWEEP_MIN, stopped: false };
    let queue = Arc::new(Mutex::new(queue));
    (Applying { index: sender, queue: queue.clone() }, Applied { index, queue })
}

impl Applying {
    /// Everything up to `index` is applied.
    pub(crate) fn upto(&self, index: u64) {
        // Before the queue is looked at: who comes too late for this look sees the index.
        self.index.send_replace(index);
        let mut reached = Vec::new();
        {
            let mut queue = self.queue.lock();
            while queue.waiting.peek().is_some_and(|Reverse(next)| next.index <= index) {
                reached.extend(queue.waiting.pop());
            }
        }
        for Reverse(waiting) in reached {
            // Who gave up does not mind.
            let _ = waiting.reached.send(());
        }
    }
}

impl Drop for Applying {
    fn drop(&mut self) {
        let mut queue = self.queue.lock();
        queue.stopped = true;
        queue.waiting.clear();
    }
}

impl Applied {
    /// The last applied index.
    pub(crate) fn index(&self) -> u64 {
        *self.index.borrow()
    }

    /// To be told of every change.
    pub(crate) fn subscribe(&self) -> watch::Receiver<u64> {
        self.index.clone()
    }

    /// Waits until the entry at `index` is applied.
    pub(crate) async fn reaches(&self, index: u64) -> Result<(), Stopped> {
        let reached = {
            if self.index() >= index {
                return Ok(());
            }
            let mut queue = self.queue.lock();
            if self.index() >= index {
                return Ok(());
            }
            if queue.stopped {
                return Err(Stopped);
            }
            queue.sweep();
            let (sender, reached) = oneshot::channel();
            queue.waiting.push(Reverse(Waiting { index, reached: sender }));
            reached
        };
        reached.await.map_err(|_| Stopped)
    }
}

impl Queue {
    /// Forgets those who gave up, so that a member that gets no further does not collect them.
    fn sweep(&mut self) {
        if self.waiting.len() >= self.sweep_at {
            self.waiting.retain(|Reverse(waiting)| !waiting.reached.is_closed());
            self.sweep_at = SWEEP_MIN.max(2 * self.waiting.len());
        }
    }
}

impl Ord for Waiting {
    fn cmp(&self, other: &Self) -> Ordering {
        self.index.cmp(&other.index)
    }
}

impl PartialOrd for Waiting {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Waiting {
    fn eq(&self, other: &Self) -> bool {
        self.index == other.index
    }
}

impl Eq for Waiting {}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::{SWEEP_MIN, Stopped, applied};

    #[test]
    fn each_waits_for_its_own_entry() {
        let (applying, applied) = applied();
        applying.upto(2);
        assert_eq!(applied.reaches(2).now_or_never(), Some(Ok(())));
        let mut fourth = Box::pin(applied.reaches(4));
        let mut third = Box::pin(applied.reaches(3));
        assert_eq!(third.as_mut().now_or_never(), None);
        assert_eq!(fourth.as_mut().now_or_never(), None);
        applying.upto(3);
        assert_eq!(third.as_mut().now_or_never(), Some(Ok(())));
        assert_eq!(fourth.as_mut().now_or_never(), None);
        applying.upto(9);
        assert_eq!(fourth.as_mut().now_or_never(), Some(Ok(())));
        assert_eq!(applied.index(), 9);
    }

    #[test]
    fn nobody_waits_for_a_member_that_stopped() {
        let (applying, applied) = applied();
        let mut waiting = Box::pin(applied.reaches(1));
        assert_eq!(waiting.as_mut().now_or_never(), None);
        drop(applying);
        assert_eq!(waiting.as_mut().now_or_never(), Some(Err(Stopped)));
        assert_eq!(applied.reaches(1).now_or_never(), Some(Err(Stopped)));
    }

    #[test]
    fn those_who_gave_up_are_forgotten() {
        let (_applying, applied) = applied();
        for _ in 0..10 * SWEEP_MIN {
            assert_eq!(applied.reaches(1).now_or_never(), None);
        }
        assert!(applied.queue.lock().waiting.len() <= SWEEP_MIN);
    }
}
