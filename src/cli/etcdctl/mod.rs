//! `k3sup-rs etcdctl`, and the binary under the name `etcdctl`: what people do with etcd's client every
//! day, on hosts that have none. Commands, flags, variables and output are etcdctl's (v3.5).

mod answers;
mod connection;
mod endpoints;
mod keys;
mod leases;
mod members;
mod show;
mod snapshots;
mod upkeep;

use clap::Subcommand;

use self::connection::Connection;
use self::show::{Shape, Show};
use super::output;
use crate::error::{ExitCode, Failure};

const EXAMPLES: &str = "\
Examples:
  k3sup-rs etcdctl get / --prefix --keys-only
  k3sup-rs etcdctl endpoint status --cluster -w table
  k3sup-rs etcdctl --endpoints=https://10.0.0.11:2379 --cacert ca.crt --cert c.crt --key c.key member list

Without endpoints, on a server's host and as root, it asks that server. Variables are ETCDCTL_ and the
flag in capitals: ETCDCTL_ENDPOINTS, ETCDCTL_CACERT, ETCDCTL_CERT, ETCDCTL_KEY.";

/// Ask a cluster as etcd's own client does.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(flatten)]
    connection: Connection,

    /// How to print
    #[arg(long, short, global = true, value_enum, default_value_t = Shape::Simple, value_name = "FORMAT")]
    write_out: Shape,

    /// Print keys and values as hex
    #[arg(long, global = true)]
    hex: bool,

    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Print a key, or those from it up to another
    Get(keys::Get),
    /// Put a value, from standard input when it is not given
    Put(keys::Put),
    /// Delete a key, or those from it up to another
    Del(keys::Del),
    /// Print changes as they come
    Watch(keys::Watch),
    /// Forget what was before a revision
    Compaction(upkeep::Compaction),
    /// Leases
    #[command(subcommand)]
    Lease(leases::Command),
    /// Members
    #[command(subcommand)]
    Member(members::Command),
    /// Endpoints: health, status, hash
    #[command(subcommand)]
    Endpoint(endpoints::Command),
    /// Alarms
    #[command(subcommand)]
    Alarm(upkeep::AlarmCommand),
    /// Give space back on each endpoint
    Defrag,
    /// Make another member the leader
    MoveLeader(members::MoveLeader),
    /// Snapshots
    #[command(subcommand)]
    Snapshot(snapshots::Command),
    /// Print the version
    Version,
}

/// Runs one command.
pub async fn run(args: Args) -> Result<(), Failure> {
    let Args { connection, write_out: shape, hex, command } = args;
    if matches!(command, Command::Version) {
        return output::line(&format!(
            "etcdctl version: {}\nAPI version: 3.5",
            crate::rpc::ETCD_API_VERSION
        ));
    }
    let connection = connection.completed();
    let show = Show { shape, hex };
    match command {
        Command::Get(args) => keys::get(&connection, show, args).await,
        Command::Put(args) => keys::put(&connection, show, args).await,
        Command::Del(args) => keys::del(&connection, show, args).await,
        Command::Watch(args) => keys::watch(&connection, show, args).await,
        Command::Compaction(args) => upkeep::compaction(&connection, args).await,
        Command::Lease(command) => leases::run(&connection, show, command).await,
        Command::Member(command) => members::run(&connection, show, command).await,
        Command::Endpoint(command) => endpoints::run(&connection, show, command).await,
        Command::Alarm(command) => upkeep::alarm(&connection, show, command).await,
        Command::Defrag => upkeep::defrag(&connection).await,
        Command::MoveLeader(args) => members::move_leader(&connection, args).await,
        Command::Snapshot(command) => snapshots::run(&connection, show, command).await,
        Command::Version => Ok(()),
    }
}

/// A refusal of the server, in etcd's words.
#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn refused(status: tonic::Status) -> Failure {
    Failure::new(ExitCode::Error, status.message())
}

/// A number that etcdctl takes as hex.
fn hex_number(text: &str) -> Result<u64, String> {
    u64::from_str_radix(text, 16).map_err(|_| format!("bad number `{text}`, expected hex"))
}
