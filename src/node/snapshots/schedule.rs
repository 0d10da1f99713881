//! Snapshots at their times: K3s's cron in local time, with a jitter, and never two at once.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Local};
use croner::Cron;

use super::keeper::{KeepError, Keeper};
use crate::node::records::unix_now;
use crate::raft::api::Consensus;

/// Servers with the same schedule begin up to so many milliseconds apart, as in K3s.
const JITTER_MS: u64 = 5000;

/// The clock may be set: it is looked at so often.
const LOOK_INTERVAL: Duration = Duration::from_secs(15);

/// A snapshot may take so long, in seconds, before it is overdue.
const GRACE_SECONDS: u64 = 600;

fn local(unix_s: u64) -> Option<DateTime<Local>> {
    DateTime::from_timestamp(i64::try_from(unix_s).ok()?, 0).map(|time| time.with_timezone(&Local))
}

/// When the next one is due after `now`; seconds since 1970.
pub(crate) fn next(schedule: &Cron, now_unix_s: u64) -> Option<u64> {
    let next = schedule.find_next_occurrence(&local(now_unix_s)?, false).ok()?;
    u64::try_from(next.timestamp()).ok()
}

/// Whether one should have been taken between `since` and now, less the time that it may take.
pub(crate) fn is_overdue(schedule: &Cron, since_unix_s: u64, now_unix_s: u64) -> bool {
    next(schedule, since_unix_s).is_some_and(|due| due + GRACE_SECONDS < now_unix_s)
}

/// Takes snapshots as long as it is polled; not at all without a schedule.
pub(crate) async fn keep(keeper: Arc<Keeper>, consensus: Arc<dyn Consensus>) {
    let Some(schedule) = keeper.config().schedule.clone() else { return };
    loop {
        let Some(due) = next(&schedule, unix_now()) else {
            tracing::warn!("the snapshot schedule {schedule} has no time left");
            return;
        };
        while unix_now() < due {
            let left = Duration::from_secs(due.saturating_sub(unix_now()));
            tokio::time::sleep(left.min(LOOK_INTERVAL)).await;
        }
        let jitter = rand::random_range(0..JITTER_MS);
        tokio::time::sleep(Duration::from_millis(jitter)).await;
        let status = consensus.status().borrow().clone();
        match keeper.tick(&status).await {
            Ok(()) => {}
            Err(error @ (KeepError::Busy | KeepError::Learner)) => {
                tracing::info!("scheduled snapshot skipped: {error}");
            }
            Err(error) => tracing::error!("scheduled snapshot failed: {error}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::config::snapshot_schedule;

    #[test]
    fn a_missed_time_shows_after_the_grace() {
        let schedule = snapshot_schedule("*/30 * * * *").unwrap();
        let taken = 1_700_000_000;
        let due = next(&schedule, taken).unwrap();
        assert!(due > taken && due <= taken + 1800 && due.is_multiple_of(60));
        assert!(!is_overdue(&schedule, taken, due + 600));
        assert!(is_overdue(&schedule, taken, due + 601));
        assert!(!is_overdue(&schedule, due, due + 601));
    }
}
