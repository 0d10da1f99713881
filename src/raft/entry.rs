//! A log entry as bytes: in the log's file and between members.
//!
//! Term (u64, little endian), a tag, and the payload: nothing for a blank entry, the encoded
//! command, or a membership in postcard. The index stands outside.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::types::{Entry, LeaderTerm, LogId, Membership, Payload, Proposal};

const HEAD_BYTES: usize = 9;
const BLANK: u8 = 0;
const COMMAND: u8 = 1;
const MEMBERSHIP: u8 = 2;

/// Bytes that are not a log entry.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EntryError {
    #[error("a log entry ends too early")]
    Short,
    #[error("log entry tag {0} is not known to this release")]
    Tag(u8),
    #[error("a membership in the log is not readable: {0}")]
    Membership(#[from] postcard::Error),
}

impl From<EntryError> for std::io::Error {
    fn from(error: EntryError) -> Self {
        Self::new(std::io::ErrorKind::InvalidData, error)
    }
}

/// An entry ready to be written.
pub(crate) struct Encoded {
    term: u64,
    tag: u8,
    payload: Bytes,
}

impl Encoded {
    pub(crate) fn new(entry: &Entry) -> Result<Self, EntryError> {
        let term = entry.log_id.leader_id.term;
        let (tag, payload) = match &entry.payload {
            Payload::Blank => (BLANK, Bytes::new()),
            Payload::Normal(proposal) => (COMMAND, proposal.0.clone()),
            Payload::Membership(membership) => {
                (MEMBERSHIP, postcard::to_stdvec(membership)?.into())
            }
        };
        Ok(Self { term, tag, payload })
    }

    pub(crate) fn len(&self) -> usize {
        HEAD_BYTES + self.payload.len()
    }

    pub(crate) fn write(&self, out: &mut BytesMut) {
        out.put_u64_le(self.term);
        out.put_u8(self.tag);
        out.put_slice(&self.payload);
    }
}

/// Encodes an entry.
pub(crate) fn encode(entry: &Entry) -> Result<Bytes, EntryError> {
    let encoded = Encoded::new(entry)?;
    let mut out = BytesMut::with_capacity(encoded.len());
    encoded.write(&mut out);
    Ok(out.freeze())
}

/// Reads the entry at `index`. A command is a slice of `bytes`.
pub(crate) fn decode(index: u64, mut bytes: Bytes) -> Result<Entry, EntryError> {
    if bytes.len() < HEAD_BYTES {
        return Err(EntryError::Short);
    }
    let term = bytes.get_u64_le();
    let payload = match bytes.get_u8() {
        BLANK => Payload::Blank,
        COMMAND => Payload::Normal(Proposal(bytes)),
        MEMBERSHIP => Payload::Membership(postcard::from_bytes::<Membership>(&bytes)?),
        tag => return Err(EntryError::Tag(tag)),
    };
    Ok(Entry { log_id: log_id(term, index), payload })
}

/// The log id of a term and an index.
pub(crate) fn log_id(term: u64, index: u64) -> LogId {
    LogId { leader_id: LeaderTerm { term }, index }
}
