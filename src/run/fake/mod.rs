//! Hosts in memory for tests: a small file system, services and a cluster, which obey the
//! executor's instructions. The control machine can be made to die after any number of changes.

#![allow(
    clippy::unnecessary_wraps,
    clippy::format_push_string,
    clippy::redundant_closure_for_method_calls,
    reason = "a fake for tests, where plain is better than fast"
)]

mod node;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use sha2::{Digest, Sha256};

use super::context::Connector;
use super::fleet::FleetHost;
use crate::cluster::layout::{Layout, Role};
use crate::host::protocol::{
    Change, Done, Facts, FileContent, HostError, HostErrorKind, Observed, Output, PackageAction,
    PackageFacts, PathFacts, PathKind, Read, ServiceAction, ServiceFacts,
};
use crate::remote::{RemoteError, Session};

pub(super) use node::Disk;

/// All hosts and the clusters that their nodes make.
#[derive(Clone, Debug, Default)]
pub(super) struct World {
    pub(super) hosts: BTreeMap<String, Host>,
    /// Members by cluster: number and node's name.
    pub(super) clusters: BTreeMap<String, BTreeMap<String, String>>,
    /// How often a cluster was founded.
    pub(super) founded: u32,
    pub(super) next_id: u32,
    /// Changes until the control machine dies.
    pub(super) changes_left: Option<u32>,
    /// Changes until the link of the session that makes them is cut, before it answers.
    pub(super) cut_after: Option<u32>,
    /// Every change is made and no answer arrives.
    pub(super) cut_always: bool,
    /// A node that runs without data, and joins with the next change anywhere.
    pub(super) joining: Option<String>,
    /// Changes so far, locks not counted.
    pub(super) changes: u32,
    /// Most servers of a cluster that were down at the same time after it had a quorum.
    pub(super) quorum_lost: bool,
    /// Everything that was run, with its host.
    pub(super) ran: Vec<(String, Vec<String>)>,
    /// Exit status and output of commands, by their first word.
    pub(super) commands: BTreeMap<String, (i32, String)>,
}

/// One host.
#[derive(Clone, Debug, Default)]
pub(super) struct Host {
    pub(super) address: String,
    pub(super) role: Option<Role>,
    pub(super) unreachable: bool,
    /// Nobody becomes another user there.
    pub(super) refuses: bool,
    pub(super) files: BTreeMap<String, File>,
    pub(super) running: bool,
    pub(super) enabled: bool,
    /// Hash of binary, unit and configuration that the node was started with.
    pub(super) started_with: Option<String>,
    pub(super) disk: Option<Disk>,
    pub(super) lock: Option<String>,
    pub(super) packages: BTreeSet<String>,
    /// Services other than the node.
    pub(super) services: BTreeMap<String, Other>,
}

/// A service that is not the node.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Other {
    pub(super) running: bool,
    pub(super) enabled: bool,
    pub(super) reloads: u32,
}

impl Other {
    fn act(&mut self, action: ServiceAction) {
        match action {
            ServiceAction::Start | ServiceAction::Restart => self.running = true,
            ServiceAction::Stop => self.running = false,
            ServiceAction::Enable => self.enabled = true,
            ServiceAction::Disable => self.enabled = false,
            ServiceAction::Reload => self.reloads += 1,
        }
    }
}

/// A file or directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct File {
    pub(super) content: Option<Bytes>,
    pub(super) mode: u32,
}

impl World {
    pub(super) fn new(hosts: &[(&str, Role)]) -> Self {
        let host = |(number, (name, role)): (usize, &(&str, Role))| {
            let host = Host {
                address: format!("10.0.0.{}", number + 1),
                role: Some(*role),
                ..Host::default()
            };
            ((*name).to_owned(), host)
        };
        Self { hosts: hosts.iter().enumerate().map(host).collect(), ..Self::default() }
    }

    pub(super) fn host(&mut self, name: &str) -> &mut Host {
        self.hosts.get_mut(name).expect("a host of this world")
    }

    pub(super) fn layout(&self, name: &str) -> Layout {
        let role = self.hosts[name].role.expect("a role");
        Layout::new(crate::cluster::layout::Distribution::Embedded, role, Some(&root(name)))
    }

    /// What must be the same however the world came to be so.
    pub(super) fn end_state(&self) -> String {
        let mut text = String::new();
        for (name, host) in &self.hosts {
            writeln!(text, "{name} running={} enabled={}", host.running, host.enabled).unwrap();
            for (path, file) in &host.files {
                // A mark of a handler is gone at the end; its directory does not matter.
                if path.contains("/k3sup-rs") && file.content.is_none() {
                    continue;
                }
                let content = file.content.as_ref().map(|bytes| String::from_utf8_lossy(bytes));
                writeln!(text, "{path} {:o} {content:?}", file.mode).unwrap();
            }
        }
        text
    }

    fn read(&self, name: &str, read: &Read) -> Observed {
        let host = &self.hosts[name];
        match read {
            Read::Facts => Observed::Facts(Box::new(facts(name, host))),
            Read::Path { path, hash, .. } => Observed::Path(path_facts(host, path, *hash)),
            Read::File { path, .. } => {
                Observed::File(host.files.get(path).and_then(|file| file.content.clone()))
            }
            Read::FilePart { path, offset, bytes_max } => {
                let content = host.files.get(path).and_then(|file| file.content.clone());
                let from = usize::try_from(*offset).unwrap();
                Observed::File(content.map(|bytes| {
                    let end = bytes.len().min(from + *bytes_max as usize);
                    bytes.slice(from.min(end)..end)
                }))
            }
            Read::Directory { path } => {
                let below = format!("{path}/");
                let names = host.files.keys().filter_map(|file| file.strip_prefix(&below));
                let names: Vec<String> = names.map(str::to_owned).collect();
                Observed::Names(host.files.contains_key(path).then_some(names))
            }
            Read::Service { name: unit } => {
                let layout = self.layout(name);
                let file = format!("{}/{unit}.service", layout.unit_dir);
                let own = *unit == layout.service;
                let other = host.services.get(unit).copied().unwrap_or_default();
                Observed::Service(ServiceFacts {
                    exists: host.files.contains_key(&file),
                    active: if own { host.running } else { other.running },
                    enabled: if own { host.enabled } else { other.enabled },
                    ..ServiceFacts::default()
                })
            }
            Read::K3sDisk { .. } => Observed::Disk(None),
            Read::K3sCluster { .. } => Observed::Cluster(None),
            Read::K3sReady { .. } => Observed::Ready(Err("the fakes run no K3s".to_owned())),
            Read::Disk { .. } => Observed::Disk(host.disk.as_ref().and_then(Disk::view)),
            Read::Cluster { .. } => Observed::Cluster(self.view(name).map(Box::new)),
            Read::Ready { .. } => Observed::Ready(self.ready(name)),
            Read::ServiceLog { .. } => Observed::Text("the node's last words".to_owned()),
            Read::User { .. } => Observed::User(None),
            Read::Packages { names } => Observed::Packages(PackageFacts {
                manager: Some("apt".to_owned()),
                installed: names.iter().filter(|n| host.packages.contains(*n)).cloned().collect(),
            }),
            Read::TcpProbe { .. } => Observed::Reachable(true),
            Read::Idle { .. } => Observed::Idle(true),
            Read::Listener { .. } => Observed::Listener(None),
            Read::Space { .. } => {
                Observed::Space { free_bytes: 1 << 40, total_bytes: 1 << 40, writable: Ok(()) }
            }
            Read::Command(_) => Observed::Output(Output::default()),
            Read::LogEnd { .. } | Read::K3sLogEnd { .. } => Observed::LogEnd(None),
            Read::StoreHash { .. } | Read::K3sStoreHash { .. } => Observed::StoreHash(1, 0),
            Read::K3sTokenHash { .. } => Observed::Text(String::new()),
            Read::Snapshot { .. } => Observed::Snapshot(None),
            Read::Snapshots { .. } => Observed::Snapshots(Vec::new()),
            Read::Measure(what) => Observed::Measured(node::measured(what)),
        }
    }

    fn change(&mut self, name: &str, change: &Change) -> Result<Done, HostError> {
        match change {
            Change::PutFile { path, content, mode, .. } => {
                let content = match content {
                    FileContent::Bytes(bytes) => bytes.clone(),
                    FileContent::Secret(text) => Bytes::from(text.0.expose().to_owned()),
                    FileContent::CopyOf { sha256, .. } | FileContent::Local { sha256, .. } => {
                        Bytes::from(format!("binary {sha256}"))
                    }
                };
                let file = File { content: Some(content), mode: *mode };
                self.host(name).files.insert(path.clone(), file);
            }
            Change::MakeDirectory { path, mode, .. } => {
                let file = File { content: None, mode: *mode };
                self.host(name).files.insert(path.clone(), file);
            }
            Change::SetAttributes { path, mode, .. } => {
                let file = self.host(name).files.get_mut(path);
                let file = file.ok_or_else(|| not_there(path))?;
                file.mode = mode.unwrap_or(file.mode);
            }
            Change::Remove { path } => self.remove(name, path),
            Change::Run(spec) => return Ok(Done::Output(self.run(name, &spec.argv))),
            Change::Service { name: unit, action, .. } => {
                if *unit == self.layout(name).service {
                    self.act(name, *action)?;
                } else {
                    self.host(name).services.entry(unit.clone()).or_default().act(*action);
                }
            }
            Change::RemoveMember { member_id, .. } => {
                self.clusters.values_mut().for_each(|members| {
                    members.remove(member_id);
                });
            }
            Change::Lock { holder, steal, .. } => {
                let host = self.host(name);
                match &host.lock {
                    Some(id) if *id != holder.id && !steal => {
                        return Err(HostError {
                            kind: HostErrorKind::Locked,
                            message: format!("locked by {id}"),
                            hint: None,
                        });
                    }
                    _ => host.lock = Some(holder.id.clone()),
                }
            }
            Change::Unlock { id, .. } => {
                let host = self.host(name);
                if host.lock.as_ref() == Some(id) {
                    host.lock = None;
                }
            }
            Change::Packages { names, action, .. } => {
                let host = self.host(name);
                match action {
                    PackageAction::Install => host.packages.extend(names.iter().cloned()),
                    PackageAction::Remove => host.packages.retain(|name| !names.contains(name)),
                }
            }
            Change::ReloadUnits
            | Change::AddUser { .. }
            | Change::RemoveUser { .. }
            | Change::ForgetNode { .. }
            | Change::HandOver { .. }
            | Change::HandOverK3s { .. }
            | Change::RotateK3sToken { .. }
            | Change::UnpackSnapshot { .. } => {}
            Change::Link { path, .. } | Change::Move { from: path, .. } => {
                return Err(not_there(path));
            }
            Change::RemoveK3sMember { member, .. } => return Err(not_there(member)),
        }
        Ok(Done::Ok)
    }

    fn remove(&mut self, name: &str, path: &str) {
        let layout = self.layout(name);
        let below = format!("{path}/");
        let host = self.host(name);
        host.files.retain(|file, _| file != path && !file.starts_with(&below));
        if layout.data_dir.starts_with(path) {
            host.disk = None;
        }
    }

    fn run(&mut self, name: &str, argv: &[String]) -> Output {
        self.ran.push((name.to_owned(), argv.to_vec()));
        // `mv` of a removed member's data.
        if argv[0] == "mv" {
            self.host(name).disk = None;
            let below = argv[1].clone();
            self.host(name).files.retain(|path, _| !path.starts_with(&below));
        }
        let (status, stdout) = self.commands.get(&argv[0]).cloned().unwrap_or_default();
        Output { status, stdout: Bytes::from(stdout), ..Output::default() }
    }

    fn act(&mut self, name: &str, action: ServiceAction) -> Result<(), HostError> {
        match action {
            ServiceAction::Enable => self.host(name).enabled = true,
            ServiceAction::Disable => self.host(name).enabled = false,
            ServiceAction::Stop => self.stop(name),
            ServiceAction::Start => self.start(name)?,
            ServiceAction::Restart => {
                self.stop(name);
                self.start(name)?;
            }
            ServiceAction::Reload => {}
        }
        Ok(())
    }
}

fn root(name: &str) -> String {
    format!("/lab/{name}")
}

fn not_there(path: &str) -> HostError {
    HostError { kind: HostErrorKind::NotFound, message: format!("{path} is not there"), hint: None }
}

fn facts(name: &str, host: &Host) -> Facts {
    Facts {
        hostname: name.to_owned(),
        architecture: "x86_64".to_owned(),
        lab_root: Some(root(name)),
        addresses: vec![host.address.clone()],
        default_address: Some(host.address.clone()),
        executor_path: "/run/executor".to_owned(),
        executor_sha256: hex::encode(Sha256::digest(b"executor")),
        is_root: true,
        ..Facts::default()
    }
}

fn path_facts(host: &Host, path: &str, hash: bool) -> Option<PathFacts> {
    let file = host.files.get(path)?;
    let sha256 = file.content.as_ref().filter(|_| hash).map(|content| {
        // A copy is known by the hash of what it is a copy of.
        match content.strip_prefix(b"binary ") {
            Some(sha256) => String::from_utf8_lossy(sha256).into_owned(),
            None => hex::encode(Sha256::digest(content)),
        }
    });
    Some(PathFacts {
        kind: if file.content.is_some() { PathKind::File } else { PathKind::Directory },
        mode: file.mode,
        owner: "root".to_owned(),
        group: "root".to_owned(),
        size: file.content.as_ref().map_or(0, |content| content.len() as u64),
        sha256,
        target: None,
    })
}

/// Connects to the hosts of a world.
#[derive(Clone)]
pub(super) struct FakeConnector(pub(super) Arc<Mutex<World>>);

struct FakeSession {
    name: String,
    world: Arc<Mutex<World>>,
    round_trips: u64,
    cut: bool,
}

fn gone(what: &str) -> RemoteError {
    RemoteError::Unreachable { message: what.to_owned(), hint: None }
}

impl Connector for FakeConnector {
    fn connect<'a>(
        &'a self,
        host: &'a FleetHost,
        user: Option<&'a str>,
    ) -> BoxFuture<'a, Result<Box<dyn Session>, RemoteError>> {
        Box::pin(async move {
            if self.0.lock().hosts[&host.name].unreachable {
                return Err(gone("no route to host"));
            }
            if user.is_some() && self.0.lock().hosts[&host.name].refuses {
                return Err(RemoteError::Become { message: "wrong".to_owned(), hint: None });
            }
            let session = FakeSession {
                name: host.name.clone(),
                world: Arc::clone(&self.0),
                round_trips: 0,
                cut: false,
            };
            Ok(Box::new(session) as Box<dyn Session>)
        })
    }
}

impl Session for FakeSession {
    fn read(
        &mut self,
        reads: Vec<Read>,
    ) -> BoxFuture<'_, Result<Vec<Result<Observed, HostError>>, RemoteError>> {
        self.round_trips += 1;
        let world = self.world.lock();
        let dead = self.cut || world.changes_left == Some(0) || world.hosts[&self.name].unreachable;
        let answers = if dead {
            Err(gone("connection lost"))
        } else {
            Ok(reads.iter().map(|read| Ok(world.read(&self.name, read))).collect())
        };
        Box::pin(async move { answers })
    }

    fn change(
        &mut self,
        changes: Vec<Change>,
    ) -> BoxFuture<'_, Result<Vec<Result<Done, HostError>>, RemoteError>> {
        self.round_trips += 1;
        let mut world = self.world.lock();
        let mut answers = Vec::new();
        for change in &changes {
            let lock = matches!(change, Change::Lock { .. } | Change::Unlock { .. });
            if self.cut || world.changes_left == Some(0) || world.hosts[&self.name].unreachable {
                return Box::pin(async { Err(gone("connection lost")) });
            }
            if !lock {
                world.changes_left = world.changes_left.map(|left| left - 1);
                world.changes += 1;
            }
            let answer = world.change(&self.name, change);
            let stop = answer.is_err();
            answers.push(answer);
            if !lock && let Some(name) = world.joining.take() {
                world.join(&name);
            }
            if !lock {
                world.cut_after = world.cut_after.and_then(|left| left.checked_sub(1));
                if world.cut_after == Some(0) || world.cut_always {
                    world.cut_after = None;
                    self.cut = true;
                    return Box::pin(async { Err(gone("connection lost")) });
                }
            }
            if stop {
                break;
            }
        }
        Box::pin(async move { Ok(answers) })
    }

    fn round_trips(&self) -> u64 {
        self.round_trips
    }
}
