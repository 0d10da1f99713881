//! `k3sup-rs reset`: hosts become as they were before `up`.

use super::ask;
use super::playbook::{self, Purpose, RunArgs};
use super::target;
use crate::error::Failure;

/// What to take down, and how.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  k3sup-rs reset -i inventory.yaml                  the whole cluster, with all its data
  k3sup-rs reset -i inventory.yaml --limit agent2   one agent
  k3sup-rs reset -i inventory.yaml --check          what would be removed

The cluster's token and the client bundle stay on this machine.")]
pub struct Args {
    /// How to run
    #[command(flatten)]
    pub run: RunArgs,
}

/// Asks, then removes.
pub async fn run(args: Args) -> Result<(), Failure> {
    if !args.run.check {
        let inventory = target::inventory(&args.run.inventory, &args.run.extra_vars)?;
        let which = args.run.limit.as_deref().map_or_else(
            || inventory.hosts.iter().map(|host| host.name.as_str()).collect::<Vec<_>>().join(", "),
            |limit| format!("the hosts of `{limit}`"),
        );
        let question = format!(
            "Stop the nodes of cluster {} on {which} and remove ALL THEIR DATA?",
            inventory.cluster_name
        );
        ask::confirm(&question, args.run.yes)?;
    }
    // Without a limit the cluster is meant to end: nothing is left whose quorum could be lost.
    let purpose = Purpose::Reset { whole: args.run.limit.is_none() };
    let finished = playbook::run(&args.run, "reset.yml", purpose).await?;
    playbook::ended(&finished.summary, args.run.check)
}
