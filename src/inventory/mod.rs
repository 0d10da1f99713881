//! Who: hosts, groups, variables and how to reach a host, in Ansible's forms.
//!
//! The way of a value: [`load`](Inventory::load) reads files (`source`), `tree` makes groups and
//! hosts of them, `resolve` puts the variables in order and types what the product itself uses, and
//! `check` refuses what cannot be meant. Everything but `load`, and `change`, which finds a name in the files, is pure; all findings come at once,
//! each with file, line and column.
//!
//! Knows nothing of playbooks and connections.

mod change;
mod check;
mod connection;
mod extra;
mod ini;
mod load;
mod model;
mod names;
mod pattern;
mod range;
mod resolve;
mod source;
mod ssh_args;
mod tree;

pub use change::Place;
pub use connection::{Become, BecomeMethod, Connection, HostKeys, Ssh};
pub use extra::{ExtraVars, is_secret_name};
pub use model::{Host, Inventory};
pub use pattern::{PatternError, select};
pub use source::{Source, Sources};

#[cfg(test)]
mod hostile_tests;
#[cfg(test)]
mod tests;

/// The inventory that `text` says, for tests of what is made of it.
#[cfg(test)]
pub(crate) fn inventory_of(text: &str) -> Inventory {
    let file = tempfile::Builder::new().suffix(".yaml").tempfile().unwrap();
    std::fs::write(&file, text).unwrap();
    Inventory::load(file.path(), ExtraVars::new()).unwrap()
}
