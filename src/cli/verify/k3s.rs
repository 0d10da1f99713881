//! What a drill of real K3s asks on the servers themselves, where the credentials of K3s's etcd are: who leads,
//! and what the members hold.

use std::time::Duration;

use super::super::target;
use super::clients::Course;
use super::verdict::Held;
use crate::cluster::layout::Role;
use crate::cluster::view::ClusterView;
use crate::error::Failure;
use crate::host::protocol::{Observed, Read};
use crate::inventory::Inventory;
use crate::remote::Session;
use crate::run::Place;
use crate::run::reach::Reach;
use crate::template::Engine;

/// How often it is asked who leads. Each time costs the server a `kubectl` or two.
const LEADER_INTERVAL: Duration = Duration::from_secs(2);

/// How often the members are compared before they count as different: while one compacts its history, its
/// hash is another for a moment.
const COMPARISONS: usize = 3;

/// Between two comparisons.
const COMPARISON_PAUSE: Duration = Duration::from_secs(2);

/// A server with a session.
pub(super) struct Server {
    name: String,
    place: Place,
    session: Box<dyn Session>,
}

/// Connects to all servers.
pub(super) async fn connect(inventory: &Inventory, reach: &Reach) -> Result<Vec<Server>, String> {
    let mut servers = Vec::new();
    for host in inventory.servers() {
        let failed = |why: String| format!("{}: {why}", host.name);
        let session = target::session(reach, host).await;
        // Its message names the host.
        let mut session = session.map_err(|failure: Failure| failure.message)?;
        let facts = target::facts(session.as_mut()).await.map_err(failed)?;
        let (engine, kind) = (Engine::new(), inventory.distribution);
        let place = Place::of(&engine, &host.name, Role::Server, &host.vars, &facts, kind);
        servers.push(Server { name: host.name.clone(), place, session });
    }
    Ok(servers)
}

impl Server {
    async fn read(&mut self, read: Read) -> Result<Option<Observed>, String> {
        let answers = self.session.read(vec![read]).await.map_err(|error| error.to_string())?;
        answers.into_iter().next().transpose().map_err(|error| error.to_string())
    }

    /// The cluster as this server sees it, if its node answers.
    async fn view(&mut self) -> Option<Box<ClusterView>> {
        match self.read(self.place.cluster_read()).await {
            Ok(Some(Observed::Cluster(view))) => view,
            _ => None,
        }
    }

    /// The hash of what its member holds at a revision; 0 is the newest one.
    async fn hash(&mut self, revision: i64) -> Result<(i64, u32), String> {
        let data_dir = self.place.layout.data_dir.clone();
        match self.read(Read::K3sStoreHash { data_dir, revision }).await {
            Ok(Some(Observed::StoreHash(revision, hash))) => Ok((revision, hash)),
            Ok(_) => Err(format!("{}: the executor answers something else", self.name)),
            Err(why) => Err(format!("{}: {why}", self.name)),
        }
    }
}

/// Notes each change of the leader, as the server tells it that was asked last, or the next that answers.
pub(super) async fn watch_leader(mut servers: Vec<Server>, course: Course) {
    let mut asked = 0;
    while !course.is_over() {
        let count = servers.len().max(1);
        let Some(server) = servers.get_mut(asked) else { return };
        match server.view().await {
            Some(view) => {
                if let Some(leader) = view.leader_id {
                    course.leads(view.term, leader);
                }
            }
            None => asked = (asked + 1) % count,
        }
        tokio::time::sleep(LEADER_INTERVAL).await;
    }
}

/// What the members hold at one revision.
pub(super) async fn held(inventory: &Inventory, reach: &Reach) -> Result<Held, String> {
    let mut servers = connect(inventory, reach).await?;
    let mut held = compare(&mut servers).await?;
    for _ in 1..COMPARISONS {
        if held.is_same() {
            break;
        }
        tokio::time::sleep(COMPARISON_PAUSE).await;
        held = compare(&mut servers).await?;
    }
    Ok(held)
}

async fn compare(servers: &mut [Server]) -> Result<Held, String> {
    let mut held = Held::default();
    for server in servers {
        let (revision, hash) = server.hash(held.revision).await?;
        held.revision = revision;
        held.hashes.push((server.name.clone(), hash));
    }
    Ok(held)
}
