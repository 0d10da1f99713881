//! All variants of a line, and what a whole run looks like.

use super::sink::{JsonSink, TextSink};
use super::style::Style;
use super::text::Detail;
use crate::run::event::{Event, EventSink, HostRecap, Status, TaskResult};

fn result(status: Status, message: Option<&str>) -> Event {
    Event::Result(Box::new(TaskResult {
        host: "server1".into(),
        task: "Binary".into(),
        status,
        message: message.map(str::to_owned),
        reasons: vec!["content differs".into()],
        ..TaskResult::default()
    }))
}

fn run() -> Vec<Event> {
    let task = |name: &str, handler| Event::Task { name: name.into(), handler };
    let mut failed = result(Status::Failed, Some("port 2380 is taken by etcd (pid 812)"));
    if let Event::Result(failed) = &mut failed {
        failed.item = Some("one".into());
        failed.hint = Some("stop it".into());
        failed.ignored = true;
    }
    let mut changed = result(Status::Changed, None);
    if let Event::Result(changed) = &mut changed {
        changed.diff = Some("--- before\n+++ after\n@@ -1 +1 @@\n-a\n+b\n".into());
    }
    vec![
        Event::Run { id: "r1".into(), playbook: "site.yml (built in)".into(), check: false },
        Event::Connect { host: "server1".into(), stage: "connected".into() },
        Event::Play { name: "Servers".into(), hosts: vec!["server1".into()] },
        task("Nothing came of it", false),
        task("Binary", false),
        result(Status::Ok, None),
        changed,
        result(Status::Skipped, None),
        failed,
        result(Status::Unreachable, Some("no route to host")),
        result(Status::Unknown, Some("known after earlier changes")),
        task("Restart", true),
        Event::Retry { host: "server1".into(), task: "Restart".into(), left: 2 },
        result(Status::Ok, Some("evil \u{1b}[2J text")),
        Event::Warning { message: "2 servers survive no more than 1".into() },
        Event::Safety { rule: "quorum-risk".into(), message: "1 of 3".into(), refuses: true },
        Event::Undone { steps: vec!["server1: Ready".into()] },
        Event::Recap {
            hosts: vec![HostRecap {
                host: "server1".into(),
                ok: 2,
                changed: 1,
                round_trips: 2,
                ..HostRecap::default()
            }],
            elapsed_ms: 12_340,
        },
    ]
}

fn shown(detail: Detail) -> String {
    let mut out = Vec::new();
    let mut sink = TextSink::new(&mut out, detail, false);
    for event in run() {
        sink.event(&event);
    }
    drop(sink);
    String::from_utf8(out).unwrap()
}

#[test]
fn a_run_in_plain_lines() {
    insta::assert_snapshot!(shown(Detail::default()));
}

#[test]
fn verbose_adds_reasons_diffs_and_round_trips() {
    insta::assert_snapshot!(shown(Detail { diff: true, verbosity: 1, style: Style::default() }));
}

#[test]
fn colours_only_when_asked() {
    assert!(!shown(Detail::default()).contains('\u{1b}'));
    let coloured = shown(Detail { style: Style { colour: true }, ..Detail::default() });
    assert!(coloured.contains("\u{1b}[32mok: [server1]\u{1b}[0m"));
    assert!(!coloured.contains("\u{1b}[2J"), "what a host says cannot steer the terminal");
}

#[test]
fn json_is_one_event_per_line() {
    let mut out = Vec::new();
    let mut sink = JsonSink::new(&mut out);
    for event in run() {
        sink.event(&event);
    }
    let text = String::from_utf8(out).unwrap();
    let events: Vec<Event> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(events, run());
}
