//! Loopback hosts to try everything on: an SSH server, a directory and a small supervisor each.
//!
//! A lab host is a process of its own: a real SSH server (real keys, real channels) on a loopback
//! address, which runs commands as the present user and keeps every file under its own directory.
//! In the place of systemd it has a [`supervisor`]. No root, no containers.
//!
//! Knows nothing of clusters: it is a machine, what runs on it is put there over SSH.

mod daemon;
mod error;
pub mod hosts;
mod keys;
mod paths;
mod process;
mod ssh;
pub mod supervisor;
mod unit;

pub use daemon::run as run_daemon;
pub use error::LabError;
pub use hosts::{LabAccess, LabHost, access, ensure};
pub use paths::labs_dir;

/// Environment variable with a lab host's own directory, set for every command that it runs.
pub const ROOT_VARIABLE: &str = "K3SUP_LAB_ROOT";

/// Port of a lab host's SSH server: below 1024 would need root.
pub const SSH_PORT: u16 = 2222;
