//! `k3sup-rs etcd`, and the binary under the name `etcd`: a stand-alone member.

use std::fmt::Write as _;

use sd_notify::NotifyState;

use crate::error::{ExitCode, Failure};
use crate::etcd::config::Config;
use crate::etcd::flags::{FLAGS, Use};
use crate::etcd::server::Server;
use crate::etcd::{log, source};
use crate::node::host;
use crate::rpc::ETCD_API_VERSION;

/// Run a stand-alone member of the store under etcd's own flags and variables.
#[derive(Debug, clap::Args)]
#[command(disable_help_flag = true, disable_version_flag = true)]
pub struct Args {
    /// etcd's flags; `k3sup-rs etcd --help` lists them
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "FLAG")]
    flags: Vec<String>,
}

/// Runs a member until it is told to stop.
pub async fn run(args: Args) -> Result<(), Failure> {
    let is_one_of = |names: &[&str]| args.flags.iter().any(|flag| names.contains(&flag.as_str()));
    if is_one_of(&["-h", "-help", "--help"]) {
        return super::output::line(help().trim_end());
    }
    if is_one_of(&["-version", "--version"]) {
        return super::output::line(version().trim_end());
    }
    if let Some(command) = args.flags.first().filter(|first| !first.starts_with('-')) {
        let message = format!("etcd {command} is not served: this is a member and no proxy");
        return Err(Failure::new(ExitCode::BadInput, message));
    }
    host::harden();
    host::spare_memory();
    let values = source::gather(&args.flags, std::env::vars())?;
    let config = Config::new(&values)?;
    log::set_up(&config.log)?;
    for warning in &values.warnings {
        tracing::warn!("{warning}");
    }
    tracing::info!(version = crate::version::own(), api = ETCD_API_VERSION, "starting a member");
    let mut signals = host::StopSignals::new()?;
    let server = tokio::select! {
        started = Server::start(config) => started?,
        // What it did so far is on disk and is taken up at the next start.
        () = signals.wait() => return Ok(()),
    };
    let outcome = tokio::select! {
        outcome = work(&server) => outcome,
        () = signals.wait() => Ok(()),
    };
    host::notify(&[NotifyState::Stopping]);
    server.stop().await;
    outcome
}

async fn work(server: &Server) -> Result<(), Failure> {
    server.ready().await?;
    host::ready();
    Err(server.ended().await)
}

/// As etcd prints it; scripts read the first line.
fn version() -> String {
    format!("etcd Version: {ETCD_API_VERSION}\nk3sup-rs Version: {}\n", crate::version::own())
}

fn help() -> String {
    let mut text = "\
Run a stand-alone member of the store under etcd's own flags and variables

Usage: k3sup-rs etcd [FLAG]...
       etcd [FLAG]...            when the binary has that name

Each flag has a variable: ETCD_ and its name in capitals, with _ for -. Flags win over variables;
with --config-file neither counts. One dash does as well as two.

Examples:
  k3sup-rs etcd                              one member, plain HTTP on localhost:2379
  k3sup-rs etcd --name m1 --data-dir /var/lib/etcd \\
    --listen-peer-urls http://10.0.0.1:2380 --initial-advertise-peer-urls http://10.0.0.1:2380 \\
    --listen-client-urls http://10.0.0.1:2379 --advertise-client-urls http://10.0.0.1:2379 \\
    --initial-cluster m1=http://10.0.0.1:2380,m2=http://10.0.0.2:2380,m3=http://10.0.0.3:2380
"
    .to_owned();
    let mut group = "";
    for flag in FLAGS {
        // Writing to a string cannot fail.
        if flag.group != group {
            group = flag.group;
            let _ = writeln!(text, "\n{group}:");
        }
        let note = match flag.used {
            Use::Served => "",
            Use::Idle => "has no effect. ",
            Use::Refused => "no other value is served. ",
        };
        let _ = writeln!(text, "  --{} '{}'\n      {note}{}", flag.name, flag.default, flag.help);
    }
    text
}
