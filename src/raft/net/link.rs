//! One outgoing connection to a peer: opened when it is needed, opened again when it breaks.
//!
//! Requests are numbered and answered in any order. A request that never left is told apart from
//! one whose answer was lost: only the first may be tried again without asking.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use parking_lot::Mutex;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::codec::FramedRead;
use tokio_util::task::AbortOnDropHandle;

use super::super::types::MemberNode;
use super::identity::Context;
use super::wire::{self, Frame, Kind, Lane, Refusal, Welcome};
use crate::store::types::MemberId;

/// How long connecting, TLS and greeting may take together.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// An open connection is pinged this often; an answer proves that the peer is there.
const PING_INTERVAL: Duration = Duration::from_secs(1);
/// A connection on which nothing came in for so long is given up.
const SILENCE_MAX: Duration = Duration::from_secs(5);
const BACKOFF_MIN: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(1);

/// Why a request got no answer.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum CallError {
    /// It never left this member.
    #[error("{0}")]
    NotSent(Arc<str>),
    /// It left; whether it arrived is not known.
    #[error("the connection was lost before the answer came")]
    Lost,
    /// The peer could not do it.
    #[error("{0}")]
    Failed(String),
}

/// A peer's answer: the reply's body, or why there is none.
pub(crate) type Answer = Result<Bytes, CallError>;

struct Call {
    id: u64,
    frame: Bytes,
    reply: oneshot::Sender<Answer>,
}

/// A handle on the connection; dropping it closes the connection.
pub(crate) struct Link {
    calls: mpsc::UnboundedSender<Call>,
    next_id: AtomicU64,
    node: MemberNode,
    _task: AbortOnDropHandle<()>,
}

impl Link {
    /// A link that connects when it is first used.
    pub(crate) fn new(
        context: Arc<Context>,
        target: MemberId,
        node: &MemberNode,
        lane: Lane,
    ) -> Self {
        let (calls, receiver) = mpsc::unbounded_channel();
        let dialer = Dialer { context, target, addresses: node.addresses.clone(), lane };
        let task = tokio::spawn(async move { dialer.run(receiver).await });
        Self {
            calls,
            next_id: AtomicU64::new(1),
            node: node.clone(),
            _task: AbortOnDropHandle::new(task),
        }
    }

    /// Whether the link leads to where `node` is now.
    pub(crate) fn leads_to(&self, node: &MemberNode) -> bool {
        self.node.addresses == node.addresses
    }

    /// A number for a request.
    pub(crate) fn next_id(&self) -> u64 {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }

    /// Queues a frame made with a number of [`Self::next_id`]. Frames leave in the order of these
    /// calls. The receiver errs only when the link was dropped.
    pub(crate) fn send(&self, id: u64, frame: Bytes) -> oneshot::Receiver<Answer> {
        let (reply, answer) = oneshot::channel();
        if let Err(unsent) = self.calls.send(Call { id, frame, reply }) {
            let _ = unsent.0.reply.send(Err(CallError::NotSent("the link is closed".into())));
        }
        answer
    }

    /// Sends a frame and waits for the answer.
    pub(crate) async fn call(&self, id: u64, frame: Bytes) -> Answer {
        self.send(id, frame).await.unwrap_or(Err(CallError::Lost))
    }

    /// Makes sure that the connection is open or being opened.
    pub(crate) fn warm(&self) {
        let id = self.next_id();
        drop(self.send(id, wire::frame_raw(Kind::Ping, id, &[])));
    }
}

/// What the link's task needs to connect.
struct Dialer {
    context: Arc<Context>,
    target: MemberId,
    addresses: Vec<String>,
    lane: Lane,
}

type Stream = TlsStream<TcpStream>;

impl Dialer {
    async fn run(self, mut calls: mpsc::UnboundedReceiver<Call>) {
        let mut backoff = BACKOFF_MIN;
        while let Some(first) = calls.recv().await {
            match self.connect().await {
                Ok(stream) => {
                    backoff = BACKOFF_MIN;
                    let error = drive(stream, first, &mut calls).await;
                    tracing::debug!(peer = self.target, lane = ?self.lane, %error, "link lost");
                }
                Err(error) => {
                    tracing::debug!(peer = self.target, lane = ?self.lane, %error, "no link");
                    let why: Arc<str> =
                        format!("member {:x} cannot be reached: {error}", self.target).into();
                    let refuse = |call: Call| {
                        let _ = call.reply.send(Err(CallError::NotSent(why.clone())));
                    };
                    refuse(first);
                    let wait = sleep(backoff);
                    tokio::pin!(wait);
                    loop {
                        tokio::select! {
                            () = &mut wait => break,
                            call = calls.recv() => match call {
                                Some(call) => refuse(call),
                                None => return,
                            },
                        }
                    }
                    backoff = (backoff * 2).min(BACKOFF_MAX);
                }
            }
        }
    }

    async fn connect(&self) -> io::Result<Stream> {
        let mut last = io::Error::new(io::ErrorKind::AddrNotAvailable, "it has no peer address");
        for address in &self.addresses {
            match timeout(CONNECT_TIMEOUT, self.connect_to(address)).await {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(error)) => {
                    last = io::Error::new(error.kind(), format!("{address}: {error}"));
                }
                Err(_) => {
                    last = io::Error::new(io::ErrorKind::TimedOut, format!("{address}: timed out"));
                }
            }
        }
        Err(last)
    }

    async fn connect_to(&self, address: &str) -> io::Result<Stream> {
        let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let name = ServerName::try_from(host).map_err(io::Error::other)?;
        let tcp = TcpStream::connect(address).await?;
        tcp.set_nodelay(true)?;
        let connector = TlsConnector::from(self.context.tls.client.clone());
        let mut stream = connector.connect(name, tcp).await?;
        let hello = self.context.hello(self.target, self.lane);
        stream.write_all(&wire::frame_of(Kind::Hello, 0, &hello)?).await?;
        stream.flush().await?;
        let mut frames = FramedRead::new(&mut stream, wire::codec());
        let bytes = frames.next().await.ok_or(io::ErrorKind::UnexpectedEof)??;
        if !frames.read_buffer().is_empty() {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "it spoke before it was asked"));
        }
        self.greeted(&wire::parse(bytes)?, &stream)?;
        Ok(stream)
    }

    /// Looks at the peer's answer to the greeting.
    fn greeted(&self, frame: &Frame, stream: &Stream) -> io::Result<()> {
        let denied = |refusal: Refusal| io::Error::new(io::ErrorKind::PermissionDenied, refusal);
        match frame.kind {
            Kind::Welcome => {
                let welcome: Welcome = wire::body_of(&frame.body)?;
                let certificates = stream.get_ref().1.peer_certificates();
                self.context.accept(self.target, &welcome, certificates).map_err(denied)
            }
            Kind::Refused => {
                let refusal: Refusal = wire::body_of(&frame.body)?;
                if refusal == Refusal::Removed && !self.context.removed.send_replace(true) {
                    tracing::warn!(peer = self.target, "this member was removed from the cluster");
                }
                Err(denied(refusal))
            }
            _ => Err(io::Error::new(io::ErrorKind::InvalidData, "it did not greet")),
        }
    }
}

type Pending = Mutex<HashMap<u64, oneshot::Sender<Answer>>>;

/// Runs a connection until it breaks or the link is dropped; gives the reason.
async fn drive(
    stream: Stream,
    first: Call,
    calls: &mut mpsc::UnboundedReceiver<Call>,
) -> io::Error {
    let (reader, writer) = tokio::io::split(stream);
    let pending = Pending::default();
    let opened = Instant::now();
    let heard = AtomicU64::new(0);
    let elapsed = || u64::try_from(opened.elapsed().as_millis()).unwrap_or(u64::MAX);
    let result = tokio::select! {
        result = read(reader, &pending, || heard.store(elapsed(), Ordering::Relaxed)) => result,
        result = write(writer, first, calls, &pending) => result,
        () = silent(|| elapsed().saturating_sub(heard.load(Ordering::Relaxed))) => {
            Err(io::Error::new(io::ErrorKind::TimedOut, "nothing was heard from it"))
        }
    };
    for (_, reply) in pending.into_inner() {
        let _ = reply.send(Err(CallError::Lost));
    }
    result.err().unwrap_or_else(|| io::Error::new(io::ErrorKind::UnexpectedEof, "it was closed"))
}

async fn read(
    reader: impl AsyncRead + Unpin,
    pending: &Pending,
    heard: impl Fn(),
) -> io::Result<()> {
    let mut frames = FramedRead::new(reader, wire::codec());
    while let Some(bytes) = frames.next().await {
        let frame = wire::parse(bytes?)?;
        heard();
        let Some(reply) = pending.lock().remove(&frame.id) else { continue };
        let answer = match frame.kind {
            Kind::Reply => Ok(frame.body),
            Kind::Failed => {
                Err(CallError::Failed(String::from_utf8_lossy(&frame.body).into_owned()))
            }
            _ => return Err(io::Error::new(io::ErrorKind::InvalidData, "not a reply")),
        };
        let _ = reply.send(answer);
    }
    Ok(())
}

async fn write(
    mut writer: impl AsyncWrite + Unpin,
    first: Call,
    calls: &mut mpsc::UnboundedReceiver<Call>,
    pending: &Pending,
) -> io::Result<()> {
    let mut ping = interval(PING_INTERVAL);
    ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ping.reset();
    let mut next = Some(first);
    let mut batch = BytesMut::new();
    loop {
        if next.is_none() {
            tokio::select! {
                call = calls.recv() => next = call,
                _ = ping.tick() => {
                    writer.write_all(&wire::frame_raw(Kind::Ping, 0, &[])).await?;
                    writer.flush().await?;
                    continue;
                }
            }
        }
        let Some(call) = next.take() else { return Ok(()) };
        pending.lock().insert(call.id, call.reply);
        batch.extend_from_slice(&call.frame);
        next = calls.try_recv().ok();
        if next.is_none() || batch.len() >= wire::WRITE_BYTES {
            writer.write_all(&batch).await?;
            writer.flush().await?;
            batch.clear();
        }
    }
}

/// Ends when the peer has been silent for too long.
async fn silent(silence: impl Fn() -> u64) {
    let limit = u64::try_from(SILENCE_MAX.as_millis()).unwrap_or(u64::MAX);
    while silence() < limit {
        sleep(PING_INTERVAL / 2).await;
    }
}
