//! What a request must be before anything is done with it, in etcd's order and with its refusals
//! (etcd `server/etcdserver/api/v3rpc/key.go`). Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use prost::Message;

use super::errors::ApiError;
use super::pb::etcdserverpb as pb;
use pb::request_op::Request as Op;

/// Refuses what would be too large for the log.
pub(crate) fn size(request: &impl Message, bytes_max: usize) -> Result<(), ApiError> {
    if request.encoded_len() > bytes_max {
        return Err(ApiError::REQUEST_TOO_LARGE);
    }
    Ok(())
}

fn key(key: &[u8]) -> Result<(), ApiError> {
    if key.is_empty() { Err(ApiError::EMPTY_KEY) } else { Ok(()) }
}

/// A key, and known sort options.
pub(crate) fn range(request: &pb::RangeRequest) -> Result<(), ApiError> {
    key(&request.key)?;
    if pb::range_request::SortOrder::try_from(request.sort_order).is_err()
        || pb::range_request::SortTarget::try_from(request.sort_target).is_err()
    {
        return Err(ApiError::INVALID_SORT_OPTION);
    }
    Ok(())
}

/// A key, and no value or lease beside the flag that says to keep the current one.
pub(crate) fn put(request: &pb::PutRequest) -> Result<(), ApiError> {
    key(&request.key)?;
    if request.ignore_value && !request.value.is_empty() {
        return Err(ApiError::VALUE_PROVIDED);
    }
    if request.ignore_lease && request.lease != 0 {
        return Err(ApiError::LEASE_PROVIDED);
    }
    Ok(())
}

/// A key.
pub(crate) fn delete(request: &pb::DeleteRangeRequest) -> Result<(), ApiError> {
    key(&request.key)
}

/// Every operation by itself, at most `ops_max` in a list, then that no key is written twice.
pub(crate) fn txn(request: &pb::TxnRequest, ops_max: usize) -> Result<(), ApiError> {
    operations(request, ops_max)?;
    writes(&request.success)?;
    writes(&request.failure)?;
    Ok(())
}

/// `budget` is what is left for this level: a nested transaction has what its parents left over.
fn operations(request: &pb::TxnRequest, budget: usize) -> Result<(), ApiError> {
    let most = request.compare.len().max(request.success.len()).max(request.failure.len());
    let left = budget.checked_sub(most).ok_or(ApiError::TOO_MANY_OPS)?;
    for compare in &request.compare {
        key(&compare.key)?;
    }
    for op in request.success.iter().chain(&request.failure) {
        match &op.request {
            Some(Op::RequestRange(request)) => range(request)?,
            Some(Op::RequestPut(request)) => put(request)?,
            Some(Op::RequestDeleteRange(request)) => delete(request)?,
            Some(Op::RequestTxn(request)) => operations(request, left)?,
            None => return Err(ApiError::KEY_NOT_FOUND),
        }
    }
    Ok(())
}

/// What a list of operations may write.
#[derive(Default)]
struct Writes<'a> {
    puts: BTreeSet<&'a [u8]>,
    deletes: Intervals<'a>,
}

impl<'a> Writes<'a> {
    /// Notes a put, unless this list puts or deletes the key already.
    fn put(&mut self, key: &'a [u8]) -> Result<(), ApiError> {
        if self.deletes.contains(key) || !self.puts.insert(key) {
            return Err(ApiError::DUPLICATE_KEY);
        }
        Ok(())
    }
}

/// Finds keys that are put twice, or put and deleted, by operations that can both run. Branches of
/// one nested transaction exclude each other.
fn writes(ops: &[pb::RequestOp]) -> Result<Writes<'_>, ApiError> {
    let mut all = Writes::default();
    if let [pb::RequestOp { request: Some(Op::RequestRange(_) | Op::RequestPut(_)) }] = ops {
        return Ok(single(ops));
    }
    for op in ops {
        if let Some(Op::RequestDeleteRange(request)) = &op.request {
            all.deletes.insert(&request.key, &request.range_end);
        }
    }
    for op in ops {
        if let Some(Op::RequestTxn(request)) = &op.request {
            let mut then = writes(&request.success)?;
            let mut otherwise = writes(&request.failure)?;
            otherwise.puts.retain(|key| !then.puts.contains(key));
            for key in then.puts.iter().chain(&otherwise.puts) {
                all.put(key)?;
            }
            all.deletes.append(&mut then.deletes);
            all.deletes.append(&mut otherwise.deletes);
        }
    }
    for op in ops {
        if let Some(Op::RequestPut(request)) = &op.request {
            all.put(&request.key)?;
        }
    }
    Ok(all)
}

/// The most common list by far: one operation that cannot clash.
fn single(ops: &[pb::RequestOp]) -> Writes<'_> {
    let mut all = Writes::default();
    for op in ops {
        if let Some(Op::RequestPut(request)) = &op.request {
            all.puts.insert(&request.key);
        }
    }
    all
}

/// A set of key ranges; start → end, `None` is no end. Ranges may overlap, but none lies within
/// another, so that ends grow with starts and one look decides.
#[derive(Default)]
struct Intervals<'a>(BTreeMap<&'a [u8], End<'a>>);

/// Where a range ends: after a single key, before a key, or nowhere.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End<'a> {
    Including(&'a [u8]),
    Before(&'a [u8]),
    Never,
}

impl End<'_> {
    fn covers(self, key: &[u8]) -> bool {
        match self {
            Self::Including(end) => key <= end,
            Self::Before(end) => key < end,
            Self::Never => true,
        }
    }

    /// Whether everything before `other` is before `self` too.
    fn reaches(self, other: Self) -> bool {
        match (self, other) {
            (Self::Never, _) => true,
            (_, Self::Never) => false,
            (Self::Before(a), Self::Including(b)) => b < a,
            (Self::Including(a) | Self::Before(a), Self::Before(b) | Self::Including(b)) => b <= a,
        }
    }
}

impl<'a> Intervals<'a> {
    fn insert(&mut self, key: &'a [u8], range_end: &'a [u8]) {
        let end = match range_end {
            [] => End::Including(key),
            [0] => End::Never,
            _ => End::Before(range_end),
        };
        self.add(key, end);
    }

    fn add(&mut self, start: &'a [u8], end: End<'a>) {
        if self.last_from(start).is_some_and(|known| known.reaches(end)) {
            return;
        }
        let from = (Bound::Included(start), Bound::Unbounded);
        let within: Vec<&[u8]> = self
            .0
            .range::<[u8], _>(from)
            .take_while(|(_, known)| end.reaches(**known))
            .map(|(start, _)| *start)
            .collect();
        for start in within {
            self.0.remove(start);
        }
        self.0.insert(start, end);
    }

    /// The end of the last range that starts at or before `key`.
    fn last_from(&self, key: &[u8]) -> Option<End<'a>> {
        let upto = (Bound::Unbounded, Bound::Included(key));
        self.0.range::<[u8], _>(upto).next_back().map(|(_, end)| *end)
    }

    fn contains(&self, key: &[u8]) -> bool {
        self.last_from(key).is_some_and(|end| end.covers(key))
    }

    fn append(&mut self, other: &mut Self) {
        for (start, end) in std::mem::take(&mut other.0) {
            self.add(start, end);
        }
    }
}

/// Whether nothing in it can write: such a transaction skips the log. One with a nested
/// transaction counts as writing, as in etcd.
pub(crate) fn is_read_only(request: &pb::TxnRequest) -> bool {
    let mut ops = request.success.iter().chain(&request.failure);
    ops.all(|op| matches!(op.request, Some(Op::RequestRange(_))))
}

/// Whether all its reads may be stale: only then may a read-only transaction skip the barrier.
pub(crate) fn is_serializable(request: &pb::TxnRequest) -> bool {
    let mut ops = request.success.iter().chain(&request.failure);
    ops.all(|op| matches!(&op.request, Some(Op::RequestRange(range)) if range.serializable))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(key: &'static str) -> pb::RequestOp {
        let request = pb::PutRequest { key: key.into(), ..Default::default() };
        pb::RequestOp { request: Some(Op::RequestPut(request)) }
    }

    fn del(key: &'static str, end: &'static str) -> pb::RequestOp {
        let request =
            pb::DeleteRangeRequest { key: key.into(), range_end: end.into(), prev_kv: false };
        pb::RequestOp { request: Some(Op::RequestDeleteRange(request)) }
    }

    fn nested(success: Vec<pb::RequestOp>, failure: Vec<pb::RequestOp>) -> pb::RequestOp {
        let request = pb::TxnRequest { compare: vec![], success, failure };
        pb::RequestOp { request: Some(Op::RequestTxn(request)) }
    }

    fn check(ops: Vec<pb::RequestOp>) -> Result<(), ApiError> {
        txn(&pb::TxnRequest { compare: vec![], success: ops, failure: vec![] }, 128)
    }

    #[test]
    fn a_key_may_be_written_once() {
        let twice = Err(ApiError::DUPLICATE_KEY);
        assert_eq!(check(vec![put("a"), put("b")]), Ok(()));
        assert_eq!(check(vec![put("a"), put("a")]), twice);
        assert_eq!(check(vec![put("a"), del("a", "")]), twice);
        assert_eq!(check(vec![put("b"), del("a", "c")]), twice);
        assert_eq!(check(vec![put("c"), del("a", "c")]), Ok(()));
        assert_eq!(check(vec![put("z"), del("a", "\0")]), twice);
        assert_eq!(check(vec![put("0"), del("a", "\0")]), Ok(()));
        assert_eq!(check(vec![del("a", "c"), del("b", "")]), Ok(()));
    }

    #[test]
    fn overlapping_deletes_are_all_seen() {
        let deletes =
            || vec![del("a", "c"), del("b", "f"), del("c", "d"), del("k", ""), del("a", "b")];
        for (key, clash) in [("a", true), ("e", true), ("f", false), ("k", true), ("ka", false)] {
            let mut ops = deletes();
            ops.push(put(key));
            assert_eq!(check(ops).is_err(), clash, "{key}");
        }
    }

    #[test]
    fn branches_of_one_nested_transaction_exclude_each_other() {
        let twice = Err(ApiError::DUPLICATE_KEY);
        assert_eq!(check(vec![nested(vec![put("a")], vec![put("a")])]), Ok(()));
        assert_eq!(check(vec![nested(vec![put("a")], vec![put("a")]), put("a")]), twice);
        assert_eq!(
            check(vec![nested(vec![put("a")], vec![]), nested(vec![put("a")], vec![])]),
            twice
        );
        assert_eq!(check(vec![nested(vec![del("a", "")], vec![]), put("a")]), twice);
    }

    #[test]
    fn a_list_and_its_nesting_share_one_budget() {
        let keys: Vec<String> = (0..129).map(|n| format!("k{n}")).collect();
        let many = |count: usize| -> Vec<pb::RequestOp> {
            keys.iter()
                .take(count)
                .map(|key| {
                    let request = pb::PutRequest { key: key.clone().into(), ..Default::default() };
                    pb::RequestOp { request: Some(Op::RequestPut(request)) }
                })
                .collect()
        };
        assert_eq!(check(many(128)), Ok(()));
        assert_eq!(check(many(129)), Err(ApiError::TOO_MANY_OPS));
        assert_eq!(check(vec![nested(many(127), vec![])]), Ok(()));
        assert_eq!(check(vec![nested(many(128), vec![])]), Err(ApiError::TOO_MANY_OPS));
    }

    #[test]
    fn an_operation_without_a_request_is_refused() {
        assert_eq!(check(vec![pb::RequestOp { request: None }]), Err(ApiError::KEY_NOT_FOUND));
    }
}
