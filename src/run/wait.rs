//! Waits of a task, and what a service has to say for itself when they are in vain.

use std::time::{Duration, Instant};

use super::context::Context;
use super::host::HostRun;
use crate::cluster::k3s::diagnose::{diagnose, telling_lines};
use crate::cluster::layout::{Distribution, Layout, Role};
use crate::host::protocol::{Observed, Read};
use crate::modules::{Until, Wait};
use crate::remote::RemoteError;

/// How often a pause looks whether the run was interrupted.
const PAUSE_LOOK: Duration = Duration::from_millis(100);

/// How many lines of a service's log are shown when it failed.
const LOG_LINES: u32 = 20;

/// How many lines of K3s's log are searched for the cause …
const K3S_LOG_LINES: u32 = 150;

/// … and how many of its last ones are shown.
const K3S_SHOWN_LINES: usize = 8;

/// Waits; gives what is still missing when the time is over.
pub(super) async fn wait_for(
    context: &Context<'_>,
    host: &mut HostRun,
    user: Option<&str>,
    wait: &Wait,
) -> Result<Result<(), String>, RemoteError> {
    let limit = Duration::from_millis(wait.timeout_ms);
    let begun = Instant::now();
    if wait.until == Until::Elapsed {
        // Nobody who interrupts a run waits for the end of a pause.
        while !context.is_interrupted() && begun.elapsed() < limit {
            tokio::time::sleep(PAUSE_LOOK.min(limit.saturating_sub(begun.elapsed()))).await;
        }
        return Ok(Ok(()));
    }
    let ended = loop {
        let answer = host.look(context, user, wait.read.clone()).await?;
        let missing = match answer {
            Ok(observed) => match wait.until.check(&observed) {
                Ok(()) => break Ok(()),
                Err(why) => why,
            },
            Err(error) => error.message,
        };
        let interval = Duration::from_millis(wait.interval_ms);
        if wait.interval_ms == 0 || begun.elapsed() + interval > limit {
            break Err(format!("{missing} (after {} s)", begun.elapsed().as_secs()));
        }
        tokio::time::sleep(interval).await;
    };
    // What was seen before the wait is old now.
    host.forget_moving();
    Ok(ended)
}

/// The service of the host's node.
pub(super) fn node_service(host: &HostRun) -> String {
    let role = host.fleet.role.unwrap_or(Role::Server);
    Layout::new(host.distribution, role, Some(host.root())).service
}

/// The last lines of a service's log.
pub(super) async fn service_log(
    context: &Context<'_>,
    host: &mut HostRun,
    user: Option<&str>,
    name: &str,
) -> Option<String> {
    // K3s says much, and the cause long before the end.
    let k3s = host.distribution == Distribution::K3s && name == node_service(host);
    let lines = if k3s { K3S_LOG_LINES } else { LOG_LINES };
    let read = Read::ServiceLog { name: name.to_owned(), lines };
    let text = match host.look(context, user, read).await {
        Ok(Ok(Observed::Text(text))) if !text.trim().is_empty() => text,
        _ => return None,
    };
    if !k3s {
        return Some(format!("the last lines of the log of {name}:\n{}", text.trim_end()));
    }
    let shown = telling_lines(text.trim_end(), K3S_SHOWN_LINES);
    Some(match diagnose(&text) {
        Some(found) => format!("{}: {}\nthe log of {name}:\n{shown}", found.cause, found.remedy),
        None => format!("the log of {name} (no cause that is known):\n{shown}"),
    })
}
