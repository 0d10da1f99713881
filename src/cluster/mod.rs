//! What high availability means: quorum arithmetic, bootstrap or join, names and paths.
//!
//! Pure: no I/O, no clock, no randomness.

pub mod bootstrap;
pub mod k3s;
pub mod layout;
pub mod quorum;
pub mod safety;
pub mod view;
