//! The frames of an HTTP/2 connection (RFC 9113, section 4.1), found by their heads in bytes that come
//! in pieces. Knows nothing of what frames hold.

/// How a client of HTTP/2 begins (RFC 9113, section 3.4).
pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Bytes of a frame's head: length (3), kind, flags, stream (4).
const HEAD_BYTES: usize = 9;

/// Kinds of frames (RFC 9113, section 6).
pub(super) mod kind {
    pub(in crate::rpc) const DATA: u8 = 0;
    pub(in crate::rpc) const HEADERS: u8 = 1;
    pub(in crate::rpc) const RST_STREAM: u8 = 3;
    pub(in crate::rpc) const PING: u8 = 6;
    pub(in crate::rpc) const GOAWAY: u8 = 7;
}

/// `END_STREAM` of data and headers, `ACK` of a ping.
pub(super) const FLAG_LOWEST: u8 = 1;

/// What the head of a frame says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) stream: u32,
}

/// The frames of one direction, found in bytes that come in pieces of any size.
#[derive(Debug, Default)]
pub(super) struct Frames {
    head: [u8; HEAD_BYTES],
    /// Bytes of the head that are there.
    have: usize,
    /// Bytes to pass over until the next head.
    skip: usize,
}

impl Frames {
    /// Whether the next byte begins a frame.
    pub(super) fn at_boundary(&self) -> bool {
        self.have == 0 && self.skip == 0
    }

    /// Takes the next bytes, and gives each head once it is whole.
    pub(super) fn take(&mut self, mut bytes: &[u8], mut each: impl FnMut(Head)) {
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(head: Head, payload: usize) -> Vec<u8> {
        let length = u32::try_from(payload).unwrap().to_be_bytes();
        let mut bytes = vec![length[1], length[2], length[3], head.kind, head.flags];
        bytes.extend(head.stream.to_be_bytes());
        bytes.resize(bytes.len() + payload, 0xff);
        bytes
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
