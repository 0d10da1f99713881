//! Whether records make a state, found out without building one: memory stays small whatever they
//! hold.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::super::mvcc::{Inconsistent, Numbers};
use super::super::types::{MemberRecord, Revision};
use super::records::{Header, Piece, parse};
use super::transfer::ImportError;

/// What is known of records that make a state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    /// The store's revision.
    pub revision: Revision,
    /// Keys that are there.
    pub keys: u64,
    /// The members.
    pub members: Vec<MemberRecord>,
    /// Those of the system's own records that were asked for.
    pub system: BTreeMap<String, Bytes>,
}

/// Takes the records of an export one by one, in its order.
#[derive(Debug, Default)]
pub struct Checker {
    wanted: BTreeSet<String>,
    header: Option<Header>,
    checked: Checked,
    leases: BTreeSet<i64>,
    /// Leases that the latest versions of keys are attached to.
    attached: BTreeSet<i64>,
    /// The latest version of the key that is being read.
    latest: Option<(Bytes, Numbers)>,
    /// The latest revision of any version.
    newest: Revision,
}

impl Checker {
    /// Keeps the system's records of these names.
    pub fn wanting(names: &[&str]) -> Self {
        Self { wanted: names.iter().map(|name| (*name).to_owned()).collect(), ..Self::default() }
    }

    /// Takes one record.
    pub fn add(&mut self, key: &[u8], value: &Bytes) -> Result<(), ImportError> {
        let piece = parse(key, value)
            .map_err(|source| ImportError::Record { key: hex::encode(key), source })?;
        match piece {
            Piece::Header(header) => {
                if self.header.replace(header).is_some() {
                    return Err(ImportError::Contradiction("there are two headers".to_owned()));
                }
            }
            Piece::Version(key, numbers, _) => self.version(key, numbers)?,
            Piece::Lease(id, _) => _ = self.leases.insert(id),
            Piece::Member(member) => self.checked.members.push(member),
            Piece::System(name, value) if self.wanted.contains(&name) => {
                self.checked.system.insert(name, value);
            }
            Piece::Alarm(..) | Piece::System(..) | Piece::Auth(_) => {}
        }
        Ok(())
    }

    fn version(&mut self, key: Bytes, version: Numbers) -> Result<(), ImportError> {
        self.newest = self.newest.max(version.modified);
        match &self.latest {
            Some((last, before)) if *last == key => {
                if version.place() <= before.place() {
                    let text = Inconsistent::Twice(version.modified).to_string();
                    return Err(ImportError::Contradiction(text));
                }
            }
            Some((last, _)) if *last > key => {
                let text = "keys are not in order".to_owned();
                return Err(ImportError::Contradiction(text));
            }
            _ => self.end_key(),
        }
        self.latest = Some((key, version));
        Ok(())
    }

    /// All versions of a key were read.
    fn end_key(&mut self) {
        let Some((_, version)) = self.latest.take() else { return };
        if version.is_tombstone() {
            return;
        }
        self.checked.keys += 1;
        if version.lease != 0 {
            self.attached.insert(version.lease);
        }
    }

    /// All records were taken.
    pub fn finish(mut self) -> Result<Checked, ImportError> {
        self.end_key();
        let header = self.header.ok_or(ImportError::NoHeader)?;
        let contradiction = |why: Inconsistent| Err(ImportError::Contradiction(why.to_string()));
        if self.newest > header.revision {
            return contradiction(Inconsistent::Later(self.newest));
        }
        if let Some(lease) = self.attached.difference(&self.leases).next() {
            return contradiction(Inconsistent::NoLease(*lease));
        }
        Ok(Checked { revision: header.revision, ..self.checked })
    }
}
