//! k3sup-rs: provision and run highly available clusters over SSH.
//!
//! One binary, two lives. The map, in reading order:
//!
//! 1. [`limits`], [`secret`], [`error`]: numbers, secrets and exit codes that every room shares.
//! 2. The control half: [`yaml`] → [`inventory`] and [`playbook`] → [`template`] → [`modules`] →
//!    [`plan`], all pure, with [`cluster`] holding what high availability means. Then the effects:
//!    [`remote`] reaches a host, [`host`] is what the executor can do there, [`run`] gathers, plans
//!    and executes, and [`report`] turns events into text.
//! 3. The node half: [`node`] → [`rpc`] → [`raft`] → [`store`], with [`pki`] for certificates and
//!    tokens.
//!    [`etcd`] runs the same store alone, under etcd's own command line.
//! 4. [`lab`]: loopback hosts to try it all on. [`cli`]: one file per command.
//!
//! The two halves meet only in [`pki`], [`limits`], [`secret`], [`cluster`] and in the
//! configuration file that templates write and the node reads.

pub mod cli;
pub mod cluster;
pub mod error;
pub mod etcd;
pub mod host;
pub mod inventory;
pub mod lab;
pub mod limits;
pub mod modules;
pub mod node;
pub mod pki;
pub mod plan;
pub mod playbook;
pub mod raft;
pub mod remote;
pub mod report;
pub mod rpc;
pub mod run;
pub mod secret;
pub mod store;
pub mod template;
pub mod version;
pub mod yaml;
