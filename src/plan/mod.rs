//! The plan as a value: ordered steps with reasons and diffs, and the safety checks over it. Pure.
//!
//! A [`PlannedTask`] is what a run walks and what `--check` prints: the very same value. What it
//! would send to the host is in it; what a person sees of that are words and diffs without secrets.

mod affects;
mod describe;
mod safety;
mod task;

pub use affects::{affects, moves_by_itself};
pub use describe::describe;
pub use safety::{Danger, check};
pub(crate) use task::conditions;
pub use task::{PlannedTask, prepare};

#[cfg(test)]
mod tests;
