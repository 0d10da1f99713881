//! What high availability means: quorum arithmetic, bootstrap or join, names and paths.
//!
//! Pure: no I/O, no clock, no randomness.

pub mod layout;
pub mod view;
