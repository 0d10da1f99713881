//! What modules take and give.

use std::collections::{BTreeSet, HashMap};

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value as Json};

use super::diff::Diff;
use crate::cluster::rolling;
use crate::host::protocol::{
    Change, Done, Facts, HostError, Observed, PackageFacts, PathFacts, Read, ServiceFacts,
    UserFacts,
};

/// One module: an entry of the table.
#[derive(Debug)]
pub struct Spec {
    /// Its name.
    pub name: &'static str,
    /// Its arguments.
    pub keys: &'static [&'static str],
    /// Arguments that must be there; `a|b` means one of them.
    pub required: &'static [&'static str],
    /// The argument that a plain text means.
    pub free_form: Option<&'static str>,
    /// Any key is an argument: `set_fact`.
    pub any_key: bool,
    /// Arguments that are expressions: they come evaluated, not rendered.
    pub expressions: &'static [&'static str],
    /// What to read, as far as the arguments are known. Reads that turn out not to be needed cost
    /// little; one that is missing costs a round trip.
    pub observe: fn(&Map<String, Json>) -> Vec<Read>,
    /// The plan.
    pub plan: fn(&Input, &World) -> Result<ModulePlan, PlanError>,
    /// What the answers to the changes add to the result: a command's output.
    pub conclude: fn(&mut Map<String, Json>, &[Done]),
}

/// For modules that need nothing of a field of [`Spec`].
pub(super) const fn plain(
    name: &'static str,
    keys: &'static [&'static str],
    required: &'static [&'static str],
    observe: fn(&Map<String, Json>) -> Vec<Read>,
    plan: fn(&Input, &World) -> Result<ModulePlan, PlanError>,
) -> Spec {
    Spec {
        name,
        keys,
        required,
        free_form: None,
        any_key: false,
        expressions: &[],
        observe,
        plan,
        conclude: nothing_more,
    }
}

pub(super) fn nothing_more(_: &mut Map<String, Json>, _: &[Done]) {}

pub(super) fn nothing_to_see(_: &Map<String, Json>) -> Vec<Read> {
    Vec::new()
}

/// Arguments of one use of a module on one host, templates rendered.
#[derive(Clone, Debug, Default)]
pub struct Input {
    /// The arguments.
    pub args: Map<String, Json>,
    /// Names of arguments with a secret in them.
    pub secrets: BTreeSet<String>,
    /// Content of the file that `src` names on the control machine, rendered if it is a template.
    pub content: Option<Bytes>,
    /// The file that `src` names on the control machine, when it is too long to be read whole.
    pub local: Option<LocalFile>,
    /// The task's environment.
    pub environment: Vec<(String, String)>,
    /// A diff is asked for.
    pub diff: bool,
    /// Names of variables that are registered or facts; for messages only.
    pub verbosity: u8,
}

/// A long file of the control machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalFile {
    /// Its absolute path.
    pub path: String,
    /// Its SHA-256, hex.
    pub sha256: String,
    /// Its length in bytes.
    pub size: u64,
}

impl Input {
    /// The arguments as a typed value.
    pub(super) fn decode<T: DeserializeOwned>(&self) -> Result<T, PlanError> {
        let value = Json::Object(self.args.clone());
        serde_path_to_error::deserialize(value).map_err(|error| {
            let path = error.path().to_string();
            // serde repeats the value in its message, and the value may be secret.
            let text = error.inner().to_string();
            let text = if self.secrets.is_empty() { text } else { "has the wrong type".to_owned() };
            PlanError::Failed(if path == "." { text } else { format!("argument `{path}`: {text}") })
        })
    }

    /// Whether the argument `key` has a secret in it.
    pub(super) fn is_secret(&self, key: &str) -> bool {
        self.secrets.contains(key)
    }
}

/// Why there is no plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PlanError {
    /// These observations are missing.
    Missing(Vec<Read>),
    /// The task fails: why.
    Failed(String),
}

impl PlanError {
    pub(super) fn failed(why: impl Into<String>) -> Self {
        Self::Failed(why.into())
    }
}

/// What is known of a host: answers to reads.
#[derive(Clone, Debug, Default)]
pub struct World {
    seen: HashMap<Read, Result<Observed, HostError>>,
}

impl World {
    /// Notes an answer.
    pub fn insert(&mut self, read: Read, answer: Result<Observed, HostError>) {
        self.seen.insert(read, answer);
    }

    /// Whether `read` was answered.
    pub fn has(&self, read: &Read) -> bool {
        self.seen.contains_key(read)
    }

    /// The good answer to `read`, if there is one.
    pub fn peek(&self, read: &Read) -> Option<&Observed> {
        self.seen.get(read)?.as_ref().ok()
    }

    /// The answer to `read`, good or not, if there is one.
    pub fn answer(&self, read: &Read) -> Option<&Result<Observed, HostError>> {
        self.seen.get(read)
    }

    /// All reads that were answered, in an order of their own.
    pub fn reads(&self) -> Vec<Read> {
        let mut reads: Vec<Read> = self.seen.keys().cloned().collect();
        reads.sort_by_cached_key(|read| format!("{read:?}"));
        reads
    }

    /// Forgets the answers for which `stale` is true.
    pub fn forget(&mut self, mut stale: impl FnMut(&Read) -> bool) {
        self.seen.retain(|read, _| !stale(read));
    }

    /// The answer to `read`; a failed read fails the task.
    pub(super) fn get(&self, read: &Read) -> Result<&Observed, PlanError> {
        match self.seen.get(read) {
            Some(Ok(observed)) => Ok(observed),
            Some(Err(error)) => Err(PlanError::Failed(match &error.hint {
                Some(hint) => format!("{} ({hint})", error.message),
                None => error.message.clone(),
            })),
            None => Err(PlanError::Missing(vec![read.clone()])),
        }
    }

    pub(super) fn path(&self, path: &str, hash: bool) -> Result<Option<&PathFacts>, PlanError> {
        match self.get(&path_read(path, hash))? {
            Observed::Path(facts) => Ok(facts.as_ref()),
            other => Err(odd(other)),
        }
    }

    pub(super) fn service(&self, name: &str) -> Result<&ServiceFacts, PlanError> {
        match self.get(&Read::Service { name: name.to_owned() })? {
            Observed::Service(facts) => Ok(facts),
            other => Err(odd(other)),
        }
    }

    pub(super) fn user(&self, name: &str) -> Result<Option<&UserFacts>, PlanError> {
        match self.get(&Read::User { name: name.to_owned() })? {
            Observed::User(facts) => Ok(facts.as_ref()),
            other => Err(odd(other)),
        }
    }

    pub(super) fn packages(&self, names: &[String]) -> Result<&PackageFacts, PlanError> {
        match self.get(&Read::Packages { names: names.to_vec() })? {
            Observed::Packages(facts) => Ok(facts),
            other => Err(odd(other)),
        }
    }

    pub(super) fn facts(&self) -> Result<&Facts, PlanError> {
        match self.get(&Read::Facts)? {
            Observed::Facts(facts) => Ok(facts),
            other => Err(odd(other)),
        }
    }
}

/// The read that modules use to look at a path itself, not at what it links to.
pub(super) fn path_read(path: &str, hash: bool) -> Read {
    Read::Path { path: path.to_owned(), follow: false, hash }
}

pub(super) fn odd(observed: &Observed) -> PlanError {
    PlanError::Failed(format!("the host answered something else than was asked: {observed:?}"))
}

/// What a module would do on a host.
#[derive(Clone, Debug, Default)]
pub struct ModulePlan {
    /// Changes in order; none when all is as it should be.
    pub changes: Vec<Change>,
    /// Which facts differ, one for each reason to change something.
    pub reasons: Vec<String>,
    /// What changes in files.
    pub diffs: Vec<Diff>,
    /// Waited for after the changes.
    pub wait: Option<Wait>,
    /// The result for `register`, without `changed` and `failed`.
    pub result: Map<String, Json>,
    /// Variables that the host has from now on.
    pub facts: Map<String, Json>,
    /// It failed without touching anything: why.
    pub failed: Option<String>,
    /// It is not to be done: why.
    pub skipped: Option<String>,
}

impl ModulePlan {
    /// Adds a change and its reason.
    pub(super) fn change(&mut self, change: Change, reason: impl Into<String>) {
        self.changes.push(change);
        self.reasons.push(reason.into());
    }

    /// Adds to the result.
    pub(super) fn say(&mut self, key: &str, value: impl Into<Json>) {
        self.result.insert(key.to_owned(), value.into());
    }
}

/// Something to wait for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Wait {
    /// In words: "port 6443 to accept connections".
    pub what: String,
    /// One look.
    #[serde(skip)]
    pub read: Read,
    /// When it is over.
    #[serde(skip)]
    pub until: Until,
    /// How long at most, in milliseconds.
    pub timeout_ms: u64,
    /// Between two looks, in milliseconds; 0 when a look itself waits.
    pub interval_ms: u64,
}

/// When a wait is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Until {
    /// The node says it is ready.
    Ready,
    /// The port accepts connections, or no longer does.
    Reachable(bool),
    /// The path is there, or no longer is.
    Present(bool),
    /// The node's member votes and answers.
    Voter {
        /// The node's name.
        node: String,
    },
    /// The node can be spared by the others.
    Spare {
        /// The node's name.
        node: String,
    },
    /// The node votes, is ready and has caught up.
    CaughtUp {
        /// The node's name.
        node: String,
    },
    /// The time is over.
    Elapsed,
}

impl Until {
    /// Whether `observed` ends the wait; else what is still missing.
    pub fn check(&self, observed: &Observed) -> Result<(), String> {
        match (self, observed) {
            (Self::Elapsed, _) => Err("the time is not over".to_owned()),
            (Self::Ready, Observed::Ready(answer)) => answer.clone(),
            (Self::Reachable(wanted), Observed::Reachable(is)) if wanted == is => Ok(()),
            (Self::Reachable(true), Observed::Reachable(_)) => Err("nothing answers".to_owned()),
            (Self::Reachable(false), Observed::Reachable(_)) => Err("it still answers".to_owned()),
            (Self::Present(wanted), Observed::Path(path)) if *wanted == path.is_some() => Ok(()),
            (Self::Present(true), Observed::Path(_)) => Err("it is not there".to_owned()),
            (Self::Present(false), Observed::Path(_)) => Err("it is still there".to_owned()),
            (Self::Voter { node }, Observed::Cluster(view)) => {
                super::member::is_voter(view.as_deref(), node)
            }
            (Self::Spare { node }, Observed::Cluster(view)) => {
                rolling::spare(view.as_deref(), node)
            }
            (Self::CaughtUp { node }, Observed::Cluster(view)) => {
                rolling::caught_up(view.as_deref(), node)
            }
            (_, other) => Err(format!("the host answered something else: {other:?}")),
        }
    }
}
