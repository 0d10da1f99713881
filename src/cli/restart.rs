//! `k3sup-rs restart`: every node, one server at a time, without an outage.

use super::ask;
use super::playbook::{self, Purpose, RunArgs};
use super::target;
use crate::error::Failure;

/// What to restart, and how.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  k3sup-rs restart -i inventory.yaml                   all nodes, the leader last
  k3sup-rs restart -i inventory.yaml --check           in which order
  k3sup-rs restart -i inventory.yaml --limit agents    only the agents
  k3sup-rs restart -i inventory.yaml --limit server2   one server

A server is stopped only when the others are enough without it: voters, caught up, nobody joining. It
hands leadership over first, and the next one waits until it votes again and has caught up.")]
pub struct Args {
    /// How to run
    #[command(flatten)]
    pub run: RunArgs,
}

/// Asks, then restarts.
pub async fn run(args: Args) -> Result<(), Failure> {
    if !args.run.check {
        let inventory = target::inventory(&args.run.inventory, &args.run.extra_vars)?;
        let which = args.run.limit.as_deref().map_or("all nodes", |limit| limit);
        let question = format!("Restart {which} of cluster {}?", inventory.cluster_name);
        ask::confirm(&question, args.run.yes)?;
    }
    let finished = playbook::run(&args.run, "restart.yml", Purpose::Tend).await?;
    playbook::ended(&finished.summary, args.run.check)
}
