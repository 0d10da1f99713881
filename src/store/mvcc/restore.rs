//! A store from its versions.

use super::super::lease::Leases;
use super::super::types::Revision;
use super::{History, Key, Mvcc, Numbers, Version, weight};

/// Why versions do not make a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Inconsistent {
    /// A version is from after the store's revision.
    #[error("revision {0} is later than that of the store")]
    Later(Revision),
    /// Two versions claim the same place.
    #[error("revision {0} is there twice")]
    Twice(Revision),
    /// A key is attached to a lease that does not exist.
    #[error("a key is attached to lease {0:x}, which does not exist")]
    NoLease(i64),
}

/// Takes versions in, in any order.
#[derive(Debug, Default)]
pub(crate) struct Restore {
    mvcc: Option<Mvcc>,
    changes: Vec<Version>,
}

impl Restore {
    /// Takes in one version of `key`.
    pub(crate) fn add(&mut self, key: &[u8], numbers: Numbers, value: &[u8]) {
        let mvcc = self.mvcc.get_or_insert_with(Mvcc::new);
        let version = if let Some((key, history)) = mvcc.entry(key) {
            let version = Version::new(key.clone(), numbers, value);
            history.insert(version.clone());
            version
        } else {
            let key = Key::new(key);
            let version = Version::new(key.clone(), numbers, value);
            mvcc.keys.insert(key, History::One(version.clone()));
            version
        };
        mvcc.bytes += weight(&version);
        self.changes.push(version);
    }

    /// The store at `revision`. Keys are attached to their leases. What the compaction forgot is
    /// let go by [`Mvcc::trim`] as usual.
    pub(crate) fn finish(
        mut self,
        revision: Revision,
        compact_revision: Revision,
        leases: &mut Leases,
    ) -> Result<Mvcc, Inconsistent> {
        let mut mvcc = self.mvcc.take().unwrap_or_else(Mvcc::new);
        mvcc.revision = revision;
        mvcc.compact_revision = compact_revision;
        self.changes.sort_unstable_by_key(|change| change.place());
        let mut last = None;
        for change in self.changes {
            if change.modified > revision {
                return Err(Inconsistent::Later(change.modified));
            }
            if last.replace(change.place()) == Some(change.place()) {
                return Err(Inconsistent::Twice(change.modified));
            }
            // From before the compaction, only what there is to trim.
            let is_kept_alone = || matches!(mvcc.keys.get(change.key()), Some(History::One(version)) if !version.is_tombstone());
            if change.modified >= compact_revision || !is_kept_alone() {
                mvcc.journal.push(change);
            }
        }
        for (key, history) in &mvcc.keys {
            let Some(latest) = history.latest() else { continue };
            mvcc.live_bytes += weight(latest);
            mvcc.live_keys += 1;
            if latest.lease != 0 && leases.get(latest.lease).is_none() {
                return Err(Inconsistent::NoLease(latest.lease));
            }
            if latest.lease != 0 {
                leases.attach(latest.lease, key.to_bytes());
            }
        }
        Ok(mvcc)
    }
}
