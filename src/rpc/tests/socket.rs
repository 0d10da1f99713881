//! The API over a WebSocket.

use std::time::Duration;

use futures::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;

use super::{Fixture, PATIENCE};

type Socket = WebSocketStream<TcpStream>;

/// Asks for a WebSocket; gives the head of the answer.
async fn ask(fixture: &Fixture, path: &str, headers: &str) -> (TcpStream, String) {
    let mut stream = TcpStream::connect(fixture.address).await.unwrap();
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: test\r\nConnection: keep-alive, Upgrade\r\n\
         Upgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{headers}\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    (stream, String::from_utf8(head).unwrap().to_ascii_lowercase())
}

async fn open(fixture: &Fixture, path: &str, headers: &str) -> Socket {
    let headers = format!("Sec-WebSocket-Version: 13\r\n{headers}");
    let (stream, head) = ask(fixture, path, &headers).await;
    assert!(head.starts_with("http/1.1 101 "), "{head}");
    // The example of RFC 6455.
    assert!(head.contains("sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo="), "{head}");
    assert_eq!(head.contains("sec-websocket-protocol: bearer\r\n"), headers.contains("Bearer"));
    WebSocketStream::from_raw_socket(stream, Role::Client, None).await
}

async fn say(socket: &mut Socket, message: &Value) {
    socket.send(Message::text(message.to_string())).await.unwrap();
}

/// The next message, which is one of text.
async fn hear(socket: &mut Socket) -> Value {
    let next = tokio::time::timeout(PATIENCE, socket.next());
    let message = next.await.unwrap().unwrap().unwrap();
    assert!(message.is_text(), "{message:?}");
    serde_json::from_str(message.to_text().unwrap()).unwrap()
}

#[tokio::test]
async fn a_watch_goes_both_ways() {
    let fixture = Fixture::new().await;
    let mut socket = open(&fixture, "/v3/watch", "Origin: http://elsewhere\r\n").await;
    say(&mut socket, &json!({ "create_request": { "key": "YQ==" } })).await;
    assert_eq!(hear(&mut socket).await["result"]["created"], json!(true));
    fixture.put("a", "1").await;
    let told = hear(&mut socket).await;
    assert_eq!(told["result"]["events"][0]["kv"]["value"], json!("MQ=="));
    say(&mut socket, &json!({ "create_request": { "key": "Yg==", "watch_id": 7 } })).await;
    assert_eq!(hear(&mut socket).await["result"]["watch_id"], json!("7"));
    fixture.put("b", "2").await;
    assert_eq!(hear(&mut socket).await["result"]["watch_id"], json!("7"));
    socket.send(Message::Ping(b"there?".as_slice().into())).await.unwrap();
    assert!(socket.next().await.unwrap().unwrap().is_pong());
    say(&mut socket, &json!({ "cancel_request": { "watch_id": 7 } })).await;
    assert_eq!(hear(&mut socket).await["result"]["canceled"], json!(true));
    // The call ends with the socket, and with it its watchers.
    assert_eq!(fixture.metrics.watchers.get(), 1);
    socket.close(None).await.unwrap();
    let gone = async {
        while fixture.metrics.watchers.get() > 0 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, gone).await.expect("the watcher is still there");
}

#[tokio::test]
async fn leases_are_renewed_over_it_and_a_path_that_is_none_is_told() {
    let fixture = Fixture::new().await;
    let grant = crate::rpc::pb::etcdserverpb::LeaseGrantRequest { id: 5, ttl: 60 };
    fixture.client.lease.clone().lease_grant(grant).await.unwrap();
    let mut socket = open(&fixture, "/v3/lease/keepalive", "").await;
    for _ in 0..2 {
        say(&mut socket, &json!({ "ID": 5 })).await;
        assert_eq!(hear(&mut socket).await["result"]["TTL"], json!("60"));
    }
    let mut socket = open(&fixture, "/v3/nothing", "").await;
    assert_eq!(hear(&mut socket).await["code"], json!(5));
    assert!(matches!(socket.next().await, None | Some(Ok(Message::Close(_)) | Err(_))));
    let mut socket = open(&fixture, "/v3/watch", "").await;
    socket.send(Message::text("no JSON")).await.unwrap();
    assert_eq!(hear(&mut socket).await["error"]["grpc_code"], json!(3));
}

#[tokio::test]
async fn a_token_comes_as_a_subprotocol_or_a_cookie() {
    let fixture = super::auth::enabled().await.0;
    let login = json!({ "name": "u", "password": "pass" });
    let (_, answer) = super::gateway::call(&fixture, "/v3/auth/authenticate", &login).await;
    let token = answer["token"].as_str().unwrap().to_owned();
    let watch = json!({ "create_request": { "key": "dTE=" } });
    for header in [
        format!("Sec-WebSocket-Protocol: Bearer, {token}\r\n"),
        format!("Cookie: a=b; token={token}\r\n"),
    ] {
        let mut socket = open(&fixture, "/v3/watch", &header).await;
        say(&mut socket, &watch).await;
        let told = hear(&mut socket).await;
        assert_eq!(told["result"]["created"], json!(true), "{told}");
        assert_eq!(told["result"].get("canceled"), None, "{told}");
    }
    let mut socket = open(&fixture, "/v3/watch", "").await;
    say(&mut socket, &watch).await;
    let told = hear(&mut socket).await;
    assert_eq!(told["result"]["canceled"], json!(true), "{told}");
}

#[tokio::test]
async fn what_is_no_proper_request_for_one_is_refused() {
    let fixture = Fixture::new().await;
    let (_, head) = ask(&fixture, "/v3/watch", "Sec-WebSocket-Version: 12\r\n").await;
    assert!(head.starts_with("http/1.1 400 "), "{head}");
}
