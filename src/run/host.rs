//! One host of a run: its sessions, what is known of it, and how far it is.

use std::collections::{BTreeMap, BTreeSet};

use super::context::Context;
use super::event::HostRecap;
use super::fleet::FleetHost;
use super::reconnect::{Locking, Made};
use crate::cluster::layout::Distribution;
use crate::host::protocol::{Change, Done, Facts, HostError, Observed, Read};
use crate::modules::World;
use crate::plan::{affects, moves_by_itself};
use crate::playbook::program::Flow;
use crate::remote::{RemoteError, Session};
use crate::template::Var;

/// A host while the run goes on.
pub(super) struct HostRun {
    pub(super) fleet: FleetHost,
    /// What is provisioned on it.
    pub(super) distribution: Distribution,
    sessions: BTreeMap<Option<String>, Box<dyn Session>>,
    /// The operators' lock as each session took it.
    locks: BTreeMap<Option<String>, Change>,
    /// How often a link was cut.
    cuts: u32,
    /// What was seen.
    pub(super) world: World,
    /// Reads whose answers became stale: the next request takes them again.
    stale: BTreeSet<Stale>,
    /// Registered results and `set_fact`.
    pub(super) known: BTreeMap<String, Var>,
    pub(super) flow: Flow,
    /// It failed or was lost: it takes no part any more.
    pub(super) out: bool,
    /// Why it was lost.
    pub(super) lost_why: Option<String>,
    /// `meta: end_host` or `end_play`: nothing more in this play.
    pub(super) ended_play: bool,
    /// It is looked at only: a server outside `--limit`.
    pub(super) witness: bool,
    /// Names that tasks notified, in this play.
    pub(super) notified: BTreeSet<String>,
    /// Names of handlers that this host is owed: their marks are on it.
    pub(super) owed: BTreeSet<String>,
    /// Marks that an earlier run left, by the names of their files.
    pub(super) marks: Vec<String>,
    /// In a check: changes that would have been made.
    pub(super) predicted: Vec<Change>,
    pub(super) recap: HostRecap,
}

/// A read in an order, so that requests are the same each time.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Stale(String, Read);

impl PartialOrd for Stale {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Stale {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.cmp(&other.0)
    }
}

impl HostRun {
    pub(super) fn new(fleet: FleetHost, distribution: Distribution, witness: bool) -> Self {
        let recap = HostRecap { host: fleet.name.clone(), ..HostRecap::default() };
        Self {
            fleet,
            distribution,
            sessions: BTreeMap::new(),
            locks: BTreeMap::new(),
            cuts: 0,
            world: World::default(),
            stale: BTreeSet::new(),
            known: BTreeMap::new(),
            flow: Flow::default(),
            out: false,
            lost_why: None,
            ended_play: false,
            witness,
            notified: BTreeSet::new(),
            owed: BTreeSet::new(),
            marks: Vec::new(),
            predicted: Vec::new(),
            recap,
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.fleet.name
    }

    /// Whether there is a connection.
    pub(super) fn is_connected(&self) -> bool {
        !self.sessions.is_empty()
    }

    /// The machine's facts, once they were read.
    pub(super) fn facts(&self) -> Option<&Facts> {
        match self.world.peek(&Read::Facts) {
            Some(Observed::Facts(facts)) => Some(facts),
            _ => None,
        }
    }

    /// The lab host's directory; empty on real hosts and before facts are known.
    pub(super) fn root(&self) -> &str {
        self.facts().and_then(|facts| facts.lab_root.as_deref()).unwrap_or_default()
    }

    /// The user that tasks run as: `None` is the login user. The inventory's word counts first.
    pub(super) fn user(&self, keyword: Option<bool>, user: Option<&str>) -> Option<String> {
        let becomes = self.fleet.become_.or(keyword).unwrap_or(false);
        becomes.then(|| user.unwrap_or(&self.fleet.become_user).to_owned())
    }

    pub(super) async fn session(
        &mut self,
        context: &Context<'_>,
        user: Option<&str>,
    ) -> Result<&mut Box<dyn Session>, RemoteError> {
        let key = user.map(str::to_owned);
        if !self.sessions.contains_key(&key) {
            let session = context.connector.connect(&self.fleet, user).await?;
            self.sessions.insert(key.clone(), session);
        }
        self.sessions.get_mut(&key).ok_or_else(|| RemoteError::Unreachable {
            message: "the session is gone".to_owned(),
            hint: None,
        })
    }

    /// Takes `reads` and all that became stale, in one round trip.
    pub(super) async fn read(
        &mut self,
        context: &Context<'_>,
        user: Option<&str>,
        reads: Vec<Read>,
    ) -> Result<(), RemoteError> {
        let mut wanted: Vec<Read> = Vec::new();
        let stale = std::mem::take(&mut self.stale).into_iter().map(|stale| stale.1);
        for read in reads.into_iter().chain(stale) {
            if !self.world.has(&read) && !wanted.contains(&read) {
                wanted.push(read);
            }
        }
        if wanted.is_empty() {
            return Ok(());
        }
        let answers = match self.session(context, user).await?.read(wanted.clone()).await {
            Err(error @ RemoteError::Unreachable { .. }) => {
                self.reconnect(context, user, &error).await?;
                self.session(context, user).await?.read(wanted.clone()).await?
            }
            answers => answers?,
        };
        if answers.len() != wanted.len() {
            return Err(RemoteError::Unreachable {
                message: "the host did not answer all that was asked".to_owned(),
                hint: None,
            });
        }
        for (read, answer) in wanted.into_iter().zip(answers) {
            self.world.insert(read, answer);
        }
        Ok(())
    }

    /// The session of `user` is gone.
    pub(super) fn leave_session(&mut self, user: Option<&str>) {
        if let Some(session) = self.sessions.remove(&user.map(str::to_owned)) {
            self.recap.round_trips += session.round_trips();
        }
    }

    /// How often a link was cut, counted.
    pub(super) fn count_cut(&mut self) -> u32 {
        self.cuts += 1;
        self.cuts
    }

    /// What takes the lock again that the session of `user` had.
    pub(super) fn lock_of(&self, user: Option<&str>) -> Option<Change> {
        self.locks.get(&user.map(str::to_owned)).cloned()
    }

    /// One look that is not kept.
    pub(super) async fn look(
        &mut self,
        context: &Context<'_>,
        user: Option<&str>,
        read: Read,
    ) -> Result<Result<Observed, HostError>, RemoteError> {
        let mut answers = self.looks(context, user, vec![read]).await?;
        answers.pop().ok_or_else(|| RemoteError::Unreachable {
            message: "the host did not answer".to_owned(),
            hint: None,
        })
    }

    /// Looks that are not kept, in one round trip; one answer for each, in order.
    pub(super) async fn looks(
        &mut self,
        context: &Context<'_>,
        user: Option<&str>,
        reads: Vec<Read>,
    ) -> Result<Vec<Result<Observed, HostError>>, RemoteError> {
        match self.session(context, user).await?.read(reads.clone()).await {
            Err(error @ RemoteError::Unreachable { .. }) => {
                self.reconnect(context, user, &error).await?;
                self.session(context, user).await?.read(reads).await
            }
            answers => answers,
        }
    }

    /// Makes `changes` in one round trip, and forgets what they make stale.
    pub(super) async fn change(
        &mut self,
        context: &Context<'_>,
        user: Option<&str>,
        changes: Vec<Change>,
    ) -> Result<Made, RemoteError> {
        // Before the request: after a lost connection nothing is known of what was changed.
        self.forget(&changes);
        let lock = changes.iter().rev().find_map(Locking::of);
        match self.session(context, user).await?.change(changes).await {
            Err(error @ RemoteError::Unreachable { .. }) => {
                self.reconnect(context, user, &error).await?;
                Ok(Made::Cut)
            }
            Err(error) => Err(error),
            Ok(answers) => {
                match lock {
                    Some(Locking::Takes(lock)) if answers.iter().all(Result::is_ok) => {
                        self.locks.insert(user.map(str::to_owned), lock);
                    }
                    Some(_) => drop(self.locks.remove(&user.map(str::to_owned))),
                    None => {}
                }
                Ok(Made::Answers(answers))
            }
        }
    }

    /// Makes `changes` that come to the same when they are made twice.
    pub(super) async fn insist(
        &mut self,
        context: &Context<'_>,
        user: Option<&str>,
        changes: Vec<Change>,
    ) -> Result<Vec<Result<Done, HostError>>, RemoteError> {
        loop {
            // Ends: a host is given up when its link is cut too often.
            if let Made::Answers(answers) = self.change(context, user, changes.clone()).await? {
                return Ok(answers);
            }
        }
    }

    /// Forgets what `changes` make stale, to be read again with the next request.
    pub(super) fn forget(&mut self, changes: &[Change]) {
        self.forget_where(|read| changes.iter().any(|change| affects(change, read)));
    }

    /// Forgets what moves by itself while a node comes up.
    pub(super) fn forget_moving(&mut self) {
        self.forget_where(moves_by_itself);
    }

    fn forget_where(&mut self, is_stale: impl Fn(&Read) -> bool) {
        let stale = &mut self.stale;
        self.world.forget(|read| {
            let is_stale = is_stale(read);
            if is_stale {
                stale.insert(Stale(format!("{read:?}"), read.clone()));
            }
            is_stale
        });
    }

    /// Forgets `reads`, to look again.
    pub(super) fn forget_reads(&mut self, reads: &[Read]) {
        self.world.forget(|read| reads.contains(read));
    }

    /// The host was lost.
    pub(super) fn lose(&mut self) {
        self.flow.leave();
        self.out = true;
        self.recap.unreachable = 1;
        let trips = self.round_trips();
        self.recap.round_trips += trips;
        self.sessions.clear();
    }

    /// Round trips of the open sessions.
    pub(super) fn round_trips(&self) -> u64 {
        self.sessions.values().map(|session| session.round_trips()).sum()
    }
}
