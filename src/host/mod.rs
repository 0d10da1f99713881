//! The executor: what k3sup-rs can do on a host. The same binary, pushed once, run as
//! `k3sup-rs host` on the far end of an SSH channel.
//!
//! [`protocol`] is the instruction set, and there is one file per family of instructions.
//! [`serve()`] answers until its input ends. Knows nothing of inventories, playbooks and plans.

mod busy;
mod cluster;
mod commands;
mod error;
mod facts;
pub(crate) mod files;
pub(crate) mod frame;
mod k3s;
mod lock;
mod measure;
pub(crate) mod net;
mod packages;
pub mod protocol;
mod serve;
mod services;
mod snapshots;
mod users;

pub(crate) use measure::certificates;
pub use serve::{Host, serve};
pub(crate) use users::user_name;

/// The first words of an executor's command line.
pub(crate) const COMMAND: [&str; 2] = ["host", "--marker"];
