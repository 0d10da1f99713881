//! `k3sup-rs snapshot push`: a bundle or a snapshot goes to a server.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use serde_json::json;

use super::fetch::passphrase;
use super::places::{Places, Server, called};
use super::settings::settings;
use super::{Common, Hold};
use crate::cli::output::{Format, bytes as shown_bytes};
use crate::cli::{clusters, output};
use crate::cluster::layout::Distribution;
use crate::cluster::snapshots::{SnapshotFormat, SnapshotName, SnapshotView, check_file_name};
use crate::error::{ExitCode, Failure};
use crate::host::protocol::{Change, FileContent};
use crate::inventory::Inventory;
use crate::node::snapshots::bundle::{self, Key, Manifest};
use crate::node::snapshots::inspect::inspect;
use crate::pki::{Token, files};
use crate::secret::Secret;

/// What goes where.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  k3sup-rs snapshot push backup.age -i inventory.yaml --identity key.txt
  k3sup-rs snapshot push backup.age -i inventory.yaml --to server2      asks for the passphrase
  k3sup-rs snapshot push plain.snap -i inventory.yaml --as on-demand-server1-1755900000

A bundle's token is kept for the cluster when none is known here yet.")]
pub struct Args {
    /// The bundle or the snapshot
    file: PathBuf,
    #[command(flatten)]
    common: Common,
    /// To this server [default: the first that is reached]
    #[arg(long, value_name = "SERVER")]
    to: Option<String>,
    /// Its name there [default: the bundle's, or the file's]
    #[arg(long = "as", value_name = "NAME")]
    name: Option<String>,
    /// File with identities of age
    #[arg(long, value_name = "FILE")]
    identity: Option<PathBuf>,
    /// File with the passphrase
    #[arg(long, value_name = "FILE", conflicts_with = "identity")]
    passphrase_file: Option<PathBuf>,
    /// Only say what would be done; ends with 7
    #[arg(long, short = 'C')]
    check: bool,
    #[command(flatten)]
    hold: Hold,
}

impl Args {
    fn key(&self) -> Result<Key, Failure> {
        let Some(file) = &self.identity else {
            return passphrase(self.passphrase_file.as_deref(), false);
        };
        let bad = |why: String| {
            Failure::new(ExitCode::BadInput, format!("--identity {}: {why}", file.display()))
        };
        let text = files::read_private(file).map_err(|error| bad(error.to_string()))?;
        let text = text.ok_or_else(|| bad("it is not there".to_owned()))?;
        Ok(Key::Keys(text.lines().map(Secret::new).collect()))
    }
}

/// Opens it, reads it to its end, and brings it to a server, where it is read again.
pub(super) async fn run(args: Args) -> Result<(), Failure> {
    let (inventory, reach) = args.common.open()?;
    let settings = settings(&inventory)?;
    let scratch = tempfile::tempdir();
    let scratch = scratch.map_err(|error| clusters::failed(&std::env::temp_dir(), &error))?;
    let (path, manifest) = opened(&args, scratch.path())?;
    let view = inspect(&path).map_err(|error| clusters::failed(&path, &error))?;
    fits(&view, &inventory)?;
    let usual = manifest.as_ref().map_or(&view.name, |manifest| &manifest.snapshot.name);
    let name = args.name.as_ref().unwrap_or(usual).clone();
    let named = check_file_name(&name).is_ok() && SnapshotName::parse(&name).is_some();
    if !named {
        let message = format!("`{name}` is not the name of a snapshot: NAME-NODE-SECONDS[.zip]");
        return Err(Failure::new(ExitCode::BadInput, message).hint("give it one with --as"));
    }
    let mut places = Places::open(&inventory, &reach, &settings).await?;
    let there = match &args.to {
        Some(to) => places.servers.iter().find(|server| server.name == *to),
        None => places.servers.first(),
    };
    let to = there.map(|server| server.name.clone()).ok_or_else(|| {
        let wanted = args.to.as_deref().unwrap_or("any server");
        let message = format!("cannot reach {wanted}\n{}", places.problems.join("\n"));
        Failure::new(ExitCode::Unreachable, message.trim_end())
    })?;
    if args.check {
        let text = format!("would bring {} to {to}", words(&name, &view));
        let value = json!({ "would_push": name, "to": to, "snapshot": view });
        args.common.tell(&text, &value)?;
        return Err(Failure::new(ExitCode::WouldChange, ""));
    }
    let work = args.common.work("snapshot push", &inventory, args.hold)?;
    places
        .hold(work, async |places, work| {
            let server = places.server(&to).ok_or_else(|| failed(format!("{to} is gone")))?;
            let sent = send(server, &path, &view, &name).await;
            let noted = sent.as_ref().map(|_| Some(words(&name, &view)));
            work.note(&to, "push", noted.map_err(|failure| failure.message.clone()));
            let sent = sent?;
            let words = words(&name, &view);
            let text = if sent {
                format!("{to}: {words}, verified")
            } else {
                format!("{to} has {words} already")
            };
            args.common.tell(&text, &json!({ "where": to, "sent": sent, "snapshot": view }))?;
            manifest.map_or(Ok(()), |manifest| keep_token(&args, &inventory, &manifest))
        })
        .await
}

fn words(name: &str, view: &SnapshotView) -> String {
    format!("{name}, revision {}, {}", view.revision, shown_bytes(view.bytes))
}

fn failed(why: String) -> Failure {
    Failure::new(ExitCode::HostFailed, why)
}

/// Brings it to the server and reads it there; false when it was there already.
async fn send(
    server: &mut Server,
    path: &Path,
    view: &SnapshotView,
    name: &str,
) -> Result<bool, Failure> {
    if let Some(known) = server.verify(name).await.map_err(failed)? {
        if known.sha256 == view.sha256 {
            return Ok(false);
        }
        let message = format!("{} has another snapshot of the name {name}", server.name);
        return Err(Failure::new(ExitCode::Refused, message)
            .hint("give it another name with --as, or remove that one first"));
    }
    let changes = changes(path, view, &server.path(name), &format!("{}/{name}", server.metadata));
    let answers = server.session.change(changes?).await;
    let answers = answers.map_err(|error| failed(error.to_string()))?;
    for answer in answers {
        answer.map_err(|error| failed(format!("{}: {error}", server.name)))?;
    }
    let found = server.verify(name).await.map_err(failed)?.unwrap_or_default();
    if found.problem.is_some() || found.sha256 != view.sha256 {
        return Err(failed(format!("{name} on {} is not what was sent", server.name)));
    }
    Ok(true)
}

/// The snapshot as a file here, and what its bundle says.
fn opened(args: &Args, scratch: &Path) -> Result<(PathBuf, Option<Manifest>), Failure> {
    let file = &args.file;
    let failed =
        |why: String| Failure::new(ExitCode::BadInput, format!("{}: {why}", file.display()));
    if !bundle::is_sealed(file).map_err(|error| failed(error.to_string()))? {
        return Ok((file.clone(), None));
    }
    let key = args.key()?;
    // Its own name is not believed to be one of a file.
    let place = scratch.join("snapshot");
    let manifest = bundle::open(file, &key, |_| place.clone());
    manifest.map(|manifest| (place, Some(manifest))).map_err(|error| failed(error.to_string()))
}

/// Whether it may be brought to a server of this inventory.
fn fits(view: &SnapshotView, inventory: &Inventory) -> Result<(), Failure> {
    if let Some(problem) = &view.problem {
        return Err(Failure::new(ExitCode::Refused, problem.clone()));
    }
    if view.unhashed {
        let why = "it has no hash at its end: use one that `etcd-snapshot save` made";
        return Err(Failure::new(ExitCode::Refused, why));
    }
    let wanted = match inventory.distribution {
        Distribution::Embedded => SnapshotFormat::Embedded,
        Distribution::K3s => SnapshotFormat::Etcd,
    };
    if view.format == wanted {
        return Ok(());
    }
    let other = match view.format {
        SnapshotFormat::Embedded => "k3sup-rs",
        SnapshotFormat::Etcd => "etcd or K3s",
    };
    let own = called(inventory.distribution);
    let message = format!("it is a snapshot of {other}, and the inventory's cluster is {own}'s");
    Err(Failure::new(ExitCode::Refused, message))
}

fn changes(path: &Path, view: &SnapshotView, to: &str, note: &str) -> Result<Vec<Change>, Failure> {
    let put = |path: &str, content: FileContent| Change::PutFile {
        path: path.to_owned(),
        content,
        mode: 0o600,
        owner: None,
        group: None,
        backup: false,
        validate: Vec::new(),
    };
    let directory = |path: &str| Change::MakeDirectory {
        path: Path::new(path).parent().unwrap_or(Path::new("/")).to_string_lossy().into_owned(),
        mode: 0o700,
        owner: None,
        group: None,
    };
    let name = Path::new(to).file_name().unwrap_or_default().to_string_lossy().into_owned();
    let noted = SnapshotView { name, location: format!("file://{to}"), ..view.clone() };
    let noted = serde_json::to_vec(&noted)
        .map_err(|error| Failure::new(ExitCode::Error, error.to_string()))?;
    let local = FileContent::Local {
        path: path.to_string_lossy().into_owned(),
        sha256: view.sha256.clone().unwrap_or_default(),
        size: view.bytes,
    };
    Ok(vec![
        directory(to),
        put(to, local),
        directory(note),
        put(note, FileContent::Bytes(Bytes::from(noted))),
    ])
}

/// Keeps the bundle's token when none is known here. Another one stays, and that is said.
fn keep_token(args: &Args, inventory: &Inventory, manifest: &Manifest) -> Result<(), Failure> {
    let Some(token) = &manifest.token else { return Ok(()) };
    let Some(known) = clusters::known_token(inventory)? else {
        let path = clusters::token_file(&inventory.cluster_name)?;
        clusters::private_directory(&inventory.cluster_name)?;
        files::write_private(&path, token.0.expose().as_bytes())
            .map_err(|error| clusters::failed(&path, &error))?;
        if args.common.output == Format::Text {
            output::line(&format!("the bundle's token is now in {}", path.display()))?;
        }
        return Ok(());
    };
    let password = |secret: &Secret| Token::parse(secret.expose()).map(|token| token.password).ok();
    if password(&known) != password(&token.0) {
        output::error(
            "warning: the bundle's token is not the one known here: a restore wants the bundle's",
        );
    }
    Ok(())
}
