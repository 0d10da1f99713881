//! How a [`Command`] stands in the Raft log, and an [`Outcome`] on the wire between members.
//!
//! A command is a version byte, a tag and its fields. Decoding does not copy: keys and values are
//! slices of the input. Arbitrary bytes give an error, never a panic. Knows nothing of Raft.

mod ops;
#[cfg(test)]
mod tests;
pub(super) mod wire;

use bytes::Bytes;

use self::wire::{Reader, Writer};
use super::types::{AlarmKind, Caller, Command, MemberRecord, Outcome};

/// First byte of an encoded command. Another number is another format.
const VERSION: u8 = 1;

mod tag {
    pub(super) const PUT: u8 = 1;
    pub(super) const DELETE_RANGE: u8 = 2;
    pub(super) const TXN: u8 = 3;
    pub(super) const COMPACT: u8 = 4;
    pub(super) const LEASE_GRANT: u8 = 5;
    pub(super) const LEASE_REVOKE: u8 = 6;
    pub(super) const LEASE_CHECKPOINT: u8 = 7;
    pub(super) const ALARM: u8 = 8;
    pub(super) const MEMBER_PUT: u8 = 9;
    pub(super) const MEMBER_DELETE: u8 = 10;
    pub(super) const SYSTEM_PUT: u8 = 11;
    pub(super) const AUTH: u8 = 12;
    pub(super) const AS: u8 = 13;
}

/// Why bytes are not a command or an outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// It ends too early, or a length points past its end.
    #[error("the record ends too early")]
    Truncated,
    /// Bytes are left after the last field.
    #[error("bytes are left after the end of the record")]
    Trailing,
    /// Written by a release that this one does not understand.
    #[error("format version {0} is not known to this release")]
    Version(u8),
    /// No such command or field value.
    #[error("tag {0} is not known to this release")]
    Tag(u8),
    /// A number has more than 64 bits.
    #[error("a number is out of range")]
    Number,
    /// A text is not UTF-8.
    #[error("a text is not UTF-8")]
    Text,
    /// Transactions are nested more deeply than any client may.
    #[error("transactions are nested too deeply")]
    Depth,
    /// A change of users or roles is not readable.
    #[error("the change of users or roles is not readable")]
    Change,
    /// The outcome is not readable.
    #[error("the outcome is not readable")]
    Outcome,
}

/// Encodes `command`.
pub fn encode(command: &Command) -> Bytes {
    let mut out = Writer::with_capacity(size_hint(command));
    out.byte(VERSION);
    write_command(&mut out, command);
    out.finish()
}

fn write_command(out: &mut Writer, command: &Command) {
    match command {
        Command::Put(put) => {
            out.byte(tag::PUT);
            ops::write_put(out, put);
        }
        Command::DeleteRange(delete) => {
            out.byte(tag::DELETE_RANGE);
            ops::write_delete(out, delete);
        }
        Command::Txn(txn) => {
            out.byte(tag::TXN);
            ops::write_txn(out, txn);
        }
        Command::Compact { revision } => {
            out.byte(tag::COMPACT);
            out.signed(*revision);
        }
        Command::LeaseGrant { id, ttl } => {
            out.byte(tag::LEASE_GRANT);
            out.signed(*id);
            out.signed(*ttl);
        }
        Command::LeaseRevoke { id } => {
            out.byte(tag::LEASE_REVOKE);
            out.signed(*id);
        }
        Command::LeaseCheckpoint { remaining } => {
            out.byte(tag::LEASE_CHECKPOINT);
            out.len(remaining.len());
            for (id, seconds) in remaining {
                out.signed(*id);
                out.signed(*seconds);
            }
        }
        Command::Alarm { active, member, kind } => {
            out.byte(tag::ALARM);
            out.byte(u8::from(*active));
            out.unsigned(*member);
            out.byte(match kind {
                AlarmKind::NoSpace => 0,
                AlarmKind::Corrupt => 1,
            });
        }
        Command::MemberPut(member) => {
            out.byte(tag::MEMBER_PUT);
            write_member(out, member);
        }
        Command::MemberDelete { id } => {
            out.byte(tag::MEMBER_DELETE);
            out.unsigned(*id);
        }
        Command::SystemPut { key, value, expect } => {
            write_system_put(out, key, value.as_ref(), expect.as_ref());
        }
        Command::Auth(change) => {
            out.byte(tag::AUTH);
            // Into memory, and of a value that always has a form: it cannot fail.
            out.bytes(&postcard::to_allocvec(change).unwrap_or_default());
        }
        Command::As { caller, command } => {
            out.byte(tag::AS);
            out.bytes(caller.user.as_bytes());
            out.unsigned(caller.revision);
            write_command(out, command);
        }
    }
}

fn write_system_put(
    out: &mut Writer,
    key: &str,
    value: Option<&Bytes>,
    expect: Option<&Option<Bytes>>,
) {
    out.byte(tag::SYSTEM_PUT);
    out.bytes(key.as_bytes());
    write_optional(out, value);
    match expect {
        None => out.byte(0),
        Some(expected) => {
            out.byte(1);
            write_optional(out, expected.as_ref());
        }
    }
}

/// Decodes what [`encode`] gave. Keys and values are slices of `input` and keep it alive.
pub fn decode(input: Bytes) -> Result<Command, CodecError> {
    let mut from = Reader::new(input);
    let version = from.byte()?;
    if version != VERSION {
        return Err(CodecError::Version(version));
    }
    let command = match from.byte()? {
        tag::AS => {
            let caller = Caller { user: from.string()?, revision: from.unsigned()? };
            let tag = from.byte()?;
            Command::As { caller, command: Box::new(read_command(tag, &mut from)?) }
        }
        tag => read_command(tag, &mut from)?,
    };
    if from.remaining() > 0 {
        return Err(CodecError::Trailing);
    }
    Ok(command)
}

/// Encodes an outcome, to answer a member that forwarded a command.
pub fn encode_outcome(outcome: &Outcome) -> Result<Vec<u8>, CodecError> {
    postcard::to_allocvec(outcome).map_err(|_| CodecError::Outcome)
}

/// Decodes what [`encode_outcome`] gave.
pub fn decode_outcome(input: &[u8]) -> Result<Outcome, CodecError> {
    postcard::from_bytes(input).map_err(|_| CodecError::Outcome)
}

fn read_command(tag: u8, from: &mut Reader) -> Result<Command, CodecError> {
    Ok(match tag {
        tag::PUT => Command::Put(ops::read_put(from)?),
        tag::DELETE_RANGE => Command::DeleteRange(ops::read_delete(from)?),
        tag::TXN => Command::Txn(ops::read_txn(from, 0)?),
        tag::COMPACT => Command::Compact { revision: from.signed()? },
        tag::LEASE_GRANT => Command::LeaseGrant { id: from.signed()?, ttl: from.signed()? },
        tag::LEASE_REVOKE => Command::LeaseRevoke { id: from.signed()? },
        tag::LEASE_CHECKPOINT => {
            let count = from.len()?;
            let mut remaining = Vec::with_capacity(count);
            for _ in 0..count {
                remaining.push((from.signed()?, from.signed()?));
            }
            Command::LeaseCheckpoint { remaining }
        }
        tag::ALARM => Command::Alarm {
            active: read_bool(from)?,
            member: from.unsigned()?,
            kind: match from.byte()? {
                0 => AlarmKind::NoSpace,
                1 => AlarmKind::Corrupt,
                other => return Err(CodecError::Tag(other)),
            },
        },
        tag::MEMBER_PUT => Command::MemberPut(read_member(from)?),
        tag::MEMBER_DELETE => Command::MemberDelete { id: from.unsigned()? },
        tag::SYSTEM_PUT => Command::SystemPut {
            key: from.string()?,
            value: read_optional(from)?,
            expect: if read_bool(from)? { Some(read_optional(from)?) } else { None },
        },
        tag::AUTH => {
            let change = postcard::from_bytes(&from.bytes()?);
            Command::Auth(change.map_err(|_| CodecError::Change)?)
        }
        other => return Err(CodecError::Tag(other)),
    })
}

fn read_bool(from: &mut Reader) -> Result<bool, CodecError> {
    match from.byte()? {
        0 => Ok(false),
        1 => Ok(true),
        other => Err(CodecError::Tag(other)),
    }
}

fn write_optional(out: &mut Writer, value: Option<&Bytes>) {
    match value {
        None => out.byte(0),
        Some(value) => {
            out.byte(1);
            out.bytes(value);
        }
    }
}

fn read_optional(from: &mut Reader) -> Result<Option<Bytes>, CodecError> {
    Ok(if read_bool(from)? { Some(from.bytes()?) } else { None })
}

/// Appends a member's record.
pub(super) fn write_member(out: &mut Writer, member: &MemberRecord) {
    out.unsigned(member.id);
    out.bytes(member.name.as_bytes());
    for urls in [&member.peer_urls, &member.client_urls] {
        out.len(urls.len());
        for url in urls {
            out.bytes(url.as_bytes());
        }
    }
}

/// Takes a member's record off the front.
pub(super) fn read_member(from: &mut Reader) -> Result<MemberRecord, CodecError> {
    let read_urls = |from: &mut Reader| -> Result<Vec<String>, CodecError> {
        let count = from.len()?;
        (0..count).map(|_| from.string()).collect()
    };
    Ok(MemberRecord {
        id: from.unsigned()?,
        name: from.string()?,
        peer_urls: read_urls(from)?,
        client_urls: read_urls(from)?,
    })
}

/// About how long the encoding will be, to reserve once.
fn size_hint(command: &Command) -> usize {
    const FIXED: usize = 32;
    match command {
        Command::Put(put) => FIXED + put.key.len() + put.value.len(),
        Command::DeleteRange(delete) => FIXED + delete.range.key.len() + delete.range.end.len(),
        Command::Txn(txn) => ops::txn_size_hint(txn),
        Command::SystemPut { key, value, .. } => {
            FIXED + key.len() + value.as_ref().map_or(0, Bytes::len)
        }
        Command::As { caller, command } => FIXED + caller.user.len() + size_hint(command),
        _ => FIXED,
    }
}
