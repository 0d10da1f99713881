//! One outgoing connection to a peer: opened when it is needed, opened again when it breaks.
//!
//! Requests are numbered and answered in any order. A request that never left is told apart from
//! one whose answer was lost: only the first may be tried again without asking.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
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
use tokio_util::either::Either;
use tokio_util::task::AbortOnDropHandle;

use super::super::types::MemberNode;
use super::identity::{Context, PeerTls};
use super::outbox::Outbox;
use super::wire::{self, About, Frame, Kind, Lane, Refusal, VERSION, Welcome};
use crate::store::types::MemberId;

/// How long connecting, TLS and greeting may take together.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// How long a member that starts waits for a peer's word.
pub(crate) const PROBE_TIMEOUT: Duration = Duration::from_secs(2);
/// An open connection is pinged this often; an answer proves that the peer is there.
const PING_INTERVAL: Duration = Duration::from_secs(1);
/// A connection on which nothing came in for so long is given up.
const SILENCE_MAX: Duration = Duration::from_secs(5);
/// The number of a ping that nobody waits for; requests are numbered from 1.
const PING_ID: u64 = 0;
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

    /// Asks whether the member is there.
    pub(crate) async fn ping(&self) -> Answer {
        let id = self.next_id();
        self.call(id, wire::frame_raw(Kind::Ping, id, &[])).await
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

type Stream = Either<TcpStream, TlsStream<TcpStream>>;

impl Dialer {
    async fn run(self, mut calls: mpsc::UnboundedReceiver<Call>) {
        let mut backoff = BACKOFF_MIN;
        while let Some(first) = calls.recv().await {
            match self.connect().await {
                Ok(stream) => {
                    backoff = BACKOFF_MIN;
                    let error = self.drive(stream, first, &mut calls).await;
                    tracing::debug!(peer = self.target, lane = ?self.lane, %error, "link lost");
                }
                Err(error) => {
                    tracing::debug!(peer = self.target, lane = ?self.lane, %error, "no link");
                    let why: Arc<str> =
                        format!("member {:x} cannot be reached: {error}", self.target).into();
                    let refuse = |call: Call| {
                        self.context.traffic.send_failed(self.target);
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
        let mut stream = open(address, self.context.tls.as_ref()).await?;
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
                let certificates = match stream {
                    Either::Left(_) => None,
                    Either::Right(tls) => tls.get_ref().1.peer_certificates(),
                };
                self.context.accept(self.target, &welcome, certificates).map_err(denied)
            }
            Kind::Refused => {
                let refusal: Refusal = wire::body_of(&frame.body)?;
                if refusal == Refusal::Removed && !self.context.removed.send_replace(true) {
                    tracing::warn!(peer = self.target, "this member was removed from the cluster");
                }
                if let Refusal::Superseded(by) = refusal {
                    self.context.superseded.send_replace(Some(by));
                }
                Err(denied(refusal))
            }
            _ => Err(io::Error::new(io::ErrorKind::InvalidData, "it did not greet")),
        }
    }
}

/// A connection to a peer's `host:port`, on which nothing was said yet.
async fn open(address: &str, tls: Option<&PeerTls>) -> io::Result<Stream> {
    let tcp = TcpStream::connect(address).await?;
    tcp.set_nodelay(true)?;
    let Some(tls) = tls else { return Ok(Either::Left(tcp)) };
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let name = ServerName::try_from(host).map_err(io::Error::other)?;
    let connector = TlsConnector::from(tls.client.clone());
    Ok(Either::Right(connector.connect(name, tcp).await?))
}

/// Asks whoever listens on a peer's `host:port` which cluster it is of and who its members are.
pub async fn who_is_there(address: &str, tls: Option<&PeerTls>) -> io::Result<About> {
    let asked = async {
        let mut stream = open(address, tls).await?;
        stream.write_all(&wire::frame_of(Kind::WhoIsThere, 0, &VERSION)?).await?;
        stream.flush().await?;
        let mut frames = FramedRead::new(&mut stream, wire::codec());
        let bytes = frames.next().await.ok_or(io::ErrorKind::UnexpectedEof)??;
        let frame = wire::parse(bytes)?;
        match frame.kind {
            Kind::Reply => Ok(wire::body_of(&frame.body)?),
            _ => Err(io::Error::new(io::ErrorKind::InvalidData, "it does not tell who it is")),
        }
    };
    timeout(CONNECT_TIMEOUT, asked).await.unwrap_or(Err(io::ErrorKind::TimedOut.into()))
}

/// Asks the peers whether another cluster took the place of this member's; before it takes part in
/// anything. Who does not answer in [`PROBE_TIMEOUT`] does not count.
pub(crate) async fn probe(context: &Arc<Context>, peers: Vec<(MemberId, Vec<String>)>) {
    let asked = peers.into_iter().map(|(target, addresses)| {
        let dialer = Dialer { context: context.clone(), target, addresses, lane: Lane::Urgent };
        async move { drop(timeout(PROBE_TIMEOUT, dialer.connect()).await) }
    });
    futures::future::join_all(asked).await;
}

/// Requests without an answer yet, and when the ping was sent that is on its way.
#[derive(Default)]
struct Pending {
    replies: Mutex<HashMap<u64, oneshot::Sender<Answer>>>,
    pinged: Mutex<Option<Instant>>,
}

impl Dialer {
    /// Runs a connection until it breaks or the link is dropped; gives the reason.
    async fn drive(
        &self,
        stream: Stream,
        first: Call,
        calls: &mut mpsc::UnboundedReceiver<Call>,
    ) -> io::Error {
        let traffic = &*self.context.traffic;
        let _presence = (self.lane == Lane::Urgent).then(|| Presence::new(self));
        let (reader, writer) = tokio::io::split(stream);
        let pending = Pending::default();
        let opened = Instant::now();
        let heard = AtomicU64::new(0);
        let elapsed = || u64::try_from(opened.elapsed().as_millis()).unwrap_or(u64::MAX);
        let on_frame = |bytes: usize| {
            traffic.received(self.target, bytes);
            heard.store(elapsed(), Ordering::Relaxed);
        };
        let on_ping = |took: Duration| {
            if self.lane == Lane::Urgent {
                traffic.round_trip(self.target, took);
            }
        };
        let result = tokio::select! {
            result = read(reader, &pending, on_frame, on_ping) => result,
            result = write(writer, first, calls, &pending, |n| traffic.sent(self.target, n)) => result,
            () = silent(|| elapsed().saturating_sub(heard.load(Ordering::Relaxed))) => {
                Err(io::Error::new(io::ErrorKind::TimedOut, "nothing was heard from it"))
            }
        };
        for (_, reply) in pending.replies.into_inner() {
            traffic.send_failed(self.target);
            let _ = reply.send(Err(CallError::Lost));
        }
        result
            .err()
            .unwrap_or_else(|| io::Error::new(io::ErrorKind::UnexpectedEof, "it was closed"))
    }
}

/// A peer that is connected, until this is dropped.
struct Presence<'a>(&'a Dialer);

impl<'a> Presence<'a> {
    fn new(dialer: &'a Dialer) -> Self {
        dialer.context.traffic.connected(dialer.target);
        Self(dialer)
    }
}

impl Drop for Presence<'_> {
    fn drop(&mut self) {
        self.0.context.traffic.disconnected(self.0.target);
    }
}

async fn read(
    reader: impl AsyncRead + Unpin,
    pending: &Pending,
    on_frame: impl Fn(usize),
    on_ping: impl Fn(Duration),
) -> io::Result<()> {
    let mut frames = FramedRead::new(reader, wire::codec());
    while let Some(bytes) = frames.next().await {
        let frame = wire::parse(bytes?)?;
        on_frame(frame.length());
        if frame.id == PING_ID {
            if let Some(pinged) = pending.pinged.lock().take() {
                on_ping(pinged.elapsed());
            }
            continue;
        }
        let Some(reply) = pending.replies.lock().remove(&frame.id) else { continue };
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
    writer: impl AsyncWrite + Unpin,
    first: Call,
    calls: &mut mpsc::UnboundedReceiver<Call>,
    pending: &Pending,
    sent: impl Fn(usize),
) -> io::Result<()> {
    let mut ping = interval(PING_INTERVAL);
    ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ping.reset();
    let mut next = Some(first);
    let mut outbox = Outbox::new(writer);
    loop {
        if next.is_none() {
            tokio::select! {
                call = calls.recv() => next = call,
                _ = ping.tick() => {
                    let frame = wire::frame_raw(Kind::Ping, PING_ID, &[]);
                    pending.pinged.lock().get_or_insert_with(Instant::now);
                    outbox.push(&frame).await?;
                    sent(outbox.flush().await?);
                    continue;
                }
            }
        }
        let Some(call) = next.take() else { return Ok(()) };
        pending.replies.lock().insert(call.id, call.reply);
        outbox.push(&call.frame).await?;
        next = calls.try_recv().ok();
        if next.is_none() || outbox.is_full() {
            sent(outbox.flush().await?);
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
