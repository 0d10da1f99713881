//! The naive model: the list of all changes, searched from the start for every question.

use std::collections::{BTreeMap, BTreeSet};

use super::super::*;
use crate::store::mvcc::contains;
use crate::store::types::{Event, EventKind, OpOutcome, SortOrder, SortTarget};

/// Every change that was ever made, and nothing else.
#[derive(Default)]
pub(super) struct Model {
    pub(super) changes: Vec<Event>,
    pub(super) revision: Revision,
    pub(super) compact_revision: Revision,
    leases: BTreeSet<i64>,
}

impl Model {
    pub(super) fn new() -> Self {
        Self { revision: 1, compact_revision: -1, ..Self::default() }
    }

    /// What a revision sees.
    fn at(&self, revision: Revision) -> BTreeMap<Bytes, KeyValue> {
        let mut seen = BTreeMap::new();
        for event in self.changes.iter().filter(|event| event.kv.mod_revision <= revision) {
            match event.kind {
                EventKind::Put => seen.insert(event.kv.key.clone(), event.kv.clone()),
                EventKind::Delete => seen.remove(&event.kv.key),
            };
        }
        seen
    }

    fn now(&self) -> BTreeMap<Bytes, KeyValue> {
        self.at(Revision::MAX)
    }

    pub(super) fn range(
        &self,
        query: &RangeQuery,
        head: Revision,
    ) -> Result<RangeResult, StoreError> {
        let at = if query.revision <= 0 { head } else { query.revision };
        if at > head {
            return Err(StoreError::FutureRevision);
        }
        if at < self.compact_revision {
            return Err(StoreError::Compacted);
        }
        let seen = self.at(at);
        let mut kvs: Vec<_> =
            seen.into_values().filter(|pair| contains(&query.range, &pair.key)).collect();
        let count = i64::try_from(kvs.len()).unwrap();
        if query.count_only {
            return Ok(RangeResult { kvs: vec![], more: false, count, revision: head });
        }
        kvs.retain(|pair| {
            (query.min_mod_revision == 0 || pair.mod_revision >= query.min_mod_revision)
                && (query.max_mod_revision == 0 || pair.mod_revision <= query.max_mod_revision)
                && (query.min_create_revision == 0
                    || pair.create_revision >= query.min_create_revision)
                && (query.max_create_revision == 0
                    || pair.create_revision <= query.max_create_revision)
        });
        let limit = usize::try_from(query.limit).ok().filter(|limit| *limit > 0);
        let more = limit.is_some_and(|limit| kvs.len() > limit);
        let filters = [
            query.min_mod_revision,
            query.max_mod_revision,
            query.min_create_revision,
            query.max_create_revision,
        ];
        if let (Some(limit), SortOrder::None, [0, 0, 0, 0]) = (limit, query.order, filters) {
            kvs.truncate(limit + 1);
        }
        match query.target {
            SortTarget::Key => {}
            SortTarget::Version => kvs.sort_by_key(|pair| pair.version),
            SortTarget::Create => kvs.sort_by_key(|pair| pair.create_revision),
            SortTarget::Mod => kvs.sort_by_key(|pair| pair.mod_revision),
            SortTarget::Value => kvs.sort_by_key(|pair| pair.value.clone()),
        }
        if query.order == SortOrder::Descend {
            // Equal ones stay in the order of keys: turn round groups, not pairs.
            kvs.reverse();
            let group = |pair: &KeyValue| match query.target {
                SortTarget::Key => (0, pair.key.clone()),
                SortTarget::Version => (pair.version, Bytes::new()),
                SortTarget::Create => (pair.create_revision, Bytes::new()),
                SortTarget::Mod => (pair.mod_revision, Bytes::new()),
                SortTarget::Value => (0, pair.value.clone()),
            };
            kvs.chunk_by_mut(|a, b| group(a) == group(b)).for_each(<[_]>::reverse);
        }
        kvs.truncate(limit.unwrap_or(usize::MAX));
        if query.keys_only {
            for pair in &mut kvs {
                pair.value = Bytes::new();
            }
        }
        Ok(RangeResult { kvs, more, count, revision: head })
    }

    fn holds(&self, compare: &Compare) -> bool {
        let meets = |pair: &KeyValue| {
            let ordering = match &compare.target {
                CompareTarget::Version(number) => pair.version.cmp(number),
                CompareTarget::Create(number) => pair.create_revision.cmp(number),
                CompareTarget::Mod(number) => pair.mod_revision.cmp(number),
                CompareTarget::Lease(number) => pair.lease.cmp(number),
                CompareTarget::Value(value) => pair.value.cmp(value),
            };
            match compare.op {
                CompareOp::Equal => ordering.is_eq(),
                CompareOp::NotEqual => ordering.is_ne(),
                CompareOp::Greater => ordering.is_gt(),
                CompareOp::Less => ordering.is_lt(),
            }
        };
        let now = self.now();
        let found: Vec<_> =
            now.values().filter(|pair| contains(&compare.range, &pair.key)).collect();
        match (&compare.target, found.is_empty()) {
            (CompareTarget::Value(_), true) => false,
            (_, true) => meets(&KeyValue::default()),
            _ => found.into_iter().all(meets),
        }
    }

    /// The branches, nested ones replaced by what is taken of them.
    fn resolve(&self, txn: &Txn) -> (bool, Vec<Resolved>) {
        let succeeded = txn.compare.iter().all(|compare| self.holds(compare));
        let ops = if succeeded { &txn.success } else { &txn.failure };
        let ops = ops.iter().map(|op| match op {
            TxnOp::Txn(inner) => {
                let (succeeded, ops) = self.resolve(inner);
                Resolved::Nested(succeeded, ops)
            }
            other => Resolved::Plain(other.clone()),
        });
        (succeeded, ops.collect())
    }

    fn check_puts(&self, ops: &[Resolved]) -> Result<(), StoreError> {
        for op in ops {
            match op {
                Resolved::Plain(TxnOp::Put(put)) => {
                    let needs_key = put.ignore_value || put.ignore_lease;
                    if needs_key && !self.now().contains_key(&put.key) {
                        return Err(StoreError::KeyNotFound);
                    }
                    if put.lease != 0 && !self.leases.contains(&put.lease) {
                        return Err(StoreError::LeaseNotFound);
                    }
                }
                Resolved::Plain(_) => {}
                Resolved::Nested(_, ops) => self.check_puts(ops)?,
            }
        }
        Ok(())
    }

    fn check_ranges(&self, ops: &[Resolved]) -> Result<(), StoreError> {
        for op in ops {
            match op {
                Resolved::Plain(TxnOp::Range(query)) => _ = self.range(query, self.revision)?,
                Resolved::Plain(_) => {}
                Resolved::Nested(_, ops) => self.check_ranges(ops)?,
            }
        }
        Ok(())
    }

    fn txn(&mut self, txn: &Txn) -> Result<TxnOutcome, StoreError> {
        let (succeeded, ops) = self.resolve(txn);
        self.check_puts(&ops)?;
        self.check_ranges(&ops)?;
        let begin = self.revision;
        let responses = self.run(&ops, begin);
        self.revision = self.head(begin);
        Ok(TxnOutcome { revision: self.revision, succeeded, responses })
    }

    /// The revision inside a transaction that began at `begin`.
    fn head(&self, begin: Revision) -> Revision {
        begin + i64::from(self.changes.last().is_some_and(|event| event.kv.mod_revision > begin))
    }

    fn run(&mut self, ops: &[Resolved], begin: Revision) -> Vec<OpOutcome> {
        let run = |op: &Resolved| match op {
            Resolved::Plain(TxnOp::Range(query)) => {
                OpOutcome::Range(self.range(query, self.head(begin)).unwrap())
            }
            Resolved::Plain(TxnOp::Put(put)) => OpOutcome::Put(self.put(put, begin)),
            Resolved::Plain(TxnOp::Delete(delete)) => OpOutcome::Delete(self.delete(delete, begin)),
            Resolved::Plain(TxnOp::Txn(_)) => unreachable!("nested ones are resolved"),
            Resolved::Nested(succeeded, ops) => OpOutcome::Txn(TxnOutcome {
                revision: 0,
                succeeded: *succeeded,
                responses: self.run(ops, begin),
            }),
        };
        ops.iter().map(run).collect()
    }

    fn prev(&self, key: &Bytes, begin: Revision) -> Option<KeyValue> {
        self.at(begin).remove(key)
    }

    fn put(&mut self, put: &Put, begin: Revision) -> PutOutcome {
        let current = self.now().remove(&put.key);
        let known = current.clone().unwrap_or_default();
        let kv = KeyValue {
            key: put.key.clone(),
            value: if put.ignore_value { known.value } else { put.value.clone() },
            create_revision: if known.version > 0 { known.create_revision } else { begin + 1 },
            mod_revision: begin + 1,
            version: known.version + 1,
            lease: if put.ignore_lease { known.lease } else { put.lease },
        };
        let is_creation = kv.create_revision == kv.mod_revision;
        let prev_kv = self.prev(&put.key, begin).filter(|_| !is_creation);
        self.changes.push(Event { kind: EventKind::Put, kv, prev_kv });
        PutOutcome { revision: begin + 1, prev_kv: current.filter(|_| put.prev_kv) }
    }

    fn delete(&mut self, delete: &DeleteRange, begin: Revision) -> DeleteOutcome {
        let gone: Vec<_> =
            self.now().into_values().filter(|pair| contains(&delete.range, &pair.key)).collect();
        for pair in &gone {
            self.delete_key(&pair.key, begin);
        }
        DeleteOutcome {
            revision: self.head(begin),
            deleted: i64::try_from(gone.len()).unwrap(),
            prev_kvs: if delete.prev_kv { gone } else { vec![] },
        }
    }

    fn delete_key(&mut self, key: &Bytes, begin: Revision) {
        let kv = KeyValue { key: key.clone(), mod_revision: begin + 1, ..KeyValue::default() };
        let prev_kv = self.prev(key, begin);
        self.changes.push(Event { kind: EventKind::Delete, kv, prev_kv });
    }

    fn revoke(&mut self, id: i64) -> Outcome {
        if !self.leases.remove(&id) {
            return Err(StoreError::LeaseNotFound);
        }
        let begin = self.revision;
        for pair in self.now().into_values().filter(|pair| pair.lease == id) {
            self.delete_key(&pair.key, begin);
        }
        self.revision = self.head(begin);
        Ok(Reply::Done { revision: self.revision })
    }

    pub(super) fn apply(&mut self, command: &Command) -> Outcome {
        match command {
            // Inside a transaction the key is looked for first.
            Command::Put(put) if put.lease != 0 && !self.leases.contains(&put.lease) => {
                Err(StoreError::LeaseNotFound)
            }
            Command::Put(put) => {
                self.txn(&success(vec![TxnOp::Put(put.clone())])).map(|mut all| {
                    let Some(OpOutcome::Put(outcome)) = all.responses.pop() else { unreachable!() };
                    Reply::Put(outcome)
                })
            }
            Command::DeleteRange(delete) => {
                self.txn(&success(vec![TxnOp::Delete(delete.clone())])).map(|mut all| {
                    let Some(OpOutcome::Delete(outcome)) = all.responses.pop() else {
                        unreachable!()
                    };
                    Reply::Delete(outcome)
                })
            }
            Command::Txn(txn) => self.txn(txn).map(Reply::Txn),
            Command::Compact { revision } => {
                if *revision <= self.compact_revision {
                    return Err(StoreError::Compacted);
                }
                if *revision > self.revision {
                    return Err(StoreError::FutureRevision);
                }
                self.compact_revision = *revision;
                Ok(Reply::Done { revision: self.revision })
            }
            Command::LeaseGrant { id, ttl } => {
                if !self.leases.insert(*id) {
                    return Err(StoreError::LeaseExists);
                }
                Ok(Reply::LeaseGranted { revision: self.revision, id: *id, ttl: *ttl })
            }
            Command::LeaseRevoke { id } => self.revoke(*id),
            other => unreachable!("{other:?}"),
        }
    }
}

enum Resolved {
    Plain(TxnOp),
    Nested(bool, Vec<Resolved>),
}
