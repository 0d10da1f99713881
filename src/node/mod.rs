//! The node: server and agent. Configuration, join, supervisor API, registration, load balancer.

pub mod balancer;
