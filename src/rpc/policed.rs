//! A client's connection, on which it may ping only so often (see `pings`).
//!
//! The HTTP/2 library answers pings by itself and tells nobody. So the frames of a connection are
//! watched from outside, by their heads alone. Knows nothing of gRPC or of what frames hold.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

use super::frames::{Frames, PREFACE};
use super::pings::Judge;

/// How long a client that was sent away may take to read why and go.
const FAREWELL: Duration = Duration::from_secs(1);

/// What is known of a connection.
#[derive(Debug)]
enum Phase {
    /// So much of HTTP/2's preface has come.
    Greeting(usize),
    /// It is HTTP/1.
    Other,
    /// It is HTTP/2.
    Watched,
    /// The client was sent away. What it still sends is dropped until it goes, since to close before
    /// could take from it what it was told.
    Leaving(Pin<Box<Sleep>>),
}

/// A client's connection, on which it may ping only so often.
#[derive(Debug)]
pub(super) struct Policed<S> {
    stream: S,
    phase: Phase,
    incoming: Frames,
    outgoing: Frames,
    judge: Judge,
}

impl<S> Policed<S> {
    /// Watches `stream`. `interval` is the shortest time between two pings of a client that has a
    /// call under way.
    pub(super) fn new(stream: S, interval: Duration) -> Self {
        Self {
            stream,
            phase: Phase::Greeting(0),
            incoming: Frames::default(),
            outgoing: Frames::default(),
            judge: Judge::new(interval),
        }
    }

    /// Looks at what the client sent; gives whether it has to go.
    fn look(&mut self, mut bytes: &[u8]) -> bool {
        if let Phase::Greeting(seen) = self.phase {
            let expected = PREFACE.get(seen..).unwrap_or_default();
            let length = expected.len().min(bytes.len());
            if expected.get(..length) != bytes.get(..length) {
                self.phase = Phase::Other;
            } else if length < expected.len() {
                self.phase = Phase::Greeting(seen + length);
            } else {
                self.phase = Phase::Watched;
                bytes = bytes.get(length..).unwrap_or_default();
            }
        }
        let mut over = false;
        if matches!(self.phase, Phase::Watched) {
            let judge = &mut self.judge;
            self.incoming.take(bytes, |head| over |= judge.received(head, Instant::now));
        }
        over
    }

    /// Notes what was sent to the client.
    fn note(&mut self, bytes: &[u8]) {
        if matches!(self.phase, Phase::Other) {
            return;
        }
        let judge = &mut self.judge;
        self.outgoing.take(bytes, |head| judge.sent(head));
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Policed<S> {
    /// Tells the client why it has to go, if that can be said here and at once.
    fn send_away(&mut self, cx: &mut Context<'_>) {
        self.phase = Phase::Leaving(Box::pin(tokio::time::sleep(FAREWELL)));
        if self.outgoing.at_boundary() {
            let stream = Pin::new(&mut self.stream);
            if let Poll::Ready(Ok(_)) = stream.poll_write(cx, &self.judge.farewell()) {
                let _ = Pin::new(&mut self.stream).poll_flush(cx);
            }
        }
        let _ = Pin::new(&mut self.stream).poll_shutdown(cx);
    }
}

fn too_many_pings() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionAborted, "the client pings too often")
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Policed<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buffer.filled().len();
        loop {
            if let Phase::Leaving(end) = &mut this.phase
                && end.as_mut().poll(cx).is_ready()
            {
                return Poll::Ready(Err(too_many_pings()));
            }
            ready!(Pin::new(&mut this.stream).poll_read(cx, buffer))?;
            let read = buffer.filled().get(before..).unwrap_or_default();
            if matches!(this.phase, Phase::Leaving(_)) {
                if read.is_empty() {
                    return Poll::Ready(Err(too_many_pings()));
                }
            } else if this.look(read) {
                this.send_away(cx);
            } else {
                return Poll::Ready(Ok(()));
            }
            buffer.set_filled(before);
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Policed<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if matches!(self.phase, Phase::Leaving(_)) {
            return Poll::Ready(Ok(bytes.len()));
        }
        let written = ready!(Pin::new(&mut self.stream).poll_write(cx, bytes))?;
        self.note(bytes.get(..written).unwrap_or_default());
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if matches!(self.phase, Phase::Leaving(_)) {
            return Poll::Ready(Ok(slices.iter().map(|slice| slice.len()).sum()));
        }
        let written = ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, slices))?;
        let mut left = written;
        for slice in slices {
            let part = slice.get(..left.min(slice.len())).unwrap_or_default();
            left -= part.len();
            self.note(part);
        }
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if matches!(self.phase, Phase::Leaving(_)) {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
