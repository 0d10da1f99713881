//! What can be known to be wrong before any host is touched and anything is kept: the playbook, its
//! templates, its patterns, `--limit`.

use serde_json::Value as Json;

use super::fleet::Fleet;
use super::library::{Found, Library};
use crate::cluster::layout::Distribution;
use crate::error::{ExitCode, Failure};
use crate::playbook::program::Program;
use crate::playbook::{Play, Playbook};
use crate::template::Engine;
use crate::yaml::{Finding, Mark, report};

/// Looks at everything that a run of `playbook` on `fleet` would read on this machine.
///
/// # Errors
/// All that is wrong, with file, line and column.
pub fn inspect(
    library: &Library,
    playbook: &str,
    fleet: &Fleet,
    limit: Option<&str>,
) -> Result<(), Failure> {
    limited(fleet, limit)?;
    let (_, playbook) = read(library, fleet.distribution, playbook)?;
    let mut findings = Vec::new();
    for play in &playbook.plays {
        files(library, play, &mut findings);
        // A pattern with a template is known when the run begins.
        if !play.hosts.text.contains("{{")
            && let Err(error) = fleet.select(&play.hosts.text)
        {
            findings.push(play.hosts.mark.finding(error.to_string()));
        }
    }
    if findings.is_empty() { Ok(()) } else { Err(bad(report(&findings))) }
}

/// Reads the playbook called `name`, that of `distribution`.
pub(super) fn read(
    library: &Library,
    distribution: Distribution,
    name: &str,
) -> Result<(Found, Playbook), Failure> {
    let found = super::k3s::playbook(library, distribution, name)?;
    let playbook =
        crate::playbook::parse(&found.file, library).map_err(|findings| bad(report(&findings)))?;
    Ok((found, playbook))
}

/// The hosts that `--limit` leaves, at least one.
pub(super) fn limited(fleet: &Fleet, limit: Option<&str>) -> Result<Vec<String>, Failure> {
    let hosts = match limit {
        None => fleet.hosts.iter().map(|host| host.name.clone()).collect(),
        Some(pattern) => fleet.select(pattern).map_err(|why| bad(format!("--limit: {why}")))?,
    };
    match (hosts.as_slice(), limit) {
        ([], Some(pattern)) => {
            Err(bad(format!("no host is left to work on: --limit {pattern:?} selects none")))
        }
        ([], None) => Err(bad("the inventory has no hosts".to_owned())),
        _ => Ok(hosts),
    }
}

fn bad(why: String) -> Failure {
    Failure::new(ExitCode::BadInput, why)
}

/// The files that a play names: they are there, and the templates are well formed.
fn files(library: &Library, play: &Play, findings: &mut Vec<Finding>) {
    for file in &play.vars_files {
        match library.playbook(&file.text) {
            Ok(found) => {
                let parsed = crate::yaml::parse(&found.file.name, &found.file.text);
                findings.extend(parsed.err().unwrap_or_default());
            }
            Err(why) => findings.push(file.mark.finding(why)),
        }
    }
    let program = Program::of(play);
    let handlers = play.handlers.iter();
    let tasks = program.tasks().map(|step| &step.task).chain(handlers);
    let engine = Engine::new();
    for task in tasks {
        let Some(src) = task.args.get("src").and_then(Json::as_str) else { continue };
        if src.contains("{{") {
            continue;
        }
        if task.module.name == "copy" && !task.args.contains_key("remote_src") {
            if let Err(why) = library.file(src) {
                findings.push(task.mark.finding(why));
            }
            continue;
        }
        if task.module.name != "template" {
            continue;
        }
        match library.template(src) {
            Ok(found) => {
                if let Err(error) = engine.check_text(&found.file.text) {
                    let mark = Mark::new(found.file.name.as_str(), error.line.unwrap_or(1), 1);
                    findings.push(mark.finding(format!("bad template: {error}")));
                }
            }
            Err(why) => findings.push(task.mark.finding(why)),
        }
    }
}
