//! `k3sup-rs etcdctl`, and the binary under the name `etcdctl`: what people do with etcd's client every
//! day, on hosts that have none. Commands, flags, variables and output are etcdctl's (v3.5).

mod answers;
mod auth;
mod connection;
mod endpoints;
mod go;
mod keys;
mod leases;
mod members;
mod passwords;
mod rights;
mod roles;
mod show;
mod snapshots;
mod txn;
mod upkeep;
mod users;

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
  k3sup-rs etcdctl --user root user grant-role alice reader

Without endpoints, on a server's host and as root, it asks that server. Variables are ETCDCTL_ and the
flag in capitals: ETCDCTL_ENDPOINTS, ETCDCTL_CACERT, ETCDCTL_CERT, ETCDCTL_KEY, ETCDCTL_USER,
ETCDCTL_PASSWORD.";

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
    /// Read a transaction from standard input, and do it at once or not at all
    Txn(txn::Txn),
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
    /// Whether users must log in
    #[command(subcommand)]
    Auth(auth::Command),
    /// Users
    #[command(subcommand)]
    User(users::Command),
    /// Roles
    #[command(subcommand)]
    Role(roles::Command),
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

impl Command {
    /// Whether somebody is asked; else it is about files alone.
    fn asks(&self) -> bool {
        use snapshots::Command::{Restore, Status};
        !matches!(self, Self::Snapshot(Status { .. } | Restore(_)))
    }

    /// Whether what it prints is there in `shape`; true for what is printed in one form only.
    fn has(&self, shape: Shape) -> bool {
        match shape {
            Shape::Simple | Shape::Fields | Shape::Json => true,
            Shape::Protobuf => {
                let status = matches!(self, Self::Snapshot(snapshots::Command::Status { .. }));
                !status && !matches!(self, Self::Endpoint(_))
            }
            Shape::Table => match self {
                Self::Member(command) => matches!(command, members::Command::List),
                Self::Get(_)
                | Self::Put(_)
                | Self::Del(_)
                | Self::Watch(_)
                | Self::Txn(_)
                | Self::Lease(_)
                | Self::User(_)
                | Self::Role(_)
                | Self::Alarm(_) => false,
                Self::Auth(command) => !matches!(command, auth::Command::Status),
                Self::Compaction(_)
                | Self::Endpoint(_)
                | Self::Defrag
                | Self::MoveLeader(_)
                | Self::Snapshot(_)
                | Self::Version => true,
            },
        }
    }
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
    if !command.has(shape) {
        return Err(show::unsupported(shape));
    }
    let connection = if command.asks() { connection.completed()? } else { connection };
    let show = Show { shape, hex };
    match command {
        Command::Get(args) => keys::get(&connection, show, args).await,
        Command::Put(args) => keys::put(&connection, show, args).await,
        Command::Del(args) => keys::del(&connection, show, args).await,
        Command::Watch(args) => keys::watch(&connection, show, args).await,
        Command::Txn(args) => txn::run(&connection, show, args).await,
        Command::Compaction(args) => upkeep::compaction(&connection, args).await,
        Command::Lease(command) => leases::run(&connection, show, command).await,
        Command::Member(command) => members::run(&connection, show, command).await,
        Command::Endpoint(command) => endpoints::run(&connection, show, command).await,
        Command::Auth(command) => auth::run(&connection, show, command).await,
        Command::User(command) => users::run(&connection, show, command).await,
        Command::Role(command) => roles::run(&connection, show, command).await,
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

#[cfg(test)]
mod tests {
    use clap::{Parser, ValueEnum as _};

    use super::*;

    #[derive(Parser)]
    struct Program {
        #[command(flatten)]
        args: Args,
    }

    fn refused(line: &str) -> Vec<Shape> {
        let words = ["etcdctl"].into_iter().chain(line.split(' '));
        let command = Program::parse_from(words).args.command;
        Shape::value_variants().iter().copied().filter(|shape| !command.has(*shape)).collect()
    }

    #[test]
    fn a_form_that_is_not_there_is_known_beforehand() {
        for line in [
            "get a",
            "put a b",
            "del a",
            "watch a",
            "txn",
            "lease list",
            "alarm disarm",
            "user list",
            "role add r",
            "auth status",
        ] {
            assert_eq!(refused(line), [Shape::Table], "{line}");
        }
        assert_eq!(refused("member remove a1"), [Shape::Table]);
        for line in ["endpoint health", "endpoint status", "endpoint hashkv", "snapshot status f"] {
            assert_eq!(refused(line), [Shape::Protobuf], "{line}");
        }
        for line in [
            "member list",
            "compaction 1",
            "defrag",
            "move-leader a1",
            "snapshot save f",
            "auth enable",
        ] {
            assert_eq!(refused(line), [], "{line}");
        }
    }

    #[tokio::test]
    async fn it_is_refused_before_anything_is_asked() {
        // Nobody is there to be asked.
        let line = ["etcdctl", "--endpoints=127.0.0.1:1", "put", "a", "b", "-w", "table"];
        let failure = run(Program::parse_from(line).args).await.unwrap_err();
        assert_eq!(failure.code, ExitCode::BadInput);
        assert_eq!(failure.message, "table not supported as output format");
    }
}
