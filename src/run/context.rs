//! What all hosts of a run share while work goes on at several of them at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures::future::BoxFuture;
use parking_lot::Mutex;

use super::RunSummary;
use super::event::{Event, EventSink, TaskResult};
use super::fleet::FleetHost;
use super::journal::{Ending, Journal};
use super::library::Library;
use super::mask::Masker;
use crate::error::Failure;
use crate::remote::{RemoteError, Session};
use crate::template::Engine;

/// Opens sessions on hosts.
pub trait Connector: Send + Sync {
    /// A session on `host`, as the user `become_user` if there is one, else as the login user.
    fn connect<'a>(
        &'a self,
        host: &'a FleetHost,
        become_user: Option<&'a str>,
    ) -> BoxFuture<'a, Result<Box<dyn Session>, RemoteError>>;
}

/// How a run goes about it.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Change nothing.
    pub check: bool,
    /// Show how files differ.
    pub diff: bool,
    /// How many hosts at once; 0 means all.
    pub forks: usize,
    /// Only tasks with one of these tags, and those tagged `always`; all when there is none.
    pub tags: Vec<String>,
    /// How much is told.
    pub verbosity: u8,
    /// Take the lock although another holds it.
    pub break_lock: bool,
    /// Skip the check that a quorum is left: what is asked for ends the cluster.
    pub ends_cluster: bool,
    /// Go on although hosts are fenced: this run is a part of what the fence belongs to, or ends the
    /// cluster.
    pub past_fence: bool,
    /// Only these hosts.
    pub limit: Option<String>,
    /// Do not look at the hosts where a node will be started for what would stop it.
    pub skip_preflight: bool,
    /// Go on although a check refuses, where it can be forced.
    pub force: bool,
}

/// Shared by all hosts.
pub(super) struct Context<'a> {
    pub(super) options: Options,
    pub(super) engine: Engine,
    pub(super) library: Library,
    pub(super) connector: &'a dyn Connector,
    pub(super) masker: Masker,
    pub(super) interrupted: Arc<AtomicBool>,
    /// The run's own name.
    pub(super) id: String,
    /// What it does, for the lock.
    pub(super) purpose: String,
    pub(super) sinks: Mutex<Sinks<'a>>,
}

/// Where events go.
pub(super) struct Sinks<'a> {
    pub(super) report: &'a mut dyn EventSink,
    pub(super) journal: Option<Journal>,
}

impl Context<'_> {
    pub(super) fn emit(&self, event: &Event) {
        let mut sinks = self.sinks.lock();
        // First the journal: what a person has seen is on disk.
        if let Some(journal) = &mut sinks.journal {
            journal.event(event);
        }
        sinks.report.event(event);
    }

    /// Writes how the run came out at the end of its journal.
    pub(super) fn end(&self, result: &Result<RunSummary, Failure>) {
        let ending = match result {
            Ok(summary) => Ending::of(summary),
            Err(failure) => {
                let message = self.masker.text(&failure.message);
                Ending { exit: failure.code as u8, message: Some(message) }
            }
        };
        if let Some(journal) = &mut self.sinks.lock().journal {
            journal.end(&ending);
        }
    }

    pub(super) fn warn(&self, message: impl Into<String>) {
        self.emit(&Event::Warning { message: self.masker.text(&message.into()) });
    }

    pub(super) fn result(&self, mut result: TaskResult) {
        let mask = |text: &mut Option<String>| {
            if let Some(text) = text {
                *text = self.masker.text(text);
            }
        };
        mask(&mut result.message);
        mask(&mut result.hint);
        mask(&mut result.diff);
        mask(&mut result.item);
        for reason in &mut result.reasons {
            *reason = self.masker.text(reason);
        }
        result.task = self.masker.text(&result.task);
        self.emit(&Event::Result(Box::new(result)));
    }

    pub(super) fn is_interrupted(&self) -> bool {
        self.interrupted.load(Ordering::Relaxed)
    }

    /// How many hosts are worked on at once; `least` must be possible.
    pub(super) fn at_once(&self, least: usize) -> usize {
        match self.options.forks {
            0 => usize::MAX,
            forks => forks.max(least).max(1),
        }
    }
}
