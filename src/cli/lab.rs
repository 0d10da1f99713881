//! `k3sup-rs lab`: the hosts of labs, to practise failures on.

use std::path::PathBuf;

use super::output::{self, Format};
use crate::error::{ExitCode, Failure};
use crate::lab::hosts::{self, LabHost, LabHostView};
use crate::lab::{self, LabError};

/// What to do with lab hosts.
#[derive(Debug, clap::Subcommand)]
#[command(after_help = "\
Examples:
  k3sup-rs lab ls
  k3sup-rs lab kill server1        cut its power
  k3sup-rs lab start server1       and back: its services start with it
  k3sup-rs lab rm --yes            remove the lab with all its data")]
pub enum Command {
    /// List lab hosts
    Ls {
        /// How to show it
        #[arg(long, short, value_enum, default_value_t)]
        output: Format,
    },
    /// Stop hosts in an orderly way, their services first
    Stop(Hosts),
    /// Start hosts and the services that are enabled on them
    Start(Hosts),
    /// Cut the power: SIGKILL to hosts and all their services
    Kill(Hosts),
    /// Remove hosts with all their data
    Rm {
        /// Which
        #[command(flatten)]
        hosts: Hosts,
        /// Do not ask
        #[arg(long, short)]
        yes: bool,
    },
}

/// Which hosts.
#[derive(Debug, clap::Args)]
pub struct Hosts {
    /// Names of hosts; all of the lab when none is given
    names: Vec<String>,
    /// The lab, when there are several
    #[arg(long, short)]
    lab: Option<String>,
}

/// Arguments of the hidden process of a lab host.
#[derive(Debug, clap::Args)]
pub struct DaemonArgs {
    /// Its directory
    root: PathBuf,
}

/// Runs a lab host in the foreground.
pub async fn daemon(args: DaemonArgs) -> Result<(), Failure> {
    lab::run_daemon(&args.root).await.map_err(|error| failure(&error))
}

/// Runs a lab command.
pub fn run(command: &Command) -> Result<(), Failure> {
    match command {
        Command::Ls { output } => list(*output),
        Command::Stop(which) => each(which, "stopped", hosts::stop),
        Command::Start(which) => each(which, "started", |host| lab::ensure(host).map(|_| ())),
        Command::Kill(which) => each(which, "killed", hosts::kill),
        Command::Rm { hosts: which, yes } => {
            let chosen = choose(which)?;
            let names: Vec<_> =
                chosen.iter().map(|host| format!("{}/{}", host.lab, host.name)).collect();
            let question = format!("Remove {} with all data?", names.join(", "));
            if !chosen.is_empty() {
                super::ask::confirm(&question, *yes)?;
            }
            each(which, "removed", hosts::remove)
        }
    }
}

fn each(
    which: &Hosts,
    done: &str,
    action: impl Fn(&LabHost) -> Result<(), LabError>,
) -> Result<(), Failure> {
    for host in choose(which)? {
        action(&host).map_err(|error| failure(&error))?;
        output::line(&format!("{}/{} {done}", host.lab, host.name))?;
    }
    Ok(())
}

/// The hosts that are meant. A name that stands in several labs, or no lab named among several, is
/// not guessed.
fn choose(which: &Hosts) -> Result<Vec<LabHost>, Failure> {
    let all: Vec<LabHost> = hosts::list().into_iter().map(|view| view.host).collect();
    let mut labs: Vec<&str> = all.iter().map(|host| host.lab.as_str()).collect();
    labs.dedup();
    let lab = match (&which.lab, labs.as_slice()) {
        (Some(lab), _) if labs.contains(&lab.as_str()) => lab.clone(),
        (Some(lab), _) => return Err(unknown(&format!("there is no lab {lab}"), &labs)),
        (None, [only]) => (*only).to_owned(),
        (None, []) => return Ok(Vec::new()),
        (None, _) => return Err(unknown("there are several labs: name one with --lab", &labs)),
    };
    let of_lab: Vec<LabHost> = all.iter().filter(|host| host.lab == lab).cloned().collect();
    if which.names.is_empty() {
        return Ok(of_lab);
    }
    let find = |name: &String| {
        let found = of_lab.iter().find(|host| host.name == *name).cloned();
        let names: Vec<&str> = of_lab.iter().map(|host| host.name.as_str()).collect();
        found.ok_or_else(|| unknown(&format!("lab {lab} has no host {name}"), &names))
    };
    which.names.iter().map(find).collect()
}

fn unknown(message: &str, known: &[&str]) -> Failure {
    let failure = Failure::new(ExitCode::BadInput, message);
    if known.is_empty() {
        return failure.hint("`k3sup-rs up -i inventories/lab.yaml` makes one");
    }
    failure.hint(format!("there is: {}", known.join(", ")))
}

fn list(format: Format) -> Result<(), Failure> {
    let views = hosts::list();
    if format == Format::Json {
        return output::json(&views);
    }
    let mut table =
        output::table(["LAB", "HOST", "ADDRESS", "STATE", "PID", "SERVICES", "DIRECTORY"]);
    for view in &views {
        table.add_row(row(view));
    }
    output::line(&output::render(&mut table))
}

fn row(view: &LabHostView) -> [String; 7] {
    [
        view.host.lab.clone(),
        view.host.name.clone(),
        view.host.address.to_string(),
        if view.pid.is_some() { "up" } else { "down" }.to_owned(),
        view.pid.map_or("-".to_owned(), |pid| pid.to_string()),
        if view.services.is_empty() { "-".to_owned() } else { view.services.join(",") },
        view.directory.display().to_string(),
    ]
}

fn failure(error: &LabError) -> Failure {
    Failure::new(ExitCode::Error, crate::error::chain(error))
}
