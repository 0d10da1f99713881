//! Text with holes: Ansible's templates on `minijinja`.
//!
//! An undefined variable is an error, work and output are limited, and templates can not read
//! anything but what they are given. Variables whose text has templates are rendered when they are
//! used ([`Vars`]); what came from a host is never taken for a template. A render that looked a
//! secret up says so.
//!
//! Differences from Ansible: a condition that is a text that reads like a boolean is an error (Ansible
//! takes `"false"` for true), `lookup` does not exist, regular expressions have no look-around, and
//! `a.b.c | default(1)` needs `a.b`.
//!
//! Knows nothing of files, hosts and playbooks.

mod condition;
mod engine;
mod error;
mod filters;
mod json;
mod scope;
mod vars;
mod version;

pub use engine::{Engine, Evaluated, OMIT, OUTPUT_BYTES_MAX, Rendered, is_safe_name};
pub use error::{ErrorKind, TemplateError};
pub use vars::{HostVars, Var, Vars};

#[cfg(test)]
mod tests;
