//! The node: server and agent. Configuration, join, supervisor API, registration, load balancer.
//!
//! In reading order: [`config`] (what was asked for), [`identity`] (what the disk knows), [`boot`]
//! (which way to start), [`trust`] and [`join`] (how a cluster is entered), [`context`] with
//! [`records`] (what a running server knows), [`supervisor`] (who may ask it what), [`view`] (how
//! the cluster stands), [`server`] puts it all together. [`client`] asks the node of this host from
//! outside. [`agent`] with its [`balancer`] is the other kind of node.

pub mod agent;
mod agent_token;
pub mod balancer;
pub mod boot;
pub mod bundle;
pub mod client;
pub mod config;
pub mod context;
pub(crate) mod database;
pub mod disk;
#[cfg(test)]
pub(crate) mod fake;
pub mod fence;
pub mod host;
pub mod http;
pub mod identity;
pub mod join;
pub(crate) mod keys;
pub mod records;
pub mod reset;
pub mod secrets;
pub mod server;
pub mod snapshots;
pub mod supervisor;
pub mod tasks;
pub mod trust;
pub mod view;
pub mod wire;

#[cfg(test)]
mod tests;
