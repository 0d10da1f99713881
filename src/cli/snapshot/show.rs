//! `k3sup-rs snapshot ls` and `verify`: one table over all servers and S3.

use super::Common;
use super::places::{Found, Places, S3};
use super::settings::settings;
use crate::cli::output::{self, Format, age, bytes, render, table};
use crate::cli::target::now_unix_s;
use crate::error::{ExitCode, Failure, chain};
use crate::node::snapshots::inspect::inspect;

/// Which cluster.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  k3sup-rs snapshot ls -i inventory.yaml
  k3sup-rs snapshot ls -i inventory.yaml --output json

VERIFIED says how long ago a file was read to its end and found right, and NO when it was not yet.")]
pub struct Ls {
    #[command(flatten)]
    common: Common,
}

/// Which snapshots are read.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  k3sup-rs snapshot verify -i inventory.yaml               the newest of each place
  k3sup-rs snapshot verify on-demand-server1-1755900000 -i inventory.yaml
  k3sup-rs snapshot verify --all -i inventory.yaml

Servers read their own files; what is in S3 is fetched and read here. Ends with 1 when one is not right.")]
pub struct Verify {
    /// Their names [default: the newest of each place]
    names: Vec<String>,
    /// All of them
    #[arg(long, conflicts_with = "names")]
    all: bool,
    #[command(flatten)]
    common: Common,
}

/// Lists.
pub(super) async fn ls(args: Ls) -> Result<(), Failure> {
    let (inventory, reach) = args.common.open()?;
    let settings = settings(&inventory)?;
    let mut places = Places::open(&inventory, &reach, &settings).await?;
    let found = places.list().await;
    show(&found, &places.problems, args.common.output)?;
    unreached(&places.problems)
}

/// Reads them.
pub(super) async fn verify(args: Verify) -> Result<(), Failure> {
    let (inventory, reach) = args.common.open()?;
    let settings = settings(&inventory)?;
    let mut places = Places::open(&inventory, &reach, &settings).await?;
    let listed = places.list().await;
    let chosen: Vec<Found> = if args.all {
        listed
    } else if args.names.is_empty() {
        newest(listed)
    } else {
        listed.into_iter().filter(|found| args.names.contains(&found.view.name)).collect()
    };
    if let Some(name) =
        args.names.iter().find(|name| !chosen.iter().any(|found| found.view.name == **name))
    {
        let message = format!("there is no snapshot {name}\n{}", places.problems.join("\n"));
        return Err(Failure::new(ExitCode::Error, message.trim_end())
            .hint("what there is: `k3sup-rs snapshot ls`"));
    }
    let mut read = Vec::new();
    for found in chosen {
        read.push(judged(&mut places, found).await);
    }
    show(&read, &places.problems, args.common.output)?;
    let wrong: Vec<&str> = read
        .iter()
        .filter(|found| found.view.problem.is_some())
        .map(|found| found.view.name.as_str())
        .collect();
    if !wrong.is_empty() {
        let message = format!("not right: {}", wrong.join(", "));
        return Err(
            Failure::new(ExitCode::Error, message).hint("take a new one: `k3sup-rs snapshot save`")
        );
    }
    unreached(&places.problems)
}

/// The newest of each place.
fn newest(listed: Vec<Found>) -> Vec<Found> {
    let mut newest: Vec<Found> = Vec::new();
    // Oldest first: a later one of the same place takes over.
    for found in listed {
        newest.retain(|other| other.place != found.place);
        newest.push(found);
    }
    newest
}

/// Reads one to its end, where it is or, from S3, here.
async fn judged(places: &mut Places, found: Found) -> Found {
    let read = if found.place == S3 {
        fetched(places, &found).await
    } else {
        match places.server(&found.place) {
            Some(server) => server.verify(&found.view.name).await,
            None => Err("the server is gone".to_owned()),
        }
    };
    let mut judged = found.clone();
    match read {
        Ok(Some(mut view)) => {
            if found.view.sha256.is_some() && found.view.sha256 != view.sha256 {
                let why = "it is another file than the one that was saved: its hash differs";
                view.problem.get_or_insert_with(|| why.to_owned());
            }
            view.location.clone_from(&found.view.location);
            view.node.clone_from(&found.view.node);
            judged.view = view;
        }
        Ok(None) => judged.view.problem = Some("it went away".to_owned()),
        Err(problem) => judged.view.problem = Some(problem),
    }
    judged
}

async fn fetched(
    places: &Places,
    found: &Found,
) -> Result<Option<crate::cluster::snapshots::SnapshotView>, String> {
    let bucket = places.bucket.as_ref().ok_or("no S3")?;
    let scratch = tempfile::tempdir().map_err(|error| error.to_string())?;
    let here = scratch.path().join(&found.view.name);
    bucket.download(&found.view.name, &here).await.map_err(|error| chain(&error))?;
    let path = here.clone();
    let read = tokio::task::spawn_blocking(move || inspect(&path)).await;
    read.map_err(|error| error.to_string())?.map(Some).map_err(|error| error.to_string())
}

fn show(found: &[Found], problems: &[String], format: Format) -> Result<(), Failure> {
    match format {
        Format::Json => {
            output::json(&serde_json::json!({ "snapshots": found, "problems": problems }))
        }
        Format::Text => output::line(&text(found, now_unix_s())),
    }
}

/// The table.
fn text(found: &[Found], now_unix_s: u64) -> String {
    let mut rows = table(["NAME", "WHERE", "SIZE", "AGE", "REVISION", "CLUSTER", "VERIFIED"]);
    for Found { place, view } in found {
        let known = |known: bool, text: String| if known { text } else { "-".to_owned() };
        let verified = match (&view.problem, view.verified_unix_s) {
            (Some(problem), _) => format!("WRONG: {problem}"),
            (None, Some(time)) => format!("{} ago", age(now_unix_s.saturating_sub(time))),
            (None, None) => "NO".to_owned(),
        };
        rows.add_row([
            view.name.clone(),
            place.clone(),
            bytes(view.bytes),
            age(now_unix_s.saturating_sub(view.created_unix_s)),
            known(view.revision > 0, view.revision.to_string()),
            known(!view.cluster_id.is_empty(), view.cluster_id.clone()),
            verified,
        ]);
    }
    render(&mut rows)
}

/// A list that is not complete is said to be so.
fn unreached(problems: &[String]) -> Result<(), Failure> {
    if problems.is_empty() {
        return Ok(());
    }
    let message = format!("not everything was looked at\n{}", problems.join("\n"));
    Err(Failure::new(ExitCode::Unreachable, message))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::snapshots::SnapshotView;

    fn found(place: &str, name: &str, created_unix_s: u64) -> Found {
        let view = SnapshotView {
            name: name.to_owned(),
            created_unix_s,
            bytes: 2048,
            ..SnapshotView::default()
        };
        Found { place: place.to_owned(), view }
    }

    #[test]
    fn the_table_says_what_is_known() {
        let mut good = found("server1", "a-server1-100", 100);
        good.view.revision = 7;
        good.view.cluster_id = "c1".to_owned();
        good.view.verified_unix_s = Some(100);
        let mut bad = found("s3", "a-server2-160", 160);
        bad.view.problem = Some("it is cut off".to_owned());
        let shown = text(&[good, bad, found("server2", "b-server2-190", 190)], 200);
        let expected = "\
NAME            WHERE     SIZE      AGE    REVISION   CLUSTER   VERIFIED
a-server1-100   server1   2.0 KiB   100s   7          c1        100s ago
a-server2-160   s3        2.0 KiB   40s    -          -         WRONG: it is cut off
b-server2-190   server2   2.0 KiB   10s    -          -         NO";
        assert_eq!(shown, expected);
    }

    #[test]
    fn the_newest_of_each_place_are_chosen() {
        let listed = vec![found("s1", "a", 1), found("s2", "b", 2), found("s1", "c", 3)];
        let names: Vec<String> = newest(listed).into_iter().map(|found| found.view.name).collect();
        assert_eq!(names, ["b", "c"]);
    }
}
