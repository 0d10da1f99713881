//! The lab's keys: one for each host, one for the person who uses the lab, and who is known.

use std::fs;
use std::net::IpAddr;
use std::path::Path;

use russh::keys::ssh_key::LineEnding;
use russh::keys::{Algorithm, PrivateKey};

use super::paths::{HostPaths, private_dir};
use super::{LabError, SSH_PORT};
use crate::store::fs::write_atomic;

/// Reads a key, or makes it when there is none.
pub(super) fn read_or_make(path: &Path) -> Result<PrivateKey, LabError> {
    let failed = |error: &dyn std::fmt::Display| LabError::Key {
        path: path.to_owned(),
        reason: error.to_string(),
    };
    if path.exists() {
        let text = fs::read_to_string(path).map_err(LabError::io(path))?;
        return PrivateKey::from_openssh(&text).map_err(|error| failed(&error));
    }
    if let Some(dir) = path.parent() {
        private_dir(dir)?;
    }
    let key = PrivateKey::random(&mut rand::rng(), Algorithm::Ed25519).map_err(|e| failed(&e))?;
    let text = key.to_openssh(LineEnding::LF).map_err(|error| failed(&error))?;
    write_atomic(path, text.as_bytes()).map_err(LabError::io(path))?;
    Ok(key)
}

/// Makes the lab's `known_hosts` name this host's key and no other for its address.
pub(super) fn know(paths: &HostPaths, address: IpAddr, key: &PrivateKey) -> Result<(), LabError> {
    let file = paths.known_hosts();
    let name = format!("[{address}]:{SSH_PORT} ");
    let public = key
        .public_key()
        .to_openssh()
        .map_err(|error| LabError::Key { path: paths.host_key(), reason: error.to_string() })?;
    let line = format!("{name}{public}");
    let old = fs::read_to_string(&file).unwrap_or_default();
    if old.lines().any(|known| known == line) {
        return Ok(());
    }
    let mut lines: Vec<&str> = old.lines().filter(|known| !known.starts_with(&name)).collect();
    lines.push(&line);
    let text = lines.join("\n") + "\n";
    write_atomic(&file, text.as_bytes()).map_err(LabError::io(&file))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_known_by_its_newest_key_only() {
        let dir = tempfile::tempdir().unwrap();
        let paths = HostPaths::of_root(&dir.path().join("lab/server1"));
        let address: IpAddr = "127.77.0.11".parse().unwrap();
        let first = read_or_make(&paths.host_key()).unwrap();
        know(&paths, address, &first).unwrap();
        know(&paths, "127.77.0.12".parse().unwrap(), &first).unwrap();
        fs::remove_file(paths.host_key()).unwrap();
        let second = read_or_make(&paths.host_key()).unwrap();
        know(&paths, address, &second).unwrap();
        let text = fs::read_to_string(paths.known_hosts()).unwrap();
        assert_eq!(text.lines().count(), 2);
        assert!(text.contains(&second.public_key().to_openssh().unwrap()));
        assert_eq!(read_or_make(&paths.host_key()).unwrap(), second);
    }
}
