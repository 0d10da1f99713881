//! The state in a snapshot file, out and in.
//!
//! A record of the file is the length of the record's key (u32, little endian), the key, the value.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::{Buf, Bytes};

use super::entry::log_id;
use super::machine::Beside;
use super::types::SnapshotMeta;
use crate::store::snapshot::{SnapshotHeader, SnapshotInfo, SnapshotReader, SnapshotWriter};
use crate::store::state::{Checked, Checker, Export, Import, Record, State};
use crate::store::types::{ClusterId, MemberId};

/// Writes what `export` gives into a new file; durable and verified afterwards.
pub(crate) fn write(path: &Path, cluster: ClusterId, export: Export) -> io::Result<SnapshotInfo> {
    let (applied_index, term) = export.applied();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let header = SnapshotHeader {
        cluster_id: cluster,
        revision: export.revision(),
        applied_index,
        term,
        created_unix_ms: i64::try_from(now.as_millis()).unwrap_or(i64::MAX),
        membership: export.membership().cloned().unwrap_or_default(),
    };
    let mut writer = SnapshotWriter::create(path, header)?;
    let mut bytes = Vec::new();
    for record in export {
        encode(&record.map_err(io::Error::other)?, &mut bytes);
        writer.record(&bytes)?;
    }
    Ok(writer.finish()?)
}

/// Reads what `reader` gives into `state`; on an error the state stays as it was.
pub(crate) fn read<F: std::borrow::Borrow<std::fs::File>>(
    reader: SnapshotReader<F>,
    state: &Arc<State>,
) -> io::Result<()> {
    let mut import = Import::new();
    for record in reader {
        let (key, value) = decode(record?)?;
        import.add(&key, &value);
    }
    state.install(import).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// Reads a file to its end as a restore would, in little memory: hash, records, and that they make a
/// state of the cluster that the header names. Keeps the system's records called `wanted`.
///
/// # Errors
/// [`io::ErrorKind::InvalidData`] when the file is not what it should be, with words for a person.
pub(crate) fn check<F: std::borrow::Borrow<std::fs::File>>(
    mut reader: SnapshotReader<F>,
    wanted: &[&str],
) -> io::Result<(SnapshotInfo, Checked)> {
    let invalid = |why: String| io::Error::new(io::ErrorKind::InvalidData, why);
    let mut checker = Checker::wanting(wanted);
    while let Some(record) = reader.next_record()? {
        let (key, value) = decode(record)?;
        checker.add(&key, &value).map_err(|error| invalid(crate::error::chain(&error)))?;
    }
    let checked = checker.finish().map_err(|error| invalid(crate::error::chain(&error)))?;
    let info = reader.info().clone();
    if checked.revision != info.header.revision {
        let (says, holds) = (info.header.revision, checked.revision);
        return Err(invalid(format!("it says revision {says} and holds revision {holds}")));
    }
    meta(&info.header)?;
    Ok((info, checked))
}

/// What openraft wants to know of a snapshot.
pub(crate) fn meta(header: &SnapshotHeader) -> io::Result<SnapshotMeta> {
    if header.membership.is_empty() {
        return Ok(SnapshotMeta::default());
    }
    let beside: Beside = postcard::from_bytes(&header.membership)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    Ok(SnapshotMeta {
        last_log_id: Some(log_id(header.term, header.applied_index)),
        last_membership: beside.membership,
    })
}

/// How the members stand.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Standing {
    /// Who votes.
    pub(crate) voters: Vec<MemberId>,
    /// Who does not vote.
    pub(crate) learners: Vec<MemberId>,
    /// Who was removed.
    pub(crate) removed: Vec<MemberId>,
}

/// What stands in a state's membership.
pub(crate) fn standing(membership: Option<&Bytes>) -> io::Result<Standing> {
    let Some(bytes) = membership else { return Ok(Standing::default()) };
    let beside: Beside = postcard::from_bytes(bytes)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    let membership = beside.membership.membership();
    Ok(Standing {
        voters: membership.voter_ids().collect(),
        learners: membership.learner_ids().collect(),
        removed: beside.removed.into_iter().collect(),
    })
}

fn encode(record: &Record, into: &mut Vec<u8>) {
    into.clear();
    into.extend_from_slice(&u32::try_from(record.key.len()).unwrap_or(u32::MAX).to_le_bytes());
    into.extend_from_slice(&record.key);
    into.extend_from_slice(record.value.as_deref().unwrap_or_default());
}

fn decode(mut record: Bytes) -> io::Result<(Bytes, Bytes)> {
    let short = || io::Error::new(io::ErrorKind::InvalidData, "a record is too short");
    if record.len() < 4 {
        return Err(short());
    }
    let length = usize::try_from(record.get_u32_le()).unwrap_or(usize::MAX);
    if record.len() < length {
        return Err(short());
    }
    let key = record.split_to(length);
    Ok((key, record))
}
