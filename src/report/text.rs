//! Events as Ansible shows them: plain lines. Pure: gives text, does not print.

use super::style::{Paint, Style};
use crate::run::event::{Event, HostRecap, Status, TaskResult};

/// Width of a banner, as Ansible's on a terminal of 80 columns.
const BANNER_WIDTH: usize = 79;

/// What to show beside the results.
#[derive(Clone, Copy, Debug, Default)]
pub struct Detail {
    /// Diffs.
    pub diff: bool,
    /// How much: 0 is results; 1 adds reasons and round trips.
    pub verbosity: u8,
    /// Colour.
    pub style: Style,
}

/// The lines of an event; none for what only a progress bar shows.
pub fn lines(event: &Event, detail: Detail) -> Vec<String> {
    let style = detail.style;
    match event {
        Event::Run { check: true, playbook, .. } => {
            vec![style.paint(Paint::Notice, &format!("CHECK MODE: {playbook}, nothing is changed"))]
        }
        Event::Run { id, playbook, .. } if detail.verbosity > 0 => {
            vec![format!("run {id}: {playbook}")]
        }
        Event::Warning { message } => {
            vec![style.paint(Paint::Changed, &format!("[WARNING]: {}", clean(message)))]
        }
        Event::Connect { host, stage } if detail.verbosity > 0 => {
            vec![format!("{host}: {stage}")]
        }
        Event::Play { name, .. } => vec![String::new(), banner(&format!("PLAY [{}]", clean(name)))],
        Event::Task { name, handler } => {
            let kind = if *handler { "RUNNING HANDLER" } else { "TASK" };
            vec![String::new(), banner(&format!("{kind} [{}]", clean(name)))]
        }
        Event::Result(result) => task_result(result, detail),
        Event::Retry { host, task, left } => vec![style.paint(
            Paint::Notice,
            &format!("FAILED - RETRYING: [{host}]: {} ({left} retries left).", clean(task)),
        )],
        Event::Safety { rule, message, refuses } => {
            let (paint, word) =
                if *refuses { (Paint::Failed, "REFUSED") } else { (Paint::Changed, "WARNING") };
            vec![style.paint(paint, &format!("[{word}] {rule}: {}", clean(message)))]
        }
        Event::Undone { steps } => {
            let mut lines = vec![String::new(), banner("NOT DONE")];
            lines.extend(steps.iter().map(|step| clean(step)));
            lines
        }
        Event::Recap { hosts, elapsed_ms } => recap(hosts, *elapsed_ms, detail),
        Event::Run { .. } | Event::Connect { .. } | Event::Upload { .. } => Vec::new(),
    }
}

fn banner(title: &str) -> String {
    let stars = BANNER_WIDTH.saturating_sub(title.chars().count() + 1).max(3);
    format!("{title} {}", "*".repeat(stars))
}

fn task_result(result: &TaskResult, detail: Detail) -> Vec<String> {
    let (paint, word) = match result.status {
        Status::Ok => (Paint::Ok, "ok"),
        Status::Changed => (Paint::Changed, "changed"),
        Status::Skipped => (Paint::Skipped, "skipping"),
        Status::Failed | Status::Unreachable => (Paint::Failed, "fatal"),
        Status::Unknown => (Paint::Notice, "unknown"),
    };
    let mut line = format!("{word}: [{}]", result.host);
    if result.status == Status::Failed {
        line.push_str(": FAILED!");
    } else if result.status == Status::Unreachable {
        line.push_str(": UNREACHABLE!");
    }
    if let Some(item) = &result.item {
        line.extend([" => (item=", &clean(item), ")"]);
    }
    if let Some(message) = &result.message {
        line.extend([" => ", &clean(message)]);
    }
    let mut lines: Vec<String> = line.lines().map(|line| detail.style.paint(paint, line)).collect();
    if detail.verbosity > 0 {
        lines.extend(result.reasons.iter().map(|reason| format!("    because {}", clean(reason))));
    }
    if let Some(diff) = result.diff.as_deref().filter(|_| detail.diff) {
        lines.extend(diff.lines().map(|line| diff_line(line, detail.style)));
    }
    if let Some(hint) = &result.hint {
        lines.push(detail.style.paint(Paint::Notice, &format!("hint: {}", clean(hint))));
    }
    if result.ignored {
        lines.push(detail.style.paint(Paint::Notice, "...ignoring"));
    }
    lines
}

fn diff_line(line: &str, style: Style) -> String {
    let paint = match line.as_bytes().first() {
        Some(b'+') => Paint::Ok,
        Some(b'-') => Paint::Failed,
        Some(b'@') => Paint::Skipped,
        _ => return clean(line),
    };
    style.paint(paint, &clean(line))
}

fn recap(hosts: &[HostRecap], elapsed_ms: u64, detail: Detail) -> Vec<String> {
    let mut lines = vec![String::new(), banner("PLAY RECAP")];
    let width = hosts.iter().map(|host| host.host.chars().count()).max().unwrap_or(0);
    for host in hosts {
        lines.push(recap_line(host, width, detail));
    }
    lines.push(String::new());
    lines.push(format!("{}.{} s", elapsed_ms / 1000, elapsed_ms % 1000 / 100));
    lines
}

fn recap_line(host: &HostRecap, width: usize, detail: Detail) -> String {
    let paint = if host.failed + host.unreachable > 0 {
        Paint::Failed
    } else if host.changed > 0 {
        Paint::Changed
    } else {
        Paint::Ok
    };
    let name = detail.style.paint(paint, &format!("{:<width$}", host.host));
    let mut line = format!(
        "{name} : ok={:<4} changed={:<4} unreachable={:<4} failed={:<4} skipped={:<4} rescued={:<4} \
         ignored={}",
        host.ok,
        host.changed,
        host.unreachable,
        host.failed,
        host.skipped,
        host.rescued,
        host.ignored
    );
    if detail.verbosity > 0 {
        line.extend(["    round_trips=", &host.round_trips.to_string()]);
    }
    line
}

/// What a host says is data: control characters, which could move the cursor or change colours, are
/// shown as `?`. Line ends and tabs stay.
fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\n' && c != '\t' { '?' } else { c }).collect()
}
