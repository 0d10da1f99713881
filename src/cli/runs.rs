//! `k3sup-rs runs`: what was done from this machine, by whom, and how it came out.

use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use etcetera::BaseStrategy;

use super::output::{self, Format};
use super::{clusters, target};
use crate::error::{ExitCode, Failure};
use crate::inventory::Inventory;
use crate::report::style::Style;
use crate::report::text::{Detail, lines};
use crate::run::history::{self, Outcome, Record, Story};
use crate::run::operator::owner;
use crate::run::{Beginning, Journal};

/// What to do with the runs.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// List the runs, newest first
    #[command(visible_alias = "list")]
    Ls(Ls),
    /// Show what a run did, in order
    Show(Show),
}

/// Which runs.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  k3sup-rs runs ls
  k3sup-rs runs ls --cluster prod --limit 5
  k3sup-rs runs ls --output json

RESULT is ok, failed (with the exit code), running, or died: a run that was killed is run again, and does what is left.
Journals are in $XDG_STATE_HOME/k3sup-rs/runs; a run that only checks has none.")]
pub struct Ls {
    /// Only runs on this cluster
    #[arg(long, value_name = "NAME")]
    cluster: Option<String>,
    /// At most so many
    #[arg(long, short = 'n', default_value_t = 20, value_name = "COUNT")]
    limit: usize,
    /// How to show it
    #[arg(long, short, value_enum, default_value_t)]
    output: Format,
}

/// Which run.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  k3sup-rs runs show last
  k3sup-rs runs show 1795689600-4711
  k3sup-rs runs show last --output json")]
pub struct Show {
    /// Its name, or how it begins; `last` is the newest
    run: String,
    /// How to show it
    #[arg(long, short, value_enum, default_value_t)]
    output: Format,
}

/// Runs a command on runs.
pub fn run(command: &Command) -> Result<(), Failure> {
    match command {
        Command::Ls(args) => ls(args),
        Command::Show(args) => show(args),
    }
}

/// The first line of the journal of a run that begins now.
pub(super) fn beginning(
    id: &str,
    what: String,
    inventory_file: &Path,
    inventory: &Inventory,
) -> Beginning {
    let path = std::path::absolute(inventory_file).unwrap_or_else(|_| inventory_file.to_owned());
    Beginning {
        id: id.to_owned(),
        what,
        inventory: path.display().to_string(),
        cluster: inventory.cluster_name.clone(),
        by: owner(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    }
}

/// Begins a run's journal where [`run`] finds it.
pub(super) fn begin(beginning: &Beginning) -> Result<Journal, Failure> {
    let directory = directory()?;
    Journal::begin(&directory, beginning).map_err(|error| clusters::failed(&directory, &error))
}

/// `$XDG_STATE_HOME/k3sup-rs/runs`.
fn directory() -> Result<PathBuf, Failure> {
    let base = etcetera::choose_base_strategy()
        .map_err(|error| Failure::new(ExitCode::Error, format!("no home directory: {error}")))?;
    let state = base.state_dir().unwrap_or_else(|| base.data_dir());
    Ok(state.join("k3sup-rs/runs"))
}

fn ls(args: &Ls) -> Result<(), Failure> {
    let directory = directory()?;
    let records =
        history::list(&directory).map_err(|error| clusters::failed(&directory, &error))?;
    let wanted = |record: &Record| {
        args.cluster.as_ref().is_none_or(|cluster| record.beginning.cluster == *cluster)
    };
    let records: Vec<Record> = records.into_iter().filter(wanted).take(args.limit).collect();
    match args.output {
        Format::Json => output::json(&records),
        Format::Text => output::line(&table(&records, target::now_unix_s())),
    }
}

fn table(records: &[Record], now_unix_s: u64) -> String {
    let mut table =
        output::table(["RUN", "BEGAN", "AGE", "TOOK", "CLUSTER", "WHAT", "BY", "RESULT"]);
    for record in records {
        let took = record.last_unix_ms.saturating_sub(record.began_unix_ms);
        table.add_row([
            record.beginning.id.clone(),
            time(record.began_unix_ms),
            output::age(now_unix_s.saturating_sub(record.began_unix_ms / 1000)),
            format!("{}.{}s", took / 1000, took % 1000 / 100),
            dash(&record.beginning.cluster),
            dash(&record.beginning.what),
            dash(&record.beginning.by),
            result(record),
        ]);
    }
    output::render(&mut table)
}

fn dash(text: &str) -> String {
    if text.is_empty() { "-".to_owned() } else { text.to_owned() }
}

fn result(record: &Record) -> String {
    match (record.outcome, record.exit, &record.message) {
        (Outcome::Ok, ..) => "ok".to_owned(),
        (Outcome::Failed, Some(exit), Some(message)) => {
            let line = message.lines().next().unwrap_or_default();
            format!("failed ({exit}): {line}")
        }
        (Outcome::Failed, ..) => "failed".to_owned(),
        (Outcome::Running, ..) => "running".to_owned(),
        (Outcome::Died, ..) => "died".to_owned(),
    }
}

fn show(args: &Show) -> Result<(), Failure> {
    let directory = directory()?;
    let story = history::story(&directory, &args.run)
        .map_err(|error| clusters::failed(&directory, &error))?;
    let Some(story) = story else {
        let message = format!("there is no run `{}`, or several begin so", args.run);
        return Err(Failure::new(ExitCode::BadInput, message).hint("k3sup-rs runs ls"));
    };
    match args.output {
        Format::Json => output::json(&story),
        Format::Text => output::line(&text(&story)),
    }
}

fn text(story: &Story) -> String {
    let Record { beginning, began_unix_ms, last_unix_ms, .. } = &story.record;
    let mut shown = vec![
        format!("run        {}", beginning.id),
        format!("what       {}", dash(&beginning.what)),
        format!("cluster    {}", dash(&beginning.cluster)),
        format!("inventory  {}", dash(&beginning.inventory)),
        format!("by         {}", dash(&beginning.by)),
        format!("version    {}", dash(&beginning.version)),
        format!("began      {}", time(*began_unix_ms)),
        format!("last word  {}", time(*last_unix_ms)),
        format!("result     {}", result(&story.record)),
    ];
    let style = Style { colour: output::paints(&std::io::stdout()) };
    let detail = Detail { diff: true, verbosity: 1, style };
    for (at, event) in &story.events {
        let said = lines(event, detail);
        let clock = clock(*at);
        shown.extend(said.into_iter().map(|line| match line.as_str() {
            "" => line,
            _ => format!("{clock}  {line}"),
        }));
    }
    if story.record.damaged > 0 {
        shown.push(format!("\n{} lines of the journal cannot be read", story.record.damaged));
    }
    if story.record.outcome == Outcome::Died {
        shown.push(format!(
            "\nIt ended without a word. What it began is taken up by running it again: k3sup-rs {} -i {}",
            dash(&beginning.what),
            dash(&beginning.inventory)
        ));
    }
    shown.join("\n")
}

/// `2026-11-21T10:45:00Z`.
fn time(unix_ms: u64) -> String {
    let time = UNIX_EPOCH.checked_add(Duration::from_millis(unix_ms));
    time.map_or_else(|| "?".to_owned(), |at| humantime::format_rfc3339_seconds(at).to_string())
}

/// `10:45:00.123`, of the same zone.
fn clock(unix_ms: u64) -> String {
    let time = UNIX_EPOCH.checked_add(Duration::from_millis(unix_ms));
    let text = time.map(|at| humantime::format_rfc3339_millis(at).to_string());
    text.and_then(|text| text.get(11..23).map(str::to_owned)).unwrap_or_default()
}
