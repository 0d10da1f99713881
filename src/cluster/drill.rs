//! What a failure drill shows: pure, from when writes were acknowledged and when failures began and
//! ended. Times are milliseconds since the drill began.

use serde::Serialize;

/// What was done to a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A server was stopped as for maintenance.
    Stopped,
    /// A server was killed.
    Killed,
    /// A load balancer was stopped.
    LoadBalancer,
    /// A majority of the servers was stopped at once.
    QuorumLost,
}

/// The time of what has not ended: the drill was interrupted.
pub const UNENDED: u64 = u64::MAX;

/// A failure and when it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What.
    pub kind: Kind,
    /// To whom.
    pub hosts: Vec<String>,
    /// When it was begun.
    pub from_ms: u64,
    /// From when on it was complete.
    pub complete_ms: u64,
    /// When it began to be mended.
    pub mending_ms: u64,
    /// When it was mended.
    pub to_ms: u64,
}

/// What one client saw.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// It goes through the load balancers.
    pub balanced: bool,
    /// When writes were acknowledged, ascending.
    pub acknowledged_ms: Vec<u64>,
    /// When tries failed, ascending.
    pub failed_ms: Vec<u64>,
}

/// A line of the drill's table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Row {
    /// What.
    pub failure: Kind,
    /// To whom.
    pub hosts: Vec<String>,
    /// It led when the failure began.
    pub led: bool,
    /// The longest time in which a client had no write acknowledged: the worst client counts. `None`:
    /// no client was there to see it.
    pub outage_ms: Option<u64>,
    /// From the start to the end of the failure; `None` when it did not end.
    pub back_ms: Option<u64>,
    /// Writes acknowledged from the failure's begin to its end.
    pub writes: usize,
    /// Tries that failed and were made again.
    pub retried: usize,
    /// Writes acknowledged while the failure was complete.
    pub during: usize,
}

/// Judges one failure by what the clients saw. `leaders` are the leaders' names with the times from
/// which they were seen, ascending.
pub fn row(failure: &Failure, clients: &[Seen], leaders: &[(u64, String)]) -> Row {
    let balanced = failure.kind == Kind::LoadBalancer;
    let counted = || clients.iter().filter(|client| client.balanced || !balanced);
    let within = |times: &[u64], from: u64, to: u64| {
        times.iter().filter(|at| (from..=to).contains(*at)).count()
    };
    let of = |which: fn(&Seen) -> &[u64], from, to| {
        counted().map(|client| within(which(client), from, to)).sum()
    };
    let last =
        clients.iter().flat_map(|client| [client.acknowledged_ms.last(), client.failed_ms.last()]);
    let last = last.flatten().max().copied().unwrap_or(failure.from_ms);
    // What did not end is judged as far as anybody looked.
    let ended = failure.to_ms != UNENDED;
    let to_ms = if ended { failure.to_ms } else { last.max(failure.from_ms) };
    let leader = leaders.iter().rev().find(|(at, _)| *at <= failure.from_ms);
    Row {
        failure: failure.kind,
        hosts: failure.hosts.clone(),
        led: leader.is_some_and(|(_, name)| failure.hosts.contains(name)),
        outage_ms: counted()
            .map(|client| longest_gap(&client.acknowledged_ms, failure.from_ms, to_ms))
            .max(),
        back_ms: ended.then(|| failure.to_ms.saturating_sub(failure.mending_ms)),
        writes: of(|client| &client.acknowledged_ms, failure.from_ms, to_ms),
        retried: of(|client| &client.failed_ms, failure.from_ms, to_ms),
        during: of(|client| &client.acknowledged_ms, failure.complete_ms, failure.mending_ms),
    }
}

/// The longest time without any of `times` that overlaps `from..to`.
fn longest_gap(times: &[u64], from: u64, to: u64) -> u64 {
    let before = times.iter().rev().find(|at| **at < from).copied().unwrap_or(from);
    let mut last = before;
    let mut longest = 0;
    for at in times.iter().copied().filter(|at| *at >= from) {
        longest = longest.max(at.saturating_sub(last));
        last = at;
        if at > to {
            return longest;
        }
    }
    longest.max(to.saturating_sub(last))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(kind: Kind) -> Failure {
        let hosts = vec!["server1".to_owned()];
        Failure { kind, hosts, from_ms: 100, complete_ms: 120, mending_ms: 300, to_ms: 400 }
    }

    #[test]
    fn the_worst_client_counts_and_gaps_may_begin_before_and_end_after() {
        let seen = |acknowledged: &[u64]| Seen {
            acknowledged_ms: acknowledged.to_vec(),
            failed_ms: vec![130],
            ..Seen::default()
        };
        let clients = [seen(&[10, 90, 110, 200, 310, 390, 410]), seen(&[95, 350, 420])];
        let leaders = [(0, "server1".to_owned()), (150, "server2".to_owned())];
        let row = row(&failure(Kind::Killed), &clients, &leaders);
        assert_eq!((row.outage_ms, row.writes, row.retried, row.during), (Some(255), 5, 2, 1));
        assert_eq!((row.led, row.back_ms), (true, Some(100)));
        assert_eq!(longest_gap(&[10], 100, 400), 390);
        assert_eq!(longest_gap(&[], 100, 400), 300);
        assert_eq!(longest_gap(&[99, 500], 100, 400), 401);
    }

    #[test]
    fn a_load_balancer_is_judged_by_those_who_come_through_one() {
        let direct = Seen { acknowledged_ms: vec![90, 410], ..Seen::default() };
        let through =
            Seen { acknowledged_ms: vec![95, 200, 390], balanced: true, ..direct.clone() };
        let row = row(&failure(Kind::LoadBalancer), &[direct, through], &[]);
        assert_eq!((row.outage_ms, row.writes, row.led), (Some(190), 2, false));
    }

    #[test]
    fn what_nobody_saw_has_no_outage_and_what_did_not_end_is_judged_as_far_as_one_looked() {
        let direct = Seen { acknowledged_ms: vec![90, 350], ..Seen::default() };
        let clients = [direct];
        assert_eq!(row(&failure(Kind::LoadBalancer), &clients, &[]).outage_ms, None);
        let cut = Failure { to_ms: UNENDED, ..failure(Kind::Killed) };
        let cut = row(&cut, &clients, &[]);
        assert_eq!((cut.outage_ms, cut.back_ms, cut.writes), (Some(260), None, 1));
    }
}
