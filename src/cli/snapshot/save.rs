//! `k3sup-rs snapshot save`.

use regex::Regex;
use serde_json::json;

use super::places::{Places, Server};
use super::settings::settings;
use super::{Common, Hold};
use crate::cli::output::{self, Format};
use crate::cli::work::Work;
use crate::cluster::snapshots::{SnapshotView, check_base};
use crate::error::{ExitCode, Failure};
use crate::host::protocol::{Change, CommandSpec, Done};

/// How long a server may take.
const TIMEOUT_MS: u64 = 900_000;

/// How a snapshot is taken.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  k3sup-rs snapshot save -i inventory.yaml
  k3sup-rs snapshot save -i inventory.yaml --name before-upgrade --on server2
  k3sup-rs snapshot save -i inventory.yaml --all           one on each server")]
pub struct Args {
    #[command(flatten)]
    common: Common,
    /// What its name begins with; the server's name and the time follow
    #[arg(long, default_value = "on-demand")]
    name: String,
    /// On this server
    #[arg(long, value_name = "SERVER")]
    on: Option<String>,
    /// On every server
    #[arg(long, conflicts_with = "on")]
    all: bool,
    /// Only say what would be done; ends with 7
    #[arg(long, short = 'C')]
    check: bool,
    #[command(flatten)]
    hold: Hold,
}

/// Takes one, reads it back, and says where it is.
pub(super) async fn run(args: Args) -> Result<(), Failure> {
    check_base(&args.name).map_err(|why| {
        Failure::new(ExitCode::BadInput, format!("the name `{}` {why}", args.name))
    })?;
    let (inventory, reach) = args.common.open()?;
    let settings = settings(&inventory)?;
    let mut places = Places::open(&inventory, &reach, &settings).await?;
    if let Some(on) = &args.on {
        if inventory.servers().all(|host| host.name != *on) {
            let message = format!("{on} is not a server of the inventory");
            return Err(Failure::new(ExitCode::BadInput, message));
        }
        places.servers.retain(|server| server.name == *on);
    }
    if args.check {
        let names: Vec<&str> = places.servers.iter().map(|server| server.name.as_str()).collect();
        let quantity = if args.all { "each of" } else { "the first that can of" };
        let text = format!("would take a snapshot on {quantity}: {}", names.join(", "));
        args.common.tell(&text, &json!({ "would_save_on": names, "all": args.all }))?;
        return Err(Failure::new(ExitCode::WouldChange, ""));
    }
    let work = args.common.work("snapshot save", &inventory, args.hold)?;
    let wanted = if args.all { inventory.servers().count() } else { 1 };
    let problems =
        places.hold(work, async |places, work| all(&args, places, work, wanted).await).await?;
    for problem in problems {
        output::error(&format!("warning: {problem}"));
    }
    Ok(())
}

/// Takes them and says so; gives what did not work beside it.
async fn all(
    args: &Args,
    places: &mut Places,
    work: &mut Work,
    wanted: usize,
) -> Result<Vec<String>, Failure> {
    let mut saved = Vec::new();
    let mut problems = places.problems.clone();
    for server in &mut places.servers {
        let taken = take(server, &args.name).await;
        let noted = taken.as_ref().map(|(view, _)| Some(words(view))).map_err(Clone::clone);
        work.note(&server.name, "save", noted);
        match taken {
            Ok((view, warning)) => {
                problems.extend(warning.map(|text| format!("{}: {text}", server.name)));
                saved.push((server.name.clone(), view));
            }
            Err(problem) => problems.push(format!("{}: {problem}", server.name)),
        }
        if !args.all && !saved.is_empty() {
            break;
        }
    }
    match args.common.output {
        Format::Text => {
            for (server, view) in &saved {
                output::line(&format!("{server}: {}", words(view)))?;
            }
        }
        Format::Json => {
            let saved: Vec<_> = saved.iter().map(|(_, view)| view).collect();
            output::json(&json!({ "snapshots": saved, "problems": problems }))?;
        }
    }
    if saved.len() < wanted {
        let message =
            format!("snapshots taken: {} of {wanted}\n{}", saved.len(), problems.join("\n"));
        return Err(Failure::new(ExitCode::HostFailed, message));
    }
    Ok(problems)
}

fn words(view: &SnapshotView) -> String {
    let (name, revision, bytes) = (&view.name, view.revision, output::bytes(view.bytes));
    format!("{name} saved and verified: revision {revision}, {bytes}")
}

/// Takes one on a server, and reads it there; with what did not work beside it.
async fn take(server: &mut Server, base: &str) -> Result<(SnapshotView, Option<String>), String> {
    let argv = server.command(&["save", "--name", base]);
    let spec = CommandSpec { argv, timeout_ms: TIMEOUT_MS, ..CommandSpec::default() };
    let answers = server.session.change(vec![Change::Run(spec)]).await;
    let answer = answers.map_err(|error| error.to_string())?.into_iter().next();
    let Done::Output(done) = answer.ok_or("no answer")?.map_err(|error| error.to_string())? else {
        return Err("the executor answers something else".to_owned());
    };
    // K3s says it in its log, on standard error.
    let said = String::from_utf8_lossy(&[&*done.stdout, &*done.stderr].concat()).into_owned();
    let Some(name) = saved_name(&said) else {
        return Err(format!("nothing was saved: {}", said.trim()));
    };
    let view = server.verify(&name).await?.ok_or_else(|| format!("{name} is not there"))?;
    if let Some(problem) = &view.problem {
        return Err(format!("{name} was saved and is not right: {problem}"));
    }
    let warning = (done.status != 0)
        .then(|| String::from_utf8_lossy(&done.stderr).trim().replace("error: ", ""));
    Ok((view, warning))
}

/// The name in `Snapshot NAME saved.`, K3s's words too. K3s before 2022 only says where it saves it.
fn saved_name(said: &str) -> Option<String> {
    let pattern = r#"Snapshot (\S+) saved\.|Saving etcd snapshot to [^\s"]*/([^/\s"]+)"#;
    let found = Regex::new(pattern).ok()?.captures(said)?;
    Some(found.get(1).or_else(|| found.get(2))?.as_str().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_is_found_in_both_distributions_words() {
        let ours = "Snapshot on-demand-s1-7 saved.\n";
        let k3s = "time=\"2026-08-22T22:00:00Z\" level=info msg=\"Snapshot on-demand-s1-7 saved.\"";
        let old = "level=info msg=\"Saving etcd snapshot to /var/lib/rancher/k3s/server/db/snapshots/\
                   on-demand-s1-7\"\nlevel=info msg=more";
        for said in [ours, k3s, old] {
            assert_eq!(saved_name(said).as_deref(), Some("on-demand-s1-7"));
        }
        assert_eq!(saved_name("level=info msg=\"nothing\""), None);
    }
}
