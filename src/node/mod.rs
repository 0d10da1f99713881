//! The node: server and agent. Configuration, join, supervisor API, registration, load balancer.

pub mod balancer;
pub mod client;
pub mod config;
pub mod http;
pub mod identity;
