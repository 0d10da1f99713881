//! `k3sup-rs up`: from an inventory to a running cluster, in whatever state the hosts are.

use super::output::{self, Format};
use super::playbook::{self, Finished, RunArgs};
use super::{bundle, clusters, kubeconfig, target};
use crate::cluster::layout::Distribution;
use crate::error::Failure;

/// The playbook that brings a cluster up.
pub const PLAYBOOK: &str = "site.yml";

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
}

/// Brings the cluster up and says how to reach it.
pub async fn run(args: Args) -> Result<(), Failure> {
    let finished = playbook::run(&args.run, PLAYBOOK, false).await?;
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
async fn keep_bundle(finished: &Finished) -> Result<(), Failure> {
    let inventory = &finished.inventory;
    let env = clusters::directory(&inventory.cluster_name)?.join("etcdctl.env");
    if env.exists() && !finished.summary.changed {
        return Ok(());
    }
    let (host, view) = target::view_of_any(inventory, &finished.reach).await?;
    let mut endpoints: Vec<String> =
        view.members.iter().flat_map(|member| member.client_urls.clone()).collect();
    // Loopback is for the servers themselves. A lab's addresses are loopback, too, but not this.
    endpoints.retain(|url| !url.starts_with("https://127.0.0.1:"));
    let mut session = target::session(&finished.reach, host).await?;
    bundle::fetch(inventory, session.as_mut(), &endpoints).await
}
