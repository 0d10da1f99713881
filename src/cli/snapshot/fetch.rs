//! `k3sup-rs snapshot fetch`: a snapshot comes here, as a bundle.

use std::fs::File;
use std::io::{Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use serde_json::json;

use super::places::{Found, Places, S3, Server};
use super::settings::settings;
use super::{Common, Hold};
use crate::cli::{ask, clusters, output, token as tokens};
use crate::cluster::snapshots::{SnapshotView, is_safety};
use crate::error::{ExitCode, Failure, chain};
use crate::host::protocol::{Observed, Read};
use crate::inventory::{Connection, Inventory};
use crate::node::snapshots::bundle::{self, Key, Manifest};
use crate::node::snapshots::inspect::inspect;
use crate::node::wire::Sent;
use crate::pki::{Token, files};
use crate::secret::Secret;

/// A file comes in parts of so many bytes.
const PART_BYTES: u32 = 8 * 1024 * 1024;

/// Which snapshot, and where to.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  k3sup-rs snapshot fetch latest -i inventory.yaml -o backup.age --recipient age1…
  k3sup-rs snapshot fetch on-demand-server1-1755900000 -i inventory.yaml -o backup.age   asks for a passphrase
  k3sup-rs snapshot fetch latest -i inventory.yaml -o plain.snap --plain

A bundle holds the snapshot, what is known of it and of its cluster, and the token. Without the token
a snapshot of K3s is of no use; who has both has the cluster: it is always encrypted.")]
pub struct Args {
    /// Name of the snapshot, or `latest`
    name: String,
    #[command(flatten)]
    common: Common,
    /// The new file
    #[arg(long = "file", short = 'o', value_name = "FILE")]
    file: PathBuf,
    /// From this server, or `s3`
    #[arg(long, value_name = "PLACE")]
    from: Option<String>,
    #[command(flatten)]
    key: SealKey,
    /// Only the snapshot itself, without the token, not encrypted
    #[arg(long, conflicts_with_all = ["recipient", "passphrase_file"])]
    plain: bool,
}

/// For whom it is encrypted.
#[derive(Debug, clap::Args)]
pub(super) struct SealKey {
    /// Encrypt to this recipient of age; may be repeated
    #[arg(long, value_name = "age1…")]
    recipient: Vec<String>,
    /// Encrypt to the passphrase in this file
    #[arg(long, value_name = "FILE", conflicts_with = "recipient")]
    passphrase_file: Option<PathBuf>,
}

impl SealKey {
    fn read(&self) -> Result<Key, Failure> {
        if !self.recipient.is_empty() {
            return Ok(Key::Keys(self.recipient.iter().map(Secret::new).collect()));
        }
        passphrase(self.passphrase_file.as_deref(), true)
    }
}

/// A passphrase from a file, or from a person.
pub(super) fn passphrase(file: Option<&Path>, twice: bool) -> Result<Key, Failure> {
    let Some(file) = file else {
        return ask::new_secret("passphrase of the bundle", twice).map(Key::Passphrase);
    };
    let bad = |why: String| {
        Failure::new(ExitCode::BadInput, format!("--passphrase-file {}: {why}", file.display()))
    };
    let text = files::read_private(file).map_err(|error| bad(error.to_string()))?;
    let text = text.ok_or_else(|| bad("it is not there".to_owned()))?;
    let text = text.trim_end_matches(['\n', '\r']);
    if text.is_empty() {
        return Err(bad("it is empty".to_owned()));
    }
    Ok(Key::Passphrase(Secret::new(text)))
}

/// Brings a snapshot here, reads it to its end, and bundles it.
pub(super) async fn run(args: Args) -> Result<(), Failure> {
    if args.file.symlink_metadata().is_ok() {
        let message = format!("{} exists already: choose another name", args.file.display());
        return Err(Failure::new(ExitCode::BadInput, message));
    }
    let (inventory, reach) = args.common.open()?;
    let settings = settings(&inventory)?;
    // A person is asked before anything takes its time.
    let key = if args.plain { None } else { Some(args.key.read()?) };
    let mut places = Places::open(&inventory, &reach, &settings).await?;
    let found = places.list().await;
    let chosen = choose(&found, &args.name, args.from.as_deref(), &places.problems)?;
    // Nothing is changed on any host: nobody has to wait for anybody.
    let mut work = args.common.work("snapshot fetch", &inventory, Hold { break_lock: false })?;
    let fetched = keep(&args, &inventory, &mut places, &chosen, key).await;
    let noted = fetched
        .as_ref()
        .map(|view| Some(format!("revision {}, now {}", view.revision, args.file.display())));
    let step = format!("fetch {}", chosen.view.name);
    work.note(&chosen.place, &step, noted.map_err(|failure| failure.message.clone()));
    let view = work.end(fetched)?;
    let text = format!(
        "{} from {}: verified, revision {}, {}\n{} {}",
        view.name,
        chosen.place,
        view.revision,
        output::bytes(view.bytes),
        if args.plain { "the snapshot is in" } else { "the bundle is in" },
        args.file.display()
    );
    let value = json!({
        "where": chosen.place,
        "file": args.file,
        "bundle": !args.plain,
        "snapshot": view,
    });
    args.common.tell(&text, &value)
}

/// Brings it here and puts it where it was wanted.
async fn keep(
    args: &Args,
    inventory: &Inventory,
    places: &mut Places,
    chosen: &Found,
    key: Option<Key>,
) -> Result<SnapshotView, Failure> {
    let directory = crate::store::fs::parent(&args.file).to_owned();
    let scratch = tempfile::Builder::new().prefix(".snapshot-").tempdir_in(&directory);
    let scratch = scratch.map_err(|error| clusters::failed(&directory, &error))?;
    let here = scratch.path().join(&chosen.view.name);
    bring(places, chosen, &here).await?;
    let view = judged(&here, chosen)?;
    match key {
        None => {
            std::fs::rename(&here, &args.file)
                .map_err(|error| clusters::failed(&args.file, &error))?;
        }
        Some(key) => {
            let manifest = manifest(inventory, places, view.clone()).await?;
            let mut content = File::open(&here).map_err(|error| clusters::failed(&here, &error))?;
            bundle::seal(&args.file, &manifest, &mut content, &key).map_err(|error| {
                Failure::new(ExitCode::Error, format!("{}: {error}", args.file.display()))
            })?;
        }
    }
    Ok(view)
}

/// The one of this name, or the newest that nothing is known against; on a server rather than in S3.
fn choose(
    found: &[Found],
    name: &str,
    from: Option<&str>,
    problems: &[String],
) -> Result<Found, Failure> {
    let there = found.iter().filter(|found| from.is_none_or(|place| found.place == place));
    let usable = there.filter(|found| match name {
        "latest" => found.view.problem.is_none() && !is_safety(&found.view.name),
        name => found.view.name == name,
    });
    let chosen = usable.max_by_key(|found| {
        let verified = found.view.verified_unix_s.is_some();
        (found.view.problem.is_none(), found.view.created_unix_s, verified, found.place != S3)
    });
    chosen.cloned().ok_or_else(|| {
        let mut message = match from {
            Some(place) => format!("{place} has no snapshot {name}"),
            None => format!("there is no snapshot {name}"),
        };
        for problem in problems {
            message.push('\n');
            message.push_str(problem);
        }
        Failure::new(ExitCode::Error, message).hint("what there is: `k3sup-rs snapshot ls`")
    })
}

/// Copies the chosen one into the new file `here`.
async fn bring(places: &mut Places, chosen: &Found, here: &Path) -> Result<(), Failure> {
    let failed = |why: String| {
        let message = format!("cannot fetch {} from {}: {why}", chosen.view.name, chosen.place);
        Failure::new(ExitCode::HostFailed, message)
    };
    if chosen.place == S3 {
        let bucket = places.bucket.as_ref().ok_or_else(|| failed("no S3".to_owned()))?;
        let fetched = bucket.download(&chosen.view.name, here).await;
        return fetched.map_err(|error| failed(chain(&error)));
    }
    let server = places.server(&chosen.place).ok_or_else(|| failed("it is gone".to_owned()))?;
    copy(server, &chosen.view, here).await.map_err(failed)
}

async fn copy(server: &mut Server, view: &SnapshotView, here: &Path) -> Result<(), String> {
    let mut file =
        crate::store::fs::create_private_file(here).map_err(|error| error.to_string())?;
    let path = server.path(&view.name);
    let mut offset = 0;
    while offset < view.bytes {
        let read = Read::FilePart { path: path.clone(), offset, bytes_max: PART_BYTES };
        let part = match server.look(read).await? {
            Observed::File(Some(part)) if !part.is_empty() => part,
            Observed::File(_) => return Err("it went away, or became shorter".to_owned()),
            _ => return Err("the executor answers something else".to_owned()),
        };
        offset += part.len() as u64;
        file.write_all(&part).map_err(|error| error.to_string())?;
    }
    file.seek(SeekFrom::Start(0)).and_then(|_| file.sync_all()).map_err(|error| error.to_string())
}

/// What is here now, read to its end.
fn judged(here: &Path, chosen: &Found) -> Result<SnapshotView, Failure> {
    let mut view = inspect(here).map_err(|error| clusters::failed(here, &error))?;
    if let Some(problem) = &view.problem {
        let message = format!("{} of {}: {problem}", chosen.view.name, chosen.place);
        return Err(Failure::new(ExitCode::Refused, message)
            .hint("choose another one: `k3sup-rs snapshot verify` says which are right"));
    }
    if chosen.view.sha256.is_some() && view.sha256 != chosen.view.sha256 {
        let message = format!("{} is not what was saved: its hash differs", chosen.view.name);
        return Err(Failure::new(ExitCode::Refused, message));
    }
    view.node.clone_from(&chosen.view.node);
    view.location.clone_from(&chosen.view.location);
    Ok(view)
}

/// What goes with it.
async fn manifest(
    inventory: &Inventory,
    places: &mut Places,
    view: SnapshotView,
) -> Result<Manifest, Failure> {
    let mut manifest = Manifest::new(&inventory.cluster_name, inventory.distribution, view);
    for host in inventory.servers() {
        let address = match host.connection() {
            Connection::Ssh(ssh) => ssh.address.clone(),
            Connection::Lab { address } => address.to_string(),
            Connection::Local => "127.0.0.1".to_owned(),
        };
        manifest.servers.insert(host.name.clone(), address);
    }
    for server in &mut places.servers {
        let read = server.place.cluster_read();
        if let Ok(Observed::Cluster(Some(view))) = server.look(read).await {
            manifest.ca_hash = Some(view.ca_hash).filter(|hash| !hash.is_empty());
            let nodes = view.nodes.into_iter();
            manifest.versions = nodes.map(|node| (node.name, node.version)).collect();
            break;
        }
    }
    let Some(secret) = clusters::known_token(inventory)? else {
        let message = "the cluster's token is not known here: a bundle without it is of no use";
        return Err(Failure::new(ExitCode::Error, message)
            .hint("put it into the inventory (`token`), or fetch with --plain"));
    };
    let token = Token::parse(secret.expose())
        .map_err(|error| Failure::new(ExitCode::BadInput, error.to_string()))?;
    let token = tokens::full(token, &inventory.cluster_name)?;
    manifest.token = Some(Sent(token.text()));
    Ok(manifest)
}
