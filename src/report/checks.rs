//! What checks found: a table of hosts and checks, plain lines, and what is wrong in words. Pure.

use std::fmt::Write as _;

use super::style::{Paint, Style};
use crate::cli::output::{render, table_of};
use crate::cluster::checks::{Check, Finding, Severity};

/// In the place of a host's name, for what is of all of them.
const CLUSTER: &str = "(cluster)";

/// Checks as columns: which share one, and its header.
const COLUMNS: &[(&str, &[Check])] = &[
    ("SYSTEM", &[Check::Reach, Check::System]),
    ("CPUS", &[Check::Processors]),
    ("MEMORY", &[Check::Memory]),
    ("DISK", &[Check::Disk]),
    ("FSYNC", &[Check::DiskSpeed]),
    ("CLOCK", &[Check::Clock]),
    ("IDENTITY", &[Check::Identity]),
    ("PORTS", &[Check::Ports]),
    ("NETWORK", &[Check::Network]),
    ("RTT", &[Check::RoundTrip]),
    ("ROUTE", &[Check::Route]),
    ("DATA", &[Check::Data]),
];

/// For a terminal: a row for each host, a column for each check, the worst value in each cell; then a
/// line for what is of the whole cluster.
pub fn table(findings: &[Finding], style: Style) -> String {
    let headers: Vec<&str> = ["HOST"].into_iter().chain(COLUMNS.iter().map(|one| one.0)).collect();
    let mut rows = table_of(&headers);
    for host in hosts(findings) {
        let cells = COLUMNS.iter().map(|(_, checks)| {
            let own = findings.iter().filter(|found| {
                found.host.as_deref() == Some(host) && checks.contains(&found.check)
            });
            // The last of the equally bad ones: what a machine is says more than that it is there.
            own.max_by_key(|found| found.severity).map_or_else(|| "-".to_owned(), cell)
        });
        let row: Vec<String> = [host.to_owned()].into_iter().chain(cells).collect();
        rows.add_row(row);
    }
    let mut text = render(&mut rows);
    for found in findings.iter().filter(|found| found.host.is_none()) {
        let _ = write!(
            text,
            "\n{} {}: {}",
            mark(found.severity, style),
            found.check.name(),
            found.value
        );
    }
    text
}

/// The hosts, in the findings' order.
fn hosts(findings: &[Finding]) -> Vec<&str> {
    let mut hosts: Vec<&str> = findings.iter().filter_map(|found| found.host.as_deref()).collect();
    hosts.dedup();
    hosts
}

/// A value with a mark that is seen without colours, too.
fn cell(found: &Finding) -> String {
    match found.severity {
        Severity::Good => found.value.clone(),
        Severity::Unknown => format!("{} ?", found.value),
        Severity::Warning => format!("{} !", found.value),
        Severity::Bad => format!("{} ✗", found.value),
    }
}

fn mark(severity: Severity, style: Style) -> String {
    let paint = match severity {
        Severity::Good => Paint::Ok,
        Severity::Unknown => Paint::Skipped,
        Severity::Warning => Paint::Changed,
        Severity::Bad => Paint::Failed,
    };
    style.paint(paint, severity.word())
}

/// For a pipe: one line for each finding: severity, host, check, value, and what is wrong.
pub fn lines(findings: &[Finding]) -> String {
    let width = hosts(findings).iter().map(|host| host.len()).max().unwrap_or(0).max(CLUSTER.len());
    let line = |found: &Finding| {
        let host = found.host.as_deref().unwrap_or(CLUSTER);
        let (severity, check) = (found.severity.word(), found.check.name());
        let line = format!("{severity:<8} {host:<width$}  {check:<13} {}", found.value);
        if found.message.is_empty() { line } else { format!("{line}: {}", found.message) }
    };
    findings.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// What is wrong, the worst first: where, what, why it matters, what to do now.
pub fn wrong(findings: &[Finding], style: Style) -> String {
    let mut wrong: Vec<&Finding> =
        findings.iter().filter(|found| found.severity >= Severity::Warning).collect();
    wrong.sort_by_key(|found| std::cmp::Reverse(found.severity));
    wrong.iter().map(|found| told(found, style)).collect::<Vec<_>>().join("\n")
}

fn told(found: &Finding, style: Style) -> String {
    let host = found.host.as_deref().map(|host| format!("{host}: ")).unwrap_or_default();
    let mut text = format!(
        "{}: {host}{}\n    {}: {}\n    why: {}",
        mark(found.severity, style),
        found.message,
        found.check.name(),
        found.value,
        found.why
    );
    if let Some(action) = &found.action {
        let _ = write!(text, "\n    now: {action}");
    }
    text
}

/// What `doctor` says: what is wrong, and a line that sums it up.
pub fn diagnosis(findings: &[Finding], style: Style) -> String {
    let of = |severity| findings.iter().filter(|found| found.severity == severity).count();
    let (bad, warnings) = (of(Severity::Bad), of(Severity::Warning));
    let checked = count(findings.len(), "thing");
    let unknown = match of(Severity::Unknown) {
        0 => String::new(),
        some => format!(", {some} could not be measured"),
    };
    if bad + warnings == 0 {
        return format!(
            "{}: {checked} looked at, nothing is wrong{unknown}",
            mark(Severity::Good, style)
        );
    }
    let summary = format!(
        "{checked} looked at: {}, {}{unknown}",
        count(bad, "bad finding"),
        count(warnings, "warning")
    );
    format!("{}\n\n{summary}", wrong(findings, style))
}

/// `1 warning`, `2 warnings`.
pub fn count(number: usize, noun: &str) -> String {
    if number == 1 { format!("1 {noun}") } else { format!("{number} {noun}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(
        check: Check,
        host: Option<&str>,
        severity: Severity,
        value: &str,
        message: &str,
    ) -> Finding {
        Finding {
            check,
            host: host.map(str::to_owned),
            severity,
            value: value.to_owned(),
            message: message.to_owned(),
            why: check.why(),
            action: (!message.is_empty()).then(|| "do this".to_owned()),
            forceable: false,
        }
    }

    fn findings() -> Vec<Finding> {
        use Severity::{Bad, Good, Unknown, Warning};
        vec![
            finding(
                Check::Servers,
                None,
                Warning,
                "even-servers",
                "2 servers survive no more than 1",
            ),
            finding(Check::Reach, Some("server1"), Good, "yes", ""),
            finding(Check::System, Some("server1"), Good, "debian 12 x86_64", ""),
            finding(Check::DiskSpeed, Some("server1"), Bad, "p99 31.2 ms", "its disk is slow"),
            finding(Check::Identity, Some("server1"), Good, "unique", ""),
            finding(Check::Reach, Some("server2"), Bad, "no", "it cannot be reached"),
            finding(Check::DiskSpeed, Some("server2"), Unknown, "-", "no space left"),
        ]
    }

    #[test]
    fn a_table_has_the_worst_value_of_each_host_and_check() {
        insta::assert_snapshot!(table(&findings(), Style::default()));
    }

    #[test]
    fn a_pipe_gets_a_line_for_each_finding() {
        insta::assert_snapshot!(lines(&findings()));
    }

    #[test]
    fn what_is_wrong_is_told_with_why_and_what_to_do_the_worst_first() {
        insta::assert_snapshot!(diagnosis(&findings(), Style::default()));
        let fine = [finding(Check::Reach, Some("server1"), Severity::Good, "yes", "")];
        assert_eq!(diagnosis(&fine, Style::default()), "ok: 1 thing looked at, nothing is wrong");
        let painted = wrong(&findings(), Style { colour: true });
        assert!(painted.starts_with("\u{1b}[31mbad\u{1b}[0m: "), "{painted}");
    }
}
