//! `k3sup-rs certificate`: what the certificates of a cluster or of this host's node say, new ones,
//! and new CAs.

mod check;
mod node;

pub use node::Here;

use super::playbook::{self, Purpose, RunArgs};
use super::{ask, bundle, clusters, output, target};
use crate::cluster::layout::Distribution;
use crate::error::{ExitCode, Failure};
use crate::inventory::Inventory;
use crate::node::supervisor::rotation::Stage;
use crate::pki::Token;

/// What to do with certificates.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Show all certificates of a cluster, or of this host's node: until when, from whom
    Check(check::Check),
    /// Make the certificates of all nodes anew, or those of this host's node
    Rotate(Rotate),
    /// Replace the cluster's CAs, while it runs
    RotateCa(RotateCa),
}

/// Which certificates.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  k3sup-rs certificate rotate -i inventory.yaml            all servers, one after another, then the agents
  k3sup-rs certificate rotate -i inventory.yaml --check    what would be done
  k3sup-rs certificate rotate --data-dir /var/lib/k3sup    on a host: its own node

No node is restarted and no connection is cut: new connections show the new certificates. What the old certificates prove holds until
they expire; to end that, replace the CAs: k3sup-rs certificate rotate-ca")]
pub struct Rotate {
    /// How to run
    #[command(flatten)]
    run: RunArgs,
    /// This host's node
    #[command(flatten)]
    node: node::Here,
}

/// How to roll over.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  k3sup-rs certificate rotate-ca -i inventory.yaml                  asks before the second and the third stage
  k3sup-rs certificate rotate-ca -i inventory.yaml --until trust    the first stage: give clients the new ca.crt, and run it again
  k3sup-rs certificate rotate-ca -i inventory.yaml --yes            all three stages at once

Stages: trust (all nodes believe the new CAs beside the old ones; ca.crt of the client bundle has both), sign (servers show
certificates of the new CAs), drop (the old CAs are believed no longer). A client must have the new ca.crt before `sign`, and a
certificate of the new CA before `drop`. Killed at any point: run it again. docs/operations/certificates.md")]
pub struct RotateCa {
    /// How to run
    #[command(flatten)]
    run: RunArgs,
    /// Stop after this stage
    #[arg(long, value_enum)]
    until: Option<Stage>,
    /// On a host: take this stage on its own node
    #[arg(long, value_enum, hide = true)]
    stage: Option<Stage>,
    /// This host's node
    #[command(flatten)]
    node: node::Here,
}

/// Runs a command on certificates.
pub async fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Check(args) => check::run(args).await,
        Command::Rotate(args) => rotate(args).await,
        Command::RotateCa(args) => rotate_ca(args).await,
    }
}

async fn rotate(args: Rotate) -> Result<(), Failure> {
    if args.node.is_meant(&args.run.inventory) {
        return args.node.rotate().await;
    }
    let finished = playbook::run(&args.run, "certificate-rotate.yml", Purpose::Tend).await?;
    if !args.run.check && finished.inventory.distribution == Distribution::Embedded {
        bundle::refresh(&finished.inventory, &finished.reach).await?;
    }
    playbook::ended(&finished.summary, args.run.check)
}

async fn rotate_ca(args: RotateCa) -> Result<(), Failure> {
    if let Some(stage) = args.stage {
        return args.node.roll(stage).await;
    }
    let inventory = target::inventory(&args.run.inventory, &args.run.extra_vars)?;
    check_possible(&inventory)?;
    if args.run.check {
        let finished =
            playbook::run(&args.run, "certificate-rotate-ca-trust.yml", Purpose::Tend).await?;
        return playbook::ended(&finished.summary, true);
    }
    let cluster = &inventory.cluster_name;
    ask::confirm(&format!("Replace the CAs of cluster {cluster}?"), args.run.yes)?;
    take(&args.run, "certificate-rotate-ca-trust.yml").await?;
    let ca = clusters::directory(cluster)?.join("ca.crt");
    let ca = ca.display();
    output::line(&format!("\nAll nodes believe the old CAs and the new ones. {ca} has both."))?;
    if args.until == Some(Stage::Trust) {
        return output::line("Give it to all clients, then run this again without --until.");
    }
    let question =
        format!("Do all clients of {cluster} have the new {ca}? From here on they need it");
    ask::confirm(&question, args.run.yes)?;
    take(&args.run, "certificate-rotate-ca-sign.yml").await?;
    output::line("\nAll servers show certificates of the new CAs.")?;
    if args.until == Some(Stage::Sign) {
        let next = "Give clients certificates of the new CA (client.crt and client.key there), then run \
                    this again without --until.";
        return output::line(next);
    }
    let question = format!(
        "Do all clients of {cluster} have certificates of the new CA? The old ones end here"
    );
    ask::confirm(&question, args.run.yes)?;
    take(&args.run, "certificate-rotate-ca-drop.yml").await?;
    output::line(&format!(
        "\nThe old CAs are believed no longer. The token's first part is another now: k3sup-rs token show -i {}\n\
         Connections that clients opened before stay open until they close them, or servers are restarted.",
        args.run.inventory.display()
    ))
}

/// One stage on all nodes, and the client bundle as it is then.
async fn take(args: &RunArgs, playbook: &str) -> Result<(), Failure> {
    let finished = playbook::run(args, playbook, Purpose::Tend).await?;
    playbook::ended(&finished.summary, false)?;
    bundle::refresh(&finished.inventory, &finished.reach).await
}

fn check_possible(inventory: &Inventory) -> Result<(), Failure> {
    if inventory.distribution == Distribution::K3s {
        let message = "new CAs for K3s are not made here";
        return Err(Failure::new(ExitCode::Refused, message)
            .hint("use `k3s certificate rotate-ca` on a server, then restart servers and agents"));
    }
    let Some(token) = &inventory.token else { return Ok(()) };
    if Token::parse(token.expose()).is_ok_and(|token| token.ca_hash.is_some()) {
        let message =
            "the inventory has the token in the full form, whose first part is the CA's hash";
        return Err(Failure::new(ExitCode::BadInput, message)
            .hint("give only what stands behind `::server:`; the rest is put before it"));
    }
    Ok(())
}
