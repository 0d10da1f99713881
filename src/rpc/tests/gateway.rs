//! The API as JSON.

use std::sync::atomic::Ordering;

use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpStream;

use super::{Fixture, bytes};
use crate::raft::api::ConsensusError;

/// Sends a request; gives the answer as it begins.
async fn send(
    fixture: &Fixture,
    request: http::Request<Full<bytes::Bytes>>,
) -> http::Response<Incoming> {
    let stream = TcpStream::connect(fixture.address).await.unwrap();
    let io = TokioIo::new(stream);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
    tokio::spawn(connection);
    sender.send_request(request).await.unwrap()
}

fn request(path: &str, body: &str) -> http::Request<Full<bytes::Bytes>> {
    let builder = http::Request::post(path).header("host", "test");
    builder.body(Full::new(bytes(body))).unwrap()
}

/// Status and body of a call.
pub(super) async fn call(fixture: &Fixture, path: &str, body: &Value) -> (u16, Value) {
    answered(send(fixture, request(path, &body.to_string())).await).await
}

/// The same with a token.
pub(super) async fn call_as(
    fixture: &Fixture,
    path: &str,
    body: &Value,
    token: &str,
) -> (u16, Value) {
    let mut request = request(path, &body.to_string());
    request.headers_mut().insert("authorization", token.parse().unwrap());
    answered(send(fixture, request).await).await
}

async fn answered(answer: http::Response<Incoming>) -> (u16, Value) {
    let status = answer.status().as_u16();
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    (status, serde_json::from_slice(&body).unwrap())
}

/// The next line of a stream.
async fn line(stream: &mut Incoming) -> Option<Value> {
    let frame = stream.frame().await?.unwrap();
    let data = frame.into_data().unwrap();
    assert!(data.ends_with(b"\n"));
    Some(serde_json::from_slice(&data).unwrap())
}

#[tokio::test]
async fn keys_are_written_and_read() {
    let fixture = Fixture::new().await;
    let (status, answer) =
        call(&fixture, "/v3/kv/put", &json!({ "key": "YQ==", "value": "MQ==" })).await;
    let header = json!({
        "cluster_id": "193", "member_id": "1", "revision": "2", "raft_term": "3",
    });
    assert_eq!((status, &answer), (200, &json!({ "header": header })));
    let found = json!({
        "header": header,
        "kvs": [{
            "key": "YQ==", "create_revision": "2", "mod_revision": "2", "version": "1",
            "value": "MQ==",
        }],
        "count": "1",
    });
    for path in ["/v3/kv/range", "/v3beta/kv/range"] {
        assert_eq!(call(&fixture, path, &json!({ "key": "YQ==" })).await, (200, found.clone()));
    }
    let txn = json!({
        "compare": [{ "key": "YQ==", "target": "VERSION", "version": 1 }],
        "success": [{ "request_delete_range": { "key": "YQ==", "prev_kv": true } }],
        "failure": [{ "request_range": { "key": "YQ==" } }],
    });
    let (_, answer) = call(&fixture, "/v3/kv/txn", &txn).await;
    assert_eq!(answer["succeeded"], true);
    assert_eq!(answer["responses"][0]["response_delete_range"]["deleted"], "1");
    assert_eq!(call(&fixture, "/v3/kv/compaction", &json!({ "revision": "3" })).await.0, 200);
}

#[tokio::test]
async fn refusals_have_etcds_codes() {
    let fixture = Fixture::new().await;
    let refused = |code: u16, text: &str| json!({ "error": text, "code": code, "message": text });
    let empty = "etcdserver: key is not provided";
    assert_eq!(call(&fixture, "/v3/kv/range", &json!({})).await, (400, refused(3, empty)));
    let future = "etcdserver: mvcc: required revision is a future revision";
    let late = json!({ "key": "YQ==", "revision": 9 });
    assert_eq!(call(&fixture, "/v3/kv/range", &late).await, (400, refused(11, future)));
    let lost = "etcdserver: requested lease not found";
    assert_eq!(
        call(&fixture, "/v3/kv/lease/revoke", &json!({ "ID": 7 })).await,
        (404, refused(5, lost))
    );
    for path in ["/v3/kv/nothing", "/v3/", "/v3/kv/range/", "/v3/watch/x"] {
        let answer = call(&fixture, path, &json!({})).await;
        assert_eq!(answer, (404, refused(5, "Not Found")), "{path}");
    }
    let get = http::Request::get("/v3/kv/range").header("host", "test");
    let answer = send(&fixture, get.body(Full::default()).unwrap()).await;
    assert_eq!(answer.status(), 501);
    fixture.solo.fail(Some(ConsensusError::NoLeader));
    let no_leader = "etcdserver: no leader";
    assert_eq!(
        call(&fixture, "/v3/kv/range", &json!({ "key": "YQ==" })).await,
        (503, refused(14, no_leader))
    );
}

#[tokio::test]
async fn watches_are_lines() {
    let fixture = Fixture::new().await;
    fixture.put("a", "1").await;
    let create = r#"{"create_request":{"key":"YQ==","start_revision":"2"}}"#;
    let answer = send(&fixture, request("/v3/watch", create)).await;
    assert_eq!(answer.headers()["content-type"], "application/json");
    let mut stream = answer.into_body();
    assert_eq!(line(&mut stream).await.unwrap()["result"]["created"], true);
    let first = line(&mut stream).await.unwrap();
    assert_eq!(first["result"]["events"][0]["kv"]["value"], "MQ==");
    fixture.put("a", "2").await;
    fixture.delete("a").await;
    let mut kinds = vec![];
    while kinds.len() < 2 {
        let more = line(&mut stream).await.unwrap();
        let events = more["result"]["events"].as_array().unwrap().clone();
        kinds.extend(events.iter().map(|event| event.get("type").cloned()));
    }
    assert_eq!(kinds, [None, Some(json!("DELETE"))]);
    fixture.stop.cancel();
    let last = line(&mut stream).await.unwrap();
    assert_eq!(last["error"]["grpc_code"], 14);
    assert_eq!(last["error"]["message"], "etcdserver: server stopped");
}

#[tokio::test]
async fn renewals_are_answered_until_the_body_ends() {
    let fixture = Fixture::new().await;
    let granted = call(&fixture, "/v3/lease/grant", &json!({ "ID": 7, "TTL": "100" })).await;
    assert_eq!((&granted.1["ID"], &granted.1["TTL"]), (&json!("7"), &json!("100")));
    let answer = send(&fixture, request("/v3/lease/keepalive", r#"{"ID":7}{"ID":8}"#)).await;
    let mut stream = answer.into_body();
    assert_eq!(line(&mut stream).await.unwrap()["result"]["TTL"], "100");
    let unknown = line(&mut stream).await.unwrap();
    assert_eq!(unknown["result"]["ID"], "8");
    assert_eq!(unknown["result"].get("TTL"), None);
    assert_eq!(line(&mut stream).await, None);
}

#[tokio::test]
async fn a_stream_that_fails_before_its_first_answer_has_the_status_of_the_refusal() {
    let fixture = Fixture::new().await;
    fixture.solo.fail(Some(ConsensusError::NoLeader));
    let (status, told) = call(&fixture, "/v3/lease/keepalive", &json!({ "ID": 7 })).await;
    assert_eq!((status, &told["error"]["grpc_code"]), (503, &json!(14)), "{told}");
    assert_eq!(told["error"]["message"], "etcdserver: no leader");
}

#[tokio::test]
async fn snapshots_are_lines_and_pages_may_read() {
    let fixture = Fixture::new().await;
    let answer = send(&fixture, request("/v3/maintenance/snapshot", "{}")).await;
    assert_eq!(answer.headers()["access-control-allow-origin"], "*");
    let mut stream = answer.into_body();
    let first = line(&mut stream).await.unwrap();
    assert!(first["result"]["blob"].as_str().unwrap().starts_with("YSBzbmFwc2hv"));
    let options = http::Request::options("/v3/kv/range").header("host", "test");
    let answer = send(&fixture, options.body(Full::default()).unwrap()).await;
    assert_eq!(answer.status(), 200);
    assert_eq!(
        answer.headers()["access-control-allow-headers"],
        "accept, content-type, authorization"
    );
}

#[tokio::test]
async fn a_call_ends_when_its_time_is_over() {
    let fixture = Fixture::new().await;
    fixture.solo.stalled.store(true, Ordering::Relaxed);
    let mut json = request("/v3/kv/range", r#"{"key":"YQ=="}"#);
    json.headers_mut().insert("grpc-timeout", "20m".parse().unwrap());
    let (status, told) = answered(send(&fixture, json).await).await;
    assert_eq!((status, &told["code"]), (504, &json!(4)));
    assert_eq!(told["message"], json!("context deadline exceeded"));

    // A range of one key, as gRPC frames it.
    let mut grpc = request("/etcdserverpb.KV/Range", "\0\0\0\0\x03\x0a\x01a");
    let headers = grpc.headers_mut();
    headers.insert("content-type", "application/grpc".parse().unwrap());
    headers.insert("grpc-timeout", "20000u".parse().unwrap());
    let answer = send(&fixture, grpc).await;
    assert_eq!(answer.headers()["grpc-status"], "4");
}
