//! `k3sup-rs status`: members, leader, quorum, certificates and nodes of a cluster.

use super::output::{self, Format};
use super::target::{self, Target};
use crate::error::{ExitCode, Failure};
use crate::report;

/// Which cluster, and how to show it.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  k3sup-rs status -i inventory.yaml\n\nEnds with 1 when the cluster has no quorum."
)]
pub struct Args {
    #[command(flatten)]
    target: Target,
    /// How to show it
    #[arg(long, short, value_enum, default_value_t)]
    output: Format,
}

/// Asks the first server that answers and prints the state. No quorum is an error, so that a script
/// can tell.
pub async fn run(args: Args) -> Result<(), Failure> {
    let view = target::cluster_view(&args.target).await?;
    match args.output {
        Format::Json => output::json(&view)?,
        Format::Text => output::line(&report::cluster::status(&view, target::now_unix_s()))?,
    }
    if view.leader_id.is_some() {
        return Ok(());
    }
    Err(Failure::new(ExitCode::Error, "the cluster has no leader that a quorum follows")
        .hint("start the servers that are down: `k3sup-rs up` with the same inventory"))
}
