//! Watch fan-out: how long after a put was sent each watcher has its event.

use std::time::{Duration, Instant};

use k3sup_rs::rpc::client::Client;
use k3sup_rs::rpc::pb::etcdserverpb::watch_request::RequestUnion;
use k3sup_rs::rpc::pb::etcdserverpb::{
    PutRequest, WatchCreateRequest, WatchRequest, WatchResponse,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;

use super::cluster::Cluster;
use super::load::{Measured, connections};

/// What is watched: one prefix, by all.
pub(crate) const PREFIX: &str = "watched/";

/// Puts one key after another for `span`, each when all `watchers` have the one before, and measures
/// each event from the moment its put was sent. The watchers of a connection share a stream, as those
/// of etcd's own client do.
pub(crate) async fn run(cluster: &Cluster, watchers: usize, span: Duration) -> Measured {
    let connections = connections(cluster, watchers).await;
    let (seen, mut heard) = mpsc::unbounded_channel();
    let mut tasks = tokio::task::JoinSet::new();
    for (at, connection) in connections.iter().enumerate() {
        let own = (watchers - at).div_ceil(connections.len());
        let opened = open(connection.clone(), own).await;
        tasks.spawn(listen(opened, seen.clone()));
    }
    let mut writer = connections[0].clone();
    let mut latencies = Vec::new();
    let begun = Instant::now();
    let mut number = 0_u64;
    while begun.elapsed() < span {
        number += 1;
        let key = format!("{PREFIX}{}", number % 100).into();
        let value = number.to_string().into();
        let sent = Instant::now();
        let request = PutRequest { key, value, ..PutRequest::default() };
        writer.kv.put(request).await.expect("a put succeeds");
        for _ in 0..watchers {
            let (got, at): (u64, Instant) = heard.recv().await.expect("an event");
            assert_eq!(got, number, "each watcher has each event once");
            latencies.push(at.saturating_duration_since(sent));
        }
    }
    Measured::of(latencies, begun.elapsed())
}

/// A stream of answers, and what keeps its requests' half open.
pub(crate) type Opened = (tonic::Streaming<WatchResponse>, mpsc::UnboundedSender<WatchRequest>);

/// A stream with so many watchers.
pub(crate) async fn open(mut connection: Client, watchers: usize) -> Opened {
    let (ask, asked) = mpsc::unbounded_channel();
    let create = WatchCreateRequest {
        key: PREFIX.into(),
        range_end: "watched0".into(),
        ..WatchCreateRequest::default()
    };
    for _ in 0..watchers {
        let request =
            WatchRequest { request_union: Some(RequestUnion::CreateRequest(create.clone())) };
        ask.send(request).expect("it is heard");
    }
    let answers = connection.watch.watch(UnboundedReceiverStream::new(asked)).await;
    let mut answers = answers.expect("a stream").into_inner();
    for _ in 0..watchers {
        let answer = answers.message().await.expect("an answer").expect("the stream is open");
        assert!(answer.created && !answer.canceled, "a watcher is made");
    }
    (answers, ask)
}

async fn listen(opened: Opened, seen: mpsc::UnboundedSender<(u64, Instant)>) {
    let (mut answers, _open) = opened;
    while let Ok(Some(answer)) = answers.message().await {
        let at = Instant::now();
        for event in &answer.events {
            let value = &event.kv.as_ref().expect("a key").value;
            let number = std::str::from_utf8(value).expect("text").parse().expect("a number");
            if seen.send((number, at)).is_err() {
                return;
            }
        }
    }
}
