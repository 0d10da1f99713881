//! `k3sup-rs remove NODE`: a node leaves the cluster for good, and everything that named it follows.

use super::playbook::RunArgs;
use super::{ask, leaving};
use crate::error::Failure;

/// Which node leaves, and how.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  k3sup-rs remove server3 -i inventory.yaml           the member, the node, its host's files
  k3sup-rs remove agent2 -i inventory.yaml --check    what would be done

The member and the node's record go, with them the claim on its name; the host, if it can be reached, is
cleared of the node and ALL ITS DATA; load balancers and `server:` of the others no longer name it. It is
refused when it would cost quorum. At the end it says which lines to take out of the inventory: as long
as the node is there, `up` brings it back.")]
pub struct Args {
    /// The node
    pub node: String,
    /// How to run
    #[command(flatten)]
    pub run: RunArgs,
}

/// Asks, then removes.
pub async fn run(args: Args) -> Result<(), Failure> {
    let run = &args.run;
    let mut leaver = leaving::judge(run, &args.node).await?;
    if !run.check {
        let left = match (&leaver.leaving.member, leaver.leaving.voters_left) {
            (None, _) => String::new(),
            (Some(_), voters) => format!(
                "; {voters} voters are left, which survive {} failures",
                leaver.leaving.survives
            ),
        };
        let data =
            if leaver.reachable { " and ALL ITS DATA" } else { " (its host cannot be reached)" };
        let question = format!(
            "Remove {}{data} from cluster {}{left}?",
            leaver.words(),
            leaver.inventory.cluster_name
        );
        ask::confirm(&question, run.yes)?;
    }
    let mut changed = leaver.leave(run, "remove.yml").await?;
    let rest = leaver.inventory.clone().without(&args.node);
    changed |= leaver.settle(run, rest).await?;
    let places = leaver.inventory.places_of(&args.node);
    if !places.is_empty() {
        let head =
            format!("{} is out of the cluster. Take it out of the inventory, too:", args.node);
        leaving::tell(
            run,
            &head,
            &places,
            "As long as it is there, `k3sup-rs up` brings it back.",
        )?;
    }
    leaving::ended(run, changed)
}
