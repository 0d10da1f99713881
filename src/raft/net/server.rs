//! The incoming connections: who is there, what they ask, the answers.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::stream::{FuturesUnordered, StreamExt};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::codec::FramedRead;
use tokio_util::either::Either;

use super::super::shared::Shared;
use super::super::snapshot::Receiving;
use super::super::types::{SnapshotMeta, Vote};
use super::identity::Context;
use super::network::reply;
use super::outbox::Outbox;
use super::traffic::{Passage, Way};
use super::wire::{self, About, Frame, Hello, Kind, Lane};
use crate::store::state::State;
use crate::store::types::MemberId;

/// How long TLS and greeting may take together.
const GREETING_TIMEOUT: Duration = Duration::from_secs(5);
/// Peers ping every second; a connection that is silent for so long has nobody at its end.
const SILENCE_MAX: Duration = Duration::from_secs(30);
/// Handshakes at the same time.
const GREETINGS_MAX: usize = 64;
/// Requests of one connection that are worked on at the same time.
const IN_FLIGHT_MAX: usize = 4096;

/// What a snapshot begins with on the wire.
#[derive(Serialize, Deserialize)]
pub(crate) struct SnapshotHead {
    pub(crate) vote: Vote,
    pub(crate) meta: SnapshotMeta,
    pub(crate) length: u64,
}

type Stream = Either<TcpStream, TlsStream<TcpStream>>;
type Frames = FramedRead<ReadHalf<Stream>, tokio_util::codec::LengthDelimitedCodec>;
type Replies = mpsc::Sender<Bytes>;

/// Greets whoever comes, and no more than that, until it is dropped. Members that start together ask
/// each other whether their cluster still is one; none of them must wait for the others to have
/// started.
pub(crate) async fn greet_all(listener: &TcpListener, context: &Context, state: &State) {
    let acceptor = acceptor(context);
    let mut greetings = FuturesUnordered::new();
    loop {
        tokio::select! {
            accepted = accept(listener), if greetings.len() < GREETINGS_MAX => {
                let greeting = greet(accepted.0, acceptor.as_ref(), context, state);
                greetings.push(timeout(GREETING_TIMEOUT, greeting));
            }
            Some(_) = greetings.next() => {}
        }
    }
}

fn acceptor(context: &Context) -> Option<TlsAcceptor> {
    context.tls.as_ref().map(|tls| TlsAcceptor::from(tls.server.clone()))
}

/// The next connection.
async fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok(accepted) => return accepted,
            Err(error) => {
                // Out of file descriptors, most likely: wait for some to come back.
                tracing::warn!(%error, "cannot accept a peer");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// Takes connections until it is dropped.
pub(crate) async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    let acceptor = acceptor(&shared.links.context);
    let greetings = Arc::new(Semaphore::new(GREETINGS_MAX));
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let Ok(permit) = greetings.clone().acquire_owned().await else { return };
        let (tcp, peer) = accept(&listener).await;
        let (acceptor, shared) = (acceptor.clone(), shared.clone());
        connections.spawn(async move {
            let greeting = greet(tcp, acceptor.as_ref(), &shared.links.context, &shared.state);
            let greeted = timeout(GREETING_TIMEOUT, greeting).await;
            drop(permit);
            let result = match greeted {
                Ok(Ok(Some((hello, frames, writer)))) => {
                    let (from, traffic) = (hello.from, shared.links.context.traffic.clone());
                    let talked = talk(hello, frames, writer, shared).await;
                    talked.inspect_err(|_| traffic.receive_failed(from))
                }
                Ok(Ok(None)) => Ok(()),
                Ok(Err(error)) => Err(error),
                Err(_) => Err(io::ErrorKind::TimedOut.into()),
            };
            if let Err(error) = result {
                log_end(peer, &error);
            }
        });
    }
}

fn log_end(peer: SocketAddr, error: &io::Error) {
    if error.kind() == io::ErrorKind::PermissionDenied {
        tracing::warn!(%peer, %error, "refused a peer");
    } else {
        tracing::debug!(%peer, %error, "a peer's connection ended");
    }
}

/// A peer that may speak; `None` for one that only asked who is there.
async fn greet(
    tcp: TcpStream,
    acceptor: Option<&TlsAcceptor>,
    context: &Context,
    state: &State,
) -> io::Result<Option<(Hello, Frames, WriteHalf<Stream>)>> {
    tcp.set_nodelay(true)?;
    let (stream, certificates) = match acceptor {
        None => (Either::Left(tcp), None),
        Some(acceptor) => {
            let stream = acceptor.accept(tcp).await?;
            let certificates = stream.get_ref().1.peer_certificates().map(<[_]>::to_vec);
            (Either::Right(stream), certificates)
        }
    };
    let (reader, mut writer) = tokio::io::split(stream);
    let mut frames = FramedRead::new(reader, wire::codec());
    let frame = next(&mut frames).await?.ok_or(io::ErrorKind::UnexpectedEof)?;
    if frame.kind == Kind::WhoIsThere {
        let about = About { cluster: context.cluster, members: state.members() };
        writer.write_all(&reply(frame.id, &about)?).await?;
        writer.flush().await?;
        return Ok(None);
    }
    if frame.kind != Kind::Hello {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it did not greet"));
    }
    let hello: Hello = wire::body_of(&frame.body)?;
    let admitted = context.admit(&hello, certificates.as_deref());
    let answer = match &admitted {
        Ok(welcome) => wire::frame_of(Kind::Welcome, 0, welcome)?,
        Err(refusal) => wire::frame_of(Kind::Refused, 0, refusal)?,
    };
    writer.write_all(&answer).await?;
    writer.flush().await?;
    match admitted {
        Ok(_) => Ok(Some((hello, frames, writer))),
        Err(refusal) => Err(io::Error::new(io::ErrorKind::PermissionDenied, refusal)),
    }
}

async fn next(
    frames: &mut FramedRead<impl AsyncRead + Unpin, tokio_util::codec::LengthDelimitedCodec>,
) -> io::Result<Option<Frame>> {
    match timeout(SILENCE_MAX, frames.next()).await {
        Ok(None) => Ok(None),
        Ok(Some(bytes)) => Ok(Some(wire::parse(bytes?)?)),
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    }
}

async fn talk(
    hello: Hello,
    frames: Frames,
    writer: WriteHalf<Stream>,
    shared: Arc<Shared>,
) -> io::Result<()> {
    let (replies, outgoing) = mpsc::channel(IN_FLIGHT_MAX);
    let traffic = shared.links.context.traffic.clone();
    let asked = async {
        if hello.lane == Lane::Snapshot {
            take_snapshots(hello.from, frames, &shared, replies).await
        } else {
            take_requests(hello.from, frames, &shared, replies).await
        }
    };
    tokio::select! {
        result = asked => result,
        result = write(writer, outgoing, |bytes| traffic.sent(hello.from, bytes)) => result,
    }
}

async fn write(
    writer: impl AsyncWrite + Unpin,
    mut outgoing: mpsc::Receiver<Bytes>,
    sent: impl Fn(usize),
) -> io::Result<()> {
    let mut outbox = Outbox::new(writer);
    while let Some(frame) = outgoing.recv().await {
        outbox.push(&frame).await?;
        while !outbox.is_full()
            && let Ok(frame) = outgoing.try_recv()
        {
            outbox.push(&frame).await?;
        }
        sent(outbox.flush().await?);
    }
    Ok(())
}

/// Works on requests side by side. They reach openraft in the order in which they came: a request
/// is first polled in the order of arrival, and the first poll hands it over.
async fn take_requests(
    from: MemberId,
    mut frames: Frames,
    shared: &Arc<Shared>,
    replies: Replies,
) -> io::Result<()> {
    let mut working = FuturesUnordered::new();
    loop {
        tokio::select! {
            Some(done) = working.next() => {
                let frame: Bytes = done;
                if replies.send(frame).await.is_err() {
                    return Ok(());
                }
            }
            frame = next(&mut frames), if working.len() < IN_FLIGHT_MAX => {
                let Some(frame) = frame? else { return Ok(()) };
                took(shared, from, &frame)?;
                working.push(answer(shared, frame));
            }
        }
    }
}

/// Counts a frame. A member that is removed while it is connected has to greet again, and is refused
/// then.
fn took(shared: &Shared, from: MemberId, frame: &Frame) -> io::Result<()> {
    shared.links.context.traffic.received(from, frame.length());
    if shared.links.context.is_removed(from) {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, "it was removed"));
    }
    Ok(())
}

async fn answer(shared: &Arc<Shared>, frame: Frame) -> Bytes {
    let id = frame.id;
    match try_answer(shared, frame).await {
        Ok(reply) => reply,
        Err(error) => wire::frame_raw(Kind::Failed, id, error.to_string().as_bytes()),
    }
}

async fn try_answer(
    shared: &Arc<Shared>,
    frame: Frame,
) -> Result<Bytes, Box<dyn std::error::Error + Send + Sync>> {
    let Frame { kind, id, body } = frame;
    let raft = &shared.raft;
    Ok(match kind {
        Kind::Ping => wire::frame_raw(Kind::Reply, id, &[]),
        Kind::Append => {
            let request = wire::read_append(body)?;
            shared.contact.heard(request.vote.leader_id.term, Instant::now());
            reply(id, &raft.append_entries(request).await?)?
        }
        Kind::Vote => reply(id, &raft.vote(wire::body_of(&body)?).await?)?,
        Kind::PreVote => reply(id, &raft.pre_vote(wire::body_of(&body)?).await?)?,
        Kind::Transfer => reply(id, &raft.handle_transfer_leader(wire::body_of(&body)?).await?)?,
        Kind::Propose => reply(id, &shared.serve_propose(body).await)?,
        Kind::Call => reply(id, &shared.serve_call(wire::body_of(&body)?).await)?,
        other => return Err(format!("{other:?} is not a request on this lane").into()),
    })
}

/// Takes snapshots, one after the other: a head, chunks, an end.
async fn take_snapshots(
    from: MemberId,
    mut frames: Frames,
    shared: &Arc<Shared>,
    replies: Replies,
) -> io::Result<()> {
    let mut receiving = None;
    while let Some(frame) = next(&mut frames).await? {
        took(shared, from, &frame)?;
        let id = frame.id;
        let frame = match take_piece(shared, from, &mut receiving, frame).await {
            Ok(frame) => frame,
            Err(error) => {
                tracing::warn!(%error, "cannot take a snapshot from a peer");
                receiving = None;
                wire::frame_raw(Kind::Failed, id, error.to_string().as_bytes())
            }
        };
        if replies.send(frame).await.is_err() {
            return Ok(());
        }
    }
    Ok(())
}

async fn take_piece(
    shared: &Arc<Shared>,
    from: MemberId,
    receiving: &mut Option<(SnapshotHead, Receiving, Passage)>,
    frame: Frame,
) -> io::Result<Bytes> {
    let misplaced = || io::Error::new(io::ErrorKind::InvalidData, "no snapshot was begun");
    match frame.kind {
        Kind::Ping => {}
        Kind::SnapshotBegin => {
            let head: SnapshotHead = wire::body_of(&frame.body)?;
            let file = shared.snapshots.receive(head.length).await?;
            let passage = Passage::begin(&shared.links.context.traffic, from, Way::In);
            *receiving = Some((head, file, passage));
        }
        Kind::SnapshotChunk => {
            let (_, file, _) = receiving.as_mut().ok_or_else(misplaced)?;
            file.write(&frame.body).await?;
        }
        Kind::SnapshotEnd => {
            let (head, file, passage) = receiving.take().ok_or_else(misplaced)?;
            let file = file.finish(&shared.snapshots, head.meta.clone()).await?;
            let snapshot = openraft::Snapshot { meta: head.meta, snapshot: file };
            let installed = shared.raft.install_full_snapshot(head.vote, snapshot).await;
            let response = installed.map_err(io::Error::other)?;
            passage.arrived();
            return Ok(reply(frame.id, &response.vote)?);
        }
        _ => return Err(misplaced()),
    }
    Ok(wire::frame_raw(Kind::Reply, frame.id, &[]))
}
