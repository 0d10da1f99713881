//! A store from its versions.

use bytes::Bytes;

use super::super::lease::Leases;
use super::super::types::Revision;
use super::{History, Mvcc, Version, weight};

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
    changes: Vec<(Revision, u32, Bytes)>,
}

impl Restore {
    /// Takes in one version.
    pub(crate) fn add(&mut self, key: Bytes, version: Version) {
        let mvcc = self.mvcc.get_or_insert_with(Mvcc::new);
        mvcc.bytes += weight(&key, &version);
        let place = (version.modified, version.sub);
        if let Some((key, history)) = mvcc.entry(&key) {
            self.changes.push((place.0, place.1, key.clone()));
            history.insert(version);
        } else {
            self.changes.push((place.0, place.1, key.clone()));
            mvcc.keys.insert(key, History::One(version));
        }
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
        self.changes.sort_unstable();
        let mut last = None;
        for (modified, sub, key) in self.changes {
            if modified > revision {
                return Err(Inconsistent::Later(modified));
            }
            if last.replace((modified, sub)) == Some((modified, sub)) {
                return Err(Inconsistent::Twice(modified));
            }
            // From before the compaction, only what there is to trim.
            let is_kept_alone = || matches!(mvcc.keys.get(&key), Some(History::One(version)) if !version.is_tombstone());
            if modified >= compact_revision || !is_kept_alone() {
                mvcc.journal.push(modified, key);
            }
        }
        for (key, history) in &mvcc.keys {
            let Some(latest) = history.latest() else { continue };
            mvcc.live_bytes += weight(key, latest);
            mvcc.live_keys += 1;
            if latest.lease != 0 && leases.get(latest.lease).is_none() {
                return Err(Inconsistent::NoLease(latest.lease));
            }
            leases.attach(latest.lease, key);
        }
        Ok(mvcc)
    }
}
