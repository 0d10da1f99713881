//! Whole clusters in this process, each node on a loopback address of its own.

mod resets;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;

use super::agent::Agent;
use super::client;
use super::config::{AgentConfig, ServerConfig, Values};
use super::identity::DataDir;
use super::secrets;
use super::server::Server;
use crate::cluster::view::ClusterView;
use crate::error::Failure;
use crate::limits::{AGENT_HEALTH_PORT, SUPERVISOR_PORT};
use crate::raft::api::ConsensusError;
use crate::secret::Secret;
use crate::store::types::{Command, KeyRange, Put, RangeQuery};

/// Generous: the tests run beside others on small machines.
const PATIENCE: Duration = Duration::from_secs(120);

/// One test's addresses and directories.
struct Site {
    directory: tempfile::TempDir,
    /// `127.a.b.`, of this process and test alone.
    network: String,
}

impl Site {
    fn new(test: u32) -> Self {
        let process = std::process::id();
        let (a, b) = (64 + process % 61, process / 61 % 250);
        let network = format!("127.{a}.{b}.{}", test * 2);
        Self { directory: tempfile::tempdir().unwrap(), network }
    }

    /// The address of node `number`, below 10.
    fn address(&self, number: u32) -> String {
        format!("{}{number}", self.network)
    }

    fn url(&self, number: u32) -> String {
        format!("https://{}:{SUPERVISOR_PORT}", self.address(number))
    }

    fn data(&self, number: u32) -> DataDir {
        DataDir::new(self.directory.path().join(number.to_string()).join("data"))
    }

    fn values(&self, number: u32, name: &str, more: &[(&'static str, &str)]) -> Values {
        let (address, data) = (self.address(number), self.data(number));
        let data = data.path().to_string_lossy().into_owned();
        let mut given = vec![
            ("node-name", vec![name]),
            ("node-ip", vec![address.as_str()]),
            ("bind-address", vec![address.as_str()]),
            ("data-dir", vec![data.as_str()]),
        ];
        given.extend(more.iter().map(|(flag, text)| (*flag, vec![*text])));
        Values::from_command_line(given)
    }

    fn server(&self, number: u32, more: &[(&'static str, &str)]) -> ServerConfig {
        let values = self.values(number, &format!("server{number}"), more);
        let file = self.directory.path().join(number.to_string()).join("config.yaml");
        ServerConfig::from_values(&values, &file).unwrap()
    }

    async fn start(&self, number: u32, more: &[(&'static str, &str)]) -> Result<Server, Failure> {
        let server = Server::start(self.server(number, more)).await?;
        match tokio::time::timeout(PATIENCE, server.ready()).await.unwrap() {
            Ok(()) => Ok(server),
            Err(failure) => {
                server.stop().await;
                Err(failure)
            }
        }
    }

    /// The token that the first server wrote.
    fn token(&self) -> String {
        std::fs::read_to_string(self.data(1).token()).unwrap()
    }

    async fn joined(&self, number: u32) -> Server {
        let (url, token) = (self.url(1), self.token());
        self.start(number, &[("server", &url), ("token", &token)]).await.unwrap()
    }

    async fn view(&self, number: u32, port: u16) -> ClusterView {
        let authority = format!("{}:{port}", self.address(number));
        client::cluster_view(self.data(number).path(), &authority).await.unwrap().unwrap()
    }
}

/// Writes a key. A write that is under way when the leader goes may fail with it, and is made again.
async fn put(server: &Server, key: &'static str) {
    let put = Command::Put(Put { key: key.into(), value: "value".into(), ..Put::default() });
    let propose = async || server.context().consensus.propose(put.clone()).await;
    let mut done = propose().await;
    for _ in 0..2 {
        if matches!(done, Err(ConsensusError::ConnectionLost | ConsensusError::LeaderChanged)) {
            done = propose().await;
        }
    }
    done.unwrap().outcome.unwrap();
}

async fn has(server: &Server, key: &'static str) -> bool {
    server.context().consensus.read_barrier().await.unwrap();
    let range = KeyRange { key: key.into(), ..KeyRange::default() };
    let query = RangeQuery { range, ..RangeQuery::default() };
    server.context().state.range(&query).unwrap().count == 1
}

/// Waits until `what` holds.
async fn until<F: Future<Output = bool>>(mut what: impl FnMut() -> F) {
    let end = tokio::time::Instant::now() + PATIENCE;
    while !what().await {
        assert!(tokio::time::Instant::now() < end, "it never came to hold");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_is_the_same_member_after_a_restart_whatever_its_flags() {
    let site = Site::new(1);
    let server = site.start(1, &[("token", "s3cret-of-the-cluster")]).await.unwrap();
    put(&server, "a").await;
    let before = site.view(1, SUPERVISOR_PORT).await;
    assert!(before.ready && before.members[0].voter, "{before:?}");
    assert_eq!(before.nodes[0].roles, ["control-plane", "etcd"]);
    let disk = client::disk_view(site.data(1).path()).unwrap().unwrap();
    assert_eq!((disk.member_id, disk.cluster_id), (before.member_id.clone(), before.cluster_id));
    assert_eq!(disk.ca_hash.as_ref(), Some(&before.ca_hash));
    server.stop().await;

    // Another address would be asked if the data did not decide.
    let elsewhere = [("server", "https://127.0.0.2:1"), ("token", "other")];
    let server = site.start(1, &elsewhere).await.unwrap();
    assert!(has(&server, "a").await);
    assert_eq!(site.view(1, SUPERVISOR_PORT).await.member_id, before.member_id);
    server.stop().await;
    no_secret_in(&site.data(1).store(), b"s3cret-of-the-cluster");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_token_for_agents_at_a_restart_is_the_clusters_from_then_on() {
    let site = Site::new(10);
    let admitted = |server: &Server, secret: &str| {
        let settings = server.context().records.settings().unwrap();
        let hash = settings.agent_secret.unwrap_or(settings.server_secret);
        secrets::matches(&hash, &Secret::new(secret))
    };
    let kept = || std::fs::read_to_string(site.data(1).agent_token()).unwrap();
    for (own, old) in [("first", "second"), ("second", "first")] {
        let more = [("token", "s3cret-of-the-cluster"), ("agent-token", own)];
        let server = site.start(1, &more).await.unwrap();
        assert!(admitted(&server, own) && !admitted(&server, old));
        assert!(kept().trim().ends_with(&format!("::node:{own}")), "{}", kept());
        server.stop().await;
    }
    let server = site.start(1, &[("token", "s3cret-of-the-cluster")]).await.unwrap();
    assert!(admitted(&server, "s3cret-of-the-cluster") && !admitted(&server, "second"));
    assert!(kept().trim().ends_with("::server:s3cret-of-the-cluster"), "{}", kept());
    server.stop().await;
}

/// Reads every file under `directory` and looks for `secret`.
fn no_secret_in(directory: &Path, secret: &[u8]) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            no_secret_in(&path, secret);
        } else {
            let content = std::fs::read(&path).unwrap();
            let found = content.windows(secret.len()).any(|part| part == secret);
            assert!(!found, "{} holds the secret", path.display());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_servers_and_an_agent_live_through_losses() {
    let site = Arc::new(Site::new(2));
    let one = site.start(1, &[("cluster-init", "true")]).await.unwrap();
    put(&one, "a").await;
    let two = site.joined(2).await;
    let three = site.joined(3).await;
    let agent = agent(&site).await;
    assert_eq!(agent.servers().len(), 3);
    assert!(has(&three, "a").await);

    // The second server's data is lost while it is down.
    let lost = site.view(2, SUPERVISOR_PORT).await.member_id;
    two.stop().await;
    put(&one, "b").await;
    std::fs::remove_dir_all(site.data(2).path()).unwrap();
    let (url, token) = (site.url(1), site.token());
    let joining = [("server", url.as_str()), ("token", token.as_str())];
    let refused = site.start(2, &joining).await.map(drop).unwrap_err();
    assert!(refused.message.contains("duplicate node name found"), "{refused}");
    let supervisor = format!("{}:{SUPERVISOR_PORT}", site.address(3));
    client::remove_member(site.data(3).path(), &supervisor, &lost).await.unwrap();
    let two = site.joined(2).await;
    assert_ne!(site.view(2, SUPERVISOR_PORT).await.member_id, lost);
    assert!(has(&two, "a").await && has(&two, "b").await);

    // The first one goes, and with it the address that all were told.
    one.stop().await;
    put(&three, "c").await;
    until(|| async {
        let view = site.view(4, AGENT_HEALTH_PORT).await;
        // Another one is down, too, as long as it does not answer in a second.
        let down: Vec<_> = view.members.iter().filter(|member| !member.healthy).collect();
        let is_alone = down.len() == 1 && down[0].name.starts_with("server1-");
        view.ready && (view.members.len(), view.nodes.len()) == (3, 4) && is_alone
    })
    .await;

    agent.stop().await;
    tokio::join!(two.stop(), three.stop());
}

async fn agent(site: &Site) -> Agent {
    let (url, token) = (site.url(1), site.token());
    let given = [("server", url.as_str()), ("token", token.as_str())];
    let values = site.values(4, "agent1", &given);
    let config = AgentConfig::from_values(&values, false).unwrap();
    let agent = tokio::time::timeout(PATIENCE, Agent::start(config)).await.unwrap().unwrap();
    let health = format!("{}:{AGENT_HEALTH_PORT}", site.address(4));
    client::ready(site.data(4).path(), &health, PATIENCE).await.unwrap();
    agent
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_server_says_so_and_comes_back_under_another_number() {
    let site = Site::new(3);
    let one = site.start(1, &[]).await.unwrap();
    let two = Arc::new(site.joined(2).await);
    let removed = two.context().identity.member_id;
    let watched = Arc::clone(&two);
    let ended: JoinHandle<Failure> = tokio::spawn(async move { watched.ended().await });
    one.context().consensus.member_remove(removed).await.unwrap();
    until(|| async { site.data(2).is_removed() }).await;
    assert_eq!(
        two.context().ready().await.unwrap_err(),
        "this server was removed from the cluster"
    );
    ended.abort();
    // A cancelled task gives its share of the server back.
    let _ = ended.await;
    Arc::into_inner(two).unwrap().stop().await;

    let refused = site.start(2, &[]).await.map(drop).unwrap_err();
    assert!(refused.message.contains("tombstone file has been detected"), "{refused}");
    let two = site.joined(2).await;
    assert_ne!(two.context().identity.member_id, removed);
    assert_eq!(one.context().state.members().len(), 2);
    two.stop().await;
    one.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_join_of_another_cluster_leaves_nothing_behind() {
    let (site, other) = (Site::new(4), Site::new(5));
    let one = site.start(1, &[]).await.unwrap();
    let stranger = other.start(1, &[]).await.unwrap();
    let (url, token) = (site.url(1), other.token());
    let refused =
        site.start(2, &[("server", &url), ("token", &token)]).await.map(drop).unwrap_err();
    assert!(refused.message.contains("token CA hash does not match"), "{refused}");
    assert!(client::disk_view(site.data(2).path()).unwrap().is_none());
    assert_eq!(one.context().state.members().len(), 1);

    let slow = [("server", url.as_str()), ("token", &site.token())];
    let slow = [&slow[..], &[("etcd-arg", "heartbeat-interval=150")]].concat();
    let refused = site.start(2, &slow).await.map(drop).unwrap_err();
    assert!(refused.message.contains("critical configuration mismatched"), "{refused}");
    assert_eq!(one.context().state.members().len(), 1);
    one.stop().await;
    stranger.stop().await;
}
