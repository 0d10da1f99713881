//! A link that is cut in the middle of a run: connect again, wait for what the old executor still does,
//! take the lock again, and look at everything anew. What was half done is seen, not assumed.

use super::context::Context;
use super::event::Status;
use super::host::HostRun;
use super::job::Outcome;
use crate::host::protocol::{Change, Done, HostError, Observed, Read, ServiceAction};
use crate::plan::PlannedTask;
use crate::playbook::program::TaskStep;
use crate::remote::RemoteError;

/// A host whose link is cut more often is given up.
const CUTS_MAX: u32 = 3;

/// How long the executor that was left behind may take to end, in milliseconds: longer than a
/// service may take to start.
const SETTLE_MS: u64 = 180_000;

/// What became of changes.
pub(super) enum Made {
    /// One answer for each that was tried.
    Answers(Vec<Result<Done, HostError>>),
    /// The link was cut and is there again. What was done is seen in the host's world.
    Cut,
}

impl HostRun {
    /// After `error` on the session of `user`.
    pub(super) async fn reconnect(
        &mut self,
        context: &Context<'_>,
        user: Option<&str>,
        error: &RemoteError,
    ) -> Result<(), RemoteError> {
        self.leave_session(user);
        if self.count_cut() > CUTS_MAX || context.is_interrupted() {
            return Err(error.clone());
        }
        context.warn(format!("{}: {error}; connecting again", self.name()));
        self.look_anew(context, user).await.map_err(|again| match error.clone() {
            RemoteError::Unreachable { message, hint } => RemoteError::Unreachable {
                message: format!("{message}; connecting again: {again}"),
                hint,
            },
            other => other,
        })
    }

    async fn look_anew(
        &mut self,
        context: &Context<'_>,
        user: Option<&str>,
    ) -> Result<(), RemoteError> {
        let lock = self.lock_of(user);
        let seen = self.world.reads();
        let session = self.session(context, user).await?;
        match session.read(vec![Read::Idle { timeout_ms: SETTLE_MS }]).await?.pop() {
            Some(Ok(Observed::Idle(true))) => {}
            _ => return Err(unsettled("what was under way there does not end")),
        }
        if let Some(lock) = lock
            && let Some(Err(error)) = session.change(vec![lock]).await?.pop()
        {
            return Err(unsettled(&error.message));
        }
        let answers = session.read(seen.clone()).await?;
        if answers.len() != seen.len() {
            return Err(unsettled("the host did not answer all that was asked"));
        }
        for (read, answer) in seen.into_iter().zip(answers) {
            self.world.insert(read, answer);
        }
        Ok(())
    }
}

/// What a change does to the lock.
pub(super) enum Locking {
    /// Takes it; this takes it again.
    Takes(Change),
    /// Gives it back.
    Gives,
}

impl Locking {
    pub(super) fn of(change: &Change) -> Option<Self> {
        match change {
            Change::Lock { path, holder, ttl_ms, .. } => Some(Self::Takes(Change::Lock {
                path: path.clone(),
                holder: holder.clone(),
                ttl_ms: *ttl_ms,
                // Who has it now has it rightly.
                steal: false,
            })),
            Change::Unlock { .. } => Some(Self::Gives),
            _ => None,
        }
    }
}

/// Why `now`, planned again after the link was cut while `before` was done, is not done; `None` when
/// it may be. Only what was planned, and found safe, before may be.
pub(super) fn not_again(before: &PlannedTask, now: &PlannedTask) -> Option<Outcome> {
    let runs = |planned: &PlannedTask| {
        planned.plan.changes.iter().any(|change| matches!(change, Change::Run(_)))
    };
    let (why, hint) = if runs(before) && runs(now) {
        (
            "the link was cut while a command ran: whether it ended is not known, and it is not run \
             a second time",
            "see on the host what it did, then run the same command again",
        )
    } else if !now.actions.iter().all(|action| before.actions.contains(action)) {
        (
            "the link was cut, and the host is not as it was when this was planned",
            "run the same command again: it looks, and does what is left",
        )
    } else {
        return None;
    };
    Some(Outcome { hint: Some(hint.to_owned()), ..Outcome::failed(why) })
}

/// `now` without what was done already: a service that was not running when `before` was planned,
/// and runs now, has been started since, which is as good as started anew.
pub(super) fn left_of(before: &PlannedTask, mut now: Box<PlannedTask>) -> Box<PlannedTask> {
    let acted = |change: &Change, wanted: ServiceAction| match change {
        Change::Service { name, action, .. } if *action == wanted => Some(name.clone()),
        _ => None,
    };
    let started: Vec<String> = before
        .plan
        .changes
        .iter()
        .filter_map(|change| acted(change, ServiceAction::Start))
        .collect();
    let is_left = |change: &Change| {
        acted(change, ServiceAction::Restart).is_none_or(|name| !started.contains(&name))
    };
    let kept: Vec<bool> = now.plan.changes.iter().map(is_left).collect();
    let mut keep = kept.iter();
    now.actions.retain(|_| keep.next().copied().unwrap_or(true));
    now.plan.changes.retain(is_left);
    now
}

/// What was found done after the link was cut.
pub(super) fn done_before(mut outcome: Outcome, step: &TaskStep) -> Outcome {
    if outcome.status == Status::Ok && step.task.changed_when.is_none() {
        outcome.status = Status::Changed;
        outcome.result.insert("changed".to_owned(), true.into());
    }
    outcome.reasons.push("it was done when the link was cut".to_owned());
    outcome
}

fn unsettled(why: &str) -> RemoteError {
    RemoteError::Unreachable { message: why.to_owned(), hint: None }
}
