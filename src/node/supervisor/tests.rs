use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::super::fake::{Lone, lone};
use super::super::http::{Answer, Connector, HttpError, basic};
use super::super::join::member_name;
use super::super::records::unix_now;
use super::super::trust::{self, TrustError};
use super::super::wire::{About, JoinAnswer, JoinRequest, PROTOCOL, RegisterRequest, Sent};
use super::*;
use crate::cluster::view::ClusterView;
use crate::pki::authority::fresh_key;
use crate::pki::{KeyPairPem, Token, TokenError, Tree, tls};
use crate::secret::Secret;

/// Generous: the tests run beside others on small machines.
const PATIENCE: Duration = Duration::from_secs(120);

/// A supervisor on a port of its own, for as long as the value lives.
struct Running {
    lone: Lone,
    authority: String,
    stop: CancellationToken,
    _directory: tempfile::TempDir,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn running() -> Running {
    let directory = tempfile::tempdir().unwrap();
    let lone = lone(directory.path()).await;
    let client_ca = lone.context.keys.authorities().client.certificate().to_owned();
    let config =
        tls::server(&lone.leaves.serving, &client_ca, tls::ClientAuth::Optional, &tls::ALPN_HTTP);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let authority = listener.local_addr().unwrap().to_string();
    let stop = CancellationToken::new();
    let context = Arc::clone(&lone.context);
    tokio::spawn(serve(vec![listener], config.unwrap(), context, stop.clone()));
    Running { lone, authority, stop, _directory: directory }
}

impl Running {
    fn connector(&self, pair: Option<&KeyPairPem>) -> Connector {
        let ca = self.lone.context.keys.authorities().server.certificate().to_owned();
        Connector::tls(tls::client(&ca, pair, &[]).unwrap(), PATIENCE)
    }

    async fn get(&self, path: &str, authorization: Option<HeaderValue>) -> Answer {
        let asked = self.connector(None);
        asked.ask(&self.authority, "GET", path, authorization.as_ref(), b"").await.unwrap()
    }

    async fn post(&self, path: &str, authorization: HeaderValue, body: String) -> Answer {
        let asked = self.connector(None);
        let answer =
            asked.ask(&self.authority, "POST", path, Some(&authorization), body.as_bytes());
        answer.await.unwrap()
    }

    async fn admin_post(&self, path: &str, body: &str) -> Answer {
        let asked = self.connector(Some(&self.lone.leaves.admin));
        asked.ask(&self.authority, "POST", path, None, body.as_bytes()).await.unwrap()
    }
}

fn server_token() -> HeaderValue {
    basic("server", &Secret::new("s3cret"))
}

fn agent_token() -> HeaderValue {
    basic("node", &Secret::new("ag3nt"))
}

fn about(name: &str) -> About {
    About { name: name.into(), version: "v1".into(), ..About::default() }
}

fn join(name: &str, id: u64) -> JoinRequest {
    JoinRequest {
        protocol: PROTOCOL,
        about: about(name),
        password: Sent(Secret::new(format!("password of {name}"))),
        member_id: id,
        member_name: member_name(name, id),
        peer_urls: vec![format!("https://127.0.0.{id}:2380")],
        client_urls: vec![format!("https://127.0.0.{id}:2379")],
        supervisor_url: format!("https://127.0.0.{id}:6443"),
        critical: vec![("etcd-arg=heartbeat-interval".into(), "100".into())],
        agent_token: None,
    }
}

fn registration(name: &str, password: &str) -> (String, Secret) {
    let (key, public_key) = fresh_key().unwrap();
    let request = RegisterRequest {
        protocol: PROTOCOL,
        about: about(name),
        password: Sent(Secret::new(password)),
        public_key,
    };
    (serde_json::to_string(&request).unwrap(), key)
}

async fn asked_to_join(running: &Running, request: &JoinRequest) -> (u16, String) {
    let body = serde_json::to_string(request).unwrap();
    let answer = running.post("/v1-k3sup/join", server_token(), body).await;
    (answer.status, answer.text())
}

#[tokio::test]
async fn open_paths_answer_anybody_and_the_others_do_not() {
    let running = running().await;
    let ca = running.get("/cacerts", None).await;
    assert_eq!(ca.body, running.lone.context.keys.authorities().server.certificate().to_owned());
    for (path, text) in [("/ping", "pong"), ("/livez", "ok"), ("/readyz", "ok")] {
        let answer = running.get(path, None).await;
        assert_eq!((answer.status, answer.text().as_str()), (200, text), "{path}");
    }
    for path in ["config", "status", "members", "nodes", "self"] {
        let path = format!("/v1-k3sup/{path}");
        assert_eq!(running.get(&path, None).await.status, 401, "{path}");
        assert_eq!(running.get(&path, Some(server_token())).await.status, 200, "{path}");
    }
    assert_eq!(running.get("/v1-k3sup/status", Some(agent_token())).await.status, 403);
    let wrong = basic("server", &Secret::new("ag3nt"));
    assert_eq!(running.get("/v1-k3sup/status", Some(wrong)).await.status, 401);
}

#[tokio::test]
async fn the_view_says_how_the_cluster_stands() {
    let running = running().await;
    let admin = running.connector(Some(&running.lone.leaves.admin));
    let answer = admin.ask(&running.authority, "GET", "/v1-k3sup/status", None, b"").await.unwrap();
    let view: ClusterView = answer.json().unwrap();
    assert!(view.ready, "{view:?}");
    assert_eq!((view.cluster_id.as_str(), view.member_id.as_str()), ("c1", "1"));
    assert_eq!(view.leader_id.as_deref(), Some("1"));
    assert_eq!(view.ca_hash, running.lone.token.ca_hash.clone().unwrap());
    assert_eq!(view.certificates.len(), 7);
    assert!(view.members[0].healthy && view.members[0].voter);
}

#[tokio::test]
async fn a_server_joins_once_however_often_it_asks() {
    let running = running().await;
    let request = join("server2", 2);
    for _ in 0..2 {
        let (status, text) = asked_to_join(&running, &request).await;
        assert_eq!(status, 200, "{text}");
        let answer: JoinAnswer = serde_json::from_str(&text).unwrap();
        assert_eq!(answer.cluster_id, 0xc1);
        assert_eq!(answer.members, ["server1-00000001", "server2-00000002"]);
    }
    let node = running.lone.context.records.node("server2").unwrap();
    assert_eq!((node.member_id.as_str(), node.is_server()), ("2", true));
}

#[tokio::test]
async fn a_join_that_would_do_harm_is_refused_with_the_reason() {
    let running = running().await;
    assert_eq!(asked_to_join(&running, &join("server2", 2)).await.0, 200);

    let mut slow = join("server3", 3);
    slow.critical[0].1 = "500".into();
    let (status, text) = asked_to_join(&running, &slow).await;
    assert_eq!(status, 409);
    let expected = "critical configuration mismatched: etcd-arg=heartbeat-interval: the cluster has \
                    100, this server has 500";
    assert!(text.starts_with(expected), "{text}");

    let mut other_token = join("server3", 3);
    other_token.agent_token = Some(Sent(Secret::new("other")));
    let (status, text) = asked_to_join(&running, &other_token).await;
    assert_eq!(status, 409);
    assert!(text.contains("agent-token") && !text.contains("ag3nt"), "{text}");

    let (status, text) = asked_to_join(&running, &join("server2", 7)).await;
    assert_eq!(status, 409);
    assert!(text.contains("duplicate node name found") && text.contains("member 2"), "{text}");

    let mut old = join("server3", 3);
    old.protocol = 0;
    assert_eq!(asked_to_join(&running, &old).await.0, 400);
    let mut unnamed = join("server3", 3);
    unnamed.member_name = "server1-00000003".into();
    assert_eq!(asked_to_join(&running, &unnamed).await.0, 400);

    let body = serde_json::to_string(&join("server3", 3)).unwrap();
    let as_agent = running.post("/v1-k3sup/join", agent_token(), body).await;
    assert_eq!(as_agent.status, 403);
    assert_eq!(running.lone.context.state.members().len(), 2);
}

#[tokio::test]
async fn a_removed_server_comes_back_under_a_fresh_number_only() {
    let running = running().await;
    assert_eq!(asked_to_join(&running, &join("server2", 2)).await.0, 200);
    let removed = running.admin_post("/v1-k3sup/member-remove", r#"{"member_id":"2"}"#).await;
    assert_eq!(removed.status, 200);
    assert_eq!(running.lone.context.records.node("server2"), None);
    let again = running.admin_post("/v1-k3sup/member-remove", r#"{"member_id":"2"}"#).await;
    assert_eq!(again.status, 200);
    assert_eq!(asked_to_join(&running, &join("server2", 2)).await.0, 410);
    assert_eq!(asked_to_join(&running, &join("server2", 9)).await.0, 200);
}

#[tokio::test]
async fn what_a_removed_server_heard_of_agents_still_counts() {
    let running = running().await;
    assert_eq!(asked_to_join(&running, &join("server2", 2)).await.0, 200);
    let records = &running.lone.context.records;
    let heard = unix_now();
    records.put_heartbeats("server2", &[("agent1".to_owned(), heard)].into()).await.unwrap();
    let removed = running.admin_post("/v1-k3sup/member-remove", r#"{"member_id":"2"}"#).await;
    assert_eq!(removed.status, 200);
    assert_eq!(records.heartbeats().get("agent1"), Some(&heard));
}

#[tokio::test]
async fn an_agent_registers_under_a_name_that_stays_its_own() {
    let running = running().await;
    let (body, key) = registration("agent1", "mine");
    let answer = running.post("/v1-k3sup/register", agent_token(), body).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let answer: super::super::wire::RegisterAnswer = answer.json().unwrap();
    let pair = KeyPairPem { certificate: answer.certificate, key };
    let agent = running.connector(Some(&pair));
    let beat = agent.ask(&running.authority, "POST", "/v1-k3sup/heartbeat", None, b"").await;
    assert_eq!(beat.unwrap().status, 200);
    let views = running.lone.context.records.views(super::super::records::unix_now());
    let view = views.iter().find(|node| node.name == "agent1").unwrap();
    assert!(view.ready && view.roles.is_empty());

    let (body, _) = registration("agent1", "not mine");
    let answer = running.post("/v1-k3sup/register", agent_token(), body).await;
    assert_eq!(answer.status, 403);
    assert!(answer.text().contains("Node password rejected, duplicate hostname"));
    let (body, _) = registration("agent2", "mine");
    let answer =
        agent.ask(&running.authority, "POST", "/v1-k3sup/register", None, body.as_bytes()).await;
    assert_eq!(answer.unwrap().status, 403);
    let body = br#"{"name":"agent1"}"#;
    let answer = agent.ask(&running.authority, "POST", "/v1-k3sup/node-delete", None, body).await;
    assert_eq!(answer.unwrap().status, 403);

    let deleted = running.admin_post("/v1-k3sup/node-delete", r#"{"name":"agent1"}"#).await;
    assert_eq!(deleted.status, 200);
    let beat = agent.ask(&running.authority, "POST", "/v1-k3sup/heartbeat", None, b"").await;
    assert_eq!(beat.unwrap().status, 410);
    let (body, _) = registration("agent1", "not mine");
    assert_eq!(running.post("/v1-k3sup/register", agent_token(), body).await.status, 200);
}

#[tokio::test]
async fn a_server_is_not_deleted_while_its_member_is_there() {
    let running = running().await;
    assert_eq!(asked_to_join(&running, &join("server2", 2)).await.0, 200);
    let answer = running.admin_post("/v1-k3sup/node-delete", r#"{"name":"server2"}"#).await;
    assert_eq!(answer.status, 409);
    assert!(answer.text().contains("remove the member first"));
}

#[tokio::test]
async fn too_much_and_nonsense_are_refused_without_an_echo() {
    let running = running().await;
    let large = "x".repeat(300 * 1024);
    assert_eq!(running.post("/v1-k3sup/join", server_token(), large).await.status, 413);
    let answer = running.post("/v1-k3sup/join", server_token(), "{\"hunter2\":".into()).await;
    assert_eq!(answer.status, 400);
    assert!(!answer.text().contains("hunter2"));
}

#[tokio::test]
async fn certificates_of_another_cluster_are_refused() {
    let running = running().await;
    let directory = tempfile::tempdir().unwrap();
    let other = lone(directory.path()).await;
    let stranger = running.connector(Some(&other.leaves.admin));
    let asked = stranger.ask(&running.authority, "GET", "/v1-k3sup/status", None, b"").await;
    assert!(asked.is_err(), "{asked:?}");

    let ca = other.context.keys.authorities().server.certificate().to_owned();
    let believer = Connector::tls(tls::client(&ca, None, &[]).unwrap(), PATIENCE);
    let asked = believer.ask(&running.authority, "GET", "/ping", None, b"").await;
    assert!(matches!(asked, Err(HttpError::Tls(_))), "{asked:?}");
}

/// A server in the middle with a CA of its own, which records all it is sent.
async fn in_the_middle() -> (SocketAddr, Arc<Mutex<Vec<u8>>>) {
    let directory = tempfile::tempdir().unwrap();
    let lone = lone(directory.path()).await;
    let ca = lone.context.keys.authorities().server.certificate().to_owned();
    let client_ca = Tree::new(directory.path()).authorities().unwrap().unwrap().client;
    let config = tls::server(
        &lone.leaves.serving,
        client_ca.certificate(),
        tls::ClientAuth::Optional,
        &[b"http/1.1"],
    );
    let acceptor = tokio_rustls::TlsAcceptor::from(config.unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let record = Arc::clone(&seen);
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let mut buffer = vec![0; 64 * 1024];
            let length = stream.read(&mut buffer).await.unwrap();
            record.lock().extend_from_slice(&buffer[..length]);
            let head = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length";
            let answer = format!("{head}: {}\r\n\r\n{ca}", ca.len());
            stream.write_all(answer.as_bytes()).await.unwrap();
            stream.shutdown().await.unwrap();
        }
    });
    (address, seen)
}

#[tokio::test]
async fn a_man_in_the_middle_sees_no_secret() {
    let running = running().await;
    let token = &running.lone.token;
    trust::establish(&running.authority, token).await.unwrap();

    let (address, seen) = in_the_middle().await;
    let refused = trust::establish(&address.to_string(), token).await.map(drop).unwrap_err();
    assert!(matches!(refused, TrustError::Pin(TokenError::WrongCa { .. })), "{refused}");
    assert!(!refused.is_passing());
    let seen = String::from_utf8_lossy(&seen.lock()).to_lowercase();
    assert!(seen.starts_with("get /cacerts "), "{seen}");
    assert!(!seen.contains("authorization") && !seen.contains("s3cret"), "{seen}");
}

#[tokio::test]
async fn a_token_without_a_pin_asks_nobody() {
    let (address, seen) = in_the_middle().await;
    let short = Token::parse("s3cret").unwrap();
    let refused = trust::establish(&address.to_string(), &short).await.map(drop).unwrap_err();
    assert!(matches!(refused, TrustError::Pin(TokenError::NoHash)), "{refused}");
    assert!(seen.lock().is_empty());
}

#[tokio::test]
async fn the_store_does_not_hold_the_token() {
    let running = running().await;
    assert_eq!(asked_to_join(&running, &join("server2", 2)).await.0, 200);
    for (key, value) in running.lone.context.state.system_prefix("") {
        let value = String::from_utf8_lossy(&value).into_owned();
        for secret in ["s3cret", "ag3nt", "password of"] {
            assert!(!value.contains(secret), "{key}: {value}");
        }
    }
}

#[tokio::test]
async fn snapshots_are_for_administrators() {
    let running = running().await;
    let save = r#"{"operation":"save","name":["before"],"retention":1}"#;
    let denied = running.post("/db/snapshot", agent_token(), save.to_owned()).await;
    assert_eq!(denied.status, 403);
    let saved = running.post("/db/snapshot", server_token(), save.to_owned()).await;
    assert_eq!(saved.status, 200, "{}", saved.text());
    let saved: serde_json::Value = saved.json().unwrap();
    let name = saved["created"][0].as_str().unwrap();
    assert!(name.starts_with("before-server1-"), "{saved}");
    let listed = running.admin_post("/db/snapshot", r#"{"operation":"list"}"#).await;
    let listed: serde_json::Value = listed.json().unwrap();
    assert_eq!(listed["kind"], "List");
    assert_eq!(listed["items"][0]["spec"]["snapshotName"], name);
    assert_eq!(listed["items"][0]["status"]["readyToUse"], true);
    let bad = running.admin_post("/db/snapshot", r#"{"operation":"delete","name":["../x"]}"#).await;
    assert_eq!(bad.status, 400, "{}", bad.text());
    let delete = format!(r#"{{"operation":"delete","name":["{name}"]}}"#);
    let deleted = running.admin_post("/db/snapshot", &delete).await;
    assert!(deleted.text().contains(name), "{}", deleted.text());
    let listed = running.admin_post("/db/snapshot", r#"{"operation":"list"}"#).await;
    assert!(!listed.text().contains(name));
}
