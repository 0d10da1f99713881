//! The state as records of key and value, which is how checkpoints and snapshots hold it. The
//! first byte of a key says what it is.
//!
//! | key                         | value                                              |
//! |-----------------------------|----------------------------------------------------|
//! | `h`                         | revision, compaction, applied entry, membership    |
//! | `v` revision(8) sub(4)      | one version of a key                               |
//! | `l` number(8)               | a lease; what is attached to it the versions say   |
//! | `m` number(8)               | a member                                           |
//! | `a` member(8) kind(1)       | an alarm                                           |
//! | `s` name                    | one of the system's own records                    |
//! | `u`                         | users, roles and rights; not there before the first |
//!
//! Numbers in keys are big-endian, so that versions lie in the order of revisions.

use bytes::Bytes;

use super::super::auth::Auth;
use super::super::codec::wire::{Reader, Writer};
use super::super::codec::{CodecError, read_member, write_member};
use super::super::lease::Lease;
use super::super::mvcc::{Forgotten, Numbers, Version};
use super::super::types::{AlarmKind, LeaseId, MemberId, MemberRecord, Revision};
pub(crate) use super::contents::Applied;

/// A piece of the state: what stands under `key`, or that nothing does any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The key; opaque to whoever stores it.
    pub key: Vec<u8>,
    /// The value; `None` deletes. Never `None` in an export.
    pub value: Option<Bytes>,
}

/// The numbers that the state as a whole has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Header {
    /// The latest revision.
    pub(crate) revision: Revision,
    /// That of the last compaction, -1 when there was none.
    pub(crate) compact_revision: Revision,
    /// The last applied log entry.
    pub(crate) applied: Applied,
    /// What Raft keeps beside the state.
    pub(crate) membership: Option<Bytes>,
}

/// A record, taken apart.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    /// The state as a whole.
    Header(Header),
    /// A version of a key, and its value.
    Version(Bytes, Numbers, Bytes),
    /// A lease; what is attached to it the versions say.
    Lease(LeaseId, Lease),
    /// A member.
    Member(MemberRecord),
    /// An alarm that stands.
    Alarm(MemberId, AlarmKind),
    /// One of the system's own records.
    System(String, Bytes),
    /// Users, roles and rights.
    Auth(Box<Auth>),
}

fn numbered(tag: u8, number: u64) -> Vec<u8> {
    let mut key = vec![tag];
    key.extend_from_slice(&number.to_be_bytes());
    key
}

fn version_key(revision: Revision, sub: u32) -> Vec<u8> {
    let mut key = numbered(b'v', revision.cast_unsigned());
    key.extend_from_slice(&sub.to_be_bytes());
    key
}

impl Record {
    pub(super) fn header(header: &Header) -> Self {
        let mut out = Writer::with_capacity(64);
        out.signed(header.revision);
        out.signed(header.compact_revision);
        out.unsigned(header.applied.index);
        out.unsigned(header.applied.term);
        out.byte(u8::from(header.membership.is_some()));
        out.bytes(header.membership.as_deref().unwrap_or_default());
        Self { key: vec![b'h'], value: Some(out.finish()) }
    }

    pub(super) fn version(version: &Version) -> Self {
        let (key, value) = (version.key(), version.value());
        let mut out = Writer::with_capacity(key.len() + value.len() + 24);
        out.bytes(key);
        out.signed(version.number);
        out.signed(version.created);
        out.signed(version.lease);
        out.bytes(value);
        Self { key: version_key(version.modified, version.sub), value: Some(out.finish()) }
    }

    pub(super) fn forgotten(forgotten: Forgotten) -> Self {
        Self { key: version_key(forgotten.revision, forgotten.sub), value: None }
    }

    pub(super) fn lease(id: LeaseId, lease: Option<&Lease>) -> Self {
        let value = lease.map(|lease| {
            let mut out = Writer::with_capacity(16);
            out.signed(lease.ttl);
            out.signed(lease.remaining);
            out.finish()
        });
        Self { key: numbered(b'l', id.cast_unsigned()), value }
    }

    pub(super) fn member(id: MemberId, member: Option<&MemberRecord>) -> Self {
        let value = member.map(|member| {
            let mut out = Writer::with_capacity(64);
            write_member(&mut out, member);
            out.finish()
        });
        Self { key: numbered(b'm', id), value }
    }

    pub(super) fn alarm(member: MemberId, kind: AlarmKind, stands: bool) -> Self {
        let mut key = numbered(b'a', member);
        key.push(match kind {
            AlarmKind::NoSpace => 0,
            AlarmKind::Corrupt => 1,
        });
        Self { key, value: stands.then(Bytes::new) }
    }

    /// None only if there were no memory to encode it in.
    pub(super) fn auth(auth: &Auth) -> Option<Self> {
        Some(Self { key: vec![b'u'], value: Some(auth.encode()?) })
    }

    pub(super) fn system(name: &str, value: Option<&Bytes>) -> Self {
        let mut key = vec![b's'];
        key.extend_from_slice(name.as_bytes());
        Self { key, value: value.cloned() }
    }
}

/// Takes a record apart. What it holds is copied, except key and value of a version: the buffer it comes from
/// is larger.
pub(super) fn parse(key: &[u8], value: &Bytes) -> Result<Piece, CodecError> {
    let (tag, rest) = key.split_first().ok_or(CodecError::Truncated)?;
    let mut key = Reader::new(Bytes::copy_from_slice(rest));
    let mut value = Reader::new(value.clone());
    let piece = match tag {
        b'h' => Piece::Header(read_header(&mut value)?),
        b'v' => {
            let (modified, sub) = (key.fixed::<8>()?, key.fixed::<4>()?);
            read_version(i64::from_be_bytes(modified), u32::from_be_bytes(sub), &mut value)?
        }
        b'l' => {
            let id = i64::from_be_bytes(key.fixed()?);
            Piece::Lease(id, Lease::new(value.signed()?, value.signed()?))
        }
        b'm' => {
            let id = u64::from_be_bytes(key.fixed()?);
            let member = read_member(&mut value)?;
            if member.id != id {
                return Err(CodecError::Number);
            }
            Piece::Member(member)
        }
        b'a' => {
            let member = u64::from_be_bytes(key.fixed()?);
            let kind = match key.byte()? {
                0 => AlarmKind::NoSpace,
                1 => AlarmKind::Corrupt,
                other => return Err(CodecError::Tag(other)),
            };
            Piece::Alarm(member, kind)
        }
        b'u' => {
            let auth = Auth::decode(&value.rest()).ok_or(CodecError::Change)?;
            Piece::Auth(Box::new(auth))
        }
        b's' => Piece::System(key.rest_string()?, Bytes::copy_from_slice(&value.rest())),
        other => return Err(CodecError::Tag(*other)),
    };
    if key.remaining() > 0 || value.remaining() > 0 {
        return Err(CodecError::Trailing);
    }
    Ok(piece)
}

fn read_header(value: &mut Reader) -> Result<Header, CodecError> {
    let revision = value.signed()?;
    let compact_revision = value.signed()?;
    let applied = Applied { index: value.unsigned()?, term: value.unsigned()? };
    let has_membership = value.byte()? == 1;
    let membership = Bytes::copy_from_slice(&value.bytes()?);
    Ok(Header {
        revision,
        compact_revision,
        applied,
        membership: has_membership.then_some(membership),
    })
}

fn read_version(modified: Revision, sub: u32, value: &mut Reader) -> Result<Piece, CodecError> {
    let key = value.bytes()?;
    let (number, created, lease) = (value.signed()?, value.signed()?, value.signed()?);
    let value = value.bytes()?;
    Ok(Piece::Version(key, Numbers { modified, sub, created, number, lease }, value))
}
