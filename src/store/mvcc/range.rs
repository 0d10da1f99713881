//! Reading: what a [`RangeQuery`] sees at one revision, in steps that a lock can be let go between.

use std::cmp::Ordering;

use bytes::Bytes;

use super::super::types::{
    KeyValue, RangeQuery, RangeResult, Revision, SortOrder, SortTarget, StoreError,
};
use super::{History, Key, Mvcc, Numbers};

/// A query under way. It reads one revision whatever is written between its steps.
pub(crate) struct Scan<'q> {
    query: &'q RangeQuery,
    at: Revision,
    head: Revision,
    next: Option<Key>,
    kvs: Vec<KeyValue>,
    count: i64,
    matching: usize,
    /// Pairs that are gathered, from the first key on, before they are ordered.
    gather_max: usize,
}

impl<'q> Scan<'q> {
    /// Begins to read. `head` is the latest revision as the caller sees it: inside a transaction
    /// that has written it is one ahead of the store's.
    pub(crate) fn new(
        query: &'q RangeQuery,
        mvcc: &Mvcc,
        head: Revision,
    ) -> Result<Self, StoreError> {
        if query.revision > head {
            return Err(StoreError::FutureRevision);
        }
        let at = if query.revision <= 0 { head } else { query.revision };
        if at < mvcc.compact_revision {
            return Err(StoreError::Compacted);
        }
        let gather_max = gather_max(query);
        Ok(Self { query, at, head, next: None, kvs: Vec::new(), count: 0, matching: 0, gather_max })
    }

    /// The revision that it reads.
    pub(crate) fn revision(&self) -> Revision {
        self.at
    }

    /// Visits up to `budget` keys. Gives whether it is done.
    pub(crate) fn step(&mut self, mvcc: &Mvcc, budget: usize) -> bool {
        if self.query.range.end.is_empty() {
            if let Some(history) = mvcc.history(&self.query.range.key) {
                self.visit(history);
            }
            return true;
        }
        let from = self.next.take();
        let mut left = budget;
        for (key, history) in mvcc.histories(&self.query.range, from.as_deref()) {
            if left == 0 {
                self.next = Some(key.clone());
                return false;
            }
            left -= 1;
            self.visit(history);
        }
        true
    }

    fn visit(&mut self, history: &History) {
        let Some(version) = history.at(self.at) else { return };
        self.count += 1;
        if self.query.count_only {
            return;
        }
        if !passes(self.query, version) {
            return;
        }
        self.matching += 1;
        if self.matching <= self.gather_max {
            let drop_value = self.query.keys_only && self.query.target != SortTarget::Value;
            self.kvs.push(if drop_value { version.to_bare_pair() } else { version.to_pair() });
        }
    }

    /// The answer.
    pub(crate) fn finish(mut self) -> RangeResult {
        let query = self.query;
        if !is_sorted(query) {
            sort(&mut self.kvs, query);
            self.kvs.truncate(limit(query));
        }
        if query.keys_only {
            for pair in &mut self.kvs {
                pair.value = Bytes::new();
            }
        }
        RangeResult {
            more: self.matching > limit(query),
            kvs: self.kvs,
            count: self.count,
            revision: self.head,
        }
    }
}

/// Runs a query in one go.
pub(super) fn range(
    query: &RangeQuery,
    mvcc: &Mvcc,
    head: Revision,
) -> Result<RangeResult, StoreError> {
    let mut scan = Scan::new(query, mvcc, head)?;
    scan.step(mvcc, usize::MAX);
    Ok(scan.finish())
}

fn limit(query: &RangeQuery) -> usize {
    usize::try_from(query.limit).ok().filter(|limit| *limit > 0).unwrap_or(usize::MAX)
}

/// How many pairs have to be gathered. Without an order but with a field to order by etcd cuts, to
/// one more than the limit, before it orders, unless it filters as well (`rangeLimit` in
/// `server/etcdserver/txn/range.go`).
fn gather_max(query: &RangeQuery) -> usize {
    let filters = [
        query.min_mod_revision,
        query.max_mod_revision,
        query.min_create_revision,
        query.max_create_revision,
    ];
    if is_sorted(query) {
        limit(query)
    } else if query.order == SortOrder::None && filters == [0; 4] {
        limit(query).saturating_add(1)
    } else {
        usize::MAX
    }
}

/// Whether the order of the index is the order asked for.
fn is_sorted(query: &RangeQuery) -> bool {
    query.target == SortTarget::Key && query.order != SortOrder::Descend
}

fn passes(query: &RangeQuery, version: &Numbers) -> bool {
    let within =
        |number, least, most| (least == 0 || number >= least) && (most == 0 || number <= most);
    within(version.modified, query.min_mod_revision, query.max_mod_revision)
        && within(version.created, query.min_create_revision, query.max_create_revision)
}

fn sort(kvs: &mut [KeyValue], query: &RangeQuery) {
    let ascending = |a: &KeyValue, b: &KeyValue| -> Ordering {
        match query.target {
            SortTarget::Key => a.key.cmp(&b.key),
            SortTarget::Version => a.version.cmp(&b.version),
            SortTarget::Create => a.create_revision.cmp(&b.create_revision),
            SortTarget::Mod => a.mod_revision.cmp(&b.mod_revision),
            SortTarget::Value => a.value.cmp(&b.value),
        }
    };
    match query.order {
        SortOrder::Descend => kvs.sort_by(|a, b| ascending(b, a)),
        SortOrder::None | SortOrder::Ascend => kvs.sort_by(ascending),
    }
}
