//! Before the first fence and after the last step: a snapshot of the state that goes, whether all
//! members hold the same, nodes that only the snapshot knew, and agents that come back.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::super::output::{self, Format};
use super::super::work::Work;
use super::hosts::{Server, Servers};
use super::source::Chosen;
use super::{Verb, drive};
use crate::cluster::restore::{Intent, Seen};
use crate::cluster::snapshots::SAFETY_BASE;
use crate::cluster::view::{ClusterView, NodeView};
use crate::error::{ExitCode, Failure};
use crate::host::protocol::{Change, CommandSpec, Observed, Read};

/// How long a snapshot of the present state may take.
const SAFETY_MS: u64 = 900_000;

/// How long a node may be silent until it counts as gone: beyond what a heartbeat counts.
const STRANGERS_LIMIT: Duration = Duration::from_secs(90);

/// How long agents may take to find the cluster again: several heartbeats.
const AGENTS_LIMIT: Duration = Duration::from_secs(60);

/// How long K3s's members may differ, and how often they are compared meanwhile.
const AGREE_LIMIT: Duration = Duration::from_secs(15);
const AGREE_INTERVAL: Duration = Duration::from_secs(3);

/// How often nodes are looked at meanwhile.
const NODES_INTERVAL: Duration = Duration::from_secs(1);

impl Verb<'_> {
    /// All steps, under the lock; before them a snapshot of what goes, after them the proof.
    pub(super) async fn carry_out(
        &self,
        servers: &mut Servers<'_>,
        work: &mut Work,
        seen: &[Seen],
        intent: &Intent,
        chosen: Option<&Chosen>,
    ) -> Result<(), Failure> {
        servers.lock(self.name, self.args.break_lock).await?;
        let snapshot = chosen.map(|chosen| chosen.said.clone()).unwrap_or_default();
        let path = match chosen {
            Some(chosen) => {
                self.keep_what_goes(servers, work).await?;
                servers.place(self, &intent.first, chosen).await?
            }
            None => String::new(),
        };
        let past = if self.is_k3s() { servers.past(intent, seen) } else { Vec::new() };
        let fence = Self::fence(intent, seen, past, (snapshot, path));
        drive::Drive { verb: self, intent, fence }.run(servers, work).await?;
        if let Some(agreed) = self.agree(servers).await? {
            work.note("all", "compare what the members hold", Ok(Some(agreed.clone())));
            self.tell("agreed", &agreed)?;
        }
        for node in forget_strangers(self, servers).await? {
            let text =
                format!("node {node} is forgotten: it is not in the inventory and is silent");
            work.note("all", &format!("forget node {node}"), Ok(None));
            self.tell("forgotten", &text)?;
        }
        let missed = await_agents(self, servers).await?;
        if !missed.is_empty() {
            let missed = missed.join(", ");
            let text =
                format!("not ready again after a minute: {missed}; `k3sup-rs doctor` says why");
            work.note("all", "wait for agents", Err(text.clone()));
            self.tell("missed", &text)?;
        }
        Ok(())
    }

    /// A snapshot of the present state, if it can still be taken. The old data is kept aside in any case.
    async fn keep_what_goes(
        &self,
        servers: &mut Servers<'_>,
        work: &mut Work,
    ) -> Result<(), Failure> {
        let text = match safety(servers).await {
            None => {
                "the cluster does not serve: no snapshot of its present state, the old data that \
                     is kept aside is that state"
                    .to_owned()
            }
            Some(Ok(server)) => {
                let text = format!("a snapshot of the present state is on {server}");
                work.note(&server, "save what goes", Ok(Some(text.clone())));
                format!("{text}: {SAFETY_BASE}-{server}-…")
            }
            Some(Err(failure)) => {
                work.note("all", "save what goes", Err(failure.message.clone()));
                format!(
                    "no snapshot of the present state ({}): the old data that is kept aside is that state",
                    failure.message
                )
            }
        };
        self.tell("safety", &text)
    }

    /// Compares what the members hold. etcd's members may compact at other moments, and then differ for a
    /// while; and a store of K3s's that cannot be asked is no harm to the cluster.
    async fn agree(&self, servers: &mut Servers<'_>) -> Result<Option<String>, Failure> {
        let begun = Instant::now();
        loop {
            let compared = agree(self, servers).await;
            let is_settled = matches!(compared, Ok(None | Some(Ok(_))));
            if self.is_k3s() && !is_settled && begun.elapsed() < AGREE_LIMIT {
                tokio::time::sleep(AGREE_INTERVAL).await;
                continue;
            }
            return match compared {
                Ok(Some(Err(differs))) => Err(Failure::new(ExitCode::HostFailed, differs).hint(
                    "`k3sup-rs replace` the one that differs; the old data is kept aside on each server",
                )),
                Ok(Some(Ok(agreed))) => Ok(Some(agreed)),
                Err(failure) if self.is_k3s() => {
                    Ok(Some(format!("what the members hold was not compared: {}", failure.message)))
                }
                Ok(None) => Ok(None),
                Err(failure) => Err(failure),
            };
        }
    }

    /// Says one thing, as a line or as an event.
    fn tell(&self, event: &str, text: &str) -> Result<(), Failure> {
        if self.args.output == Format::Json {
            let line = serde_json::json!({ "event": event, "message": text });
            return output::line(&line.to_string());
        }
        output::line(&format!("* {text}"))
    }
}

/// Takes a snapshot of the state that goes, if a server serves; says where. `None`: none does.
///
/// # Errors
/// It failed: the server's own words.
async fn safety(servers: &mut Servers<'_>) -> Option<Result<String, Failure>> {
    let server = serving(servers)?;
    let layout = &server.place.layout;
    let argv = [&layout.binary, "etcd-snapshot", "save", "--name", SAFETY_BASE, "--data-dir"];
    let mut argv: Vec<String> = argv.iter().map(|word| (*word).to_owned()).collect();
    argv.push(layout.data_dir.clone());
    if server.place.k3s.is_none() {
        argv.extend(["--etcd-server".to_owned(), format!("https://{}", server.place.supervisor)]);
    }
    let spec = CommandSpec { argv, timeout_ms: SAFETY_MS, ..CommandSpec::default() };
    let name = server.name.clone();
    Some(server.command(spec).await.map(|()| name))
}

/// Compares what all members hold at one revision: the same, or not, in words. `None` when no server has
/// a node that answers.
///
/// # Errors
/// One does not answer.
async fn agree(
    verb: &Verb<'_>,
    servers: &mut Servers<'_>,
) -> Result<Option<Result<String, String>>, Failure> {
    let (mut revision, mut hashes) = (0, Vec::new());
    for server in &mut servers.reached {
        if verb.is_left_out(&server.name) || server.view.is_none() {
            continue;
        }
        let (at, hash) = hash_of(server, revision).await?;
        revision = at;
        hashes.push((server.name.clone(), hash));
    }
    let Some((_, first)) = hashes.first() else { return Ok(None) };
    if hashes.iter().all(|(_, hash)| hash == first) {
        let members = hashes.len();
        return Ok(Some(Ok(format!(
            "{members} of {members} members hold the same: revision {revision}, hash {first:08x}"
        ))));
    }
    let each: Vec<String> =
        hashes.iter().map(|(name, hash)| format!("{name} {hash:08x}")).collect();
    Ok(Some(Err(format!(
        "the members do NOT hold the same at revision {revision}: {}",
        each.join(", ")
    ))))
}

async fn hash_of(server: &mut Server, revision: i64) -> Result<(i64, u32), Failure> {
    if server.place.k3s.is_some() {
        let data_dir = server.place.layout.data_dir.clone();
        let read = Read::K3sStoreHash { data_dir, revision };
        return told(server.read(vec![read]).await?.last());
    }
    let own = server.view.as_ref().and_then(|view| {
        let member = view.members.iter().find(|member| member.id == view.member_id)?;
        member.client_urls.first().cloned()
    });
    let failed = |why: &str| Failure::new(ExitCode::HostFailed, format!("{}: {why}", server.name));
    let endpoint = own.ok_or_else(|| failed("it does not say where its member serves clients"))?;
    let data_dir = server.place.layout.data_dir.clone();
    told(server.read(vec![Read::StoreHash { data_dir, endpoint, revision }]).await?.last())
}

fn told(answer: Option<&Observed>) -> Result<(i64, u32), Failure> {
    match answer {
        Some(Observed::StoreHash(revision, hash)) => Ok((*revision, *hash)),
        _ => Err(Failure::new(ExitCode::HostFailed, "the executor answers something else")),
    }
}

/// Waits until the agents of the inventory that the cluster knows are ready. Gives those that are not
/// after [`AGENTS_LIMIT`].
async fn await_agents(verb: &Verb<'_>, servers: &mut Servers<'_>) -> Result<Vec<String>, Failure> {
    let is_agent = |node: &NodeView| verb.inventory.agents().any(|host| host.name == node.name);
    let begun = Instant::now();
    loop {
        let Some(server) = serving(servers) else { return Ok(Vec::new()) };
        let nodes = server.view.iter().flat_map(|view| &view.nodes);
        let missed = nodes.filter(|node| is_agent(node) && !node.ready);
        let missed: Vec<String> = missed.map(|node| node.name.clone()).collect();
        if missed.is_empty() || begun.elapsed() > AGENTS_LIMIT {
            return Ok(missed);
        }
        tokio::time::sleep(NODES_INTERVAL).await;
        servers.look(None).await?;
    }
}

/// A server whose node serves, as it was seen last.
fn serving<'a>(servers: &'a mut Servers<'_>) -> Option<&'a mut Server> {
    let serves = |view: &ClusterView| view.ready && view.leader_id.is_some();
    servers.reached.iter_mut().find(|server| server.view.as_ref().is_some_and(serves))
}

/// Removes the records of nodes that the inventory does not have and that are silent: the snapshot
/// knew them. One that is not in the inventory and lives stays. Gives the names of those that went.
async fn forget_strangers(
    verb: &Verb<'_>,
    servers: &mut Servers<'_>,
) -> Result<Vec<String>, Failure> {
    let known = |node: &NodeView| verb.inventory.hosts.iter().any(|host| host.name == node.name);
    let mut first: BTreeMap<String, u64> = BTreeMap::new();
    let mut gone = Vec::new();
    let begun = Instant::now();
    loop {
        servers.look(None).await?;
        let Some(server) = serving(servers) else { return Ok(gone) };
        let nodes = server.view.as_ref().map(|view| view.nodes.clone()).unwrap_or_default();
        let mut undecided = false;
        for node in nodes.iter().filter(|node| !known(node)) {
            let seen = *first.entry(node.name.clone()).or_insert(node.heartbeat_unix_s);
            if !node.ready && verb.is_k3s() {
                server.forget_k3s_node(&node.name).await?;
                gone.push(node.name.clone());
            } else if !node.ready {
                let forget = Change::ForgetNode {
                    data_dir: server.place.layout.data_dir.clone(),
                    supervisor: server.place.supervisor.clone(),
                    name: node.name.clone(),
                };
                server.change(vec![forget]).await?;
                gone.push(node.name.clone());
            } else if node.heartbeat_unix_s == seen {
                // Heard of it just before the snapshot was taken, or lives: the next heartbeat tells.
                undecided = true;
            }
        }
        if !undecided || begun.elapsed() > STRANGERS_LIMIT {
            return Ok(gone);
        }
        tokio::time::sleep(NODES_INTERVAL).await;
    }
}
