//! Frames between members, and what stands in them.
//!
//! A frame is its length (u32), a kind, a request number (u64) and a body; numbers are little
//! endian. A reply carries the number of its request. Small bodies are postcard; log entries are
//! laid out by hand so that their payload is copied once.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use openraft::raft::AppendEntriesRequest;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio_util::codec::LengthDelimitedCodec;

use super::super::entry;
use super::super::types::{LogId, TypeConfig, Vote};
use crate::store::types::{ClusterId, MemberId, MemberRecord};

/// Changes when a frame of one release cannot be read by another.
pub(crate) const VERSION: u16 = 1;

/// Largest frame taken from a peer, in bytes: a batch of entries, each up to the largest request.
pub(crate) const FRAME_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Payloads up to this size get a buffer of their own, so that one value that lives on does not
/// keep a whole frame in memory.
const COPY_BYTES_MAX: usize = 16 * 1024;

/// Frames that wait at the same time leave together, up to about this many bytes: each write costs
/// a system call and a TLS record.
pub(crate) const WRITE_BYTES: usize = 64 * 1024;

const HEADER_BYTES: usize = 4 + 1 + 8;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    Hello = 1,
    Welcome = 2,
    Refused = 3,
    Ping = 4,
    Reply = 5,
    Failed = 6,
    WhoIsThere = 7,
    Append = 16,
    Vote = 17,
    PreVote = 18,
    Transfer = 19,
    SnapshotBegin = 20,
    SnapshotChunk = 21,
    SnapshotEnd = 22,
    Propose = 32,
    Call = 33,
}

impl Kind {
    fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::Hello,
            2 => Self::Welcome,
            3 => Self::Refused,
            4 => Self::Ping,
            5 => Self::Reply,
            6 => Self::Failed,
            7 => Self::WhoIsThere,
            16 => Self::Append,
            17 => Self::Vote,
            18 => Self::PreVote,
            19 => Self::Transfer,
            20 => Self::SnapshotBegin,
            21 => Self::SnapshotChunk,
            22 => Self::SnapshotEnd,
            32 => Self::Propose,
            33 => Self::Call,
            _ => return None,
        })
    }
}

/// What a connection is used for: kinds of traffic that must not wait for each other have one each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) enum Lane {
    /// Heartbeats, votes, transfer of leadership.
    Urgent,
    /// Log entries.
    Append,
    /// Snapshots.
    Snapshot,
    /// Requests of clients, sent on to the leader.
    Client,
}

/// First frame on a connection, from the side that opened it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Hello {
    pub(crate) version: u16,
    pub(crate) cluster: ClusterId,
    pub(crate) from: MemberId,
    pub(crate) name: String,
    pub(crate) to: MemberId,
    pub(crate) lane: Lane,
}

/// Answer to the question who is there, which may stand in place of a `Hello`: what a member that
/// knows only addresses needs to find its own number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    /// The cluster.
    pub cluster: ClusterId,
    /// Its members, as the one that was asked knows them.
    pub members: Vec<MemberRecord>,
}

/// Answer to a [`Hello`] that is welcome.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Welcome {
    pub(crate) id: MemberId,
    pub(crate) name: String,
}

/// Answer to a [`Hello`] that is not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("it speaks version {0} of the peer protocol")]
    Version(u16),
    #[error("it belongs to another cluster")]
    Cluster,
    #[error("it is member {0:x}")]
    Member(MemberId),
    #[error("the certificate does not belong to the member: {0}")]
    Certificate(String),
    #[error("this member was removed from the cluster")]
    Removed,
    #[error(
        "its cluster was replaced by cluster {0:x}, which was restored from a snapshot or reset"
    )]
    Superseded(ClusterId),
}

/// The part of an append request before its entries.
#[derive(Serialize, Deserialize)]
struct AppendHead {
    vote: Vote,
    prev: Option<LogId>,
    commit: Option<LogId>,
    first: u64,
    count: u32,
}

/// A frame that came in.
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) kind: Kind,
    pub(crate) id: u64,
    pub(crate) body: Bytes,
}

impl Frame {
    /// Bytes on the wire.
    pub(crate) fn length(&self) -> usize {
        HEADER_BYTES + self.body.len()
    }
}

/// Bytes that are not what they should be; the connection they came on is closed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WireError {
    #[error("a frame ends too early")]
    Short,
    #[error("frame kind {0} is not known")]
    Kind(u8),
    #[error("a frame's body is not readable: {0}")]
    Body(#[from] postcard::Error),
    #[error(transparent)]
    Entry(#[from] entry::EntryError),
}

impl From<WireError> for std::io::Error {
    fn from(error: WireError) -> Self {
        Self::new(std::io::ErrorKind::InvalidData, error)
    }
}

/// Splits a stream into frames.
pub(crate) fn codec() -> LengthDelimitedCodec {
    LengthDelimitedCodec::builder()
        .little_endian()
        .length_field_length(4)
        .max_frame_length(FRAME_BYTES_MAX)
        .new_codec()
}

/// A whole frame, length included, with the body that `write` appends.
pub(crate) fn frame(
    kind: Kind,
    id: u64,
    body_hint: usize,
    write: impl FnOnce(&mut BytesMut),
) -> Bytes {
    let mut out = BytesMut::with_capacity(HEADER_BYTES + body_hint);
    out.put_u32_le(0);
    out.put_u8(kind as u8);
    out.put_u64_le(id);
    write(&mut out);
    let length = u32::try_from(out.len() - 4).unwrap_or(u32::MAX);
    if let Some(mut head) = out.get_mut(..4) {
        head.put_u32_le(length);
    }
    out.freeze()
}

/// A frame whose body is `value` in postcard.
pub(crate) fn frame_of<T: Serialize>(kind: Kind, id: u64, value: &T) -> Result<Bytes, WireError> {
    let body = postcard::to_stdvec(value)?;
    Ok(frame(kind, id, body.len(), |out| out.put_slice(&body)))
}

/// A frame with a body of plain bytes.
pub(crate) fn frame_raw(kind: Kind, id: u64, body: &[u8]) -> Bytes {
    frame(kind, id, body.len(), |out| out.put_slice(body))
}

/// Reads what [`codec`] gave.
pub(crate) fn parse(bytes: BytesMut) -> Result<Frame, WireError> {
    let mut bytes = bytes.freeze();
    if bytes.len() < HEADER_BYTES - 4 {
        return Err(WireError::Short);
    }
    let byte = bytes.get_u8();
    let id = bytes.get_u64_le();
    let kind = Kind::from_byte(byte).ok_or(WireError::Kind(byte))?;
    Ok(Frame { kind, id, body: bytes })
}

/// Reads a postcard body.
pub(crate) fn body_of<T: DeserializeOwned>(body: &[u8]) -> Result<T, WireError> {
    Ok(postcard::from_bytes(body)?)
}

/// An append request as a frame.
pub(crate) fn append_frame(
    id: u64,
    request: &AppendEntriesRequest<TypeConfig>,
) -> Result<Bytes, WireError> {
    let head = AppendHead {
        vote: request.vote,
        prev: request.prev_log_id,
        commit: request.leader_commit,
        first: request.entries.first().map_or(0, |entry| entry.log_id.index),
        count: u32::try_from(request.entries.len()).unwrap_or(u32::MAX),
    };
    let head = postcard::to_stdvec(&head)?;
    let mut encoded = Vec::with_capacity(request.entries.len());
    for item in &request.entries {
        encoded.push(entry::Encoded::new(item)?);
    }
    let size = 4 + head.len() + encoded.iter().map(|item| 4 + item.len()).sum::<usize>();
    Ok(frame(Kind::Append, id, size, |out| {
        out.put_u32_le(u32::try_from(head.len()).unwrap_or(u32::MAX));
        out.put_slice(&head);
        for item in &encoded {
            out.put_u32_le(u32::try_from(item.len()).unwrap_or(u32::MAX));
            item.write(out);
        }
    }))
}

/// Reads an append request.
pub(crate) fn read_append(mut body: Bytes) -> Result<AppendEntriesRequest<TypeConfig>, WireError> {
    let head: AppendHead = body_of(&take(&mut body)?)?;
    let count = usize::try_from(head.count).unwrap_or(usize::MAX);
    let mut entries = Vec::with_capacity(count.min(body.len() / 4));
    for index in (head.first..).take(count) {
        let mut bytes = take(&mut body)?;
        if bytes.len() <= COPY_BYTES_MAX {
            bytes = Bytes::copy_from_slice(&bytes);
        }
        entries.push(entry::decode(index, bytes)?);
    }
    if !body.is_empty() {
        return Err(WireError::Short);
    }
    Ok(AppendEntriesRequest {
        vote: head.vote,
        prev_log_id: head.prev,
        entries,
        leader_commit: head.commit,
    })
}

/// Takes a piece that begins with its length.
fn take(body: &mut Bytes) -> Result<Bytes, WireError> {
    if body.len() < 4 {
        return Err(WireError::Short);
    }
    let length = usize::try_from(body.get_u32_le()).unwrap_or(usize::MAX);
    if body.len() < length {
        return Err(WireError::Short);
    }
    Ok(body.split_to(length))
}
