//! `k3sup-rs doctor`: what is wrong with a living cluster, why most likely, and what to do.

use super::output::{self, Format};
use super::preflight::{json, look, worst};
use super::target::Target;
use crate::cluster::checks::Severity;
use crate::error::{ExitCode, Failure};
use crate::report;
use crate::report::style::Style;
use crate::run::Purpose;

/// Which cluster, and how to show what was found.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  k3sup-rs doctor -i inventory.yaml                  what is wrong, and what to do about it
  k3sup-rs doctor -i inventory.yaml --all            with all that is fine
  k3sup-rs doctor -i inventory.yaml --output json    for programs

All that `preflight` looks at, and the cluster itself: quorum, members, learners, lag, changes of the
leader, alarms, quota, certificates, and the counters of each member. Each finding has the value that was
measured, the likely cause, why it matters, and the command to run now.

Ends with 0 when nothing is bad (there may be warnings), else with 1.")]
pub struct Args {
    #[command(flatten)]
    target: Target,
    /// Only these hosts: a pattern such as `agents`, `server1,server2` or `all:!agent3`
    #[arg(long, short)]
    limit: Option<String>,
    /// Show also what is as it should be
    #[arg(long, short)]
    all: bool,
    /// How to show it
    #[arg(long, short, value_enum, default_value_t)]
    output: Format,
}

/// Looks, and tells what is wrong.
pub async fn run(args: Args) -> Result<(), Failure> {
    let limit = args.limit.as_deref();
    let findings = look(&args.target, limit, &[], Purpose::Doctor).await?;
    match args.output {
        Format::Json => json(&findings, false)?,
        Format::Text => {
            if args.all {
                output::line(&format!("{}\n", report::checks::lines(&findings)))?;
            }
            let style = Style { colour: output::paints(&std::io::stdout()) };
            output::line(&report::checks::diagnosis(&findings, style))?;
        }
    }
    if worst(&findings) < Severity::Bad {
        return Ok(());
    }
    let bad = findings.iter().filter(|finding| finding.severity == Severity::Bad).count();
    let message = format!("{}: see above", report::checks::count(bad, "bad finding"));
    Err(Failure::new(ExitCode::Error, message))
}
