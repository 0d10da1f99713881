//! `k3sup-rs etcdctl`, and the binary under the name `etcdctl`: what people do with etcd's client every
//! day, on hosts that have none. Commands, flags, variables and output are etcdctl's (v3.5).

mod connection;
mod keys;
mod leases;
mod members;
mod snapshots;
mod upkeep;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::{Subcommand, ValueEnum};
use serde_json::{Value as Json, json};

use self::connection::Connection;
use super::output;
use crate::error::{ExitCode, Failure};
use crate::rpc::pb::etcdserverpb::ResponseHeader;
use crate::rpc::pb::mvccpb::KeyValue;

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

/// How to print.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Shape {
    /// As etcdctl does by default
    Simple,
    /// JSON in one line
    Json,
    /// A table, where there is one
    Table,
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
    Endpoint(upkeep::EndpointCommand),
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
        Command::Endpoint(command) => upkeep::endpoint(&connection, show, command).await,
        Command::Alarm(command) => upkeep::alarm(&connection, show, command).await,
        Command::Defrag => upkeep::defrag(&connection).await,
        Command::MoveLeader(args) => members::move_leader(&connection, args).await,
        Command::Snapshot(command) => snapshots::run(&connection, show, command).await,
        Command::Version => Ok(()),
    }
}

/// Prints answers.
#[derive(Clone, Copy, Debug)]
struct Show {
    shape: Shape,
    hex: bool,
}

impl Show {
    /// Prints `value` as JSON if that is wanted; else says that it did not.
    fn json(self, value: impl FnOnce() -> Json) -> Result<bool, Failure> {
        if self.shape != Shape::Json {
            return Ok(false);
        }
        output::line(&value().to_string())?;
        Ok(true)
    }

    /// The bytes of a key or value.
    fn bytes(self, bytes: &[u8]) -> Vec<u8> {
        if self.hex {
            let hex: Vec<String> = bytes.iter().map(|byte| format!("\\x{byte:02x}")).collect();
            return hex.concat().into_bytes();
        }
        bytes.to_vec()
    }

    /// A line of it.
    fn line(self, bytes: &[u8]) -> Result<(), Failure> {
        output::write_all(&[self.bytes(bytes), b"\n".to_vec()].concat())
    }

    fn pair(self, pair: &KeyValue) -> Result<(), Failure> {
        self.line(&pair.key)?;
        self.line(&pair.value)
    }
}

/// As Go writes it: without what is zero.
fn header(header: Option<&ResponseHeader>) -> Json {
    let header = header.copied().unwrap_or_default();
    sparse(json!({
        "cluster_id": header.cluster_id,
        "member_id": header.member_id,
        "revision": header.revision,
        "raft_term": header.raft_term,
    }))
}

fn pair(pair: &KeyValue) -> Json {
    sparse(json!({
        "key": STANDARD.encode(&pair.key),
        "create_revision": pair.create_revision,
        "mod_revision": pair.mod_revision,
        "version": pair.version,
        "value": STANDARD.encode(&pair.value),
        "lease": pair.lease,
    }))
}

/// Without fields that are zero, false or empty.
fn sparse(value: Json) -> Json {
    let Json::Object(mut fields) = value else { return value };
    fields.retain(|_, value| match value {
        Json::Null => false,
        Json::Bool(value) => *value,
        Json::Number(number) => number.as_f64() != Some(0.0),
        Json::String(text) => !text.is_empty(),
        Json::Array(items) => !items.is_empty(),
        Json::Object(_) => true,
    });
    Json::Object(fields)
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
