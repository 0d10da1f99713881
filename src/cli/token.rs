//! `k3sup-rs token`: the cluster's token, where it is kept, and a new one.

use std::path::PathBuf;

use super::certificate::Here;
use super::playbook::{self, Purpose, RunArgs};
use super::target::{self, Target};
use super::{ask, clusters, output};
use crate::cluster::k3s::token::check_new;
use crate::cluster::layout::Distribution;
use crate::error::{ExitCode, Failure};
use crate::inventory::Inventory;
use crate::pki::{Token, files, token};
use crate::run::RunSummary;
use crate::run::reach::Asked;
use crate::secret::Secret;

/// What to do with the token.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Print the token that servers and agents join with
    Show(Show),
    /// Give the cluster a new token; the old one is worth nothing afterwards
    Rotate(Rotate),
}

/// How to replace it.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  k3sup-rs token rotate -i inventory.yaml                          a new token is made
  k3sup-rs token rotate -i inventory.yaml --new-token-file FILE    this one
  k3sup-rs token rotate --data-dir /var/lib/k3sup < FILE           on a host: through its own node

The servers take it one after another; token files of servers, agents and this machine follow. No node is restarted, but those of
K3s, which it wants: one server at a time behind health gates, then the agents. When the inventory itself has the token, change it
there first, then run this. Killed at any point: run it again.
Keep the old token with the snapshots that were taken with it: this machine does, beside the new one.")]
pub struct Rotate {
    /// How to run
    #[command(flatten)]
    run: RunArgs,
    /// File with the new token [default: a token is made]
    #[arg(long, value_name = "FILE")]
    new_token_file: Option<PathBuf>,
    /// This host's node
    #[command(flatten)]
    node: Here,
}

/// Which cluster's.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  k3sup-rs token show -i inventory.yaml
  k3sup-rs token show -i inventory.yaml --path   where it is kept; keep a copy with your backups")]
pub struct Show {
    /// Which cluster
    #[command(flatten)]
    target: Target,
    /// Only say where it is kept
    #[arg(long)]
    path: bool,
}

/// Runs a token command.
pub async fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Show(args) => show(&args),
        Command::Rotate(args) => rotate(args).await,
    }
}

async fn rotate(args: Rotate) -> Result<(), Failure> {
    let given = args.new_token_file.as_ref().map(|path| {
        let text = std::fs::read_to_string(path).map_err(|error| clusters::failed(path, &error))?;
        let token = Token::parse(&text).map_err(|error| {
            Failure::new(ExitCode::BadInput, format!("{}: {error}", path.display()))
        })?;
        Ok::<Secret, Failure>(token.password)
    });
    let given = given.transpose()?;
    if args.node.is_meant(&args.run.inventory) {
        return args.node.rotate_token(given).await;
    }
    let inventory = target::inventory(&args.run.inventory, &args.run.extra_vars)?;
    let cluster = inventory.cluster_name.clone();
    let mut asked = None;
    if inventory.distribution == Distribution::K3s {
        k3s_can(&args.run, &inventory, given.as_ref(), &mut asked).await?;
    }
    if args.run.check {
        let finished =
            playbook::run_on(&args.run, inventory, &mut asked, "token-rotate.yml", Purpose::Tend)
                .await?;
        return playbook::ended(&finished.summary, true);
    }
    let question = match inventory.distribution {
        Distribution::Embedded => {
            format!("Replace the token of cluster {cluster}? The old one ends")
        }
        Distribution::K3s => format!(
            "Replace the token of cluster {cluster}? The old one ends, and all nodes are restarted"
        ),
    };
    ask::confirm(&question, args.run.yes)?;
    let kept_here = inventory.token.is_none();
    let new = match &inventory.token {
        Some(_) if given.is_some() => {
            let message = "the inventory has the token: the new one belongs there";
            return Err(Failure::new(ExitCode::BadInput, message)
                .hint("change it in the inventory and leave out --new-token-file"));
        }
        Some(token) => token.clone(),
        None => clusters::next_token(&cluster, given)?,
    };
    let finished = playbook::run_as(&args.run, &mut asked, "token-rotate.yml", new).await?;
    playbook::ended(&finished.summary, false)?;
    if kept_here {
        let old = clusters::take_next_token(&cluster)?;
        output::line(&format!("\nThe old token is kept in {}.", old.display()))?;
    }
    output::line(&format!("Token rotated: k3sup-rs token show -i {}", args.run.inventory.display()))
}

/// Whether the K3s of all servers can go over to a token that is `given`, in the inventory, or made.
/// Asked before a new one is made: from then on nothing else is done with the cluster until all have it.
async fn k3s_can(
    run: &RunArgs,
    inventory: &Inventory,
    given: Option<&Secret>,
    asked: &mut Option<Asked>,
) -> Result<(), Failure> {
    let bad = |why: &str| Failure::new(ExitCode::BadInput, format!("the new token: {why}"));
    if let Some(text) = given.or(inventory.token.as_ref()) {
        let token = Token::parse(text.expose()).map_err(|error| bad(&error.to_string()))?;
        check_new(&token).map_err(bad)?;
    }
    if run.limit.is_some() {
        let message =
            "the token is the whole cluster's: a node that was left out could not start again";
        return Err(Failure::new(ExitCode::BadInput, message).hint("leave out --limit"));
    }
    let ask = RunArgs { tags: vec!["ask".to_owned()], ..run.clone() };
    let finished = playbook::run_as(&ask, asked, "token-rotate.yml", Secret::default()).await?;
    let summary = finished.summary;
    let away: Vec<&str> = inventory
        .servers()
        .map(|server| server.name.as_str())
        .filter(|name| summary.unreachable.iter().any(|away| away == name))
        .collect();
    if !away.is_empty() {
        let message = format!("cannot reach {}: nothing was changed", away.join(", "));
        return Err(Failure::new(ExitCode::Unreachable, message).hint(
            "a server that keeps the old token could not start again: bring it back or `remove` it",
        ));
    }
    playbook::ended(&RunSummary { unreachable: Vec::new(), ..summary }, false)
}

fn show(show: &Show) -> Result<(), Failure> {
    let inventory = target::inventory(&show.target.inventory, &[])?;
    if show.path {
        let path = clusters::token_file(&inventory.cluster_name)?;
        return output::line(&path.display().to_string());
    }
    let Some(secret) = clusters::known_token(&inventory)? else {
        let message = format!("cluster {} has no token yet", inventory.cluster_name);
        return Err(Failure::new(ExitCode::Error, message).hint("`k3sup-rs up` makes one"));
    };
    let token = Token::parse(secret.expose())
        .map_err(|error| Failure::new(ExitCode::BadInput, error.to_string()))?;
    output::line(full(token, &inventory.cluster_name)?.text().expose())
}

/// With the CA's hash in front, when the client bundle has the CA.
pub(super) fn full(token: Token, cluster: &str) -> Result<Token, Failure> {
    let path = clusters::directory(cluster)?.join("ca.crt");
    let ca = files::read_private(&path).map_err(|error| clusters::failed(&path, &error))?;
    Ok(match (ca, &token.ca_hash) {
        (Some(ca), None) => {
            let signing = token::split(&ca).first().copied().unwrap_or(&ca).to_owned();
            Token::full(&signing, "server", token.password)
        }
        _ => token,
    })
}
