//! The incoming connections: who is there, what they ask, the answers.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::stream::{FuturesUnordered, StreamExt};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::codec::FramedRead;

use super::super::shared::Shared;
use super::super::snapshot::Receiving;
use super::super::types::{SnapshotMeta, Vote};
use super::network::reply;
use super::wire::{self, Frame, Hello, Kind, Lane};
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

type Frames = FramedRead<ReadHalf<TlsStream<TcpStream>>, tokio_util::codec::LengthDelimitedCodec>;
type Replies = mpsc::Sender<Bytes>;

/// Takes connections until it is dropped.
pub(crate) async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    let acceptor = TlsAcceptor::from(shared.links.context.tls.server.clone());
    let greetings = Arc::new(Semaphore::new(GREETINGS_MAX));
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let Ok(permit) = greetings.clone().acquire_owned().await else { return };
        let (tcp, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of file descriptors, most likely: wait for some to come back.
                tracing::warn!(%error, "cannot accept a peer");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let (acceptor, shared) = (acceptor.clone(), shared.clone());
        connections.spawn(async move {
            let greeted = timeout(GREETING_TIMEOUT, greet(tcp, &acceptor, &shared)).await;
            drop(permit);
            let result = match greeted {
                Ok(Ok((hello, frames, writer))) => talk(hello, frames, writer, shared).await,
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

async fn greet(
    tcp: TcpStream,
    acceptor: &TlsAcceptor,
    shared: &Shared,
) -> io::Result<(Hello, Frames, WriteHalf<TlsStream<TcpStream>>)> {
    tcp.set_nodelay(true)?;
    let stream = acceptor.accept(tcp).await?;
    let certificates = stream.get_ref().1.peer_certificates().map(<[_]>::to_vec);
    let (reader, mut writer) = tokio::io::split(stream);
    let mut frames = FramedRead::new(reader, wire::codec());
    let frame = next(&mut frames).await?.ok_or(io::ErrorKind::UnexpectedEof)?;
    if frame.kind != Kind::Hello {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it did not greet"));
    }
    let hello: Hello = wire::body_of(&frame.body)?;
    let admitted = shared.links.context.admit(&hello, certificates.as_deref());
    let answer = match &admitted {
        Ok(welcome) => wire::frame_of(Kind::Welcome, 0, welcome)?,
        Err(refusal) => wire::frame_of(Kind::Refused, 0, refusal)?,
    };
    writer.write_all(&answer).await?;
    writer.flush().await?;
    match admitted {
        Ok(_) => Ok((hello, frames, writer)),
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
    writer: WriteHalf<TlsStream<TcpStream>>,
    shared: Arc<Shared>,
) -> io::Result<()> {
    let (replies, outgoing) = mpsc::channel(IN_FLIGHT_MAX);
    let asked = async {
        if hello.lane == Lane::Snapshot {
            take_snapshots(hello.from, frames, &shared, replies).await
        } else {
            take_requests(hello.from, frames, &shared, replies).await
        }
    };
    tokio::select! {
        result = asked => result,
        result = write(writer, outgoing) => result,
    }
}

async fn write(
    mut writer: impl AsyncWrite + Unpin,
    mut outgoing: mpsc::Receiver<Bytes>,
) -> io::Result<()> {
    let mut batch = BytesMut::new();
    while let Some(frame) = outgoing.recv().await {
        batch.extend_from_slice(&frame);
        while batch.len() < wire::WRITE_BYTES
            && let Ok(frame) = outgoing.try_recv()
        {
            batch.extend_from_slice(&frame);
        }
        writer.write_all(&batch).await?;
        writer.flush().await?;
        batch.clear();
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
                check_removed(shared, from)?;
                working.push(answer(shared, frame));
            }
        }
    }
}

/// A member that is removed while it is connected has to greet again, and is refused then.
fn check_removed(shared: &Shared, from: MemberId) -> io::Result<()> {
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
        Kind::Append => reply(id, &raft.append_entries(wire::read_append(body)?).await?)?,
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
    let mut receiving: Option<(SnapshotHead, Receiving)> = None;
    while let Some(frame) = next(&mut frames).await? {
        check_removed(shared, from)?;
        let id = frame.id;
        let frame = match take_piece(shared, &mut receiving, frame).await {
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
    receiving: &mut Option<(SnapshotHead, Receiving)>,
    frame: Frame,
) -> io::Result<Bytes> {
    let misplaced = || io::Error::new(io::ErrorKind::InvalidData, "no snapshot was begun");
    match frame.kind {
        Kind::Ping => {}
        Kind::SnapshotBegin => {
            let head: SnapshotHead = wire::body_of(&frame.body)?;
            let file = shared.snapshots.receive(head.length).await?;
            *receiving = Some((head, file));
        }
        Kind::SnapshotChunk => {
            let (_, file) = receiving.as_mut().ok_or_else(misplaced)?;
            file.write(&frame.body).await?;
        }
        Kind::SnapshotEnd => {
            let (head, file) = receiving.take().ok_or_else(misplaced)?;
            let file = file.finish(&shared.snapshots, head.meta.clone()).await?;
            let snapshot = openraft::Snapshot { meta: head.meta, snapshot: file };
            let installed = shared.raft.install_full_snapshot(head.vote, snapshot).await;
            let response = installed.map_err(io::Error::other)?;
            return Ok(reply(frame.id, &response.vote)?);
        }
        _ => return Err(misplaced()),
    }
    Ok(wire::frame_raw(Kind::Reply, frame.id, &[]))
}
