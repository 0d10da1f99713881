//! Whether the leader is still there: when a follower last heard of it, and when a quorum last
//! answered a leader.
//!
//! openraft goes on naming a leader until there is another one. etcd does not: a follower forgets a
//! leader that is silent, and a leader steps down that no quorum answers (`CheckQuorum`), both
//! between one and two election time-outs later. Clients and health checks depend on it.

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Duration, Instant};

/// The last word of a leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Heard {
    term: u64,
    at: Instant,
}

/// Remembers the last word of the newest leader.
pub(crate) struct Contact {
    last: Mutex<Option<Heard>>,
    patience: Duration,
    back: Notify,
}

impl Contact {
    /// A leader that is silent for longer than `patience` is gone.
    pub(crate) fn new(patience: Duration) -> Self {
        Self { last: Mutex::new(None), patience, back: Notify::new() }
    }

    /// The leader of `term`, of which there is only one, was there at this time.
    pub(crate) fn heard(&self, term: u64, at: Instant) {
        let heard = Heard { term, at };
        let before = {
            let mut last = self.last.lock();
            if *last >= Some(heard) {
                return;
            }
            last.replace(heard)
        };
        if before.is_none_or(|before| before.term < term || self.is_over(before)) {
            self.back.notify_one();
        }
    }

    /// This member leads in `term`: a quorum that elected it has answered it just now.
    pub(crate) fn begins(&self, term: u64) {
        if self.last.lock().is_none_or(|last| last.term < term) {
            self.heard(term, Instant::now());
        }
    }

    /// Whether the leader of `term`, or one of a later term, was there lately.
    pub(crate) fn is_fresh(&self, term: u64) -> bool {
        self.last.lock().is_some_and(|last| last.term >= term && !self.is_over(last))
    }

    fn is_over(&self, heard: Heard) -> bool {
        heard.at.elapsed() >= self.patience
    }

    /// Waits until the leader has been silent for too long, if that has not happened yet, or until
    /// one is heard of again.
    pub(crate) async fn changes(&self) {
        let last = *self.last.lock();
        let over = async {
            match last {
                Some(last) if !self.is_over(last) => {
                    tokio::time::sleep_until(last.at + self.patience).await;
                }
                _ => std::future::pending().await,
            }
        };
        tokio::select! {
            () = over => {}
            () = self.back.notified() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(3600);

    fn long_ago() -> Instant {
        Instant::now() - 2 * PATIENCE
    }

    #[test]
    fn a_leader_is_gone_when_it_was_silent_for_too_long() {
        let contact = Contact::new(PATIENCE);
        assert!(!contact.is_fresh(0));
        contact.heard(3, long_ago());
        assert!(!contact.is_fresh(3));
        contact.begins(3);
        assert!(!contact.is_fresh(3), "it has led in this term for long");
        contact.heard(3, Instant::now());
        assert!(contact.is_fresh(3) && contact.is_fresh(2) && !contact.is_fresh(4));
        contact.heard(3, long_ago());
        assert!(contact.is_fresh(3), "an old word says nothing of today");
    }

    #[test]
    fn what_an_earlier_leader_says_counts_for_nothing() {
        let contact = Contact::new(PATIENCE);
        contact.heard(4, long_ago());
        contact.heard(3, Instant::now());
        assert!(!contact.is_fresh(3) && !contact.is_fresh(4));
        contact.begins(5);
        assert!(contact.is_fresh(4) && contact.is_fresh(5));
    }

    #[tokio::test]
    async fn both_ends_of_a_silence_are_told() {
        // Long enough for a slow machine to begin to wait: an end that is over is not told any more.
        let contact = Contact::new(Duration::from_secs(2));
        contact.heard(1, Instant::now());
        contact.changes().await;
        contact.changes().await;
        assert!(!contact.is_fresh(1));
        contact.heard(1, Instant::now());
        contact.changes().await;
        contact.changes().await;
        assert!(!contact.is_fresh(1));
    }
}
