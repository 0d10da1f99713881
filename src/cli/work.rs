//! What verbs share that change hosts without a playbook: the operators' lock on the servers, and a
//! journal that `runs` reads.

use std::path::Path;

use super::{playbook, runs};
use crate::error::{ExitCode, Failure};
use crate::host::protocol::{HostError, HostErrorKind, Observed};
use crate::inventory::Inventory;
use crate::remote::{RemoteError, Session};
use crate::run::event::{Event, EventSink, Status, TaskResult};
use crate::run::{Ending, Journal, VerbLock};

/// One piece of work: its name, and its journal.
pub(super) struct Work {
    id: String,
    purpose: String,
    steal: bool,
    journal: Journal,
}

impl Work {
    /// Begins the journal of `what` (`snapshot save`). `steal`: a lock that another operator holds is
    /// taken over.
    pub(super) fn begin(
        what: &str,
        inventory_file: &Path,
        inventory: &Inventory,
        steal: bool,
    ) -> Result<Self, Failure> {
        let (id, _) = playbook::run_id();
        let beginning = runs::beginning(&id, what.to_owned(), inventory_file, inventory);
        let mut journal = runs::begin(&beginning)?;
        journal.event(&Event::Run { id: id.clone(), playbook: what.to_owned(), check: false });
        Ok(Self { id, purpose: what.to_owned(), steal, journal })
    }

    /// Notes what was done on a host, or why it was not.
    pub(super) fn note(&mut self, host: &str, what: &str, done: Result<Option<String>, String>) {
        let (status, message) = match done {
            Ok(message) => (Status::Changed, message),
            Err(message) => (Status::Failed, Some(message)),
        };
        self.journal.event(&Event::Task { name: what.to_owned(), handler: false });
        let (host, task) = (host.to_owned(), what.to_owned());
        let result = TaskResult { host, task, status, message, ..TaskResult::default() };
        self.journal.event(&Event::Result(Box::new(result)));
    }

    /// Notes how it came out, and gives that on.
    pub(super) fn end<T>(&mut self, done: Result<T, Failure>) -> Result<T, Failure> {
        let ending = match &done {
            Ok(_) => Ending::default(),
            Err(failure) => {
                Ending { exit: failure.code as u8, message: Some(failure.message.clone()) }
            }
        };
        self.journal.end(&ending);
        done
    }

    /// Takes the operators' lock on the host of `session`, which is under `root`.
    ///
    /// # Errors
    /// Another one has it, or the host cannot be asked.
    pub(super) async fn lock(
        &mut self,
        name: &str,
        session: &mut dyn Session,
        root: &str,
    ) -> Result<(), Failure> {
        let lost =
            |error: RemoteError| Failure::new(ExitCode::Unreachable, format!("{name}: {error}"));
        let held = session.read(vec![VerbLock::read(root)]).await.map_err(lost)?.pop();
        let held = match &held {
            Some(Ok(Observed::File(Some(bytes)))) => Some(bytes.as_ref()),
            _ => None,
        };
        let take = VerbLock::take(root, &self.id, &self.purpose, held, self.steal);
        let refused = |error: HostError| match error.kind {
            HostErrorKind::Locked => {
                Failure::new(ExitCode::Locked, format!("{name}: {}", error.message)).hint(
                    "wait until that run is over; if it is not running any more, give --break-lock",
                )
            }
            _ => Failure::new(ExitCode::HostFailed, format!("{name}: {error}")),
        };
        let answers = session.change(vec![take]).await.map_err(lost)?;
        answers.into_iter().try_for_each(|answer| answer.map(drop).map_err(refused))
    }

    /// Gives it back. A host that is lost lets it run out.
    pub(super) async fn unlock(&self, session: &mut dyn Session, root: &str) {
        let _ = session.change(vec![VerbLock::give_back(root, &self.id)]).await;
    }
}
