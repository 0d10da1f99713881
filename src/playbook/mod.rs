//! Order: playbooks in Ansible's syntax → typed plays, blocks and tasks. Pure.
//!
//! [`parse()`] reads one playbook; files that it imports come through a [`Source`]. Every keyword is
//! known or refused with file, line, column and "did you mean", all at once. [`program`] flattens a
//! play into steps and says which of them a host runs when something failed.
//!
//! Knows nothing of hosts, inventories and of what a module does; only which arguments it has.

mod keys;
mod parse;
pub mod program;
mod task;
mod types;
mod value;

pub use parse::{Source, SourceFile, parse};
pub use types::{Block, Inherited, Item, Loop, Order, Play, Playbook, Task, Text, WaveSize};

#[cfg(test)]
mod tests;
