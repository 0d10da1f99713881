//! K3s on lab hosts, as the script `tests/k3s/fake-k3s` plays it.

use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

use super::Lab;

/// The script that plays K3s.
pub const FAKE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/k3s/fake-k3s");

/// A lab whose hosts run the script, with more variables; `None`, and a word about it, without what the
/// script needs.
pub fn lab(net: &str, servers: usize, agents: usize, vars: &str) -> Option<Lab> {
    if Command::new("python3").arg("--version").output().is_err() {
        eprintln!("SKIPPED: the script that plays K3s needs python3");
        return None;
    }
    let lab = Lab::new(net, servers, agents);
    lab.say(&format!("    distribution: k3s\n    k3s_binary: {FAKE}\n{vars}"));
    Some(lab)
}

/// A file of the script's beside the hosts' directories.
pub fn beside(lab: &Lab, name: &str) -> PathBuf {
    lab.dir.path().join("labs").join(&lab.name).join(name)
}

/// All that the script keeps.
pub fn state(lab: &Lab) -> Value {
    let text = std::fs::read_to_string(beside(lab, "fake-k3s.json")).expect("the script's state");
    serde_json::from_str(&text).expect("JSON")
}
