//! Which watchers want a key, found without asking each: single keys and prefixes, which nearly
//! all watchers are, by hashing; other intervals one distinct interval after the other.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;

use super::super::mvcc::contains;
use super::super::types::KeyRange;

/// A watcher's place in the hub.
pub(super) type Slot = usize;

/// How a range is looked up.
enum Shape {
    Key(Bytes),
    Prefix(Bytes),
    Interval(Bytes, Bytes),
}

impl Shape {
    fn of(range: &KeyRange) -> Self {
        match (range.key.as_ref(), range.end.as_ref()) {
            (_, []) => Self::Key(range.key.clone()),
            // All keys: the prefix of nothing.
            ([0], [0]) => Self::Prefix(Bytes::new()),
            (key, end) if is_prefix(key, end) => Self::Prefix(range.key.clone()),
            _ => Self::Interval(range.key.clone(), range.end.clone()),
        }
    }
}

/// Whether `[key, end)` is what begins with `key`: `end` is `key` with its last byte that is not
/// 0xff raised by one and the rest cut off.
fn is_prefix(key: &[u8], end: &[u8]) -> bool {
    match (key.iter().rposition(|byte| *byte != 0xff), end.split_last()) {
        (Some(at), Some((last, head))) => {
            key.get(..at) == Some(head) && key.get(at).is_some_and(|byte| byte + 1 == *last)
        }
        _ => false,
    }
}

/// The watchers by what they want.
#[derive(Debug, Default)]
pub(super) struct Fanout {
    keys: HashMap<Bytes, Vec<Slot>>,
    prefixes: HashMap<Bytes, Vec<Slot>>,
    /// How many distinct prefixes there are of each length.
    lengths: BTreeMap<usize, usize>,
    intervals: BTreeMap<(Bytes, Bytes), Vec<Slot>>,
}

impl Fanout {
    /// Adds a watcher.
    pub(super) fn insert(&mut self, range: &KeyRange, slot: Slot) {
        match Shape::of(range) {
            Shape::Key(key) => self.keys.entry(key).or_default().push(slot),
            Shape::Prefix(prefix) => {
                let length = prefix.len();
                let slots = self.prefixes.entry(prefix).or_default();
                if slots.is_empty() {
                    *self.lengths.entry(length).or_default() += 1;
                }
                slots.push(slot);
            }
            Shape::Interval(key, end) => {
                self.intervals.entry((key, end)).or_default().push(slot);
            }
        }
    }

    /// Removes a watcher.
    pub(super) fn remove(&mut self, range: &KeyRange, slot: Slot) {
        match Shape::of(range) {
            Shape::Key(key) => {
                if drop_slot(self.keys.get_mut(&key), slot) {
                    self.keys.remove(&key);
                }
            }
            Shape::Prefix(prefix) => {
                if drop_slot(self.prefixes.get_mut(&prefix), slot) {
                    self.prefixes.remove(&prefix);
                    if let Some(count) = self.lengths.get_mut(&prefix.len()) {
                        *count -= 1;
                    }
                    self.lengths.retain(|_, count| *count > 0);
                }
            }
            Shape::Interval(key, end) => {
                let interval = (key, end);
                if drop_slot(self.intervals.get_mut(&interval), slot) {
                    self.intervals.remove(&interval);
                }
            }
        }
    }

    /// Calls `found` with each watcher that wants `key`.
    pub(super) fn each(&self, key: &[u8], mut found: impl FnMut(Slot)) {
        for slot in self.keys.get(key).into_iter().flatten() {
            found(*slot);
        }
        for length in self.lengths.keys() {
            let Some(prefix) = key.get(..*length) else { break };
            for slot in self.prefixes.get(prefix).into_iter().flatten() {
                found(*slot);
            }
        }
        for ((first, end), slots) in &self.intervals {
            if first.as_ref() > key {
                break;
            }
            let range = KeyRange { key: first.clone(), end: end.clone() };
            if contains(&range, key) {
                for slot in slots {
                    found(*slot);
                }
            }
        }
    }
}

/// Takes one watcher out; gives whether none is left.
fn drop_slot(slots: Option<&mut Vec<Slot>>, slot: Slot) -> bool {
    slots.is_some_and(|slots| {
        slots.retain(|other| *other != slot);
        slots.is_empty()
    })
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn some_range() -> impl Strategy<Value = KeyRange> {
        // Few letters, so that ranges and keys meet; 0xff and 0 for the edges.
        let letter = || prop_oneof![Just(b'a'), Just(b'b'), Just(0xff), Just(0)];
        (vec(letter(), 1..4), vec(letter(), 0..4), 0..4).prop_map(|(key, end, kind)| {
            let end = match kind {
                0 => vec![],
                1 => vec![0],
                2 => {
                    let mut end = key.clone();
                    while end.last() == Some(&0xff) {
                        end.pop();
                    }
                    if let Some(last) = end.last_mut() {
                        *last += 1;
                    }
                    if end.is_empty() { vec![0] } else { end }
                }
                _ => end,
            };
            KeyRange { key: key.into(), end: end.into() }
        })
    }

    proptest! {
        #[test]
        fn finds_exactly_those_whose_range_holds_the_key(
            ranges in vec(some_range(), 1..20),
            gone in vec(any::<prop::sample::Index>(), 0..5),
            key in vec(prop_oneof![Just(b'a'), Just(b'b'), Just(b'c'), Just(0xff), Just(0)], 1..5),
        ) {
            let mut fanout = Fanout::default();
            for (slot, range) in ranges.iter().enumerate() {
                fanout.insert(range, slot);
            }
            let gone: Vec<_> = gone.iter().map(|index| index.index(ranges.len())).collect();
            for slot in &gone {
                fanout.remove(&ranges[*slot], *slot);
            }
            let expected: Vec<_> = (0..ranges.len())
                .filter(|slot| !gone.contains(slot) && contains(&ranges[*slot], &key))
                .collect();
            let mut found = Vec::new();
            fanout.each(&key, |slot| found.push(slot));
            found.sort_unstable();
            prop_assert_eq!(found, expected);
        }
    }

    #[test]
    fn prefixes_are_known_by_their_end() {
        assert!(is_prefix(b"a", b"b"));
        assert!(is_prefix(b"ab", b"ac"));
        assert!(is_prefix(b"a\xff", b"b"));
        assert!(!is_prefix(b"a", b"c"));
        assert!(!is_prefix(b"ab", b"b"));
        assert!(!is_prefix(b"\xff", b"\0"));
    }
}
