//! `server --cluster-reset`: this server becomes the only member of a new cluster, with the state of
//! a snapshot file or with what it holds itself. One-shot, offline, K3s's words.
//!
//! The new data is made complete in `server/db/etcd-reset.part`, named `etcd-reset` when all of it is
//! on disk, and takes the old one's place by two renames. A reset that died is finished by whoever
//! starts next, whether that is another reset or the node. The old data is never changed or removed.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::config::ServerConfig;
use super::database::HashCheck;
use super::identity::{DataDir, Identity, Phase};
use super::join::{member_name, plain, random_id};
use super::records::{NodeRecord, SETTINGS, Settings, unix_now};
use super::snapshots::load::load;
use super::{bundle, fence, secrets};
use crate::cluster::fence::aside;
use crate::error::{ExitCode, Failure, chain};
use crate::limits::{CLIENT_PORT, PEER_PORT};
use crate::pki::files;
use crate::pki::tree::Authorities;
use crate::raft::reset::{self, Loaded, Source};
use crate::secret::Secret;
use crate::store::fs::{remove_dir_all, remove_file, sync_dir};
use crate::store::types::{ClusterId, Command, MemberRecord};

/// What was made and is not in its place yet.
const STAGED: &str = "etcd-reset";

/// What is being made.
const PART: &str = "etcd-reset.part";

/// K3s's mark that the membership was reset and the node did not start since.
const FLAG: &str = "reset-flag";

/// The replicated record of the clusters that this one took the place of.
const SUPERSEDES: &str = "cluster/supersedes";

/// K3s's words at the end of a reset.
pub const DONE: &str = "Managed etcd cluster membership has been reset, restart without \
    --cluster-reset flag now. Backup and delete ${datadir}/server/db on each peer etcd server and \
    rejoin the nodes";

/// Resets; returns when all is on disk and in its place.
///
/// # Errors
/// The snapshot cannot be used, the token is not the snapshot's, or the disk says no; the data that
/// was there is as it was.
pub fn run(config: &ServerConfig) -> Result<(), Failure> {
    if config.node.server.is_some() {
        return Err(Failure::new(
            ExitCode::BadInput,
            "cannot perform cluster-reset while server URL is set - remove server from configuration \
             before resetting",
        ));
    }
    let data = DataDir::new(&config.node.data_dir);
    files::private_directory(&data.db()).map_err(|error| broken(&error))?;
    let fence = fence::read(&data).map_err(|error| broken(&error))?;
    let stamp = fence.as_ref().map(|fence| fence.stamp().to_owned());
    let reset = Reset {
        config,
        restore_id: fence.as_ref().map(|fence| fence.restore_id.clone()),
        supersedes: fence.iter().flat_map(|fence| &fence.supersedes).filter_map(hex).collect(),
        stamp: stamp.unwrap_or_else(|| unix_now().to_string()),
        data,
    };
    reset.run()
}

/// Finishes a reset that died after its data was complete. Gives whether there was one.
pub fn finish(data: &DataDir) -> io::Result<bool> {
    let stamp = fence::read(data)?.map(|fence| fence.stamp().to_owned());
    let staged = data.db().join(STAGED);
    if !staged.exists() {
        return Ok(false);
    }
    put_in_place(data, &stamp.unwrap_or_else(|| unix_now().to_string()))?;
    Ok(true)
}

/// Removes K3s's mark: the node starts normally.
pub fn forget_flag(data: &DataDir) -> io::Result<()> {
    remove_file(&data.db().join(FLAG))
}

struct Reset<'a> {
    config: &'a ServerConfig,
    data: DataDir,
    /// The fence's name, when a restore from the control machine goes on.
    restore_id: Option<String>,
    /// In the name of what is set aside.
    stamp: String,
    supersedes: Vec<ClusterId>,
}

impl Reset<'_> {
    fn run(&self) -> Result<(), Failure> {
        let flag = self.data.db().join(FLAG);
        let path = self.config.cluster_reset_restore_path.as_deref();
        // The same restore again: what is left of it is done.
        let resumed = finish(&self.data).map_err(|error| broken(&error))?;
        let before = self.data.read_identity().map_err(|error| broken(&error))?;
        let same = before.as_ref().is_some_and(|identity| {
            identity.restore_id.is_some() && identity.restore_id == self.restore_id
        });
        if !(same || resumed && self.restore_id.is_none()) {
            if path.is_none() && flag.exists() {
                return Err(Failure::new(
                    ExitCode::Error,
                    format!(
                        "Managed etcd cluster membership was previously reset, please remove the \
                         cluster-reset flag and start k3sup-rs normally. If you need to perform \
                         another cluster reset, you must first manually delete the file at {}",
                        flag.display()
                    ),
                ));
            }
            self.make(path, before.as_ref())?;
            self.back_up_certificates().map_err(|error| broken(&error))?;
            put_in_place(&self.data, &self.stamp).map_err(|error| broken(&error))?;
        }
        files::write_private(&flag, b"").map_err(|error| broken(&error))?;
        tracing::info!("{DONE}");
        Ok(())
    }

    /// Makes the new data, complete, beside the old.
    fn make(&self, path: Option<&Path>, before: Option<&Identity>) -> Result<(), Failure> {
        let part = self.data.db().join(PART);
        remove_dir_all(&part).map_err(|error| broken(&error))?;
        let loaded = self.load(path, before)?;
        let settings: Option<Settings> =
            loaded.state.system(SETTINGS).and_then(|json| parse(&json));
        let secret = self.check_token(settings.as_ref())?;
        let member_id = random_id().map_err(|error| broken(&error))?;
        let identity = Identity {
            cluster_id: random_id().map_err(|error| broken(&error))?,
            member_id,
            member_name: member_name(&self.config.node.name, member_id),
            phase: Phase::Joining,
            supersedes: self.superseded(&loaded, before),
            restore_id: self.restore_id.clone(),
        };
        let member = MemberRecord {
            id: member_id,
            name: identity.member_name.clone(),
            peer_urls: vec![self.config.url(PEER_PORT)],
            client_urls: vec![self.config.url(CLIENT_PORT)],
        };
        let mut changes = changes(&loaded, &identity).map_err(|error| broken(&error))?;
        if settings.is_none() {
            // What comes from etcd never agreed on anything: a cluster begins.
            let settings = Settings::first(self.config, &secret).map_err(|error| broken(&error))?;
            let value = serde_json::to_vec(&settings).map_err(|error| broken(&error))?;
            let (key, value) = (SETTINGS.to_owned(), Some(value.into()));
            changes.push(Command::SystemPut { key, value, expect: None });
        }
        let write = || {
            let (cluster, own) = (identity.cluster_id, [member.clone()]);
            let revision = reset::write(&loaded, &part, cluster, &own, member_id, changes)?;
            let staged = StagedDir(&part);
            staged.write_identity(&identity)?;
            sync_tree(&part)?;
            fs::rename(&part, self.data.db().join(STAGED))?;
            sync_dir(&self.data.db())?;
            Ok::<_, io::Error>(revision)
        };
        let revision = write().map_err(|error| broken(&error))?;
        let before = match loaded.cluster {
            0 => "what came from etcd".to_owned(),
            cluster => format!("cluster {cluster:x}"),
        };
        tracing::info!(
            "{before} at revision {revision} becomes cluster {:x} with member {}",
            identity.cluster_id,
            identity.member_name
        );
        Ok(())
    }

    fn load(&self, path: Option<&Path>, before: Option<&Identity>) -> Result<Loaded, Failure> {
        if let Some(path) = path {
            let found = fs::metadata(path).map_err(|_| {
                let message = format!("etcd: snapshot path does not exist: {}", path.display());
                Failure::new(ExitCode::BadInput, message)
            })?;
            if !found.is_file() {
                let message = format!(
                    "etcd: snapshot path must be a file, not a directory: {}",
                    path.display()
                );
                return Err(Failure::new(ExitCode::BadInput, message));
            }
            return load(path, HashCheck::IfThere);
        }
        let Some(identity) = before else {
            return Err(Failure::new(
                ExitCode::BadInput,
                format!("there is nothing to reset: {} has no data", self.data.db().display()),
            )
            .hint("give --cluster-reset-restore-path to begin from a snapshot"));
        };
        let source = Source::Data(&self.data.store(), identity.cluster_id);
        reset::load(source).map_err(|error| broken(&error))
    }

    /// Gives the secret, which must be the one that the state was written under; CAs and token of a server
    /// without data are made here.
    fn check_token(&self, settings: Option<&Settings>) -> Result<Secret, Failure> {
        let known = files::read_private(&self.data.token()).map_err(|error| broken(&error))?;
        let given = self.config.node.token.as_ref().map(plain);
        let known = known.map(|text| plain(&Secret::new(text.trim())));
        let fits = |secret: &Secret| {
            settings.is_none_or(|settings| secrets::matches(&settings.server_secret, secret))
        };
        // The one on disk counts too: what is configured may be of another time.
        let secrets = || given.iter().chain(&known);
        if secrets().next().is_none() {
            return Err(Failure::new(
                ExitCode::BadInput,
                "the token of the snapshot's cluster is needed, and this server has none",
            )
            .hint("give --token-file"));
        }
        let Some(secret) = secrets().find(|secret| fits(secret)) else {
            return Err(Failure::new(
                ExitCode::BadInput,
                "the token is not the one that the cluster had when the snapshot was taken",
            )
            .hint("a snapshot from before a token rotation needs the token of that time"));
        };
        let authorities = self.authorities()?;
        // The snapshot's cluster may have another.
        bundle::forget_agent_token(&self.data).map_err(|error| broken(&error))?;
        bundle::write_token(&self.data, authorities.server.certificate(), secret)
            .map_err(|error| broken(&error))?;
        Ok(secret.clone())
    }

    fn authorities(&self) -> Result<Authorities, Failure> {
        let tree = self.data.tree();
        tree.prepare().map_err(|error| broken(&error))?;
        if let Some(authorities) = tree.authorities().map_err(|error| broken(&error))? {
            return Ok(authorities);
        }
        tree.create_authorities().map_err(|error| broken(&error))
    }

    /// Every cluster that this one takes the place of.
    fn superseded(&self, loaded: &Loaded, before: Option<&Identity>) -> Vec<ClusterId> {
        let recorded = loaded.state.system(SUPERSEDES);
        let recorded: Vec<String> = recorded.and_then(|json| parse(&json)).unwrap_or_default();
        let mut all: Vec<ClusterId> = self.supersedes.clone();
        all.extend(recorded.iter().filter_map(hex));
        all.extend(before.iter().flat_map(|identity| identity.supersedes.clone()));
        all.extend(before.map(|identity| identity.cluster_id));
        // An etcd's database does not say whose it is.
        all.extend(Some(loaded.cluster).filter(|cluster| *cluster != 0));
        all.sort_unstable();
        all.dedup();
        all
    }

    /// A copy of the certificates, as K3s makes it.
    fn back_up_certificates(&self) -> io::Result<()> {
        let to = self.data.path().join(format!("server/tls-{}", self.stamp));
        if to.exists() {
            return Ok(());
        }
        tracing::info!("Cluster reset: backing up certificates directory to {}", to.display());
        let part = to.with_extension("part");
        remove_dir_all(&part)?;
        copy_tree(self.data.tree().root(), &part)?;
        fs::rename(&part, &to)
    }
}

/// The staged directory, which is a store's directory under another name.
struct StagedDir<'a>(&'a Path);

impl StagedDir<'_> {
    fn write_identity(&self, identity: &Identity) -> io::Result<()> {
        files::write_private(&self.0.join("name"), identity.member_name.as_bytes())?;
        let text = serde_json::to_vec_pretty(identity).map_err(io::Error::other)?;
        files::write_private(&self.0.join("identity.json"), &text)
    }
}

/// What has to be different in the state: the servers of before are forgotten, each joins anew.
fn changes(loaded: &Loaded, identity: &Identity) -> io::Result<Vec<Command>> {
    let mut changes = Vec::new();
    let mut put = |key: String, value| {
        changes.push(Command::SystemPut { key, value, expect: None });
    };
    for (key, value) in loaded.state.system_prefix("nodes/") {
        let node: Option<NodeRecord> = parse(&value);
        if node.is_some_and(|node| node.is_server()) {
            put(key, None);
        }
    }
    for (key, _) in loaded.state.system_prefix("heartbeats/") {
        put(key, None);
    }
    let ids: Vec<String> = identity.supersedes.iter().map(|id| format!("{id:x}")).collect();
    put(SUPERSEDES.to_owned(), Some(serde_json::to_vec(&ids).map_err(io::Error::other)?.into()));
    Ok(changes)
}

/// Moves the old data aside and the staged data to its place.
fn put_in_place(data: &DataDir, stamp: &str) -> io::Result<()> {
    let old = data.store();
    if old.exists() {
        let to = free(data.db().join(aside(stamp)));
        fs::rename(&old, &to)?;
        sync_dir(&data.db())?;
        tracing::info!("Pre-restore etcd database moved to {}", to.display());
    }
    fs::rename(data.db().join(STAGED), &old)?;
    sync_dir(&data.db())
}

/// `path`, or with a number behind it when something is there.
fn free(path: PathBuf) -> PathBuf {
    let numbered = |n: u32| PathBuf::from(format!("{}.{n}", path.display()));
    if !path.exists() {
        return path;
    }
    (1..1000).map(numbered).find(|path| !path.exists()).unwrap_or(path)
}

#[expect(clippy::ptr_arg, reason = "it is mapped over strings")]
fn hex(text: &String) -> Option<ClusterId> {
    ClusterId::from_str_radix(text, 16).ok()
}

fn parse<T: serde::de::DeserializeOwned>(json: &[u8]) -> Option<T> {
    serde_json::from_slice(json).ok()
}

fn sync_tree(path: &Path) -> io::Result<()> {
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            sync_tree(&entry.path())?;
        } else {
            fs::File::open(entry.path())?.sync_all()?;
        }
    }
    sync_dir(path)
}

fn copy_tree(from: &Path, to: &Path) -> io::Result<()> {
    files::private_directory(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_tree(&entry.path(), &target)?;
        } else {
            files::write_private(&target, &fs::read(entry.path())?)?;
        }
    }
    Ok(())
}

fn broken(error: &dyn std::error::Error) -> Failure {
    Failure::new(ExitCode::Error, chain(error))
}
