//! Keys and versions: each is one word, and one piece of memory behind it which the index, the journal,
//! answers and events share. Most memory of a member is here.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::fmt;
use std::ops::Deref;

use bytes::Bytes;
use triomphe::ThinArc;

use super::super::types::{KeyValue, LeaseId, Revision};

/// A key.
#[derive(Clone)]
pub(crate) struct Key(ThinArc<(), u8>);

impl Key {
    pub(crate) fn new(key: &[u8]) -> Self {
        Self(ThinArc::from_header_and_slice((), key))
    }

    /// For answers; not copied.
    pub(crate) fn to_bytes(&self) -> Bytes {
        Bytes::from_owner(self.clone())
    }
}

impl Deref for Key {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0.slice
    }
}

impl AsRef<[u8]> for Key {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl Borrow<[u8]> for Key {
    fn borrow(&self) -> &[u8] {
        self
    }
}

impl Ord for Key {
    fn cmp(&self, other: &Self) -> Ordering {
        (**self).cmp(&**other)
    }
}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for Key {}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.escape_ascii())
    }
}

/// What a version says beside key and value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Numbers {
    /// Revision of the change.
    pub(crate) modified: Revision,
    /// Which change of its revision it is, from 0.
    pub(crate) sub: u32,
    /// Revision of the put that created this generation; 0 on a deletion.
    pub(crate) created: Revision,
    /// Number of puts in this generation, from 1; 0 on a deletion.
    pub(crate) number: i64,
    /// The lease it is attached to, or 0.
    pub(crate) lease: LeaseId,
}

impl Numbers {
    /// Those of a deletion.
    pub(crate) fn tombstone(modified: Revision, sub: u32) -> Self {
        Self { modified, sub, ..Self::default() }
    }

    /// Whether it is a deletion.
    pub(crate) fn is_tombstone(&self) -> bool {
        self.number == 0
    }

    /// Where it stands in the order of all changes.
    pub(crate) fn place(&self) -> (Revision, u32) {
        (self.modified, self.sub)
    }
}

/// One change of a key: what it held from then on.
#[derive(Clone)]
pub(crate) struct Version(ThinArc<(Numbers, Key), u8>);

impl Version {
    /// With a copy of `value`, since the buffer that it comes from is larger and would live as long.
    pub(crate) fn new(key: Key, numbers: Numbers, value: &[u8]) -> Self {
        Self(ThinArc::from_header_and_slice((numbers, key), value))
    }

    pub(crate) fn key(&self) -> &Key {
        &self.0.header.header.1
    }

    pub(crate) fn value(&self) -> &[u8] {
        &self.0.slice
    }

    /// The value for answers; not copied.
    pub(crate) fn value_bytes(&self) -> Bytes {
        if self.value().is_empty() { Bytes::new() } else { Bytes::from_owner(Value(self.clone())) }
    }

    /// The pair as clients see it; shares the bytes.
    pub(crate) fn to_pair(&self) -> KeyValue {
        self.pair_with(self.value_bytes())
    }

    /// The pair without its value.
    pub(crate) fn to_bare_pair(&self) -> KeyValue {
        self.pair_with(Bytes::new())
    }

    fn pair_with(&self, value: Bytes) -> KeyValue {
        KeyValue {
            key: self.key().to_bytes(),
            value,
            create_revision: self.created,
            mod_revision: self.modified,
            version: self.number,
            lease: self.lease,
        }
    }
}

impl Deref for Version {
    type Target = Numbers;

    fn deref(&self) -> &Numbers {
        &self.0.header.header.0
    }
}

impl fmt::Debug for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {:?}", self.key(), **self)
    }
}

/// The value of a version.
struct Value(Version);

impl AsRef<[u8]> for Value {
    fn as_ref(&self) -> &[u8] {
        self.0.value()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_ordered_as_their_bytes_are() {
        for (less, more) in [("a", "b"), ("a", "aa"), ("ab", "b"), ("", "a")] {
            assert!(Key::new(less.as_bytes()) < Key::new(more.as_bytes()));
        }
        assert_eq!(Key::new(b"a"), Key::new(b"a"));
    }

    #[test]
    fn what_answers_hold_is_not_copied_and_outlives_the_version() {
        let numbers = Numbers { modified: 7, sub: 1, created: 5, number: 2, lease: 3 };
        let version = Version::new(Key::new(b"key"), numbers, b"value");
        let place = (version.key().as_ptr(), version.value().as_ptr());
        let pair = version.to_pair();
        drop(version);
        assert_eq!((pair.key.as_ptr(), pair.value.as_ptr()), place);
        assert_eq!((&*pair.key, &*pair.value), (&b"key"[..], &b"value"[..]));
        assert_eq!(
            (pair.mod_revision, pair.create_revision, pair.version, pair.lease),
            (7, 5, 2, 3)
        );
    }

    #[test]
    fn a_handle_is_one_word() {
        assert_eq!(size_of::<Option<Version>>(), size_of::<usize>());
        assert_eq!(size_of::<Option<Key>>(), size_of::<usize>());
    }
}
