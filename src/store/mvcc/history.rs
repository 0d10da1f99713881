//! The versions of one key, oldest first, and which of them a revision sees.

use super::super::types::Revision;
use super::Version;

/// All versions of one key, oldest first, never none. Most keys have one: it stands inline.
#[derive(Clone, Debug)]
pub(crate) enum History {
    /// One version.
    One(Version),
    /// Several versions; boxed, so that the index is small where there is one.
    #[expect(clippy::box_collection, reason = "one word instead of three in the index")]
    Many(Box<Vec<Version>>),
}

impl History {
    /// All versions, oldest first.
    pub(crate) fn versions(&self) -> &[Version] {
        match self {
            Self::One(version) => std::slice::from_ref(version),
            Self::Many(versions) => versions,
        }
    }

    /// The newest version, unless it is a deletion.
    pub(crate) fn latest(&self) -> Option<&Version> {
        self.versions().last().filter(|version| !version.is_tombstone())
    }

    /// What `revision` sees.
    pub(crate) fn at(&self, revision: Revision) -> Option<&Version> {
        let versions = self.versions();
        // Nearly all reads are of the present.
        match versions.last() {
            Some(newest) if newest.modified <= revision => self.latest(),
            _ => {
                let older = versions.partition_point(|version| version.modified <= revision);
                versions.get(older.checked_sub(1)?).filter(|version| !version.is_tombstone())
            }
        }
    }

    /// The changes made in `revision`.
    pub(crate) fn changes_of(&self, revision: Revision) -> &[Version] {
        let versions = self.versions();
        let from = versions.partition_point(|version| version.modified < revision);
        let to = versions.partition_point(|version| version.modified <= revision);
        versions.get(from..to).unwrap_or_default()
    }

    /// Adds the newest version.
    pub(crate) fn push(&mut self, version: Version) {
        match self {
            Self::Many(versions) => versions.push(version),
            Self::One(first) => {
                let first = first.clone();
                *self = Self::Many(Box::new(vec![first, version]));
            }
        }
    }

    /// Adds a version that need not be the newest.
    pub(crate) fn insert(&mut self, version: Version) {
        let at = self.versions().partition_point(|other| other.place() < version.place());
        match self {
            Self::Many(versions) => versions.insert(at, version),
            Self::One(_) => {
                self.push(version);
                if let (0, Self::Many(versions)) = (at, self) {
                    versions.reverse();
                }
            }
        }
    }

    /// How many versions, the oldest ones, no revision from `floor` on can see. The newest version at or
    /// before `floor` is kept, unless it is a deletion before `floor` (etcd
    /// `server/storage/mvcc/key_index.go`, `doCompact`; a deletion at `floor` itself stays since 3.4.34).
    pub(crate) fn unseen_from(&self, floor: Revision) -> usize {
        let versions = self.versions();
        let after = versions.partition_point(|version| version.modified <= floor);
        let newest = after.checked_sub(1).and_then(|index| versions.get(index));
        let is_kept =
            newest.is_some_and(|newest| !newest.is_tombstone() || newest.modified == floor);
        after - usize::from(is_kept)
    }

    /// Forgets what no revision from `floor` on can see, telling each forgotten version. Gives whether
    /// anything is left.
    pub(crate) fn trim(&mut self, floor: Revision, mut forgotten: impl FnMut(&Version)) -> bool {
        let versions = self.versions();
        let keep_from = self.unseen_from(floor);
        versions.iter().take(keep_from).for_each(&mut forgotten);
        if keep_from == versions.len() {
            return false;
        }
        if let Self::Many(versions) = self
            && keep_from > 0
        {
            versions.drain(..keep_from);
            if versions.len() == 1
                && let Some(last) = versions.pop()
            {
                *self = Self::One(last);
            } else {
                versions.shrink_to(2 * versions.len());
            }
        }
        true
    }
}
