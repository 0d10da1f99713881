//! A stand-alone member of the store under etcd's own command line: `k3sup-rs etcd`, or the binary
//! called `etcd`.
//!
//! [`flags`] is the table of what etcd takes, [`source`] collects values of command line, environment
//! and file, [`config`] is what they mean together, `urls` and `ids` are etcd's rules for both,
//! `security` makes TLS of files, [`tokens`] what users log in for, `data` is the data directory, `compactor` compacts, and
//! [`server`] puts it all together.
//!
//! Knows nothing of K3s: no supervisor, no nodes, no token.

pub(crate) mod compactor;
pub mod config;
pub(crate) mod data;
mod duration;
pub mod flags;
pub(crate) mod ids;
pub mod log;
pub(crate) mod restore;
pub(crate) mod security;
pub mod server;
pub mod source;
#[cfg(test)]
mod tests;
pub mod tokens;
pub(crate) mod urls;
