//! What a failure drill leaves to look at.

use serde_json::Value;

use super::{Lab, wait_for};

/// The verdict is the last line; the run's events come before it.
pub fn verdict(printed: &str) -> Value {
    let line = |line| serde_json::from_str(line).expect("JSON");
    let mut lines: Vec<Value> = printed.lines().map(line).collect();
    let last = lines.pop().expect("a verdict");
    assert_eq!(last["event"], "drill");
    last
}

/// Waits for all three servers.
pub fn whole(lab: &Lab) {
    wait_for("three healthy voters", || {
        let status = lab.status()?;
        let sound = |member: &Value| member["voter"] == true && member["healthy"] == true;
        let members = status["members"].as_array()?;
        (members.len() == 3 && members.iter().all(sound)).then_some(())
    });
}
