//! `k3sup-rs up`: from an inventory to a running cluster, in whatever state the hosts are.

use super::output::{self, Format};
use super::playbook::{self, Finished, Preflight, Purpose, RunArgs};
use super::{bundle, clusters, kubeconfig};
use crate::cluster::layout::Distribution;
use crate::error::Failure;

/// The playbook that brings a cluster up.
pub(super) const PLAYBOOK: &str = "site.yml";

/// What to bring up, and how.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  k3sup-rs up -i inventories/lab.yaml            a cluster on this machine, to try it out
  k3sup-rs up -i inventory.yaml --check --diff   what would be changed, and why
  k3sup-rs up -i inventory.yaml --limit agents   only the agents

Run it again whenever something is not as it should be: it looks, and does what is left. A server
that lost its disk joins the others again; the cluster is never founded twice.")]
pub struct Args {
    /// How to run
    #[command(flatten)]
    pub run: RunArgs,
    /// Do not look at fresh hosts for what would stop a node: ports, room, clock, network, disk
    #[arg(long)]
    pub skip_preflight: bool,
    /// Go on although such a check refuses (a slow disk, a wrong clock, a port that is not reached); what
    /// could cost data or quorum is still refused
    #[arg(long)]
    pub force: bool,
}

/// Brings the cluster up and says how to reach it.
pub async fn run(mut args: Args) -> Result<(), Failure> {
    args.run.preflight = Preflight { skip: args.skip_preflight, force: args.force };
    let finished = playbook::run(&args.run, PLAYBOOK, Purpose::Up).await?;
    playbook::ended(&finished.summary, args.run.check)?;
    if args.run.check {
        return Ok(());
    }
    if finished.inventory.distribution == Distribution::K3s {
        return k3s_is_up(&args, &finished).await;
    }
    keep_bundle(&finished).await?;
    if args.run.output == Format::Text {
        let name = &finished.inventory.cluster_name;
        output::line(&bundle::how_to_reach(&args.run.inventory, name)?)?;
    }
    Ok(())
}

/// Keeps the administrator's kubeconfig and says how to use it.
async fn k3s_is_up(args: &Args, finished: &Finished) -> Result<(), Failure> {
    let path = kubeconfig::keep(&finished.inventory, &finished.reach).await?;
    if args.run.output != Format::Text {
        return Ok(());
    }
    let inventory = args.run.inventory.to_string_lossy();
    let inventory = shell_words::quote(&inventory);
    output::line(&format!(
        "\nThe cluster is up. To look at it and to use it:\n  k3sup-rs nodes -i {inventory}\n  kubectl \
         --kubeconfig {} get nodes\n  k3sup-rs kubeconfig -i {inventory}    # merges it into your own",
        shell_words::quote(&path.to_string_lossy())
    ))
}

/// Fetches the client bundle when something was changed or it is not there yet.
pub(super) async fn keep_bundle(finished: &Finished) -> Result<(), Failure> {
    let inventory = &finished.inventory;
    let env = clusters::directory(&inventory.cluster_name)?.join("etcdctl.env");
    if env.exists() && !finished.summary.changed {
        return Ok(());
    }
    bundle::refresh(inventory, &finished.reach).await
}
