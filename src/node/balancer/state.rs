//! The list of servers on disk, in K3s's form, so that an agent finds the servers again although
//! the one it registered at is gone (K3s `pkg/agent/loadbalancer`).

use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::store::fs::write_atomic;

/// The content of the file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Saved {
    /// The registration address it was learned from. Another one makes the list worthless.
    #[serde(rename = "ServerURL")]
    pub server_url: String,
    /// The servers.
    #[serde(rename = "ServerAddresses")]
    pub server_addresses: Vec<String>,
}

/// The saved servers, if there are any that were learned from `server_url`. A file that cannot be
/// read or understood is as good as none: the list is learned again.
pub fn load(path: &Path, server_url: &str) -> Vec<String> {
    let text = std::fs::read(path).unwrap_or_default();
    let saved: Saved = serde_json::from_slice(&text).unwrap_or_default();
    if saved.server_url == server_url { saved.server_addresses } else { Vec::new() }
}

/// Replaces the file at once, 0600.
///
/// # Errors
/// It cannot be written.
pub fn save(path: &Path, saved: &Saved) -> io::Result<()> {
    write_atomic(path, &serde_json::to_vec_pretty(saved)?)
}
