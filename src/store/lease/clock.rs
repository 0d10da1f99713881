//! When leases end. Only the leader runs this clock: it proposes to revoke what expired, and
//! nobody else's clock matters (etcd `server/lease/lessor.go`).

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

use super::super::types::LeaseId;

/// How often what is left of a long lease is recorded.
const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(300);

/// Most leases in one checkpoint command.
const CHECKPOINT_BATCH: usize = 1000;

/// When a revocation that was not applied is asked for again.
const REVOKE_RETRY: Duration = Duration::from_secs(3);

/// Most leases that a new leader lets expire in one second, three quarters of what is revoked in
/// that time: a pile-up of renewed leases must not take it all.
const EXPIRIES_PER_SECOND: usize = 750;

/// What a renewal came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Renewal {
    /// It runs on.
    Renewed {
        /// The new time to live in seconds.
        ttl: i64,
        /// What is left of it was recorded: a command has to clear that (0 seconds), or a new
        /// leader would end it too early.
        clear_checkpoint: bool,
    },
    /// It has expired and is about to be revoked: the answer has to wait until it is, and is then
    /// that of [`Renewal::NotFound`].
    Expired,
    /// There is no such lease: the client is told a time to live of 0.
    NotFound,
    /// This member does not lead.
    NotLeader,
}

/// One lease.
#[derive(Debug)]
struct Timing {
    ttl: i64,
    deadline: Instant,
    /// When it is looked at next: its deadline, later when it was already offered as expired.
    due: Instant,
    next_checkpoint: Option<Instant>,
    is_checkpointed: bool,
}

/// The leases of a leader.
#[derive(Debug, Default)]
struct Book {
    leases: HashMap<LeaseId, Timing>,
    due: BTreeSet<(Instant, LeaseId)>,
    checkpoints: BTreeSet<(Instant, LeaseId)>,
}

/// The leader's clock. On other members it knows no lease and answers [`Renewal::NotLeader`].
#[derive(Debug, Default)]
pub struct LeaseClock {
    book: Option<Book>,
}

impl LeaseClock {
    /// A member that does not lead.
    pub fn new() -> Self {
        Self::default()
    }

    /// Becomes leader, or starts again as one after the state was replaced. Every lease gets what
    /// was recorded of it or else its whole time, plus `extend` (the election time-out: clients
    /// could not renew meanwhile). `leases` are number, granted seconds, recorded seconds left (0:
    /// none). Where too many would end at once, the later ones are put off.
    pub fn promote(
        &mut self,
        leases: impl IntoIterator<Item = (LeaseId, i64, i64)>,
        now: Instant,
        extend: Duration,
    ) {
        let mut all: Vec<_> = leases
            .into_iter()
            .map(|(id, ttl, left)| {
                let seconds = if left > 0 { left } else { ttl };
                (now + extend + seconds_of(seconds), id, ttl, left > 0)
            })
            .collect();
        all.sort_unstable();
        let mut book = Book::default();
        let mut deadlines: Vec<Instant> = Vec::with_capacity(all.len());
        for (deadline, id, ttl, is_checkpointed) in all {
            let earlier = deadlines.len().checked_sub(EXPIRIES_PER_SECOND);
            let spread = earlier
                .and_then(|index| deadlines.get(index))
                .map_or(deadline, |earlier| deadline.max(*earlier + Duration::from_secs(1)));
            deadlines.push(spread);
            book.insert(id, ttl, spread, now, is_checkpointed);
        }
        self.book = Some(book);
    }

    /// Leads no more: forgets all times.
    pub fn demote(&mut self) {
        self.book = None;
    }

    /// Whether it runs.
    pub fn is_leader(&self) -> bool {
        self.book.is_some()
    }

    /// A lease was granted (applied).
    pub fn granted(&mut self, id: LeaseId, ttl: i64, now: Instant) {
        if let Some(book) = &mut self.book {
            book.insert(id, ttl, now + seconds_of(ttl), now, false);
        }
    }

    /// A lease was revoked (applied).
    pub fn revoked(&mut self, id: LeaseId) {
        if let Some(book) = &mut self.book {
            book.remove(id);
        }
    }

    /// What is left of a lease was recorded (applied); 0 clears it.
    pub fn checkpointed(&mut self, id: LeaseId, remaining: i64) {
        if let Some(timing) = self.book.as_mut().and_then(|book| book.leases.get_mut(&id)) {
            timing.is_checkpointed = remaining > 0;
        }
    }

    /// Starts a lease's time afresh.
    pub fn renew(&mut self, id: LeaseId, now: Instant) -> Renewal {
        let Some(book) = &mut self.book else { return Renewal::NotLeader };
        let Some(timing) = book.leases.get(&id) else { return Renewal::NotFound };
        if timing.deadline <= now {
            return Renewal::Expired;
        }
        let (ttl, clear_checkpoint) = (timing.ttl, timing.is_checkpointed);
        book.insert(id, ttl, now + seconds_of(ttl), now, clear_checkpoint);
        Renewal::Renewed { ttl, clear_checkpoint }
    }

    /// Whole seconds that a lease has left, 0 when it has expired; `None` when there is no such
    /// lease or this member does not lead.
    pub fn remaining(&self, id: LeaseId, now: Instant) -> Option<i64> {
        let timing = self.book.as_ref()?.leases.get(&id)?;
        let left = timing.deadline.saturating_duration_since(now);
        Some(i64::try_from(left.as_secs()).unwrap_or(i64::MAX))
    }

    /// Puts leases into the order in which they end, where this member leads: nobody else knows.
    pub fn sort_by_end(&self, leases: &mut [LeaseId]) {
        let Some(book) = &self.book else { return };
        // One that was granted a moment ago may not be in the book yet: it comes last.
        let end = |id: &LeaseId| book.leases.get(id).map(|timing| timing.deadline);
        leases.sort_by_key(|id| (end(id).is_none(), end(id)));
    }

    /// Up to `limit` leases that have expired, to be revoked. One that is not revoked within a few
    /// seconds is given again.
    pub fn expired(&mut self, now: Instant, limit: usize) -> Vec<LeaseId> {
        let Some(book) = &mut self.book else { return Vec::new() };
        let due: Vec<_> = book
            .due
            .iter()
            .take_while(|(due, _)| *due <= now)
            .map(|(_, id)| *id)
            .take(limit)
            .collect();
        for id in &due {
            if let Some(timing) = book.leases.get_mut(id) {
                book.due.remove(&(timing.due, *id));
                timing.due = now + REVOKE_RETRY;
                book.due.insert((timing.due, *id));
            }
        }
        due
    }

    /// When [`LeaseClock::expired`] may next have something.
    pub fn next_expiry(&self) -> Option<Instant> {
        self.book.as_ref()?.due.first().map(|(due, _)| *due)
    }

    /// What is left of the long leases whose record is due: pairs for a checkpoint command. Empty
    /// when nothing is due.
    pub fn checkpoints_due(&mut self, now: Instant) -> Vec<(LeaseId, i64)> {
        let Some(book) = &mut self.book else { return Vec::new() };
        let mut found = Vec::new();
        while let Some((when, id)) = book.checkpoints.first().copied()
            && when <= now
            && found.len() < CHECKPOINT_BATCH
        {
            book.checkpoints.remove(&(when, id));
            let Some(timing) = book.leases.get_mut(&id) else { continue };
            timing.next_checkpoint = None;
            let left = timing.deadline.saturating_duration_since(now);
            let seconds = left.as_secs() + u64::from(left.subsec_nanos() > 0);
            let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
            if seconds > 0 && seconds < timing.ttl {
                found.push((id, seconds));
            }
            book.schedule_checkpoint(id, now);
        }
        found
    }
}

impl Book {
    fn insert(
        &mut self,
        id: LeaseId,
        ttl: i64,
        deadline: Instant,
        now: Instant,
        is_checkpointed: bool,
    ) {
        self.remove(id);
        let timing =
            Timing { ttl, deadline, due: deadline, next_checkpoint: None, is_checkpointed };
        self.leases.insert(id, timing);
        self.due.insert((deadline, id));
        self.schedule_checkpoint(id, now);
    }

    fn remove(&mut self, id: LeaseId) {
        if let Some(timing) = self.leases.remove(&id) {
            self.due.remove(&(timing.due, id));
            if let Some(when) = timing.next_checkpoint {
                self.checkpoints.remove(&(when, id));
            }
        }
    }

    /// A lease that has longer than the interval to go is recorded at its end.
    fn schedule_checkpoint(&mut self, id: LeaseId, now: Instant) {
        let Some(timing) = self.leases.get_mut(&id) else { return };
        if timing.deadline.saturating_duration_since(now) > CHECKPOINT_INTERVAL {
            let when = now + CHECKPOINT_INTERVAL;
            timing.next_checkpoint = Some(when);
            self.checkpoints.insert((when, id));
        }
    }
}

fn seconds_of(seconds: i64) -> Duration {
    Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A leader with leases of 10 s, number 1, and 1000 s, number 2, at second 0.
    fn leader() -> (LeaseClock, impl Fn(u64) -> Instant) {
        let start = Instant::now();
        let at = move |seconds| start + Duration::from_secs(seconds);
        let mut clock = LeaseClock::new();
        clock.promote([(1, 10, 0), (2, 1000, 0)], at(0), Duration::ZERO);
        (clock, at)
    }

    #[test]
    fn a_lease_expires_at_its_end_and_is_offered_again_until_it_is_revoked() {
        let (mut clock, at) = leader();
        assert_eq!(clock.next_expiry(), Some(at(10)));
        assert!(clock.expired(at(9), 500).is_empty());
        assert_eq!(clock.expired(at(10), 500), [1]);
        assert!(clock.expired(at(11), 500).is_empty());
        assert_eq!(clock.expired(at(13), 500), [1]);
        clock.revoked(1);
        assert!(clock.expired(at(20), 500).is_empty());
        assert_eq!(clock.next_expiry(), Some(at(1000)));
    }

    #[test]
    fn at_most_the_limit_is_given_at_once() {
        let (mut clock, at) = leader();
        for id in 10..20 {
            clock.granted(id, 5, at(0));
        }
        assert_eq!(clock.expired(at(5), 4).len(), 4);
        assert_eq!(clock.expired(at(5), 500).len(), 6);
    }

    #[test]
    fn a_renewal_starts_the_time_afresh() {
        let (mut clock, at) = leader();
        let renewed = Renewal::Renewed { ttl: 10, clear_checkpoint: false };
        assert_eq!(clock.renew(1, at(9)), renewed);
        assert_eq!(clock.remaining(1, at(10)), Some(9));
        assert!(clock.expired(at(18), 500).is_empty());
        assert_eq!(clock.expired(at(19), 500), [1]);
        assert_eq!(clock.renew(99, at(0)), Renewal::NotFound);
    }

    #[test]
    fn an_expired_lease_is_not_renewed_but_waits_for_its_revocation() {
        let (mut clock, at) = leader();
        assert_eq!(clock.renew(1, at(10)), Renewal::Expired);
        assert_eq!(clock.remaining(1, at(10)), Some(0));
        clock.revoked(1);
        assert_eq!(clock.renew(1, at(10)), Renewal::NotFound);
        assert_eq!(clock.remaining(1, at(10)), None);
    }

    #[test]
    fn leases_are_sorted_by_their_ends_where_they_are_known() {
        let (mut clock, at) = leader();
        clock.granted(3, 100, at(0));
        let sorted = |clock: &LeaseClock| {
            let mut leases = [7, 2, 3, 1];
            clock.sort_by_end(&mut leases);
            leases
        };
        assert_eq!(sorted(&clock), [1, 3, 2, 7]);
        clock.renew(1, at(5));
        clock.renew(3, at(6));
        assert_eq!(sorted(&clock), [1, 3, 2, 7]);
        clock.granted(4, 1, at(6));
        clock.renew(2, at(6));
        assert_eq!(sorted(&clock), [1, 3, 2, 7]);
        clock.demote();
        assert_eq!(sorted(&clock), [7, 2, 3, 1]);
    }

    #[test]
    fn who_does_not_lead_expires_and_renews_nothing() {
        let (mut clock, at) = leader();
        clock.demote();
        assert!(!clock.is_leader());
        clock.granted(3, 1, at(0));
        assert!(clock.expired(at(9999), 500).is_empty());
        assert_eq!(clock.renew(2, at(0)), Renewal::NotLeader);
        assert_eq!(clock.remaining(2, at(0)), None);
        assert!(clock.checkpoints_due(at(9999)).is_empty());
    }

    #[test]
    fn a_new_leader_gives_every_lease_its_time_again_and_the_election_on_top() {
        let (mut clock, at) = leader();
        clock.demote();
        clock.promote([(1, 10, 0), (2, 1000, 40)], at(8), Duration::from_secs(2));
        assert_eq!(clock.remaining(1, at(8)), Some(12));
        assert_eq!(clock.remaining(2, at(8)), Some(42));
        assert_eq!(clock.renew(2, at(9)), Renewal::Renewed { ttl: 1000, clear_checkpoint: true });
        clock.checkpointed(2, 0);
        assert_eq!(clock.renew(2, at(9)), Renewal::Renewed { ttl: 1000, clear_checkpoint: false });
    }

    #[test]
    fn a_new_leader_spreads_leases_that_would_all_end_at_once() {
        let start = Instant::now();
        let mut clock = LeaseClock::new();
        clock.promote((1..=3000).map(|id| (id, 10, 0)), start, Duration::ZERO);
        for second in 0..4 {
            let now = start + Duration::from_secs(10 + second);
            assert_eq!(clock.expired(now, usize::MAX).len(), 750);
            for id in clock.book.as_ref().unwrap().leases.keys().copied().collect::<Vec<_>>() {
                if clock.remaining(id, now) == Some(0) {
                    clock.revoked(id);
                }
            }
        }
        assert_eq!(clock.next_expiry(), None);
    }

    #[test]
    fn what_is_left_of_a_long_lease_is_recorded_every_five_minutes() {
        let (mut clock, at) = leader();
        assert!(clock.checkpoints_due(at(299)).is_empty());
        assert_eq!(clock.checkpoints_due(at(300)), [(2, 700)]);
        clock.checkpointed(2, 700);
        assert!(clock.checkpoints_due(at(300)).is_empty());
        assert_eq!(clock.checkpoints_due(at(600)), [(2, 400)]);
        // A renewal puts the next one off.
        clock.renew(2, at(650));
        assert!(clock.checkpoints_due(at(900)).is_empty());
        assert_eq!(clock.checkpoints_due(at(950)), [(2, 700)]);
    }

    #[test]
    fn the_longest_lease_does_not_overflow_the_clock() {
        let (mut clock, at) = leader();
        clock.granted(3, crate::limits::LEASE_TTL_SECONDS_MAX, at(0));
        assert_eq!(clock.remaining(3, at(0)), Some(crate::limits::LEASE_TTL_SECONDS_MAX));
    }
}
