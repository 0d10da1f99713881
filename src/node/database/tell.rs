//! What a person wants to know of a database before a cluster is restored from it: its revision, how
//! many keys it has, whose it is, and whose token its cluster had. In little memory.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use bytes::Bytes;
use prost::Message as _;

use super::{Body, DatabaseError, schema};
use crate::rpc::pb::mvccpb;
use crate::store::bolt::{BoltError, Bucket, Database};
use crate::store::types::{ClusterId, Revision};

/// What a database tells of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Told {
    /// The newest revision.
    pub(crate) revision: Revision,
    /// How many keys there are.
    pub(crate) keys: u64,
    /// What stands behind `/bootstrap/` in the keys of K3s's bootstrap data: the first twelve digits of
    /// the hash of the token (`pkg/cluster/encrypt.go`, `storageKey`).
    pub(crate) bootstrap: Vec<String>,
    /// The cluster, when this program wrote it.
    pub(crate) cluster: Option<ClusterId>,
    /// When it was written, by this program, in milliseconds since 1970.
    pub(crate) created_unix_ms: Option<u64>,
    /// Those of this program's own records that were asked for.
    pub(crate) system: BTreeMap<String, Bytes>,
}

const BOOTSTRAP: &[u8] = b"/bootstrap/";

/// Reads all keys of a database whose hash was checked, if it has one, and the records `wanted`.
pub(crate) fn tell(file: &File, body: Body, wanted: &[&str]) -> Result<Told, DatabaseError> {
    let mut database = Database::open(file, body.bytes)?;
    let buckets = database.buckets()?;
    let find = |name: &str| buckets.iter().find(|bucket| bucket.name == name.as_bytes());
    let mut told = Told::default();
    read_keys(&mut database, find(schema::KEY).ok_or(DatabaseError::NoKeys)?, &mut told)?;
    if let Some(own) = find(schema::OWN) {
        database.pairs(own, |key, value| {
            let number = || value.try_into().ok().map(u64::from_be_bytes);
            match std::str::from_utf8(key).unwrap_or_default() {
                schema::OWN_CLUSTER => told.cluster = number(),
                schema::OWN_CREATED => told.created_unix_ms = number(),
                key => {
                    let name = key.strip_prefix(schema::OWN_SYSTEM);
                    if let Some(name) = name.filter(|name| wanted.contains(name)) {
                        told.system.insert(name.to_owned(), Bytes::copy_from_slice(value));
                    }
                }
            }
            Ok::<_, BoltError>(())
        })?;
    }
    Ok(told)
}

fn read_keys(
    database: &mut Database<'_>,
    bucket: &Bucket,
    told: &mut Told,
) -> Result<(), DatabaseError> {
    let wrong = |why: String| DatabaseError::Content { bucket: schema::KEY, why };
    let mut live: HashMap<u64, bool> = HashMap::new();
    let mut bootstrap: HashMap<Vec<u8>, bool> = HashMap::new();
    database.pairs(bucket, |at, value| {
        let revision = schema::parse_revision(at);
        let (revision, _, is_deletion) =
            revision.ok_or_else(|| wrong("a key is no revision".to_owned()))?;
        told.revision = told.revision.max(revision);
        if value.is_empty() {
            return Ok(());
        }
        let pair = mvccpb::KeyValue::decode(value).map_err(|error| wrong(error.to_string()))?;
        let mut hasher = DefaultHasher::new();
        pair.key.hash(&mut hasher);
        live.insert(hasher.finish(), !is_deletion);
        if let Some(rest) = pair.key.strip_prefix(BOOTSTRAP) {
            bootstrap.insert(rest.to_vec(), !is_deletion);
        }
        Ok::<_, DatabaseError>(())
    })?;
    told.keys = live.values().filter(|is_live| **is_live).count() as u64;
    let named = bootstrap.into_iter().filter(|(_, is_live)| *is_live);
    told.bootstrap = named.map(|(key, _)| String::from_utf8_lossy(&key).into_owned()).collect();
    told.bootstrap.sort();
    Ok(())
}
