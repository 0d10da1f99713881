//! The commands: one file each, arguments → one typed request. Effects live in the rooms they call.

pub mod agent;
pub mod ask;
pub mod bundle;
pub mod certificate;
pub mod clusters;
pub mod completion;
pub mod doctor;
pub mod etcd;
pub mod etcd_snapshot;
pub mod etcdctl;
pub mod host;
pub mod inventory;
mod k3s;
pub mod kubeconfig;
pub mod lab;
mod leaving;
pub mod nodes;
pub mod output;
pub mod play;
pub mod playbook;
pub mod preflight;
pub mod remove;
pub mod render;
pub mod replace;
pub mod reset;
pub mod restart;
pub mod restore;
pub mod runs;
pub mod server;
pub mod snapshot;
pub mod snapshot_flags;
pub mod status;
pub mod target;
pub mod token;
pub mod up;
pub mod upgrade;
pub mod verify;
pub mod version;
mod work;

use std::path::Path;

use clap::{Parser, Subcommand};

use crate::error::{ExitCode, Failure};

const AFTER_HELP: &str = "\
Examples:
  k3sup-rs up -i inventories/lab.yaml        a highly available cluster on this machine, no root
  k3sup-rs up -i inventory.yaml --check --diff   what a run would change, and why
  k3sup-rs preflight -i inventory.yaml       whether the hosts are fit for it
  k3sup-rs doctor -i inventory.yaml          what is wrong with a cluster, and what to do
  k3sup-rs status -i inventory.yaml          members, leader, quorum, certificates
  k3sup-rs nodes -i inventory.yaml           like `kubectl get nodes`

Exit codes: 0 ok, 1 error, 2 host failed, 4 unreachable, 5 bad input, 6 refused as unsafe,
7 --check found changes, 8 locked, 9 declined, 130 interrupted.";

/// Provision and run highly available clusters over SSH.
#[derive(Debug, Parser)]
#[command(name = "k3sup-rs", version = crate::version::own(), about, after_help = AFTER_HELP, propagate_version = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show what an inventory says
    Inventory(inventory::Args),
    /// Bring up a cluster, or mend what is not as it should be
    Up(up::Args),
    /// Look at hosts before anything is changed on any
    Preflight(preflight::Args),
    /// Say what is wrong with a cluster, why, and what to do
    Doctor(doctor::Args),
    /// Run a playbook of your own
    Play(play::Args),
    /// Remove the nodes of a cluster with all their data
    Reset(reset::Args),
    /// Take a node out of the cluster for good
    Remove(remove::Args),
    /// Put a fresh node in the place of one that is dead or damaged
    Replace(replace::Args),
    /// Put another version on every host, one server at a time, without an outage
    Upgrade(upgrade::Args),
    /// Restart the nodes, one server at a time, without an outage
    Restart(restart::Args),
    /// Stop and kill servers in turn while clients write: what they see, and that nothing is lost
    Verify(verify::Args),
    /// Restore a cluster from a snapshot, or bring back what was there before
    Restore(Box<restore::Args>),
    /// Make a cluster again of what a lost quorum left
    Recover(Box<restore::RecoverArgs>),
    /// Show members, leader, quorum, certificates and nodes of a cluster
    Status(status::Args),
    /// List the runs of this machine, and show what one did
    #[command(subcommand)]
    Runs(runs::Command),
    /// Print a file as a host would get it, without touching the host
    Render(render::Args),
    /// List the nodes of a cluster, like `kubectl get nodes`
    Nodes(nodes::Args),
    /// Fetch a K3s cluster's kubeconfig and merge it into your own
    Kubeconfig(kubeconfig::Args),
    /// Show the cluster's token, where it is kept, or replace it
    #[command(subcommand)]
    Token(token::Command),
    /// Take, list, verify, fetch and remove snapshots of a cluster
    #[command(subcommand)]
    Snapshot(Box<snapshot::Command>),
    /// Show, rotate and replace certificates and CAs
    #[command(subcommand)]
    Certificate(certificate::Command),
    /// Run a server of the cluster
    Server(Box<server::Args>),
    /// On a server's host: take, list and remove its snapshots
    EtcdSnapshot(Box<etcd_snapshot::Args>),
    /// Run a stand-alone member of the store under etcd's own flags
    Etcd(etcd::Args),
    /// Ask a cluster as etcd's own client does
    Etcdctl(Box<etcdctl::Args>),
    /// Run an agent of the cluster
    Agent(Box<agent::Args>),
    /// Show and break the hosts of labs
    #[command(subcommand)]
    Lab(lab::Command),
    /// The process of a lab host
    #[command(hide = true)]
    LabHost(lab::DaemonArgs),
    /// The executor on a host
    #[command(hide = true)]
    Host(host::Args),
    /// Print a completion script for a shell
    Completion(completion::Args),
    /// Print the manual page (troff)
    #[command(hide = true)]
    Man,
    /// Print the version and what the binary speaks
    Version(version::Args),
}

/// Parses the process's arguments, runs the command and gives the exit code.
pub fn main() -> u8 {
    let command = match Cli::try_parse_from(arguments()) {
        Ok(cli) => cli.command,
        Err(error) => return usage(&error),
    };
    match run(command) {
        Ok(()) => ExitCode::Ok as u8,
        Err(failure) => {
            if !failure.message.is_empty() {
                output::error(&failure.to_string());
            }
            failure.code as u8
        }
    }
}

/// The process's arguments. Whatever starts etcd, etcdctl or etcdutl can start a binary of that name: the
/// name is the command then.
fn arguments() -> Vec<std::ffi::OsString> {
    let mut arguments: Vec<_> = std::env::args_os().collect();
    let name = arguments.first().and_then(|program| Path::new(program).file_name());
    let known = [("etcd", "etcd"), ("etcdctl", "etcdctl"), ("etcdutl", "etcdctl")];
    let found = known.into_iter().find(|(known, _)| name.is_some_and(|name| name == *known));
    if let Some((_, command)) = found {
        arguments.insert(1, command.into());
    }
    arguments
}

/// Help and version go to standard output and end well; anything else is bad input.
fn usage(error: &clap::Error) -> u8 {
    // A closed pipe while printing help is no reason to complain.
    let _ = error.print();
    if error.use_stderr() { ExitCode::BadInput as u8 } else { ExitCode::Ok as u8 }
}

fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Inventory(args) => inventory::run(&args),
        Command::Up(args) => block_on(up::run(args)),
        Command::Preflight(args) => block_on(preflight::run(args)),
        Command::Doctor(args) => block_on(doctor::run(args)),
        Command::Play(args) => block_on(play::run(args)),
        Command::Reset(args) => block_on(reset::run(args)),
        Command::Remove(args) => block_on(remove::run(args)),
        Command::Replace(args) => block_on(replace::run(args)),
        Command::Upgrade(args) => block_on(upgrade::run(args)),
        Command::Restart(args) => block_on(restart::run(args)),
        Command::Verify(args) => block_on(verify::run(args)),
        Command::Restore(args) => block_on(restore::run(*args)),
        Command::Recover(args) => block_on(restore::recover(*args)),
        Command::Status(args) => block_on(status::run(args)),
        Command::Runs(command) => runs::run(&command),
        Command::Render(args) => render::run(&args),
        Command::Nodes(args) => block_on(nodes::run(args)),
        Command::Kubeconfig(args) => block_on(kubeconfig::run(args)),
        Command::Token(command) => block_on(token::run(command)),
        Command::Certificate(command) => block_on(certificate::run(command)),
        Command::Server(args) => block_on(server::run(*args)),
        Command::EtcdSnapshot(args) => block_on(etcd_snapshot::run(*args)),
        Command::Snapshot(command) => block_on(snapshot::run(*command)),
        Command::Etcd(args) => block_on(etcd::run(args)),
        Command::Etcdctl(args) => block_on(etcdctl::run(*args)),
        Command::Agent(args) => block_on(agent::run(*args)),
        Command::Lab(command) => lab::run(&command),
        Command::LabHost(args) => block_on(lab::daemon(args)),
        Command::Host(args) => block_on(host::run(args)),
        Command::Completion(args) => completion::run(&args),
        Command::Man => completion::man(),
        Command::Version(args) => version::run(&args),
    }
}

/// Runs a command's future on a runtime of its own.
fn block_on<F>(future: F) -> Result<(), Failure>
where
    F: Future<Output = Result<(), Failure>>,
{
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .on_thread_park(k3sup_rs_allocator::rest)
        .build()
        .map_err(|error| Failure::new(ExitCode::Error, format!("cannot start: {error}")))?
        .block_on(future)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
