//! What was found so far, as the likely cause of what is found next.

use super::finding::{Check, Finding, Severity};

/// What makes a member slow or lose the leader.
pub(super) const SLOWING: &[Check] = &[
    Check::Reach,
    Check::Disk,
    Check::DiskSpeed,
    Check::Network,
    Check::RoundTrip,
    Check::Processors,
    Check::Memory,
];

/// What keeps a node from running.
pub(super) const STOPPING: &[Check] =
    &[Check::Certificates, Check::Disk, Check::Ports, Check::Clock, Check::Network, Check::Memory];

/// Findings that may be causes.
pub(super) struct Symptoms<'a>(pub(super) &'a [Finding]);

impl Symptoms<'_> {
    /// What is wrong with `host` that one of `checks` found, in one text; `None` when nothing is.
    pub(super) fn of(&self, host: &str, checks: &[Check]) -> Option<String> {
        let counts = |found: &&Finding| {
            found.severity >= Severity::Warning
                && checks.contains(&found.check)
                && found.host.as_deref() == Some(host)
        };
        let texts: Vec<&str> =
            self.0.iter().filter(counts).map(|found| found.message.as_str()).collect();
        (!texts.is_empty()).then(|| texts.join("; "))
    }
}

/// ` (likely because: …)`, or nothing when no cause is known.
pub(super) fn because(cause: Option<&str>) -> String {
    cause.map_or_else(String::new, |cause| format!("; likely because {cause}"))
}
