//! Clients that ping too often are sent away, by the rules of gRPC's Go server (grpc-go,
//! `internal/transport/http2_server.go`, `handlePing`), which etcd sets with
//! `--grpc-keepalive-min-time`.
//!
//! The HTTP/2 library answers pings by itself and tells nobody. So the frames of a connection are
//! watched from outside, by their heads alone. Knows nothing of gRPC or of what frames hold.

use std::collections::HashSet;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

/// How a client of HTTP/2 begins (RFC 9113, section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Bytes of a frame's head: length (3), kind, flags, stream (4).
const HEAD_BYTES: usize = 9;
/// So many pings too many are let pass.
const STRIKES_MAX: u32 = 2;
/// Without a call under way nobody has to ping more often.
const IDLE_INTERVAL: Duration = Duration::from_secs(2 * 60 * 60);
/// How long a client that was sent away may take to read why and go.
const FAREWELL: Duration = Duration::from_secs(1);

mod kind {
    pub(super) const DATA: u8 = 0;
    pub(super) const HEADERS: u8 = 1;
    pub(super) const RST_STREAM: u8 = 3;
    pub(super) const PING: u8 = 6;
    pub(super) const GOAWAY: u8 = 7;
}

/// `END_STREAM` of data and headers, `ACK` of a ping.
const FLAG_LOWEST: u8 = 1;
const ENHANCE_YOUR_CALM: u32 = 11;

/// What the head of a frame says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Head {
    kind: u8,
    flags: u8,
    stream: u32,
}

/// The frames of one direction, found in bytes that come in pieces of any size.
#[derive(Debug, Default)]
struct Frames {
    head: [u8; HEAD_BYTES],
    /// Bytes of the head that are there.
    have: usize,
    /// Bytes to pass over until the next head.
    skip: usize,
}

impl Frames {
    /// Whether the next byte begins a frame.
    fn at_boundary(&self) -> bool {
        self.have == 0 && self.skip == 0
    }

    /// Takes the next bytes, and gives each head once it is whole.
    fn take(&mut self, mut bytes: &[u8], mut each: impl FnMut(Head)) {
        while !bytes.is_empty() {
            if self.skip > 0 {
                let passed = self.skip.min(bytes.len());
                self.skip -= passed;
                bytes = bytes.get(passed..).unwrap_or_default();
                continue;
            }
            let missing = self.head.get_mut(self.have..).unwrap_or_default();
            let taken = missing.len().min(bytes.len());
            let (now, rest) = bytes.split_at(taken);
            for (to, from) in missing.iter_mut().zip(now) {
                *to = *from;
            }
            self.have += taken;
            bytes = rest;
            if self.have == HEAD_BYTES {
                let [a, b, c, kind, flags, s0, s1, s2, s3] = self.head;
                self.have = 0;
                self.skip = usize::try_from(u32::from_be_bytes([0, a, b, c])).unwrap_or_default();
                let stream = u32::from_be_bytes([s0, s1, s2, s3]) & (u32::MAX >> 1);
                each(Head { kind, flags, stream });
            }
        }
    }
}

/// Judges pings.
#[derive(Debug)]
struct Judge {
    /// Between two pings with a call under way, at least.
    interval: Duration,
    /// Calls under way, by stream.
    calls: HashSet<u32>,
    /// The last stream that the client opened.
    newest: u32,
    last_ping: Option<Instant>,
    strikes: u32,
    /// Something was sent to the client since its last ping.
    answered: bool,
}

impl Judge {
    fn new(interval: Duration) -> Self {
        Self {
            interval,
            calls: HashSet::new(),
            newest: 0,
            last_ping: None,
            strikes: 0,
            answered: false,
        }
    }

    /// A frame of the client; gives whether the client has to go. `now` is asked only for pings.
    fn received(&mut self, head: Head, now: impl FnOnce() -> Instant) -> bool {
        match head.kind {
            kind::HEADERS if head.stream > self.newest => {
                self.newest = head.stream;
                self.calls.insert(head.stream);
            }
            kind::RST_STREAM => {
                self.calls.remove(&head.stream);
            }
            kind::PING if head.flags & FLAG_LOWEST == 0 => return self.pinged(now()),
            _ => {}
        }
        false
    }

    fn pinged(&mut self, now: Instant) -> bool {
        let last = self.last_ping.replace(now);
        if std::mem::take(&mut self.answered) {
            self.strikes = 0;
            return false;
        }
        let interval = if self.calls.is_empty() { IDLE_INTERVAL } else { self.interval };
        if last.is_some_and(|last| now.saturating_duration_since(last) < interval) {
            self.strikes += 1;
        }
        self.strikes > STRIKES_MAX
    }

    /// A frame to the client.
    fn sent(&mut self, head: Head) {
        let call = matches!(head.kind, kind::DATA | kind::HEADERS);
        self.answered |= call;
        if head.kind == kind::RST_STREAM || (call && head.flags & FLAG_LOWEST != 0) {
            self.calls.remove(&head.stream);
        }
    }

    /// The frame that sends the client away.
    fn farewell(&self) -> Vec<u8> {
        const WHY: &[u8] = b"too_many_pings";
        let (newest, code) = (self.newest.to_be_bytes(), ENHANCE_YOUR_CALM.to_be_bytes());
        let payload = [&newest[..], &code, WHY].concat();
        let length = u8::try_from(payload.len()).unwrap_or_default();
        [&[0, 0, length, kind::GOAWAY, 0, 0, 0, 0, 0][..], &payload].concat()
    }
}

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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PING: Head = Head { kind: kind::PING, flags: 0, stream: 0 };

    fn frame(head: Head, payload: usize) -> Vec<u8> {
        let length = u32::try_from(payload).unwrap().to_be_bytes();
        let mut bytes = vec![length[1], length[2], length[3], head.kind, head.flags];
        bytes.extend(head.stream.to_be_bytes());
        bytes.resize(bytes.len() + payload, 0xff);
        bytes
    }

    fn headers(stream: u32, flags: u8) -> Head {
        Head { kind: kind::HEADERS, flags, stream }
    }

    /// Pings at these seconds; gives which of them is the last that was let pass.
    fn pings(judge: &mut Judge, seconds: impl IntoIterator<Item = u64>) -> Option<u64> {
        let begin = Instant::now();
        let mut last = None;
        for second in seconds {
            if judge.received(PING, || begin + Duration::from_secs(second)) {
                return last;
            }
            last = Some(second);
        }
        last
    }

    fn judge() -> Judge {
        Judge::new(Duration::from_secs(5))
    }

    #[test]
    fn without_a_call_three_pings_are_let_pass() {
        assert_eq!(pings(&mut judge(), [0, 100, 200, 300, 400]), Some(200));
        assert_eq!(pings(&mut judge(), [0, 7200, 14_400, 21_600, 28_800]), Some(28_800));
    }

    #[test]
    fn with_a_call_the_interval_counts() {
        let mut patient = judge();
        patient.received(headers(1, 0), Instant::now);
        assert_eq!(pings(&mut patient, (0..100).step_by(5)), Some(95));
        let mut hasty = judge();
        hasty.received(headers(1, 0), Instant::now);
        assert_eq!(pings(&mut hasty, (0..100).step_by(4)), Some(8));
    }

    #[test]
    fn a_call_ends_with_the_answer_or_is_called_off() {
        for sent in [true, false] {
            let mut judge = judge();
            judge.received(headers(1, 0), Instant::now);
            let reset = Head { kind: kind::RST_STREAM, flags: 0, stream: 1 };
            if sent {
                judge.sent(headers(1, FLAG_LOWEST));
                // What was sent forgives one ping.
                assert_eq!(pings(&mut judge, [0]), Some(0));
            } else {
                judge.received(reset, Instant::now);
            }
            assert_eq!(pings(&mut judge, (0..100).step_by(5)), Some(if sent { 5 } else { 10 }));
        }
    }

    #[test]
    fn whoever_is_answered_may_ping() {
        let mut judge = judge();
        judge.received(headers(1, 0), Instant::now);
        for _ in 0..100 {
            judge.sent(Head { kind: kind::DATA, flags: 0, stream: 1 });
            assert!(!judge.received(PING, Instant::now));
        }
        assert!(!judge.received(Head { flags: FLAG_LOWEST, ..PING }, Instant::now));
    }

    proptest! {
        #[test]
        fn heads_are_found_in_pieces(
            frames in proptest::collection::vec((0..12_u8, any::<u8>(), 0..1_u32 << 31, 0..40_usize), 0..20),
            cuts in proptest::collection::vec(1..30_usize, 1..20),
        ) {
            let heads: Vec<Head> =
                frames.iter().map(|(kind, flags, stream, _)| Head { kind: *kind, flags: *flags, stream: *stream }).collect();
            let bytes: Vec<u8> =
                heads.iter().zip(&frames).flat_map(|(head, (.., payload))| frame(*head, *payload)).collect();
            let mut found = Vec::new();
            let mut reader = Frames::default();
            let mut rest = &bytes[..];
            for cut in cuts.iter().cycle() {
                if rest.is_empty() { break; }
                let (piece, left) = rest.split_at((*cut).min(rest.len()));
                reader.take(piece, |head| found.push(head));
                rest = left;
            }
            prop_assert_eq!(found, heads);
            prop_assert!(reader.at_boundary());
        }
    }
}
