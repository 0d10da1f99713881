//! `k3sup-rs snapshot rm` and `prune`.

use serde_json::json;

use super::places::{Found, Places, S3, Server};
use super::settings::settings;
use super::{Common, Hold};
use crate::cli::ask;
use crate::cli::output::{self, Format};
use crate::cli::work::Work;
use crate::cluster::snapshots::expired;
use crate::error::{ExitCode, Failure, chain};
use crate::host::protocol::{Change, CommandSpec, Done};

/// How long a server may take.
const TIMEOUT_MS: u64 = 300_000;

/// Which ones go.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  k3sup-rs snapshot rm on-demand-server1-1755900000 -i inventory.yaml
  k3sup-rs snapshot rm on-demand-server1-1755900000 -i inventory.yaml --from s3 --yes
  k3sup-rs snapshot rm on-demand-server1-1755900000 -i inventory.yaml --check")]
pub struct Rm {
    /// Their names
    #[arg(required = true)]
    names: Vec<String>,
    #[command(flatten)]
    how: How,
}

/// Which ones stay.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  k3sup-rs snapshot prune -i inventory.yaml                as many stay as the inventory says
  k3sup-rs snapshot prune --keep 3 -i inventory.yaml --check
  k3sup-rs snapshot prune --keep 1 --name before-upgrade -i inventory.yaml

Counts for each server by itself, on its disk and in S3: no server's snapshots push out another's.")]
pub struct Prune {
    /// How many of each server stay [default: the inventory's, else 5]
    #[arg(long, value_name = "COUNT")]
    keep: Option<usize>,
    /// What their names begin with [default: that of scheduled ones]
    #[arg(long)]
    name: Option<String>,
    #[command(flatten)]
    how: How,
}

#[derive(Debug, clap::Args)]
struct How {
    #[command(flatten)]
    common: Common,
    /// Only from this server, or `s3`
    #[arg(long, value_name = "PLACE")]
    from: Option<String>,
    /// Only say what would go; ends with 7 when something would
    #[arg(long, short = 'C')]
    check: bool,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
    #[command(flatten)]
    hold: Hold,
}

/// Removes the named ones.
pub(super) async fn rm(args: Rm) -> Result<(), Failure> {
    let (inventory, reach) = args.how.common.open()?;
    let settings = settings(&inventory)?;
    let mut places = Places::open(&inventory, &reach, &settings).await?;
    let listed = places.list().await;
    let here = |found: &&Found| args.how.from.as_ref().is_none_or(|place| *place == found.place);
    let mut chosen = Vec::new();
    for name in &args.names {
        let named = listed.iter().filter(|found| found.view.name == *name).filter(here);
        let named: Vec<Found> = named.cloned().collect();
        if named.is_empty() {
            let message = format!("there is no snapshot {name}\n{}", places.problems.join("\n"));
            return Err(Failure::new(ExitCode::Error, message.trim_end())
                .hint("what there is: `k3sup-rs snapshot ls`"));
        }
        chosen.extend(named);
    }
    let work = || args.how.common.work("snapshot rm", &inventory, args.how.hold);
    remove(&args.how, work, &mut places, &listed, chosen).await
}

/// Removes the oldest.
pub(super) async fn prune(args: Prune) -> Result<(), Failure> {
    let (inventory, reach) = args.how.common.open()?;
    let settings = settings(&inventory)?;
    let base = args.name.as_deref().unwrap_or(&settings.name);
    let kept = args.keep.or(settings.retention).unwrap_or(5);
    let kept_in_s3 = args.keep.or(settings.s3.as_ref().map(|s3| s3.retention)).unwrap_or(kept);
    let mut places = Places::open(&inventory, &reach, &settings).await?;
    let listed = places.list().await;
    let mut chosen = Vec::new();
    let servers: Vec<&str> = inventory.servers().map(|host| host.name.as_str()).collect();
    let everywhere = servers.iter().copied().chain([S3]);
    for place in
        everywhere.filter(|place| args.how.from.as_deref().is_none_or(|from| from == *place))
    {
        let keep = if place == S3 { kept_in_s3 } else { kept };
        let there: Vec<&Found> = listed.iter().filter(|found| found.place == place).collect();
        for node in &servers {
            let names = there.iter().map(|found| found.view.name.as_str());
            let gone = expired(names, base, node, keep);
            let found = there.iter().filter(|found| gone.contains(&found.view.name));
            chosen.extend(found.map(|found| (*found).clone()));
        }
    }
    if chosen.is_empty() {
        let nothing = json!({ "removed": [], "problems": places.problems });
        return args.how.common.tell("nothing to remove", &nothing);
    }
    let work = || args.how.common.work("snapshot prune", &inventory, args.how.hold);
    remove(&args.how, work, &mut places, &listed, chosen).await
}

async fn remove(
    how: &How,
    work: impl FnOnce() -> Result<Work, Failure>,
    places: &mut Places,
    listed: &[Found],
    chosen: Vec<Found>,
) -> Result<(), Failure> {
    let is_text = how.common.output == Format::Text;
    for found in chosen.iter().filter(|_| is_text) {
        let would = if how.check { "would remove" } else { "to remove" };
        output::line(&format!("{would}: {} on {}", found.view.name, found.place))?;
    }
    let good = |found: &&Found| found.view.problem.is_none();
    let stays = |found: &&Found| {
        !chosen.iter().any(|gone| gone.place == found.place && gone.view.name == found.view.name)
    };
    if listed.iter().filter(stays).filter(good).count() == 0 {
        output::error("warning: no good snapshot of this cluster would be left");
    }
    if how.check {
        if !is_text {
            output::json(&json!({ "would_remove": chosen, "problems": places.problems }))?;
        }
        return Err(Failure::new(ExitCode::WouldChange, ""));
    }
    ask::confirm(&format!("Remove {} snapshot files for good?", chosen.len()), how.yes)?;
    places.hold(work()?, async |places, work| remove_all(how, places, work, chosen).await).await
}

async fn remove_all(
    how: &How,
    places: &mut Places,
    work: &mut Work,
    chosen: Vec<Found>,
) -> Result<(), Failure> {
    let is_text = how.common.output == Format::Text;
    let mut problems = places.problems.clone();
    let mut removed = Vec::new();
    for found in chosen {
        let gone = remove_one(places, &found).await;
        work.note(
            &found.place,
            &format!("remove {}", found.view.name),
            gone.clone().map(|()| None),
        );
        match gone {
            Ok(()) if is_text => {
                output::line(&format!("removed {} on {}", found.view.name, found.place))?;
            }
            Ok(()) => removed.push(found),
            Err(why) => problems.push(format!("{} on {}: {why}", found.view.name, found.place)),
        }
    }
    if !is_text {
        output::json(&json!({ "removed": removed, "problems": problems }))?;
    }
    if problems.is_empty() {
        return Ok(());
    }
    Err(Failure::new(ExitCode::HostFailed, problems.join("\n")))
}

async fn remove_one(places: &mut Places, found: &Found) -> Result<(), String> {
    if found.place == S3 {
        let bucket = places.bucket.as_ref().ok_or("no S3")?;
        return bucket.remove(&found.view.name).await.map_err(|error| chain(&error));
    }
    let server = places.server(&found.place).ok_or("the server is gone")?;
    if server.place.k3s.is_some() && remove_by_k3s(server, &found.view.name).await? {
        return Ok(());
    }
    let note = format!("{}/{}", server.metadata, found.view.name);
    let paths = [server.path(&found.view.name), note];
    let changes = paths.map(|path| Change::Remove { path }).to_vec();
    let answers = server.session.change(changes).await.map_err(|error| error.to_string())?;
    answers.into_iter().try_for_each(|answer| answer.map(drop)).map_err(|error| error.to_string())
}

/// K3s also forgets its own record of it. False when it does not run: then the file is removed.
async fn remove_by_k3s(server: &mut Server, name: &str) -> Result<bool, String> {
    let argv = server.command(&["delete", name]);
    let spec = CommandSpec { argv, timeout_ms: TIMEOUT_MS, ..CommandSpec::default() };
    let answers = server.session.change(vec![Change::Run(spec)]).await;
    let answer = answers.map_err(|error| error.to_string())?.into_iter().next();
    match answer {
        Some(Ok(Done::Output(done))) => Ok(done.status == 0),
        _ => Ok(false),
    }
}
