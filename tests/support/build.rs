//! Builds of other versions.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

/// Writes the program at `own` to `to` as a build of another version: the mark that says so is
/// rewritten.
pub fn of_version(own: &Path, version: &str, to: &Path) {
    let mark = concat!("k3sup-rs build ", env!("CARGO_PKG_VERSION"), ";");
    let other = format!("k3sup-rs build {version};");
    assert_eq!(mark.len(), other.len(), "versions of one length");
    let mut bytes = std::fs::read(own).expect("a binary");
    let mut found = 0;
    for at in 0..bytes.len() - mark.len() {
        if bytes[at] == mark.as_bytes()[0] && bytes[at..].starts_with(mark.as_bytes()) {
            bytes[at..at + mark.len()].copy_from_slice(other.as_bytes());
            found += 1;
        }
    }
    assert!(found > 0, "the binary has its version in it");
    std::fs::write(to, bytes).expect("written");
    std::fs::set_permissions(to, std::fs::Permissions::from_mode(0o755)).expect("a mode");
}
