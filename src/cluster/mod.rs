//! What high availability means: quorum arithmetic, bootstrap or join, names and paths,
//! and what is right and wrong with hosts and clusters.
//!
//! Pure: no I/O, no clock, no randomness.

pub mod bootstrap;
pub mod checks;
pub mod drill;
pub mod fence;
pub mod k3s;
pub mod layout;
pub mod members;
pub mod quorum;
pub mod restore;
pub mod rolling;
pub mod safety;
pub mod snapshots;
pub mod view;
