//! Where a cluster's snapshots are: each server's directory, and S3.

use futures::future::join_all;

use super::settings::SnapshotSettings;
use crate::cli::target;
use crate::cli::work::Work;
use crate::cluster::layout::{Distribution, Role};
use crate::cluster::snapshots::SnapshotView;
use crate::error::{ExitCode, Failure, chain};
use crate::host::protocol::{Observed, Read};
use crate::inventory::{Host, Inventory};
use crate::node::snapshots::s3::Bucket;
use crate::remote::Session;
use crate::run::address::Place;
use crate::run::reach::Reach;
use crate::template::Engine;

/// What S3 is called among the places.
pub(super) const S3: &str = "s3";

/// A server that is reached.
pub(super) struct Server {
    pub(super) name: String,
    pub(super) session: Box<dyn Session>,
    pub(super) place: Place,
    /// Directory that stands for `/`; empty outside a lab.
    root: String,
    /// Its snapshots.
    pub(super) dir: String,
    /// What was noted of them.
    pub(super) metadata: String,
}

/// A snapshot and where it is: a server's name, or [`S3`].
#[derive(Clone, Debug, serde::Serialize)]
pub(super) struct Found {
    #[serde(rename = "where")]
    pub(super) place: String,
    #[serde(flatten)]
    pub(super) view: SnapshotView,
}

/// All places that answer.
pub(super) struct Places {
    pub(super) servers: Vec<Server>,
    pub(super) bucket: Option<Bucket>,
    /// Who does not answer, and why.
    pub(super) problems: Vec<String>,
}

impl Places {
    /// Reaches all servers at once.
    ///
    /// # Errors
    /// None of them is reached, and there is no S3 either.
    pub(super) async fn open(
        inventory: &Inventory,
        reach: &Reach,
        settings: &SnapshotSettings,
    ) -> Result<Self, Failure> {
        let opened = inventory.servers().map(|host| server(inventory, reach, settings, host));
        let mut servers = Vec::new();
        let mut problems = Vec::new();
        for opened in join_all(opened).await {
            match opened {
                Ok(server) => servers.push(server),
                Err(problem) => problems.push(problem),
            }
        }
        let bucket = match settings.s3.as_ref().map(Bucket::open).transpose() {
            Ok(bucket) => bucket,
            Err(error) => {
                problems.push(chain(&error));
                None
            }
        };
        if servers.is_empty() && bucket.is_none() {
            let message = format!("no server is reached\n{}", problems.join("\n"));
            return Err(Failure::new(ExitCode::Unreachable, message));
        }
        Ok(Self { servers, bucket, problems })
    }

    /// The snapshots of all places, oldest first.
    pub(super) async fn list(&mut self) -> Vec<Found> {
        let mut found = Vec::new();
        let listed = join_all(self.servers.iter_mut().map(Server::list)).await;
        for (server, listed) in self.servers.iter().zip(listed) {
            let place = server.name.clone();
            match listed {
                Ok(views) => {
                    found
                        .extend(views.into_iter().map(|view| Found { place: place.clone(), view }));
                }
                Err(problem) => self.problems.push(format!("{place}: {problem}")),
            }
        }
        if let Some(bucket) = &self.bucket {
            match bucket.list().await {
                Ok(views) => {
                    found
                        .extend(views.into_iter().map(|view| Found { place: S3.to_owned(), view }));
                }
                Err(error) => self.problems.push(chain(&error)),
            }
        }
        found.sort_by_key(|found| (found.view.created_unix_s, found.view.name.clone()));
        found
    }

    /// Does what changes something: under the operators' lock on all servers that are reached, and
    /// noted in a journal.
    pub(super) async fn hold<T>(
        &mut self,
        mut work: Work,
        act: impl AsyncFnOnce(&mut Self, &mut Work) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let mut done = Ok(());
        for server in &mut self.servers {
            if done.is_ok() {
                done = work.lock(&server.name, server.session.as_mut(), &server.root).await;
            }
        }
        let done = match done {
            Ok(()) => act(self, &mut work).await,
            Err(failure) => Err(failure),
        };
        for server in &mut self.servers {
            work.unlock(server.session.as_mut(), &server.root).await;
        }
        work.end(done)
    }

    /// The server of this name.
    pub(super) fn server(&mut self, name: &str) -> Option<&mut Server> {
        self.servers.iter_mut().find(|server| server.name == name)
    }
}

async fn server(
    inventory: &Inventory,
    reach: &Reach,
    settings: &SnapshotSettings,
    host: &Host,
) -> Result<Server, String> {
    let mut session = target::session(reach, host).await.map_err(|failure| failure.message)?;
    let facts = target::facts(session.as_mut()).await;
    let facts = facts.map_err(|why| format!("{}: {why}", host.name))?;
    let place = Place::of(
        &Engine::new(),
        &host.name,
        Role::Server,
        &host.vars,
        &facts,
        inventory.distribution,
    );
    let data = &place.layout.data_dir;
    let usual = format!("{data}/server/db/snapshots");
    Ok(Server {
        name: host.name.clone(),
        dir: settings.dir.clone().unwrap_or(usual),
        metadata: format!("{data}/server/db/.metadata"),
        root: facts.lab_root.clone().unwrap_or_default(),
        place,
        session,
    })
}

impl Server {
    async fn list(&mut self) -> Result<Vec<SnapshotView>, String> {
        let read = Read::Snapshots { dir: self.dir.clone(), metadata: self.metadata.clone() };
        match self.look(read).await? {
            Observed::Snapshots(mut views) => {
                for view in views.iter_mut().filter(|view| view.node.is_empty()) {
                    view.node.clone_from(&self.name);
                }
                Ok(views)
            }
            _ => Err("the executor answers something else".to_owned()),
        }
    }

    /// Reads a snapshot to its end on the host; `None` when it is not there.
    pub(super) async fn verify(&mut self, name: &str) -> Result<Option<SnapshotView>, String> {
        match self.look(Read::Snapshot { path: self.path(name) }).await? {
            Observed::Snapshot(view) => Ok(view.map(|view| *view)),
            _ => Err("the executor answers something else".to_owned()),
        }
    }

    /// Where the snapshot of this name is.
    pub(super) fn path(&self, name: &str) -> String {
        format!("{}/{name}", self.dir)
    }

    pub(super) async fn look(&mut self, read: Read) -> Result<Observed, String> {
        let answers = self.session.read(vec![read]).await.map_err(|error| error.to_string())?;
        let answer = answers.into_iter().next();
        answer.ok_or("no answer")?.map_err(|error| error.to_string())
    }

    /// The command line that reaches the host's own server about snapshots.
    pub(super) fn command(&self, words: &[&str]) -> Vec<String> {
        let mut argv = vec![self.place.layout.binary.clone(), "etcd-snapshot".to_owned()];
        argv.extend(words.iter().map(|word| (*word).to_owned()));
        argv.extend(["--data-dir".to_owned(), self.place.layout.data_dir.clone()]);
        if self.place.k3s.is_none() {
            argv.extend(["--etcd-server".to_owned(), format!("https://{}", self.place.supervisor)]);
        }
        argv
    }
}

/// The distribution in a person's words.
pub(super) fn called(distribution: Distribution) -> &'static str {
    match distribution {
        Distribution::Embedded => "k3sup-rs",
        Distribution::K3s => "K3s",
    }
}
