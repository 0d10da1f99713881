//! The commands: one file each, arguments → one typed request. Effects live in the rooms they call.

pub mod agent;
pub mod ask;
pub mod bundle;
pub mod clusters;
pub mod completion;
pub mod host;
pub mod inventory;
mod k3s;
pub mod kubeconfig;
pub mod lab;
pub mod nodes;
pub mod output;
pub mod play;
pub mod playbook;
pub mod render;
pub mod reset;
pub mod server;
pub mod status;
pub mod target;
pub mod token;
pub mod up;
pub mod version;

use clap::{Parser, Subcommand};

use crate::error::{ExitCode, Failure};

const AFTER_HELP: &str = "\
Examples:
  k3sup-rs up -i inventories/lab.yaml        a highly available cluster on this machine, no root
  k3sup-rs up -i inventory.yaml --check --diff   what a run would change, and why
  k3sup-rs status -i inventory.yaml          members, leader, quorum, certificates
  k3sup-rs nodes -i inventory.yaml           like `kubectl get nodes`

Exit codes: 0 ok, 1 error, 2 host failed, 4 unreachable, 5 bad input, 6 refused as unsafe,
7 --check found changes, 8 locked, 9 declined, 130 interrupted.";

/// Provision and run highly available clusters over SSH.
#[derive(Debug, Parser)]
#[command(name = "k3sup-rs", version, about, after_help = AFTER_HELP, propagate_version = true)]
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
    /// Run a playbook of your own
    Play(play::Args),
    /// Remove the nodes of a cluster with all their data
    Reset(reset::Args),
    /// Show members, leader, quorum, certificates and nodes of a cluster
    Status(status::Args),
    /// Print a file as a host would get it, without touching the host
    Render(render::Args),
    /// List the nodes of a cluster, like `kubectl get nodes`
    Nodes(nodes::Args),
    /// Fetch a K3s cluster's kubeconfig and merge it into your own
    Kubeconfig(kubeconfig::Args),
    /// Show the cluster's token, or where it is kept
    #[command(subcommand)]
    Token(token::Command),
    /// Run a server of the cluster
    Server(Box<server::Args>),
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
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    match run(cli.command) {
        Ok(()) => ExitCode::Ok as u8,
        Err(failure) => {
            if !failure.message.is_empty() {
                output::error(&failure.to_string());
            }
            failure.code as u8
        }
    }
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
        Command::Play(args) => block_on(play::run(args)),
        Command::Reset(args) => block_on(reset::run(args)),
        Command::Status(args) => block_on(status::run(args)),
        Command::Render(args) => render::run(&args),
        Command::Nodes(args) => block_on(nodes::run(args)),
        Command::Kubeconfig(args) => block_on(kubeconfig::run(args)),
        Command::Token(command) => token::run(&command),
        Command::Server(args) => block_on(server::run(*args)),
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
