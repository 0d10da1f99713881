//! `k3sup-rs completion SHELL` and the manual page.

use clap::CommandFactory;
use clap_complete::Shell;

use super::{Cli, output};
use crate::error::{ExitCode, Failure};

/// For which shell.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  k3sup-rs completion bash > /etc/bash_completion.d/k3sup-rs")]
pub struct Args {
    /// The shell
    pub shell: Shell,
}

/// Prints the completion script.
pub fn run(args: &Args) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "k3sup-rs", &mut script);
    output::write_all(&script)
}

/// Prints the manual page of the whole program, a section per command.
pub fn man() -> Result<(), Failure> {
    let mut page = Vec::new();
    let command = Cli::command();
    render(&command, &mut page)?;
    for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set()) {
        render(sub, &mut page)?;
    }
    output::write_all(&page)
}

fn render(command: &clap::Command, page: &mut Vec<u8>) -> Result<(), Failure> {
    clap_mangen::Man::new(command.clone())
        .render(page)
        .map_err(|error| Failure::new(ExitCode::Error, format!("cannot write the page: {error}")))
}
