//! The moments of a run at which failures begin and end. They are known by the names of plays and
//! tasks in `playbooks/verify*.yml`. Pure.

use std::time::Instant;

use crate::cluster::drill::{Failure, Kind, UNENDED};
use crate::run::event::{Event, Status};

/// A moment of the run that means something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Mark {
    /// A play begins.
    Play(String),
    /// A task begins.
    Task { at_ms: u64, name: String },
    /// A task ended well on a host.
    Done { at_ms: u64, name: String, host: String },
}

fn now(begun: Instant) -> u64 {
    u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// What was stopped is started from now on, by another run.
pub(super) fn mend(marks: &mut Vec<Mark>, begun: Instant) {
    marks.push(Mark::Task { at_ms: now(begun), name: "Start".to_owned() });
}

/// Takes in one event.
pub(super) fn note(marks: &mut Vec<Mark>, begun: Instant, event: &Event) {
    let at_ms = now(begun);
    match event {
        Event::Play { name, .. } => marks.push(Mark::Play(name.clone())),
        Event::Task { name, .. } => marks.push(Mark::Task { at_ms, name: name.clone() }),
        Event::Result(result) if matches!(result.status, Status::Ok | Status::Changed) => {
            let (name, host) = (result.task.clone(), result.host.clone());
            marks.push(Mark::Done { at_ms, name, host });
        }
        _ => {}
    }
}

/// The failures that the marks tell of.
pub(super) fn failures(marks: &[Mark]) -> Vec<Failure> {
    let mut found: Vec<Failure> = Vec::new();
    let (mut play, mut begun) = (String::new(), 0);
    for mark in marks {
        match mark {
            Mark::Play(name) => play.clone_from(name),
            Mark::Task { at_ms, name } => {
                begun = *at_ms;
                if name == "Start"
                    && let Some(last) = found.last_mut().filter(|last| last.mending_ms == UNENDED)
                {
                    last.mending_ms = *at_ms;
                }
            }
            Mark::Done { at_ms, name, host } => {
                let kind = match name.as_str() {
                    "Stop" if play == "The quorum is lost" => Kind::QuorumLost,
                    "Stop" => Kind::Stopped,
                    "Kill" => Kind::Killed,
                    "Stop the load balancer" => Kind::LoadBalancer,
                    "Back" => {
                        if let Some(last) = found.last_mut() {
                            last.to_ms = *at_ms;
                        }
                        continue;
                    }
                    _ => continue,
                };
                match found.last_mut() {
                    Some(last) if kind == Kind::QuorumLost && last.kind == kind => {
                        last.hosts.push(host.clone());
                        last.complete_ms = *at_ms;
                    }
                    _ => found.push(Failure {
                        kind,
                        hosts: vec![host.clone()],
                        from_ms: begun,
                        complete_ms: *at_ms,
                        mending_ms: UNENDED,
                        to_ms: UNENDED,
                    }),
                }
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_become_failures() {
        let play = |name: &str| Mark::Play(name.to_owned());
        let task = |at_ms, name: &str| Mark::Task { at_ms, name: name.to_owned() };
        let done = |at_ms, name: &str, host: &str| Mark::Done {
            at_ms,
            name: name.to_owned(),
            host: host.to_owned(),
        };
        let marks = [
            play("All servers run"),
            play("Each server is killed: server1"),
            task(10, "Kill"),
            done(12, "Kill", "server1"),
            task(13, "Start"),
            done(14, "Start", "server1"),
            done(20, "Back", "server1"),
            play("The quorum is lost"),
            task(30, "Stop"),
            done(31, "Stop", "server1"),
            done(35, "Stop", "server2"),
            task(50, "Start"),
            done(60, "Back", "server1"),
            done(61, "Back", "server3"),
            play("Each server is stopped: server1"),
            task(70, "Stop"),
            done(71, "Stop", "server1"),
        ];
        let found = failures(&marks);
        let times = |failure: &Failure| {
            (failure.from_ms, failure.complete_ms, failure.mending_ms, failure.to_ms)
        };
        let unended = (70, 71, UNENDED, UNENDED);
        assert_eq!(
            found.iter().map(times).collect::<Vec<_>>(),
            [(10, 12, 13, 20), (30, 35, 50, 61), unended]
        );
        assert_eq!(
            (found[1].kind, &found[1].hosts[..]),
            (Kind::QuorumLost, &["server1".to_owned(), "server2".to_owned()][..])
        );
        assert_eq!(found[2].kind, Kind::Stopped);
    }
}
