//! Ansible-style modules: typed arguments, what to observe, and a pure plan of changes.
//!
//! A module is an entry of a table ([`Spec`]): its arguments, what to read on the host as far as
//! the arguments are known ([`Spec::observe`]), and a pure function from arguments and observations
//! to changes ([`Spec::plan`]). A plan that lacks an observation says which, and is asked again.
//!
//! A module never talks to a host itself, and knows nothing of plays, loops and conditions.

mod args;
mod assert;
mod binary;
mod command;
mod content;
mod copy;
mod diff;
mod file;
mod member;
mod messages;
mod meta;
mod package;
mod ready;
mod service;
mod setup;
mod stat;
mod token;
mod types;
mod user;
mod wait_for;

pub use diff::{Diff, Side};
pub use setup::facts;
pub use types::{Input, LocalFile, ModulePlan, PlanError, Spec, Until, Wait, World};

/// All modules, by name.
static TABLE: &[&Spec] = &[
    &assert::ASSERT,
    &binary::BINARY,
    &command::COMMAND,
    &copy::COPY,
    &messages::DEBUG,
    &messages::FAIL,
    &file::FILE,
    &setup::GATHER_FACTS,
    &meta::IMPORT_TASKS,
    &meta::INCLUDE_TASKS,
    &member::MEMBER,
    &meta::META,
    &package::PACKAGE,
    &meta::PAUSE,
    &setup::PING,
    &ready::READY,
    &service::SERVICE,
    &messages::SET_FACT,
    &setup::SETUP,
    &command::SHELL,
    &stat::SLURP,
    &stat::STAT,
    &service::SYSTEMD,
    &service::SYSTEMD_SERVICE,
    &copy::TEMPLATE,
    &token::TOKEN,
    &user::USER,
    &wait_for::WAIT_FOR,
];

/// The module `name`: its own name or a qualified one of Ansible's collections
/// (`ansible.builtin.copy`).
pub fn find(name: &str) -> Option<&'static Spec> {
    let short = ["ansible.builtin.", "ansible.legacy.", "k3sup."]
        .iter()
        .find_map(|prefix| name.strip_prefix(prefix))
        .unwrap_or(name);
    TABLE.iter().find(|spec| spec.name == short).copied()
}

/// Names of all modules, sorted.
pub fn names() -> impl Iterator<Item = &'static str> + Clone {
    TABLE.iter().map(|spec| spec.name)
}

#[cfg(test)]
mod tests;
