//! The executor: what k3sup-rs can do on a host. The same binary, pushed once, run as
//! `k3sup-rs host` on the far end of an SSH channel.
//!
//! [`protocol`] is the instruction set. Knows nothing of inventories, playbooks and plans.

pub mod protocol;
