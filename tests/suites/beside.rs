//! What can be set of the API, and orders that only a running clock gives, beside a real etcd: both
//! answer and refuse in the same way.

use crate::support;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::support::etcd::Etcd;
use crate::support::member::Alone;
use k3sup_rs::rpc::client::{Client, connect};
use k3sup_rs::rpc::pb::etcdserverpb as pb;
use pb::kv_client::KvClient;
use pb::request_op::Request as Op;
use pb::watch_client::WatchClient;
use tonic::Code;
use tonic::transport::Endpoint;

/// A real etcd and a member of ours, started with the same flags.
fn pair(net: &str, flags: &[&str]) -> Option<(Etcd, Alone)> {
    let dir = tempfile::tempdir().unwrap();
    let real = Etcd::start_with(dir, &format!("127.{net}.1"), flags)?;
    Some((real, Alone::start_with(&format!("127.{net}.2"), flags)))
}

fn clients(real: &Etcd, ours: &Alone) -> [Client; 2] {
    [real.client(), connect(std::slice::from_ref(&ours.url), None).unwrap()]
}

type Told = Result<(), (Code, String)>;

fn told<T>(answer: Result<T, tonic::Status>) -> Told {
    answer.map(drop).map_err(|status| (status.code(), status.message().to_owned()))
}

fn put_of(key: String, bytes: usize) -> pb::PutRequest {
    pb::PutRequest { key: key.into(), value: vec![b'x'; bytes].into(), ..Default::default() }
}

fn txn_of(puts: usize) -> pb::TxnRequest {
    let op = |number| Some(Op::RequestPut(put_of(format!("k{number}"), 1)));
    let success = (0..puts).map(|number| pb::RequestOp { request: op(number) }).collect();
    pb::TxnRequest { success, ..Default::default() }
}

/// A transaction of `outer` operations, the last of which is one of `inner`.
fn nested(outer: usize, inner: usize) -> pb::TxnRequest {
    let mut txn = txn_of(outer - 1);
    let mut inside = txn_of(inner);
    inside.success.iter_mut().enumerate().for_each(|(number, op)| {
        op.request = Some(Op::RequestPut(put_of(format!("inside{number}"), 1)));
    });
    txn.success.push(pb::RequestOp { request: Some(Op::RequestTxn(inside)) });
    txn
}

#[tokio::test]
async fn smaller_limits_refuse_in_etcds_words() {
    let flags = ["--max-txn-ops=3", "--max-request-bytes=4000"];
    let Some((real, ours)) = pair("103.1", &flags) else { return };
    let large = Err((Code::InvalidArgument, "etcdserver: request is too large".to_owned()));
    let many = "etcdserver: too many operations in txn request".to_owned();
    let many = Err((Code::InvalidArgument, many));
    for client in clients(&real, &ours) {
        let mut kv = client.kv.clone();
        assert_eq!(told(kv.put(put_of("a".into(), 3000)).await), Ok(()));
        assert_eq!(told(kv.put(put_of("a".into(), 4000)).await), large);
        assert_eq!(told(kv.txn(txn_of(3)).await), Ok(()));
        assert_eq!(told(kv.txn(txn_of(4)).await), many);
        assert_eq!(told(kv.txn(nested(2, 1)).await), Ok(()));
        assert_eq!(told(kv.txn(nested(2, 2)).await), many);
        let mut compare = txn_of(1);
        let equal = pb::Compare { key: "a".into(), ..Default::default() };
        compare.compare = vec![equal; 4];
        assert_eq!(told(kv.txn(compare).await), many);
    }
}

#[tokio::test]
async fn larger_limits_let_more_through() {
    let flags = ["--max-txn-ops", "300", "--max-request-bytes", "4194304"];
    let Some((real, ours)) = pair("103.2", &flags) else { return };
    for client in clients(&real, &ours) {
        let mut kv = client.kv.clone();
        assert_eq!(told(kv.put(put_of("a".into(), 4_000_000)).await), Ok(()));
        assert_eq!(told(kv.txn(txn_of(300)).await), Ok(()));
        assert_eq!(told(kv.txn(txn_of(301)).await).unwrap_err().0, Code::InvalidArgument);
        let large = told(kv.put(put_of("a".into(), 4_194_304)).await).unwrap_err();
        assert_eq!(large.1, "etcdserver: request is too large");
    }
}

#[tokio::test]
async fn a_connection_has_no_more_streams_than_are_allowed() {
    let Some((real, ours)) = pair("103.3", &["--max-concurrent-streams=2"]) else { return };
    for url in [real.url.clone(), ours.url.clone()] {
        let channel = Endpoint::from_shared(url.clone()).unwrap().connect().await.unwrap();
        let mut kv = KvClient::new(channel.clone());
        kv.put(put_of("a".into(), 1)).await.unwrap();
        let mut streams = Vec::new();
        for _ in 0..2 {
            let create = pb::WatchCreateRequest { key: "a".into(), ..Default::default() };
            let request = pb::watch_request::RequestUnion::CreateRequest(create);
            let request = pb::WatchRequest { request_union: Some(request) };
            let (sender, receiver) = tokio::sync::mpsc::channel(1);
            sender.send(request).await.unwrap();
            let requests = tokio_stream::wrappers::ReceiverStream::new(receiver);
            let mut stream =
                WatchClient::new(channel.clone()).watch(requests).await.unwrap().into_inner();
            assert!(stream.message().await.unwrap().unwrap().created);
            streams.push((sender, stream));
        }
        let third = tokio::time::timeout(Duration::from_secs(1), kv.put(put_of("a".into(), 1)));
        assert!(third.await.is_err(), "{url}: a third call was answered");
        // A stream that ends makes room for another call.
        streams.pop();
        let next = tokio::time::timeout(Duration::from_secs(60), kv.put(put_of("a".into(), 1)));
        next.await.expect("an answer").unwrap();
    }
}

#[test]
fn a_silent_client_is_dropped_after_the_times_given() {
    let flags = ["--grpc-keepalive-interval=1s", "--grpc-keepalive-timeout=1s"];
    let Some((real, ours)) = pair("103.4", &flags) else { return };
    for url in [&real.url, &ours.url] {
        let begun = Instant::now();
        let mut stream = TcpStream::connect(url.strip_prefix("http://").unwrap()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(120))).unwrap();
        // The preface and an empty frame of settings; from then on not a word.
        stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").unwrap();
        let mut said = Vec::new();
        let ended = stream.read_to_end(&mut said);
        let took = begun.elapsed();
        assert!(took > Duration::from_millis(1500), "{url}: {took:?} {ended:?}");
        let waits = |kind: ErrorKind| matches!(kind, ErrorKind::WouldBlock | ErrorKind::TimedOut);
        let is_open = ended.as_ref().is_err_and(|error| waits(error.kind()));
        assert!(!is_open, "{url}: {took:?} {ended:?}");
    }
}

#[tokio::test]
async fn leases_are_listed_in_the_order_of_their_ends() {
    let Some((real, ours)) = pair("103.5", &[]) else { return };
    for client in clients(&real, &ours) {
        let mut lease = client.lease.clone();
        for (id, ttl) in [(1, 3000), (2, 1000), (3, 5000), (4, 2000), (5, 4000)] {
            lease.lease_grant(pb::LeaseGrantRequest { id, ttl }).await.unwrap();
        }
        let listed = lease.lease_leases(pb::LeaseLeasesRequest {}).await.unwrap().into_inner();
        let ids: Vec<i64> = listed.leases.iter().map(|lease| lease.id).collect();
        assert_eq!(ids, [2, 4, 1, 5, 3]);
    }
}

/// What `/metrics` has of these families.
fn counted(url: &str, families: &[&str]) -> Vec<String> {
    let mut stream = TcpStream::connect(url.strip_prefix("http://").unwrap()).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: m\r\nConnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let is_meant = |line: &&str| {
        let name = line.split(['{', ' ']).next().unwrap_or_default();
        families.contains(&name)
    };
    let mut lines: Vec<String> = text.lines().filter(is_meant).map(str::to_owned).collect();
    lines.sort();
    lines
}

#[tokio::test]
async fn what_was_done_is_counted_alike() {
    const FAMILIES: [&str; 13] = [
        "etcd_mvcc_put_total",
        "etcd_mvcc_delete_total",
        "etcd_mvcc_range_total",
        "etcd_mvcc_txn_total",
        "etcd_debugging_mvcc_range_total",
        "etcd_debugging_mvcc_total_put_size_in_bytes",
        "etcd_debugging_mvcc_keys_total",
        "etcd_debugging_lease_granted_total",
        "etcd_debugging_lease_revoked_total",
        "etcd_debugging_lease_renewed_total",
        "etcd_debugging_server_lease_expired_total",
        "etcd_debugging_auth_revision",
        "etcd_cluster_version",
    ];
    let Some((real, ours)) = pair("103.6", &[]) else { return };
    let status = real.client().maintenance.status(pb::StatusRequest {}).await.unwrap();
    let version = status.into_inner().version;
    if !version.starts_with("3.5.") {
        return eprintln!("SKIPPED: etcd {version} counts transactions otherwise than 3.5");
    }
    for client in clients(&real, &ours) {
        let (mut kv, mut lease) = (client.kv.clone(), client.lease.clone());
        for (key, bytes) in [("a", 3), ("a", 5), ("b", 7), ("c", 1)] {
            kv.put(put_of(key.to_owned(), bytes)).await.unwrap();
        }
        let range =
            |key: &str| pb::RangeRequest { key: key.to_owned().into(), ..Default::default() };
        kv.range(range("a")).await.unwrap();
        for key in ["b", "none"] {
            let key = key.to_owned().into();
            kv.delete_range(pb::DeleteRangeRequest { key, ..Default::default() }).await.unwrap();
        }
        kv.txn(txn_of(1)).await.unwrap();
        kv.txn(txn_of(3)).await.unwrap();
        kv.txn(nested(2, 2)).await.unwrap();
        let read = |key| Some(Op::RequestRange(range(key)));
        let success = ["a", "b"].map(|key| pb::RequestOp { request: read(key) }).to_vec();
        let met = || pb::Compare { key: "a".into(), ..Default::default() };
        let unmet = || pb::Compare { key: "none".into(), result: 1, ..Default::default() };
        for compare in [vec![], vec![unmet(), unmet()], vec![unmet(), met(), met()]] {
            let success = success.clone();
            kv.txn(pb::TxnRequest { compare: compare.clone(), success, failure: vec![] })
                .await
                .unwrap();
            let success = txn_of(1).success;
            kv.txn(pb::TxnRequest { compare, success, failure: vec![] }).await.unwrap();
        }
        for (id, ttl) in [(1, 1000), (2, 1000), (3, 1)] {
            lease.lease_grant(pb::LeaseGrantRequest { id, ttl }).await.unwrap();
        }
        let ask = tokio_stream::iter([pb::LeaseKeepAliveRequest { id: 1 }]);
        let mut answers = lease.lease_keep_alive(ask).await.unwrap().into_inner();
        assert!(answers.message().await.unwrap().is_some());
        let leased = pb::PutRequest { lease: 2, ..put_of("leased".to_owned(), 1) };
        kv.put(leased).await.unwrap();
        lease.lease_revoke(pb::LeaseRevokeRequest { id: 2 }).await.unwrap();
    }
    for url in [&real.url, &ours.url] {
        support::wait_for("a lease to end", || {
            let expired = counted(url, &["etcd_debugging_server_lease_expired_total"]);
            expired.iter().any(|line| line.ends_with(" 1")).then_some(())
        });
    }
    let real = counted(&real.url, &FAMILIES);
    assert_eq!(real.len(), FAMILIES.len());
    assert_eq!(counted(&ours.url, &FAMILIES), real);
}
