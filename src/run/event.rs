//! What a run tells while it goes on: the one stream that reports, journals and tests read.
//!
//! Plain values, without a secret in them: whoever makes one masks first. Serialised as they are
//! for `--output json`, one per line.

use serde::{Deserialize, Serialize};

/// Something that happened in a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// The run begins.
    Run {
        /// Its own name, unique.
        id: String,
        /// The playbook, and where it comes from: `site.yml (built in)`.
        playbook: String,
        /// Nothing will be changed.
        check: bool,
    },
    /// A file on disk is used in the place of a built-in one, a safety check warns, and the like.
    Warning {
        /// What a person should know.
        message: String,
    },
    /// A host is being connected to, or is ready.
    Connect {
        /// The host.
        host: String,
        /// What happens now: `connecting`, `pushing the executor`, `connected`.
        stage: String,
    },
    /// Bytes of the executor that have reached a host.
    Upload {
        /// The host.
        host: String,
        /// So far.
        done_bytes: u64,
        /// In all.
        total_bytes: u64,
    },
    /// A play begins.
    Play {
        /// Its name.
        name: String,
        /// Its hosts.
        hosts: Vec<String>,
    },
    /// A task begins; results of its hosts follow.
    Task {
        /// Its name.
        name: String,
        /// It is a handler.
        handler: bool,
    },
    /// What became of a task on a host.
    Result(Box<TaskResult>),
    /// `until` is not true yet.
    Retry {
        /// The host.
        host: String,
        /// The task.
        task: String,
        /// How many tries are left.
        left: u32,
    },
    /// What a safety check has to say.
    Safety {
        /// Name of the rule.
        rule: String,
        /// What is unsafe and why.
        message: String,
        /// The run stops because of it.
        refuses: bool,
    },
    /// What is left undone after an interruption or a failure.
    Undone {
        /// Host and task, in order.
        steps: Vec<String>,
    },
    /// The end: a line per host.
    Recap {
        /// The hosts, in the inventory's order.
        hosts: Vec<HostRecap>,
        /// How long it took, in milliseconds.
        elapsed_ms: u64,
    },
}

/// What became of a task on a host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskResult {
    /// The host.
    pub host: String,
    /// The task's name.
    pub task: String,
    /// The loop's item, as its label says.
    pub item: Option<String>,
    /// How it ended.
    pub status: Status,
    /// One line for a person: why it failed, was skipped, or what it says.
    pub message: Option<String>,
    /// What to do about a failure.
    pub hint: Option<String>,
    /// Which facts differed, for a change.
    pub reasons: Vec<String>,
    /// A unified diff, secrets masked.
    pub diff: Option<String>,
    /// The failure does not count (`ignore_errors`).
    pub ignored: bool,
}

/// How a task ended on a host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// All was as it should be.
    #[default]
    Ok,
    /// Something was changed (in check mode: would be).
    Changed,
    /// Its condition did not hold.
    Skipped,
    /// It failed.
    Failed,
    /// The host cannot be reached.
    Unreachable,
    /// In check mode: known only after earlier changes are made.
    Unknown,
}

/// A host's counts at the end, as Ansible counts them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostRecap {
    /// The host.
    pub host: String,
    /// Tasks that ended well, with and without a change.
    pub ok: u32,
    /// Tasks that changed something.
    pub changed: u32,
    /// Whether it could not be reached: 0 or 1.
    pub unreachable: u32,
    /// Tasks that failed.
    pub failed: u32,
    /// Tasks that were skipped.
    pub skipped: u32,
    /// Failures that a `rescue` took care of.
    pub rescued: u32,
    /// Failures that were ignored.
    pub ignored: u32,
    /// Round trips to the host, its connection's handshakes not counted.
    pub round_trips: u64,
}

/// Where events go.
pub trait EventSink: Send {
    /// Takes one event. Must not block for long.
    fn event(&mut self, event: &Event);
}

/// Keeps them, for tests and for journals.
impl EventSink for Vec<Event> {
    fn event(&mut self, event: &Event) {
        self.push(event.clone());
    }
}
