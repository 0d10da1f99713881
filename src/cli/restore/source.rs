//! Which snapshot: a file of this machine, one of S3, a name on a server, or the newest one.

use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::super::output;
use super::Verb;
use super::hosts::{Server, Servers};
use crate::cluster::snapshots::{SnapshotFormat, SnapshotView, check_file_name, is_safety};
use crate::error::{ExitCode, Failure, chain};
use crate::host::protocol::{Observed, Read};
use crate::node::config::S3Config;
use crate::node::snapshots::inspect::inspect;
use crate::node::snapshots::s3::Bucket;

/// A snapshot that was read to its end.
pub(super) struct Chosen {
    /// As it was asked for.
    pub(super) said: String,
    /// What it is.
    pub(super) view: SnapshotView,
    /// Where it is on the server that is restored first.
    pub(super) path: String,
    /// Where it is on this machine.
    pub(super) local: Option<PathBuf>,
    /// What was fetched is there as long as this is.
    _scratch: Option<TempDir>,
}

impl Chosen {
    pub(super) fn words(&self) -> String {
        let taken =
            std::time::UNIX_EPOCH + std::time::Duration::from_secs(self.view.created_unix_s);
        let cluster = match self.view.cluster_id.as_str() {
            "" => String::new(),
            id => format!(" of cluster {id},"),
        };
        format!(
            "snapshot {}: revision {}, {} keys,{cluster} taken {} ({}), verified",
            self.view.name,
            self.view.revision,
            self.view.keys.unwrap_or(0),
            humantime::format_rfc3339_seconds(taken),
            output::bytes(self.view.bytes),
        )
    }
}

fn bad(message: impl Into<String>) -> Failure {
    Failure::new(ExitCode::BadInput, message).hint("nothing was stopped or changed")
}

/// Finds and verifies the snapshot; gives also the server that is restored first.
pub(super) async fn choose(
    verb: &Verb<'_>,
    servers: &mut Servers<'_>,
    wanted: &str,
    to: Option<&str>,
) -> Result<(Chosen, String), Failure> {
    let usable = |server: &&Server| !verb.is_left_out(&server.name);
    let some = servers.reached.iter().find(usable).map(|server| server.name.clone());
    let first = to.map(str::to_owned).or(some);
    let first =
        first.ok_or_else(|| Failure::new(ExitCode::Unreachable, "no server can be reached"))?;
    if verb.inventory.servers().all(|host| host.name != first) || verb.is_left_out(&first) {
        return Err(bad(format!("{first} is no server that takes part")));
    }
    if let Some(path) = wanted.strip_prefix("s3://") {
        let (bucket, name) = named_bucket(verb, path)?;
        return fetched(verb, wanted, &bucket, name).await.map(|chosen| (chosen, first));
    }
    let file = Path::new(wanted);
    if file.is_file() {
        let said = std::fs::canonicalize(file).unwrap_or_else(|_| file.to_owned());
        return read_here(verb, wanted, said, None).map(|chosen| (chosen, first));
    }
    let bucket = verb.snapshots.s3.as_ref().map(Bucket::open).transpose();
    let bucket = bucket.map_err(|error| bad(chain(&error)))?;
    match find(verb, servers, bucket.as_ref(), wanted, to).await? {
        Found::InS3(name) => {
            let bucket = bucket.ok_or_else(|| bad("there is no S3"))?;
            fetched(verb, wanted, &bucket, &name).await.map(|chosen| (chosen, first))
        }
        Found::On(server, path) => {
            let read = Read::Snapshot { path: path.clone() };
            let answer = servers.get(&server)?.read(vec![read]).await?.pop();
            let Some(Observed::Snapshot(Some(view))) = answer else {
                return Err(bad(format!("{server}: {path} is gone")));
            };
            let said = wanted.to_owned();
            let chosen = Chosen { said, view: *view, path, local: None, _scratch: None };
            sound(verb, chosen).map(|chosen| (chosen, server))
        }
    }
}

/// The bucket and the name in `BUCKET/FOLDER/NAME`. Endpoint and keys are the inventory's.
fn named_bucket<'p>(verb: &Verb<'_>, path: &'p str) -> Result<(Bucket, &'p str), Failure> {
    let (bucket, key) = path.split_once('/').unwrap_or((path, ""));
    let (folder, name) = key.rsplit_once('/').unwrap_or(("", key));
    if bucket.is_empty() || name.is_empty() {
        return Err(bad("it is s3://BUCKET/FOLDER/NAME"));
    }
    let Some(known) = &verb.snapshots.s3 else {
        return Err(bad("endpoint and keys of S3 are not known")
            .hint("the inventory's `snapshot.s3` has them, see docs/operations/snapshot.md"));
    };
    let config = S3Config { bucket: bucket.to_owned(), folder: folder.to_owned(), ..known.clone() };
    Bucket::open(&config).map(|bucket| (bucket, name)).map_err(|error| bad(chain(&error)))
}

/// Brings a snapshot of S3 here, for as long as the restore lasts.
async fn fetched(
    verb: &Verb<'_>,
    wanted: &str,
    bucket: &Bucket,
    name: &str,
) -> Result<Chosen, Failure> {
    let scratch = tempfile::tempdir();
    let scratch =
        scratch.map_err(|error| bad(format!("{}: {error}", std::env::temp_dir().display())))?;
    check_file_name(name).map_err(|why| bad(format!("the name `{name}` {why}")))?;
    let here = scratch.path().join(name);
    bucket.download(name, &here).await.map_err(|error| bad(chain(&error)))?;
    read_here(verb, wanted, here, Some(scratch))
}

/// Reads a file of this machine to its end.
fn read_here(
    verb: &Verb<'_>,
    wanted: &str,
    file: PathBuf,
    scratch: Option<TempDir>,
) -> Result<Chosen, Failure> {
    let view = inspect(&file).map_err(|error| bad(format!("{wanted}: {error}")))?;
    let said = wanted.to_owned();
    let path = String::new();
    sound(verb, Chosen { said, view, path, local: Some(file), _scratch: scratch })
}

/// Refuses what is damaged or of something else.
fn sound(verb: &Verb<'_>, chosen: Chosen) -> Result<Chosen, Failure> {
    let name = &chosen.view.name;
    if let Some(problem) = &chosen.view.problem {
        return Err(bad(format!("snapshot {name} cannot be used: {problem}")));
    }
    match (chosen.view.format, verb.is_k3s()) {
        (SnapshotFormat::Embedded, true) => Err(bad(format!(
            "snapshot {name} is of k3sup-rs's own store, and this cluster is K3s's"
        ))),
        (SnapshotFormat::Etcd, true) if chosen.view.unhashed => Err(bad(format!(
            "snapshot {name} cannot be used: it has no hash at its end, and K3s refuses such a copy; \
             use one that `etcd-snapshot save` made"
        ))),
        (SnapshotFormat::Embedded, false) | (SnapshotFormat::Etcd, _) => Ok(chosen),
    }
}

/// Where a snapshot is.
enum Found {
    /// On this server, at this path.
    On(String, String),
    /// In S3, under this name.
    InS3(String),
}

/// The newest one that is meant; on a server rather than in S3.
async fn find(
    verb: &Verb<'_>,
    servers: &mut Servers<'_>,
    bucket: Option<&Bucket>,
    wanted: &str,
    to: Option<&str>,
) -> Result<Found, Failure> {
    let is_meant = |view: &SnapshotView| match wanted {
        "latest" => view.problem.is_none() && !is_safety(&view.name),
        name => view.name == name,
    };
    let mut found: Vec<((u64, bool), Found)> = Vec::new();
    for server in &mut servers.reached {
        if verb.is_left_out(&server.name) || to.is_some_and(|to| to != server.name) {
            continue;
        }
        let dir = verb.snapshot_dir(server);
        let metadata = server.data("server/db/.metadata");
        let answer = server.read(vec![Read::Snapshots { dir: dir.clone(), metadata }]).await?.pop();
        let Some(Observed::Snapshots(views)) = answer else { continue };
        for view in views.iter().filter(|view| is_meant(view)) {
            let place = Found::On(server.name.clone(), format!("{dir}/{}", view.name));
            found.push(((view.created_unix_s, true), place));
        }
    }
    let mut unknown = String::new();
    match bucket.map(Bucket::list) {
        None => {}
        Some(list) => match list.await {
            Ok(views) => found.extend(
                views
                    .into_iter()
                    .filter(is_meant)
                    .map(|view| ((view.created_unix_s, false), Found::InS3(view.name))),
            ),
            // Servers and files are enough, if they have it.
            Err(error) => {
                unknown = format!(" (S3 does not answer: {})", chain(&error));
                output::error(&format!("warning: S3 does not answer: {}", chain(&error)));
            }
        },
    }
    let newest = found.into_iter().max_by_key(|(when, _)| *when);
    newest.map(|(_, found)| found).ok_or_else(|| {
        let places = if bucket.is_some() {
            "neither a file here nor on any server nor in S3"
        } else {
            "neither a file here nor on any server"
        };
        bad(format!("there is no snapshot {wanted}: {places}{unknown}"))
    })
}
