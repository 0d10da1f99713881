//! The gateway over a WebSocket: each message in is JSON of the request's stream, each line of the
//! answer a message out, as etcd has it (`tmc/grpc-websocket-proxy`).
//!
//! Knows nothing of procedures: it makes an ordinary request of the one that asked for the socket,
//! whose body comes as the messages do.

use std::convert::Infallible;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::{Bytes, BytesMut};
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt, StreamExt};
use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use sha1::{Digest, Sha1};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};
use tonic::body::Body;

use super::Gateway;
use super::json::BodyLimit;

/// What RFC 6455 puts behind a client's key to show that the server speaks it.
const KEY_SUFFIX: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// The subprotocol under which a page's script sends a token: it can set no header.
const TOKEN_PROTOCOL: &str = "Bearer";

/// Messages in that wait until the call takes them.
const QUEUE: usize = 16;

type Socket = WebSocketStream<TokioIo<Upgraded>>;

/// Whether a request asks for a WebSocket.
pub(super) fn is_wanted(headers: &HeaderMap) -> bool {
    let lists = |name: header::HeaderName, wanted: &str| {
        let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
        values
            .flat_map(|value| value.split(','))
            .any(|word| word.trim().eq_ignore_ascii_case(wanted))
    };
    lists(header::CONNECTION, "upgrade") && lists(header::UPGRADE, "websocket")
}

/// Answers a request for a WebSocket, and serves it from then on.
pub(super) fn open(gateway: Gateway, mut request: Request<Incoming>) -> Response<Body> {
    let accepted = match accept(&request) {
        Ok(accepted) => accepted,
        Err(why) => {
            let mut response = Response::new(Body::new(format!("{why}\n")));
            *response.status_mut() = StatusCode::BAD_REQUEST;
            return response;
        }
    };
    let mut response = Response::new(Body::default());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::SEC_WEBSOCKET_ACCEPT, accepted);
    if protocol(request.headers()).is_some_and(|protocol| protocol.starts_with(TOKEN_PROTOCOL)) {
        let protocol = HeaderValue::from_static(TOKEN_PROTOCOL);
        headers.insert(header::SEC_WEBSOCKET_PROTOCOL, protocol);
    }
    let upgrade = hyper::upgrade::on(&mut request);
    let head = request.map(drop);
    tokio::spawn(serve(gateway, head, upgrade));
    response
}

/// What shows the client that it is understood (RFC 6455, 4.2.2).
fn accept(request: &Request<Incoming>) -> Result<HeaderValue, &'static str> {
    if request.method() != Method::GET {
        return Err("websocket: request method is not GET");
    }
    let headers = request.headers();
    if headers.get(header::SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
        return Err(
            "websocket: unsupported version: 13 not found in 'Sec-Websocket-Version' header",
        );
    }
    let key = headers.get(header::SEC_WEBSOCKET_KEY).filter(|key| !key.is_empty());
    let key = key.ok_or("websocket: 'Sec-WebSocket-Key' header is missing or blank")?;
    let digest = Sha1::new().chain_update(key.as_bytes()).chain_update(KEY_SUFFIX).finalize();
    let text = BASE64_STANDARD.encode(digest);
    HeaderValue::try_from(text).map_err(|_| "websocket: the key cannot be answered")
}

fn protocol(headers: &HeaderMap) -> Option<&str> {
    headers.get(header::SEC_WEBSOCKET_PROTOCOL).and_then(|value| value.to_str().ok())
}

/// The token that came in the place of a header which pages cannot set.
fn token(headers: &HeaderMap) -> Option<HeaderValue> {
    let cookies = headers.get_all(header::COOKIE).into_iter().filter_map(|all| all.to_str().ok());
    let mut pairs = cookies.flat_map(|all| all.split(';')).filter_map(|one| one.split_once('='));
    let cookie = pairs.find(|(name, _)| name.trim() == "token").map(|(_, value)| value.trim());
    let shown = protocol(headers).and_then(|protocol| protocol.split_once(','));
    let named = shown.filter(|(name, _)| name.trim() == TOKEN_PROTOCOL);
    let token = cookie.or(named.map(|(_, token)| token.trim()))?;
    HeaderValue::try_from(format!("{TOKEN_PROTOCOL} {token}")).ok()
}

async fn serve(gateway: Gateway, mut head: Request<()>, upgrade: OnUpgrade) {
    let upgraded = match upgrade.await {
        Ok(upgraded) => TokioIo::new(upgraded),
        Err(error) => {
            tracing::debug!(%error, "a WebSocket did not begin");
            return;
        }
    };
    if let Some(token) = token(head.headers()) {
        head.headers_mut().insert(header::AUTHORIZATION, token);
    }
    *head.method_mut() = Method::POST;
    let bytes_max = gateway.member.settings.limits.body_bytes();
    let config = WebSocketConfig::default()
        .max_message_size(Some(bytes_max))
        .max_frame_size(Some(bytes_max));
    let socket = WebSocketStream::from_raw_socket(upgraded, Role::Server, Some(config)).await;
    let (sink, source) = socket.split();
    let (sender, receiver) = mpsc::channel::<Bytes>(QUEUE);
    let frames = ReceiverStream::new(receiver).map(|bytes| Ok::<_, Infallible>(Frame::data(bytes)));
    head.extensions_mut().insert(BodyLimit(bytes_max));
    let request = head.map(|()| Body::new(StreamBody::new(frames)));
    // When the client goes, so does its call.
    tokio::select! {
        () = take(source, sender) => {}
        () = give(gateway, request, sink) => {}
    }
}

/// Gives the call what comes, until the client ends it.
async fn take(mut source: SplitStream<Socket>, call: mpsc::Sender<Bytes>) {
    while let Some(message) = source.next().await {
        let mut bytes = match message {
            Ok(Message::Text(text)) => BytesMut::from(text.as_bytes()),
            Ok(Message::Binary(bytes)) => BytesMut::from(&*bytes),
            Ok(Message::Close(_)) => return,
            Ok(_) => continue,
            Err(error) => {
                tracing::debug!(%error, "a WebSocket broke");
                return;
            }
        };
        bytes.extend_from_slice(b"\n");
        if call.send(bytes.freeze()).await.is_err() {
            // The call ended: what it answered is still being sent.
            std::future::pending::<()>().await;
        }
    }
}

/// Makes the call and gives the client its answer, line by line.
async fn give(gateway: Gateway, request: Request<Body>, mut sink: SplitSink<Socket, Message>) {
    let mut body = gateway.answer(request).await.into_body();
    let mut unsent = BytesMut::new();
    while let Some(Ok(frame)) = body.frame().await {
        unsent.extend_from_slice(frame.data_ref().map_or(&[][..], |data| &data[..]));
        while let Some(end) = unsent.iter().position(|byte| *byte == b'\n') {
            let line = unsent.split_to(end + 1).split_to(end).freeze();
            if send(&mut sink, line).await.is_none() {
                return;
            }
        }
    }
    // A refusal is no line of its own.
    if !unsent.is_empty() && send(&mut sink, unsent.freeze()).await.is_none() {
        return;
    }
    // The client may be gone.
    let _ = sink.close().await;
}

async fn send(sink: &mut SplitSink<Socket, Message>, line: Bytes) -> Option<()> {
    if line.is_empty() {
        return Some(());
    }
    let text = Utf8Bytes::try_from(line).ok()?;
    sink.send(Message::Text(text)).await.ok()
}
