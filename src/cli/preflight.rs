//! `k3sup-rs preflight`: looks at all hosts before anything is changed on any. And what it shares with
//! `doctor`: to look, to show, and to end.

use std::io::IsTerminal as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use serde::Serialize;

use super::output::{self, Format};
use super::target::{self, Target};
use super::{clusters, playbook};
use crate::cluster::checks::{Check, Finding, Severity, exit_code, refusal};
use crate::error::{ExitCode, Failure};
use crate::inventory::Inventory;
use crate::remote::Progress;
use crate::report;
use crate::report::style::Style;
use crate::run::event::{Event, EventSink};
use crate::run::reach::{Reach, fleet};
use crate::run::{Job, Library, Options, Purpose, examine};

/// Which hosts, and how to show what was found.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  k3sup-rs preflight -i inventory.yaml                  a table: hosts and checks
  k3sup-rs preflight -i inventory.yaml | grep fsync     a line for each host and check
  k3sup-rs preflight -i inventory.yaml --limit agent3   only this host, and what concerns all
  k3sup-rs preflight -i inventory.yaml --output json    for programs

Looks and changes nothing that stays: a small file is written and removed to see how fast a disk is, and
ports are listened on for a moment so that the other hosts can try them. docs/preflight.md has all checks
with their thresholds. `up` does the same for hosts that have no data yet.

Ends with 0 when a cluster can come up, 2 when a host is not fit, 4 when one cannot be reached, 5 when
settings differ, 6 when it would be refused: see docs/exit-codes.md.")]
pub struct Args {
    #[command(flatten)]
    target: Target,
    /// Only these hosts: a pattern such as `agents`, `server1,server2` or `all:!agent3`
    #[arg(long, short)]
    limit: Option<String>,
    /// Variables as `key=value`, a mapping or `@file`; they win over the inventory's
    #[arg(long, short = 'e', value_name = "VARS")]
    extra_vars: Vec<String>,
    /// End well in spite of what `up --force` would go past
    #[arg(long)]
    force: bool,
    /// How to show it
    #[arg(long, short, value_enum, default_value_t)]
    output: Format,
}

/// Looks and shows.
pub async fn run(args: Args) -> Result<(), Failure> {
    let limit = args.limit.as_deref();
    let findings = look(&args.target, limit, &args.extra_vars, Purpose::Preflight).await?;
    match args.output {
        Format::Json => json(&findings, args.force)?,
        Format::Text => {
            let style = Style { colour: output::paints(&std::io::stdout()) };
            let text = if std::io::stdout().is_terminal() {
                report::checks::table(&findings, style)
            } else {
                report::checks::lines(&findings)
            };
            output::line(&text)?;
            let wrong = report::checks::wrong(&findings, style);
            if !wrong.is_empty() {
                output::line(&format!("\n{wrong}"))?;
            }
        }
    }
    let stopping: Vec<&Finding> =
        findings.iter().filter(|finding| finding.stops(args.force)).collect();
    if stopping.is_empty() {
        return Ok(());
    }
    let message = format!("{} would stop `up`", report::checks::count(stopping.len(), "finding"));
    let mut failure = Failure::new(exit_code(&stopping), message)
        .hint("nothing was changed on any host; mend what is named above and look again");
    if stopping.iter().all(|finding| finding.forceable) {
        failure = failure.hint("`up --force` goes on all the same");
    }
    Err(failure)
}

/// Looks at all hosts of the inventory, or at those that `limit` leaves.
pub(super) async fn look(
    target: &Target,
    limit: Option<&str>,
    extra_vars: &[String],
    purpose: Purpose,
) -> Result<Vec<Finding>, Failure> {
    let inventory = target::inventory(&target.inventory, extra_vars)?;
    if inventory.servers().next().is_none() {
        return Err(Failure::new(ExitCode::BadInput, "no host is in the group `servers`"));
    }
    let told = |host: &str, progress: Progress| {
        if let Progress::Warning(message) = progress {
            output::error(&format!("warning: {host}: {message}"));
        }
    };
    // A cluster that is to come up on a lab has no hosts before somebody starts them.
    let starts = purpose == Purpose::Preflight;
    let reach = Reach::new(&inventory, &target.asked()?, starts, Arc::new(told))
        .with_binaries(target.bin_dir.as_deref());
    look_at(&inventory, &target.inventory, limit, &reach, purpose).await
}

/// Looks at the hosts of `inventory`, whose file is at `path`.
async fn look_at(
    inventory: &Inventory,
    path: &Path,
    limit: Option<&str>,
    reach: &Reach,
    purpose: Purpose,
) -> Result<Vec<Finding>, Failure> {
    let token = clusters::known_token(inventory)?.unwrap_or_default();
    let (id, stamp) = playbook::run_id();
    let job = Job {
        playbook: "",
        library: Library::built_in(),
        fleet: fleet(inventory, token),
        options: Options { check: true, limit: limit.map(str::to_owned), ..Options::default() },
        connector: reach,
        id,
        stamp,
        journal: None,
        interrupted: Arc::new(AtomicBool::new(false)),
    };
    let path = path.to_string_lossy();
    let (_, findings) = examine(job, purpose, &shell_words::quote(&path), &mut Quiet).await?;
    Ok(findings)
}

/// Looks whether a node can come up on the host called `name`, before it takes a place in a cluster
/// that lives.
///
/// # Errors
/// What would stop it.
pub(super) async fn fit(
    inventory: &Inventory,
    path: &Path,
    reach: &Reach,
    name: &str,
    force: bool,
) -> Result<(), Failure> {
    let findings = look_at(inventory, path, None, reach, Purpose::Preflight).await?;
    // Which data it has is judged when it joins; and what is wrong with the others is no reason.
    let counts = |found: &&Finding| {
        found.host.as_deref() == Some(name) && !matches!(found.check, Check::Reach | Check::Data)
    };
    let stopping: Vec<&Finding> =
        findings.iter().filter(counts).filter(|found| found.stops(force)).collect();
    if stopping.is_empty() { Ok(()) } else { Err(refusal(&stopping)) }
}

/// What happens on the way is in the findings; only warnings are told at once.
struct Quiet;

impl EventSink for Quiet {
    fn event(&mut self, event: &Event) {
        if let Event::Warning { message } = event {
            output::error(&format!("warning: {message}"));
        }
    }
}

/// What programs read.
#[derive(Serialize)]
struct Report<'a> {
    /// Nothing stops a run.
    ok: bool,
    findings: &'a [Finding],
}

/// Prints the findings for programs.
pub(super) fn json(findings: &[Finding], force: bool) -> Result<(), Failure> {
    let ok = !findings.iter().any(|finding| finding.stops(force));
    output::json(&Report { ok, findings })
}

/// The worst that was found.
pub(super) fn worst(findings: &[Finding]) -> Severity {
    findings.iter().map(|finding| finding.severity).max().unwrap_or(Severity::Good)
}
