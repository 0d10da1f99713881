//! How a command ends: the exit-code table and the error that the top level prints.
//!
//! Rooms have error types of their own; a command turns them into a [`Failure`] at its edge.

use std::fmt;

/// Exit codes of the program. A documented contract: docs/exit-codes.md.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ExitCode {
    /// All went well; nothing is left to do.
    Ok = 0,
    /// Something failed that no other code names.
    Error = 1,
    /// A task failed on at least one host.
    HostFailed = 2,
    /// At least one host could not be reached, or its key was refused.
    Unreachable = 4,
    /// The command line, inventory, playbook or configuration is wrong. Nothing was touched.
    BadInput = 5,
    /// Refused by a safety check: it could cost quorum or data.
    Refused = 6,
    /// `--check` found changes that a run would make.
    WouldChange = 7,
    /// Another operator holds the cluster's lock.
    Locked = 8,
    /// A person said no when asked.
    Declined = 9,
    /// Interrupted by a signal.
    Interrupted = 130,
}

/// What a command prints when it cannot go on: one line of what failed, hints of what to do, and
/// the exit code.
#[derive(Debug)]
pub struct Failure {
    /// How the process ends.
    pub code: ExitCode,
    /// What failed and why, lower case, without a full stop; several lines when there are several
    /// findings.
    pub message: String,
    /// What to do now; each is printed as `hint: …` on a line of its own.
    pub hints: Vec<String>,
}

impl Failure {
    /// A failure without hints.
    pub fn new(code: ExitCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), hints: Vec::new() }
    }

    /// Adds a line of advice.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}", self.message)?;
        for hint in &self.hints {
            write!(f, "\nhint: {hint}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Failure {}

/// An error and its causes on one line, outermost first, a cause that repeats its parent left out.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}
