//! Ranges of keys that permissions are given for.

use super::{Access, Permission};
use crate::store::types::KeyRange;

/// The end that stands for no end.
const OPEN: &[u8] = &[0];

/// Whether a permission can be given for it: a key, and an end that is after it.
pub(super) fn is_valid(range: &KeyRange) -> bool {
    !range.key.is_empty() && (range.end.is_empty() || range.end == OPEN || range.key < range.end)
}

/// First key, and the first key after the range (`None`: there is none).
fn bounds(range: &KeyRange) -> (&[u8], Option<Vec<u8>>) {
    let end = if range.end.is_empty() {
        // The key alone: up to the key that comes next.
        Some([&range.key[..], OPEN].concat())
    } else if range.end == OPEN {
        None
    } else {
        Some(range.end.to_vec())
    };
    (&range.key, end)
}

/// Whether the permissions together allow `access` to all keys of `range`.
pub(super) fn cover<'a>(
    permissions: impl Iterator<Item = &'a Permission>,
    access: Access,
    range: &KeyRange,
) -> bool {
    let mut given: Vec<_> = permissions
        .filter(|given| given.access == access || given.access == Access::ReadWrite)
        .map(|given| bounds(&given.range))
        .collect();
    given.sort_unstable();
    let (first, last) = bounds(range);
    let mut reached = first.to_vec();
    for (begin, end) in given {
        if begin > reached.as_slice() {
            return false;
        }
        match (end, &last) {
            (None, _) => return true,
            (Some(end), Some(last)) if end >= *last => return true,
            (Some(end), _) => reached = reached.max(end),
        }
    }
    false
}
