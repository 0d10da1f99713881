//! `k3sup-rs snapshot`: the snapshots of a whole cluster, on its servers and in S3.

mod fetch;
mod places;
mod push;
mod remove;
mod save;
mod settings;
mod show;

use std::sync::Arc;

use super::output::{self, Format};
use super::target::{self, Target};
use super::work::Work;
use crate::error::Failure;
use crate::inventory::Inventory;
use crate::run::reach::Reach;

pub use settings::{SnapshotSettings, settings};

/// What to do with a cluster's snapshots.
#[derive(Debug, clap::Subcommand)]
#[command(after_help = "\
Examples:
  k3sup-rs snapshot save -i inventory.yaml                  on the leader's host, or the first server that can
  k3sup-rs snapshot ls -i inventory.yaml                    all servers and S3 in one table
  k3sup-rs snapshot verify -i inventory.yaml                read the newest of each place to its end
  k3sup-rs snapshot fetch latest -i inventory.yaml -o backup.age --recipient age1…
  k3sup-rs snapshot push backup.age -i inventory.yaml --identity key.txt
  k3sup-rs snapshot rm on-demand-server1-1755900000 -i inventory.yaml
  k3sup-rs snapshot prune --keep 5 -i inventory.yaml")]
pub enum Command {
    /// Take a snapshot now
    Save(save::Args),
    /// List the snapshots on all servers and in S3
    #[command(visible_alias = "list")]
    Ls(show::Ls),
    /// Remove snapshots, wherever they are
    Rm(remove::Rm),
    /// Remove the oldest scheduled snapshots of each server
    Prune(remove::Prune),
    /// Bring a snapshot here, with what a restore needs, encrypted
    Fetch(fetch::Args),
    /// Bring a snapshot or a bundle to a server
    Push(push::Args),
    /// Read snapshots to their end, as a restore would
    Verify(show::Verify),
}

/// Which cluster, and how to show what was done.
#[derive(Debug, clap::Args)]
pub struct Common {
    #[command(flatten)]
    target: Target,
    /// How to show it
    #[arg(long, value_enum, default_value_t)]
    output: Format,
}

impl Common {
    /// The inventory, and the way to its hosts. Lab hosts that are down stay so.
    fn open(&self) -> Result<(Inventory, Reach), Failure> {
        let inventory = target::inventory(&self.target.inventory, &[])?;
        let asked = self.target.asked()?;
        let reach = Reach::new(&inventory, &asked, false, Arc::new(|_, _| {}))
            .with_binaries(self.target.bin_dir.as_deref());
        Ok((inventory, reach))
    }
}

/// What verbs have that change something.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct Hold {
    /// Take the lock although another operator holds it
    #[arg(long)]
    break_lock: bool,
}

impl Common {
    /// Begins the journal of what is called `what`.
    fn work(&self, what: &str, inventory: &Inventory, hold: Hold) -> Result<Work, Failure> {
        Work::begin(what, &self.target.inventory, inventory, hold.break_lock)
    }

    /// Prints what was done: as a line, or as JSON.
    fn tell(&self, text: &str, value: &serde_json::Value) -> Result<(), Failure> {
        match self.output {
            Format::Text => output::line(text),
            Format::Json => output::json(value),
        }
    }
}

/// Runs a snapshot command.
pub async fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Save(args) => save::run(args).await,
        Command::Ls(args) => show::ls(args).await,
        Command::Rm(args) => remove::rm(args).await,
        Command::Prune(args) => remove::prune(args).await,
        Command::Fetch(args) => fetch::run(args).await,
        Command::Push(args) => push::run(args).await,
        Command::Verify(args) => show::verify(args).await,
    }
}
