//! From the state to a database, in one pass.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter};
use std::time::{SystemTime, UNIX_EPOCH};

use prost::Message as _;

use super::schema::{self, ConfState, LeaseRecord, MemberJson, RoleRecord, UserRecord};
use crate::raft::snapfile::{Standing, standing};
use crate::rpc::convert;
use crate::rpc::pb::authpb::UserAddOptions;
use crate::store::auth::User;
use crate::store::bolt::Writer;
use crate::store::state::Dump;
use crate::store::types::{ClusterId, MemberId, Revision};

/// How much is written at once.
const BUFFER_BYTES: usize = 256 * 1024;

type Database = Writer<BufWriter<File>>;

/// Writes a moment of the state of `cluster` into `file`, which must be empty. Nothing is synced.
/// Blocks on the disk.
pub(crate) fn write(file: File, cluster: ClusterId, dump: &Dump) -> io::Result<()> {
    let standing = standing(dump.membership.as_ref())?;
    let mut out = Writer::new(BufWriter::with_capacity(BUFFER_BYTES, file))?;
    // In the order of their names.
    alarms(&mut out, dump)?;
    auth(&mut out, dump)?;
    out.bucket(schema::CLUSTER)?;
    let version = schema::CLUSTER_VERSION_WRITTEN.as_bytes();
    out.put(schema::CLUSTER_VERSION.as_bytes(), version)?;
    out.put(schema::DOWNGRADE.as_bytes(), schema::NO_DOWNGRADE.as_bytes())?;
    own(&mut out, cluster, dump)?;
    out.bucket(schema::KEY)?;
    dump.versions(|version| {
        let at = schema::revision_key(version.modified, version.sub, version.is_tombstone());
        out.put(&at, &schema::pair(version).encode_to_vec())
    })?;
    leases(&mut out, dump)?;
    members(&mut out, dump, &standing)?;
    meta(&mut out, dump, &standing)?;
    out.finish()?;
    Ok(())
}

/// Puts pairs into a bucket in order.
fn put_all(out: &mut Database, pairs: BTreeMap<Vec<u8>, Vec<u8>>) -> io::Result<()> {
    pairs.into_iter().try_for_each(|(key, value)| out.put(&key, &value))
}

fn alarms(out: &mut Database, dump: &Dump) -> io::Result<()> {
    out.bucket(schema::ALARM)?;
    let alarms = dump.alarms.iter().copied().map(convert::alarm_member);
    put_all(out, alarms.map(|alarm| (alarm.encode_to_vec(), Vec::new())).collect())
}

fn auth(out: &mut Database, dump: &Dump) -> io::Result<()> {
    let auth = &dump.auth;
    out.bucket(schema::AUTH)?;
    out.put(schema::AUTH_ENABLED.as_bytes(), &[u8::from(auth.enabled)])?;
    out.put(schema::AUTH_REVISION.as_bytes(), &auth.revision.to_be_bytes())?;
    out.bucket(schema::ROLES)?;
    for (name, permissions) in &auth.roles {
        let permissions = permissions.iter().map(convert::permission_message).collect();
        let role = RoleRecord { name: name.clone().into_bytes(), permissions };
        out.put(name.as_bytes(), &role.encode_to_vec())?;
    }
    out.bucket(schema::USERS)?;
    for (name, user) in &auth.users {
        out.put(name.as_bytes(), &user_record(name, user).encode_to_vec())?;
    }
    Ok(())
}

fn user_record(name: &str, user: &User) -> UserRecord {
    UserRecord {
        name: name.as_bytes().to_vec(),
        password: user.password.clone().unwrap_or_default().into_bytes(),
        roles: user.roles.iter().cloned().collect(),
        options: Some(UserAddOptions { no_password: user.password.is_none() }),
    }
}

/// What etcd does not know.
fn own(out: &mut Database, cluster: ClusterId, dump: &Dump) -> io::Result<()> {
    out.bucket(schema::OWN)?;
    out.put(schema::OWN_CLUSTER.as_bytes(), &cluster.to_be_bytes())?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
    out.put(schema::OWN_CREATED.as_bytes(), &now.to_be_bytes())?;
    for (name, value) in &dump.system {
        out.put([schema::OWN_SYSTEM, name.as_str()].concat().as_bytes(), value)?;
    }
    Ok(())
}

fn leases(out: &mut Database, dump: &Dump) -> io::Result<()> {
    out.bucket(schema::LEASE)?;
    let lease = |&(id, ttl, remaining): &(i64, i64, i64)| {
        (id.to_be_bytes().to_vec(), LeaseRecord { id, ttl, remaining }.encode_to_vec())
    };
    put_all(out, dump.leases.iter().map(lease).collect())
}

fn members(out: &mut Database, dump: &Dump, standing: &Standing) -> io::Result<()> {
    out.bucket(schema::MEMBERS)?;
    let mut members = BTreeMap::new();
    for member in &dump.members {
        let json = MemberJson {
            id: member.id,
            peer_urls: &member.peer_urls,
            is_learner: standing.learners.contains(&member.id),
            name: &member.name,
            client_urls: &member.client_urls,
        };
        members.insert(format!("{:x}", member.id).into_bytes(), serde_json::to_vec(&json)?);
    }
    put_all(out, members)?;
    out.bucket(schema::MEMBERS_REMOVED)?;
    let removed = |id: &MemberId| (format!("{id:x}").into_bytes(), b"removed".to_vec());
    put_all(out, standing.removed.iter().map(removed).collect())
}

fn meta(out: &mut Database, dump: &Dump, standing: &Standing) -> io::Result<()> {
    out.bucket(schema::META)?;
    let (index, term) = dump.applied;
    let Standing { voters, learners, .. } = standing;
    let conf_state = ConfState { voters, learners, auto_leave: false };
    out.put(schema::CONF_STATE.as_bytes(), &serde_json::to_vec(&conf_state)?)?;
    out.put(schema::INDEX.as_bytes(), &index.to_be_bytes())?;
    if dump.compact_revision > 0 {
        let compacted = |revision: Revision| schema::revision_key(revision, 0, false);
        // What the compaction forgets is left out already.
        out.put(schema::COMPACT_FINISHED.as_bytes(), &compacted(dump.compact_revision))?;
        out.put(schema::COMPACT_SCHEDULED.as_bytes(), &compacted(dump.compact_revision))?;
    }
    out.put(schema::TERM.as_bytes(), &term.to_be_bytes())
}
