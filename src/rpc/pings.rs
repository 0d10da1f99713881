//! Which pings of a client are too many, by the rules of gRPC's Go server (grpc-go,
//! `internal/transport/http2_server.go`, `handlePing`), which etcd sets with
//! `--grpc-keepalive-min-time`. Knows the heads of frames, and nothing of how they come.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use super::frames::{FLAG_LOWEST, Head, kind};

/// So many pings too many are let pass.
const STRIKES_MAX: u32 = 2;
/// Without a call under way nobody has to ping more often.
const IDLE_INTERVAL: Duration = Duration::from_secs(2 * 60 * 60);
const ENHANCE_YOUR_CALM: u32 = 11;

/// Judges pings.
#[derive(Debug)]
pub(super) struct Judge {
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
    pub(super) fn new(interval: Duration) -> Self {
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
    pub(super) fn received(&mut self, head: Head, now: impl FnOnce() -> Instant) -> bool {
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
    pub(super) fn sent(&mut self, head: Head) {
        let call = matches!(head.kind, kind::DATA | kind::HEADERS);
        self.answered |= call;
        if head.kind == kind::RST_STREAM || (call && head.flags & FLAG_LOWEST != 0) {
            self.calls.remove(&head.stream);
        }
    }

    /// The frame that sends the client away.
    pub(super) fn farewell(&self) -> Vec<u8> {
        const WHY: &[u8] = b"too_many_pings";
        let (newest, code) = (self.newest.to_be_bytes(), ENHANCE_YOUR_CALM.to_be_bytes());
        let payload = [&newest[..], &code, WHY].concat();
        let length = u8::try_from(payload.len()).unwrap_or_default();
        [&[0, 0, length, kind::GOAWAY, 0, 0, 0, 0, 0][..], &payload].concat()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PING: Head = Head { kind: kind::PING, flags: 0, stream: 0 };

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
}
