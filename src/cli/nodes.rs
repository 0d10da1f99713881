//! `k3sup-rs nodes`: the nodes of a cluster, like `kubectl get nodes`.

use super::output::{self, Format};
use super::target::{self, Target};
use crate::error::Failure;
use crate::report;

/// Which cluster, and how to show it.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  k3sup-rs nodes -i inventory.yaml\n  k3sup-rs nodes -i inventory.yaml --wide"
)]
pub struct Args {
    #[command(flatten)]
    target: Target,
    /// Add addresses, operating system and kernel
    #[arg(long, short)]
    wide: bool,
    /// How to show it
    #[arg(long, short, value_enum, default_value_t)]
    output: Format,
}

/// Asks the first server that answers and prints the list.
pub async fn run(args: Args) -> Result<(), Failure> {
    let view = target::cluster_view(&args.target).await?;
    match args.output {
        Format::Json => output::json(&view.nodes),
        Format::Text => {
            output::line(&report::cluster::nodes(&view.nodes, target::now_unix_s(), args.wide))
        }
    }
}
