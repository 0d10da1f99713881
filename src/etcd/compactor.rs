//! Compaction by itself: `--auto-compaction-mode` and `-retention`
//! (etcd `server/etcdserver/api/v3compactor`). Only the leader compacts.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::config::Retention;
use crate::raft::api::Consensus;
use crate::store::state::State;
use crate::store::types::{Command, Revision};

/// How often revisions are counted.
const REVISION_INTERVAL: Duration = Duration::from_secs(5 * 60);

/// How often the revision of a long period is noted; of a short one, ten times in it.
const PERIOD_INTERVAL_MAX: Duration = Duration::from_secs(60 * 60);

/// The revisions of the last period: what to compact to.
#[derive(Debug, Default)]
struct History(VecDeque<(Instant, Revision)>);

impl History {
    /// Notes the revision of now; gives the newest one that is at least `period` old.
    fn note(&mut self, now: Instant, revision: Revision, period: Duration) -> Option<Revision> {
        self.0.push_back((now, revision));
        let mut due = None;
        while let Some((noted, revision)) = self.0.front()
            && now.duration_since(*noted) >= period
        {
            due = Some(*revision);
            self.0.pop_front();
        }
        due
    }
}

/// How often to look.
fn pace(retention: Retention) -> Duration {
    match retention {
        Retention::Revisions(_) => REVISION_INTERVAL,
        Retention::Period(period) => (period.min(PERIOD_INTERVAL_MAX)) / 10,
    }
}

/// Compacts until it is dropped.
pub(crate) async fn keep(retention: Retention, state: Arc<State>, consensus: Arc<dyn Consensus>) {
    let mut history = History::default();
    let mut compacted = 0;
    loop {
        tokio::time::sleep(pace(retention)).await;
        let revision = state.revision();
        let wanted = match retention {
            Retention::Revisions(kept) => Some(revision - kept),
            Retention::Period(period) => history.note(Instant::now(), revision, period),
        };
        let is_leader = consensus.status().borrow().is_leader();
        let Some(wanted) = wanted.filter(|wanted| *wanted > compacted && is_leader) else {
            continue;
        };
        match consensus.propose(Command::Compact { revision: wanted }).await {
            Ok(_) => {
                compacted = wanted;
                tracing::info!(revision = wanted, "completed auto compaction");
            }
            Err(error) => tracing::warn!(%error, revision = wanted, "failed auto compaction"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_older_than_the_period_is_compacted_once() {
        let mut history = History::default();
        let begin = Instant::now();
        let at = |seconds| begin + Duration::from_secs(seconds);
        let period = Duration::from_secs(10);
        assert_eq!(history.note(at(0), 5, period), None);
        assert_eq!(history.note(at(6), 7, period), None);
        assert_eq!(history.note(at(12), 9, period), Some(5));
        assert_eq!(history.note(at(13), 9, period), None);
        assert_eq!(history.note(at(30), 11, period), Some(9));
    }
}
