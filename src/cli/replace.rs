//! `k3sup-rs replace NODE`: a fresh node in the place of one that is dead or damaged.

use std::sync::Arc;

use super::leaving::{self, Leaver};
use super::playbook::{Preflight, RunArgs};
use super::{ask, preflight, target};
use crate::cluster::members::adds_first;
use crate::error::{ExitCode, Failure};
use crate::inventory::Inventory;
use crate::run::reach::Reach;

/// Which node is replaced, and by what.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  k3sup-rs replace server2 -i inventory.yaml                    the same host, with fresh data
  k3sup-rs replace server2 -i inventory.yaml --with 10.0.0.12   the same name on a new host
  k3sup-rs replace server2 -i inventory.yaml --with server4     another host of the inventory

The old member and node go, what data can be reached is set aside (not removed), and the new one joins as
a learner and then votes. With another host, and the old one working, the new one joins first. Load
balancers and `server:` of the others follow. It is refused when it would cost quorum. Killed in the
middle: run it again.")]
pub struct Args {
    /// The node
    pub node: String,
    /// A new address for it, or the name of another host of the inventory
    #[arg(long, value_name = "HOST")]
    pub with: Option<String>,
    /// Do not look whether the host that joins is fit
    #[arg(long)]
    pub skip_preflight: bool,
    /// Go on although such a check refuses (a slow disk, a wrong clock, a port that is not reached)
    #[arg(long)]
    pub force: bool,
    /// How to run
    #[command(flatten)]
    pub run: RunArgs,
}

/// What takes the node's place.
enum By {
    /// Itself, with fresh data.
    Itself,
    /// A host at another address, with its name.
    Address(Box<Inventory>, String),
    /// Another host of the inventory.
    Host(String),
}

/// Asks, then replaces.
pub async fn run(mut args: Args) -> Result<(), Failure> {
    // It is looked at before anything leaves: after that it cannot wait for a better machine.
    args.run.preflight = Preflight { skip: true, force: true };
    let run = &args.run;
    let mut leaver = leaving::judge(run, &args.node).await?;
    let by = by(&args, &leaver).await?;
    if !run.check {
        let place = match &by {
            By::Itself => "by itself with fresh data (what is there is set aside)".to_owned(),
            By::Address(_, address) => format!("by a fresh host at {address}"),
            By::Host(name) => format!("by {name}"),
        };
        let cluster = &leaver.inventory.cluster_name;
        let question = format!("Replace {} {place} in cluster {cluster}?", leaver.words());
        ask::confirm(&question, run.yes)?;
    }
    let changed = match by {
        By::Itself => {
            let changed = leaver.leave(run, "replace.yml").await?;
            let all = leaver.inventory.clone();
            changed | leaver.settle(run, all).await?
        }
        By::Address(moved, address) => {
            let changed =
                leaver.leave(run, "replace.yml").await? | leaver.settle(run, *moved).await?;
            let places = leaver.inventory.places_of(&args.node);
            let head = format!("{} is at {address} now. Say so in the inventory:", args.node);
            let then = format!("there `ansible_host: {address}`");
            leaving::tell(run, &head, &places, &then)?;
            changed
        }
        By::Host(name) => {
            let mut changed = false;
            if adds_first(&leaver.leaving) {
                let all = leaver.inventory.clone();
                changed |= leaver.settle(run, all).await?;
            }
            changed |= leaver.leave(run, "remove.yml").await?;
            let rest = leaver.inventory.clone().without(&args.node);
            changed |= leaver.settle(run, rest).await?;
            let places = leaver.inventory.places_of(&args.node);
            let head = format!(
                "{name} has taken the place of {}. Take that out of the inventory:",
                args.node
            );
            let then = "As long as it is there, `k3sup-rs up` brings it back.";
            leaving::tell(run, &head, &places, then)?;
            changed
        }
    };
    leaving::ended(run, changed)
}

/// Finds out what takes the place, and that it can be reached: nothing leaves before that.
async fn by(args: &Args, leaver: &Leaver) -> Result<By, Failure> {
    let bad = |why: String| Failure::new(ExitCode::BadInput, why);
    let inventory = &leaver.inventory;
    let old = inventory.host(&args.node);
    let Some(with) = &args.with else {
        let Some(_) = old else {
            return Err(bad(format!("{} is not in the inventory", args.node)).hint(
                "`k3sup-rs remove` takes a node out of the cluster that no host is left of",
            ));
        };
        if !leaver.reachable {
            let message = format!("{} cannot be reached, so it cannot join again", args.node);
            return Err(Failure::new(ExitCode::Unreachable, message).hint(
                "start the host (its disk may be empty), or give `--with` a new address or another host of \
                 the inventory; nothing was changed",
            ));
        }
        // A host whose node works is fit for one.
        if !args.run.check && !leaver.leaving.healthy {
            let asked = leaver.asked.clone().unwrap_or_default();
            let reach = Reach::new(inventory, &asked, true, Arc::new(|_, _| {}))
                .with_binaries(args.run.bin_dir.as_deref());
            fit(args, inventory, &reach, &args.node).await?;
        }
        return Ok(By::Itself);
    };
    let (by, there, name) = if let Some(new) = inventory.host(with) {
        if new.name == args.node {
            return Err(bad(format!("{with} cannot replace itself under another name"))
                .hint("leave `--with` out: the same host then joins with fresh data"));
        }
        if old.is_some_and(|old| old.role() != new.role()) {
            return Err(bad(format!(
                "{with} and {} are in groups of different meaning",
                args.node
            )));
        }
        (By::Host(with.clone()), inventory.clone(), with.as_str())
    } else {
        let Some(old) = old else {
            let hint = format!(
                "add a line such as `{with}: {{ansible_host: …}}` to the group of {} first",
                args.node
            );
            return Err(bad(format!("the inventory has no host {with}")).hint(hint));
        };
        let moved = inventory.clone().moved(&old.name, with).map_err(bad)?;
        (By::Address(Box::new(moved.clone()), with.clone()), moved, old.name.as_str())
    };
    let asked = leaver.asked.clone().unwrap_or_default();
    let reach = Reach::new(&there, &asked, !args.run.check, Arc::new(|_, _| {}))
        .with_binaries(args.run.bin_dir.as_deref());
    if args.run.check {
        return Ok(by);
    }
    let host = there.host(name).ok_or_else(|| bad(format!("the inventory has no host {name}")))?;
    target::session(&reach, host).await.map_err(|failure| {
        failure
            .hint("the new host must be reachable before the old one leaves; nothing was changed")
    })?;
    fit(args, &there, &reach, name).await?;
    Ok(by)
}

/// The host that joins is fit for a node, unless nobody wants to know.
async fn fit(args: &Args, there: &Inventory, reach: &Reach, name: &str) -> Result<(), Failure> {
    if args.skip_preflight {
        return Ok(());
    }
    preflight::fit(there, &args.run.inventory, reach, name, args.force).await
}
