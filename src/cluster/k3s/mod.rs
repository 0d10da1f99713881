//! What is peculiar to real K3s: which settings it has, which of them all servers must share, and
//! why a node could not join.
//!
//! Pure. Facts about K3s are from its sources and documentation of 2026.

pub mod diagnose;
pub mod flags;
pub mod kubeconfig;
pub mod token;
