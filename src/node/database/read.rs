//! From a database to the state. The file is anybody's: what etcd would not write is refused.

use std::fs::File;
use std::sync::Arc;

use bytes::Bytes;

use super::schema::{self, LeaseRecord, RoleRecord, UserRecord};
use super::{DatabaseError, HashCheck, body};
use crate::limits::LEASE_TTL_SECONDS_MAX;
use crate::raft::reset::Loaded;
use crate::rpc::convert;
use crate::rpc::pb::{etcdserverpb, mvccpb};
use crate::store::auth::{Auth, User};
use crate::store::bolt::Database;
use crate::store::lease::Lease;
use crate::store::mvcc::Numbers;
use crate::store::state::{Applied, Assembly, Header, Piece};
use crate::store::types::{ClusterId, MemberRecord, Revision};

/// Room is left for terms and log entries to come.
const NUMBER_MAX: u64 = u64::MAX / 2;

/// Reads a database to its end: keys with all their revisions, leases, users, alarms. Of its members
/// only the numbers are kept, for a reset to know who is gone. Blocks on the disk.
pub(crate) fn load(file: &File, check: HashCheck) -> Result<Loaded, DatabaseError> {
    let body = body(file, check)?;
    let mut database = Database::open(file, body.bytes)?;
    let mut reading = Reading::new();
    let mut has_keys = false;
    for bucket in database.buckets()? {
        let name = std::str::from_utf8(&bucket.name).unwrap_or_default();
        let take: Take = match name {
            schema::KEY => Reading::key,
            schema::META => Reading::meta,
            schema::LEASE => Reading::lease,
            schema::ALARM => Reading::alarm,
            schema::MEMBERS => Reading::member,
            schema::AUTH => Reading::auth,
            schema::USERS => Reading::user,
            schema::ROLES => Reading::role,
            schema::OWN => Reading::own,
            _ => continue,
        };
        has_keys |= name == schema::KEY;
        database.pairs(&bucket, |key, value| take(&mut reading, key, value))?;
    }
    if !has_keys {
        return Err(DatabaseError::NoKeys);
    }
    reading.finish()
}

/// A pair that is not what it should be.
fn wrong(bucket: &'static str, why: impl Into<String>) -> DatabaseError {
    DatabaseError::Content { bucket, why: why.into() }
}

fn number(bucket: &'static str, value: &[u8]) -> Result<u64, DatabaseError> {
    let bytes = value.try_into().map_err(|_| wrong(bucket, "a number has not eight bytes"))?;
    Ok(u64::from_be_bytes(bytes))
}

/// A message and nothing else.
fn message<M: prost::Message + Default>(
    bucket: &'static str,
    value: &[u8],
) -> Result<M, DatabaseError> {
    M::decode(value).map_err(|error| wrong(bucket, error.to_string()))
}

fn text(bucket: &'static str, bytes: Vec<u8>) -> Result<String, DatabaseError> {
    String::from_utf8(bytes).map_err(|_| wrong(bucket, "a name is not UTF-8"))
}

/// Takes in a pair of a bucket.
type Take = fn(&mut Reading, &[u8], &[u8]) -> Result<(), DatabaseError>;

/// A database as far as it was read.
struct Reading {
    assembly: Assembly,
    auth: Auth,
    /// The newest revision of any key, 1 without one, as in etcd.
    revision: Revision,
    compact_revision: Revision,
    applied: Applied,
    cluster: ClusterId,
}

impl Reading {
    fn new() -> Self {
        Self {
            assembly: Assembly::new(),
            auth: Auth::default(),
            revision: 1,
            compact_revision: -1,
            applied: Applied::default(),
            cluster: 0,
        }
    }

    fn key(&mut self, at: &[u8], value: &[u8]) -> Result<(), DatabaseError> {
        let bad = |why: &str| wrong(schema::KEY, why);
        let (modified, sub, is_tombstone) =
            schema::parse_revision(at).ok_or_else(|| bad("a key is no revision"))?;
        self.revision = self.revision.max(modified);
        // `etcdutl snapshot restore --bump-revision` leaves a revision without a pair.
        if value.is_empty() {
            return Ok(());
        }
        let pair: mvccpb::KeyValue = message(schema::KEY, value)?;
        if is_tombstone {
            let numbers = Numbers::tombstone(modified, sub);
            self.assembly.add(Piece::Version(pair.key, numbers, Bytes::new()));
            return Ok(());
        }
        let is_right = pair.mod_revision == modified
            && (1..=modified).contains(&pair.create_revision)
            && (1..=modified).contains(&pair.version);
        if !is_right {
            return Err(bad(&format!("revision {modified} holds that of another")));
        }
        let numbers = Numbers {
            modified,
            sub,
            created: pair.create_revision,
            number: pair.version,
            lease: pair.lease,
        };
        self.assembly.add(Piece::Version(pair.key, numbers, pair.value));
        Ok(())
    }

    fn meta(&mut self, name: &[u8], value: &[u8]) -> Result<(), DatabaseError> {
        let bounded = |value| {
            let number = number(schema::META, value)?;
            if number <= NUMBER_MAX {
                Ok(number)
            } else {
                Err(wrong(schema::META, "a number is absurd"))
            }
        };
        match std::str::from_utf8(name).unwrap_or_default() {
            schema::INDEX => self.applied.index = bounded(value)?,
            schema::TERM => self.applied.term = bounded(value)?,
            // One that was scheduled etcd would finish when it starts.
            schema::COMPACT_FINISHED | schema::COMPACT_SCHEDULED => {
                let (revision, ..) = schema::parse_revision(value)
                    .ok_or_else(|| wrong(schema::META, "a compaction has no revision"))?;
                if revision > 0 {
                    self.compact_revision = self.compact_revision.max(revision);
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn lease(&mut self, _: &[u8], value: &[u8]) -> Result<(), DatabaseError> {
        let LeaseRecord { id, ttl, remaining } = message(schema::LEASE, value)?;
        let seconds = 0..=LEASE_TTL_SECONDS_MAX;
        if id == 0 || !seconds.contains(&ttl) || !seconds.contains(&remaining) {
            return Err(wrong(schema::LEASE, format!("lease {id:x} lasts {ttl} seconds")));
        }
        self.assembly.add(Piece::Lease(id, Lease::new(ttl, remaining)));
        Ok(())
    }

    fn alarm(&mut self, key: &[u8], _: &[u8]) -> Result<(), DatabaseError> {
        let found: etcdserverpb::AlarmMember = message(schema::ALARM, key)?;
        if let Some(kind) = convert::alarm_kind(found.alarm()) {
            self.assembly.add(Piece::Alarm(found.member_id, kind));
        }
        Ok(())
    }

    fn member(&mut self, key: &[u8], _: &[u8]) -> Result<(), DatabaseError> {
        let id = std::str::from_utf8(key).ok().and_then(|hex| u64::from_str_radix(hex, 16).ok());
        let id = id.ok_or_else(|| wrong(schema::MEMBERS, "a member has no number"))?;
        self.assembly.add(Piece::Member(MemberRecord { id, ..MemberRecord::default() }));
        Ok(())
    }

    fn auth(&mut self, name: &[u8], value: &[u8]) -> Result<(), DatabaseError> {
        match std::str::from_utf8(name).unwrap_or_default() {
            schema::AUTH_ENABLED => self.auth.enabled = value == [1],
            schema::AUTH_REVISION => {
                self.auth.revision = number(schema::AUTH, value)?.clamp(1, NUMBER_MAX);
            }
            _ => {}
        }
        Ok(())
    }

    fn user(&mut self, _: &[u8], value: &[u8]) -> Result<(), DatabaseError> {
        let user: UserRecord = message(schema::USERS, value)?;
        let has_password = !user.options.is_some_and(|options| options.no_password);
        let password = text(schema::USERS, user.password)?;
        let password = has_password.then_some(password);
        let roles = user.roles.into_iter().collect();
        self.auth.users.insert(text(schema::USERS, user.name)?, User { password, roles });
        Ok(())
    }

    fn role(&mut self, _: &[u8], value: &[u8]) -> Result<(), DatabaseError> {
        let role: RoleRecord = message(schema::ROLES, value)?;
        let permissions: Option<Vec<_>> =
            role.permissions.into_iter().map(convert::permission).collect();
        let mut permissions =
            permissions.ok_or_else(|| wrong(schema::ROLES, "a permission is of no known kind"))?;
        permissions.sort_by(|one, other| one.range.key.cmp(&other.range.key));
        self.auth.roles.insert(text(schema::ROLES, role.name)?, permissions);
        Ok(())
    }

    fn own(&mut self, key: &[u8], value: &[u8]) -> Result<(), DatabaseError> {
        let key = text(schema::OWN, key.to_vec())?;
        if key == schema::OWN_CLUSTER {
            self.cluster = number(schema::OWN, value)?;
        } else if let Some(name) = key.strip_prefix(schema::OWN_SYSTEM) {
            let value = Bytes::copy_from_slice(value);
            self.assembly.add(Piece::System(name.to_owned(), value));
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Loaded, DatabaseError> {
        self.assembly.add(Piece::Auth(Box::new(self.auth)));
        // As etcd: what was compacted was there.
        let revision = self.revision.max(self.compact_revision);
        let compact_revision = self.compact_revision;
        let term = self.applied.term;
        let header = Header { revision, compact_revision, applied: self.applied, membership: None };
        self.assembly.add(Piece::Header(header));
        let state = Arc::new(self.assembly.finish()?);
        Ok(Loaded { state, cluster: self.cluster, term })
    }
}
