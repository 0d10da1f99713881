//! Snapshots: `snapshot save|status|restore`, the last two of `etcdutl` too.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use clap::Subcommand;
use serde_json::{Value as Json, json};

use super::connection::Connection;
use super::endpoints::size;
use super::refused;
use super::show::{Answer, Fields, Show, Table};
use crate::cli::output;
use crate::error::{ExitCode, Failure, chain};
use crate::etcd::config::Config;
use crate::etcd::restore::Restore;
use crate::etcd::source;
use crate::node::database::{self, HashCheck, Status};
use crate::node::snapshots::inspect::content;
use crate::rpc::pb::etcdserverpb::SnapshotRequest;
use crate::store::types::Revision;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Write the state of the endpoint's member to a file, 0600
    Save {
        /// The file
        file: PathBuf,
    },
    /// Print hash, revision, keys and size of a file of `snapshot save`
    Status {
        /// The file
        file: PathBuf,
    },
    /// Make the data directory of a member of a new cluster that begins with a snapshot
    ///
    /// The snapshot is one of `snapshot save`, etcd's or this program's, or of `etcd-snapshot save`, K3s's or
    /// this program's. Each member of --initial-cluster is restored from the same one, and then started by
    /// `k3sup-rs etcd` with the same names and URLs. A cluster of servers is restored by `k3sup-rs restore`.
    Restore(Box<RestoreArgs>),
}

#[derive(Debug, clap::Args)]
pub(super) struct RestoreArgs {
    /// The file
    file: PathBuf,

    /// The member's name
    #[arg(long, default_value = "default")]
    name: String,

    /// Where its data goes: empty, or not there yet [default: NAME.etcd]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,

    /// All members with their peer URLs: NAME=URL,… [default: this one]
    #[arg(long, value_name = "MEMBERS")]
    initial_cluster: Option<String>,

    /// What tells this cluster from others
    #[arg(long, default_value = "etcd-cluster", value_name = "TOKEN")]
    initial_cluster_token: String,

    /// The member's peer URLs, comma-separated
    #[arg(long, default_value = "http://localhost:2380", value_name = "URLS")]
    initial_advertise_peer_urls: String,

    /// Take a file without the hash at its end, such as a copy of a data directory's database
    #[arg(long)]
    skip_hash_check: bool,

    /// Let revisions go on so much further than the snapshot's last one
    #[arg(long, default_value_t = 0, value_name = "NUMBER", requires = "mark_compacted",
        value_parser = clap::value_parser!(i64).range(0..=i64::MAX / 4))]
    bump_revision: Revision,

    /// Compact everything before the last revision, so that watchers begin anew
    #[arg(long, requires = "bump_revision")]
    mark_compacted: bool,
}

pub(super) async fn run(
    connection: &Connection,
    show: Show,
    command: Command,
) -> Result<(), Failure> {
    match command {
        Command::Save { file } => save(connection, &file).await,
        Command::Status { file } => status(show, &file),
        Command::Restore(args) => restore(*args),
    }
}

async fn save(connection: &Connection, file: &Path) -> Result<(), Failure> {
    if connection.endpoints().len() != 1 {
        let why = "snapshot must be requested to one selected node, not multiple";
        return Err(Failure::new(ExitCode::BadInput, why));
    }
    let mut client = connection.client()?;
    let mut parts = connection.answer(client.maintenance.snapshot(SnapshotRequest {})).await?;
    let failed = |error: std::io::Error| {
        Failure::new(ExitCode::Error, format!("{}: {error}", file.display()))
    };
    let directory = file.parent().filter(|parent| !parent.as_os_str().is_empty());
    let mut part = tempfile::Builder::new()
        .prefix(".snapshot-")
        .suffix(".part")
        .tempfile_in(directory.unwrap_or(Path::new(".")))
        .map_err(failed)?;
    while let Some(answer) = parts.message().await.map_err(refused)? {
        part.write_all(&answer.blob).map_err(failed)?;
    }
    part.as_file().sync_all().map_err(failed)?;
    part.persist(file).map_err(|error| failed(error.error))?;
    output::line(&format!("Snapshot saved at {}", file.display()))
}

fn status(show: Show, path: &Path) -> Result<(), Failure> {
    let bad = |why: String| Failure::new(ExitCode::Error, format!("{}: {why}", path.display()));
    let file = content(path).map_err(|why| Failure::new(ExitCode::BadInput, why))?;
    if !database::looks_like_one(&file) {
        return Err(bad("it is no database of etcd's".to_owned())
            .hint("files of `etcd-snapshot save` are listed by `k3sup-rs etcd-snapshot ls`"));
    }
    let read = || database::status(&file, database::body(&file, HashCheck::IfThere)?);
    let status = read().map_err(|error| bad(chain(&error)))?;
    show.rows(&Looked(status))
}

/// What was found in a file.
struct Looked(Status);

impl Answer for Looked {
    fn json(&self) -> Json {
        let Self(status) = self;
        json!({
            "hash": status.hash,
            "revision": status.revision,
            "totalKey": status.total_keys,
            "totalSize": status.bytes,
        })
    }

    fn fields(&self, fields: &mut Fields) {
        let Self(status) = self;
        fields.plain("Hash", status.hash);
        fields.plain("Revision", status.revision);
        fields.plain("Keys", status.total_keys);
        fields.plain("Size", status.bytes);
    }

    fn table(&self) -> Option<Table> {
        let Self(status) = self;
        let row = vec![
            format!("{:x}", status.hash),
            status.revision.to_string(),
            status.total_keys.to_string(),
            size(i64::try_from(status.bytes).unwrap_or(i64::MAX)),
        ];
        Some((vec!["HASH", "REVISION", "TOTAL KEYS", "TOTAL SIZE"], vec![row]))
    }
}

fn restore(args: RestoreArgs) -> Result<(), Failure> {
    let mut flags = vec![
        format!("--name={}", args.name),
        format!("--initial-cluster-token={}", args.initial_cluster_token),
        format!("--initial-advertise-peer-urls={}", args.initial_advertise_peer_urls),
    ];
    flags.extend(args.data_dir.map(|dir| format!("--data-dir={}", dir.display())));
    flags.extend(args.initial_cluster.map(|members| format!("--initial-cluster={members}")));
    let config = Config::new(&source::gather(&flags, std::iter::empty())?)?;
    let check = if args.skip_hash_check { HashCheck::Skipped } else { HashCheck::Needed };
    let restore = Restore {
        snapshot: args.file,
        check,
        bump: args.bump_revision,
        compact: args.mark_compacted,
    };
    let revision = restore.run(&config)?;
    output::error(&format!(
        "restored {} at revision {revision} for member {} of {} in {}",
        restore.snapshot.display(),
        config.name,
        config.initial.len(),
        config.data_dir.display(),
    ));
    Ok(())
}
