//! The servers of a restore: sessions, looks, changes.

use bytes::Bytes;
use futures::future::join_all;

use super::super::{ask, target};
use super::Verb;
use super::source::Chosen;
use crate::cluster::fence::{FENCE, Fence, RESTORED, aside};
use crate::cluster::layout::Role;
use crate::cluster::restore::{Intent, Seen, cluster_of_k3s};
use crate::cluster::view::ClusterView;
use crate::error::{ExitCode, Failure};
use crate::host::protocol::{Change, Done, Facts, FileContent, Observed, Read};
use crate::inventory::Host;
use crate::remote::Session;
use crate::run::reach::Reach;
use crate::run::{Place, VerbLock};
use crate::template::{Engine, Vars};

/// Longest fence that is looked at, in bytes.
const FENCE_BYTES_MAX: u64 = 64 * 1024;

/// One server that can be reached.
pub(super) struct Server {
    pub(super) name: String,
    pub(super) place: Place,
    pub(super) facts: Facts,
    pub(super) view: Option<ClusterView>,
    session: Box<dyn Session>,
    pub(super) restored: Option<Fence>,
}

/// All servers of the inventory.
pub(super) struct Servers<'a> {
    hosts: Vec<&'a Host>,
    pub(super) reached: Vec<Server>,
    lock: Option<String>,
}

impl<'a> Servers<'a> {
    /// Connects to all that can be reached.
    pub(super) async fn connect(verb: &'a Verb<'_>) -> Result<Servers<'a>, Failure> {
        let asked = ask::Passwords::ask(verb.args.passwords)?;
        let told = std::sync::Arc::new(|_: &str, _| {});
        let reach = Reach::new(&verb.inventory, &asked, true, told)
            .with_binaries(verb.args.bin_dir.as_deref());
        let hosts: Vec<&Host> = verb.inventory.servers().collect();
        let tried = hosts.iter().map(|host| async {
            let mut session = target::session(&reach, host).await.ok()?;
            let facts = target::facts(session.as_mut()).await.ok()?;
            let distribution = verb.inventory.distribution;
            let mut place = Place::of(
                &Engine::new(),
                &host.name,
                Role::Server,
                &host.vars,
                &facts,
                distribution,
            );
            if let Some(node) = &mut place.k3s {
                node.has_kubelet = has_kubelet(&host.vars);
            }
            let name = host.name.clone();
            Some(Server { name, place, facts, view: None, session, restored: None })
        });
        let reached = join_all(tried).await.into_iter().flatten().collect();
        Ok(Self { hosts, reached, lock: None })
    }

    /// Looks at all servers. With an intent, also at what it moved aside.
    pub(super) async fn look(&mut self, intent: Option<&Intent>) -> Result<Vec<Seen>, Failure> {
        let looks = self.reached.iter_mut().map(|server| server.look(intent));
        let looked: Vec<Seen> = join_all(looks).await.into_iter().collect::<Result<_, _>>()?;
        let seen = self.hosts.iter().map(|host| {
            let found = looked.iter().find(|seen| seen.name == host.name).cloned();
            found.unwrap_or_else(|| Seen { name: host.name.clone(), ..Seen::default() })
        });
        Ok(seen.collect())
    }

    /// The servers of the inventory.
    pub(super) fn hosts(&self) -> &[&'a Host] {
        &self.hosts
    }

    /// The names of K3s's members of before: those that are there when it begins, or, when one that ended
    /// is undone, those that it noted.
    pub(super) fn past(&self, intent: &Intent, seen: &[Seen]) -> Vec<String> {
        let restored = self.reached.iter().filter_map(|server| server.restored.as_ref());
        let noted = restored.filter(|fence| fence.restore_id == intent.id);
        let noted: Vec<&Fence> = noted.collect();
        let disks = seen.iter().filter_map(|host| host.disk.as_ref());
        let names = disks.map(|disk| disk.member_name.clone()).filter(|name| !name.is_empty());
        let mut past: Vec<String> = if noted.is_empty() {
            names.collect()
        } else {
            noted.into_iter().flat_map(|fence| fence.past.clone()).collect()
        };
        past.sort();
        past.dedup();
        past
    }

    /// The server of this name.
    pub(super) fn get(&mut self, name: &str) -> Result<&mut Server, Failure> {
        self.reached
            .iter_mut()
            .find(|server| server.name == name)
            .ok_or_else(|| Failure::new(ExitCode::Unreachable, format!("{name} cannot be reached")))
    }

    /// What is known of the last restore that ended.
    pub(super) fn last_restore(&self) -> Option<Intent> {
        let known = self.reached.iter().filter_map(|server| server.restored.as_ref());
        known.max_by_key(|fence| fence.since_unix_s).map(|fence| Intent {
            id: fence.restore_id.clone(),
            operation: fence.operation,
            first: fence.first.clone(),
            cluster: (!fence.cluster.is_empty()).then(|| fence.cluster.clone()),
            servers: fence.servers.clone(),
        })
    }

    /// Takes the operators' lock on all servers.
    pub(super) async fn lock(&mut self, purpose: &str, steal: bool) -> Result<(), Failure> {
        let id = format!("{}-{}", target::now_unix_s(), std::process::id());
        self.lock = Some(id.clone());
        for server in &mut self.reached {
            let root = server.root();
            let held = server.read(vec![VerbLock::read(&root)]).await?.pop();
            let held = match &held {
                Some(Observed::File(Some(bytes))) => Some(bytes.as_ref()),
                _ => None,
            };
            let change = VerbLock::take(&root, &id, purpose, held, steal);
            if let Err(failure) = server.change(vec![change]).await {
                self.unlock().await;
                return Err(Failure { code: ExitCode::Locked, ..failure });
            }
        }
        Ok(())
    }

    /// Gives the lock back.
    pub(super) async fn unlock(&mut self) {
        let Some(id) = self.lock.take() else { return };
        for server in &mut self.reached {
            let give_back = VerbLock::give_back(&server.root(), &id);
            // One that is lost lets it run out.
            let _ = server.change(vec![give_back]).await;
        }
    }

    /// Puts the snapshot on the server that is restored from it; gives where it is there.
    pub(super) async fn place(
        &mut self,
        verb: &Verb<'_>,
        first: &str,
        chosen: &Chosen,
    ) -> Result<String, Failure> {
        let Some(local) = &chosen.local else { return Ok(chosen.path.clone()) };
        let server = self.get(first)?;
        let dir = verb.snapshot_dir(server);
        let path = format!("{dir}/{}", chosen.view.name);
        let content = FileContent::Local {
            path: local.to_string_lossy().into_owned(),
            sha256: chosen.view.sha256.clone().unwrap_or_default(),
            size: chosen.view.bytes,
        };
        let mut changes = server.directories();
        changes.push(Change::MakeDirectory { path: dir, mode: 0o700, owner: None, group: None });
        changes.push(put(path.clone(), content));
        server.change(changes).await?;
        Ok(path)
    }
}

/// Whether a K3s server is a node itself.
fn has_kubelet(vars: &Vars) -> bool {
    let without =
        serde_json::json!("{{ (config | default({}))['disable-agent'] | default(false) }}");
    let said = Engine::new().evaluate(&without, vars);
    said.is_ok_and(|said| said.value != true)
}

/// Writes a private file.
pub(super) fn put(path: String, content: FileContent) -> Change {
    Change::PutFile {
        path,
        content,
        mode: 0o600,
        owner: None,
        group: None,
        backup: false,
        validate: Vec::new(),
    }
}

impl Server {
    fn root(&self) -> String {
        self.facts.lab_root.clone().unwrap_or_default()
    }

    pub(super) fn data(&self, below: &str) -> String {
        format!("{}/{below}", self.place.layout.data_dir)
    }

    async fn look(&mut self, intent: Option<&Intent>) -> Result<Seen, Failure> {
        let file = |path| Read::File { path, bytes_max: FENCE_BYTES_MAX };
        let reads = vec![
            file(self.data(FENCE)),
            file(self.data(RESTORED)),
            self.place.disk_read(),
            self.place.cluster_read(),
            Read::Service { name: self.place.layout.service.clone() },
            Read::Directory { path: self.data("server/db") },
        ];
        let mut seen = Seen { name: self.name.clone(), reachable: true, ..Seen::default() };
        for (place, observed) in self.read(reads).await?.into_iter().enumerate() {
            match (place, observed) {
                // One that cannot be read is a fence all the same.
                (0, Observed::File(Some(text))) => {
                    seen.fence = Some(serde_json::from_slice(&text).unwrap_or_default());
                }
                (1, Observed::File(text)) => {
                    self.restored = text.and_then(|text| serde_json::from_slice(&text).ok());
                }
                (_, Observed::Disk(disk)) => seen.disk = disk,
                (_, Observed::Cluster(view)) => {
                    seen.ready = view.as_ref().is_some_and(|view| view.ready);
                    self.view = view.map(|view| *view);
                }
                (_, Observed::Service(service)) => {
                    seen.running = service.active || service.starting;
                }
                (_, Observed::Names(Some(names))) => {
                    let stamp = intent.and_then(|intent| intent.id.split('-').next());
                    seen.aside =
                        stamp.is_some_and(|stamp| names.iter().any(|name| *name == aside(stamp)));
                }
                _ => {}
            }
        }
        if let (Some(disk), true) = (&mut seen.disk, self.place.k3s.is_some()) {
            disk.cluster_id = cluster_of_k3s(disk, seen.fence.as_ref(), self.restored.as_ref());
        }
        Ok(seen)
    }

    /// Reads; every answer must be one.
    pub(super) async fn read(&mut self, reads: Vec<Read>) -> Result<Vec<Observed>, Failure> {
        let lost = |error: &dyn std::fmt::Display| {
            Failure::new(ExitCode::Unreachable, format!("{}: {error}", self.name))
        };
        let answers = self.session.read(reads).await.map_err(|error| lost(&error))?;
        let failed = |error: crate::host::protocol::HostError| {
            Failure::new(ExitCode::HostFailed, format!("{}: {error}", self.name))
        };
        answers.into_iter().map(|answer| answer.map_err(failed)).collect()
    }

    /// Makes changes, all of them or up to the first that fails.
    pub(super) async fn change(&mut self, changes: Vec<Change>) -> Result<Vec<Done>, Failure> {
        let lost = |error: &dyn std::fmt::Display| {
            Failure::new(ExitCode::Unreachable, format!("{}: {error}", self.name))
        };
        let answers = self.session.change(changes).await.map_err(|error| lost(&error))?;
        let failed = |error: crate::host::protocol::HostError| {
            let failure = Failure::new(ExitCode::HostFailed, format!("{}: {error}", self.name));
            error.hint.into_iter().fold(failure, Failure::hint)
        };
        answers.into_iter().map(|answer| answer.map_err(failed)).collect()
    }

    /// Makes the directories that a fence and a snapshot are in, as the node itself does: what agents of
    /// K3s have there is for others to read, too.
    pub(super) fn directories(&self) -> Vec<Change> {
        let make = |path, mode| Change::MakeDirectory { path, mode, owner: None, group: None };
        let data = if self.place.k3s.is_some() { 0o755 } else { 0o700 };
        vec![
            make(self.place.layout.data_dir.clone(), data),
            make(self.data("server"), 0o700),
            make(self.data("server/db"), 0o700),
        ]
    }

    /// Writes the fence.
    pub(super) async fn fence(&mut self, fence: &Fence, at: &str) -> Result<(), Failure> {
        let text = serde_json::to_vec_pretty(fence)
            .map_err(|error| Failure::new(ExitCode::Error, error.to_string()))?;
        let mut changes = self.directories();
        changes.push(put(self.data(at), FileContent::Bytes(Bytes::from(text))));
        self.change(changes).await.map(drop)
    }
}
