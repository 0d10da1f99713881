//! The state machine against etcd's rules, one by one, and against a naive model.

mod hashes;
mod leases;
mod oracle;
mod ranges;
mod revisions;
mod transfers;
mod watches;

use bytes::Bytes;

use super::State;
use crate::store::types::{
    Command, Compare, CompareOp, CompareTarget, DeleteOutcome, DeleteRange, KeyRange, KeyValue,
    Outcome, Put, PutOutcome, RangeQuery, RangeResult, Reply, Revision, StoreError, Txn, TxnOp,
    TxnOutcome,
};

/// A state with short words for commands. Panics on a refusal where none is expected.
pub(super) struct Bench {
    pub(super) state: std::sync::Arc<State>,
    index: u64,
}

impl Bench {
    pub(super) fn new() -> Self {
        Self { state: std::sync::Arc::new(State::new()), index: 0 }
    }

    pub(super) fn apply(&mut self, command: Command) -> Outcome {
        self.index += 1;
        self.state.apply(self.index, 1, command)
    }

    pub(super) fn put(&mut self, key: &str, value: &str) -> PutOutcome {
        match self.apply(Command::Put(put(key, value))) {
            Ok(Reply::Put(outcome)) => outcome,
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn delete(&mut self, key: &str, end: &str) -> DeleteOutcome {
        let delete = DeleteRange { range: range(key, end), prev_kv: true };
        match self.apply(Command::DeleteRange(delete)) {
            Ok(Reply::Delete(outcome)) => outcome,
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn txn(&mut self, txn: Txn) -> Result<TxnOutcome, StoreError> {
        match self.apply(Command::Txn(txn))? {
            Reply::Txn(outcome) => Ok(outcome),
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn compact(&mut self, revision: Revision) -> Outcome {
        self.apply(Command::Compact { revision })
    }

    pub(super) fn grant(&mut self, id: i64, ttl: i64) -> Outcome {
        self.apply(Command::LeaseGrant { id, ttl })
    }

    pub(super) fn get(&self, key: &str) -> Option<KeyValue> {
        self.range(&query(key, "")).unwrap().kvs.pop()
    }

    pub(super) fn get_at(
        &self,
        key: &str,
        revision: Revision,
    ) -> Result<Option<KeyValue>, StoreError> {
        let query = RangeQuery { revision, ..query(key, "") };
        Ok(self.range(&query)?.kvs.pop())
    }

    pub(super) fn range(&self, query: &RangeQuery) -> Result<RangeResult, StoreError> {
        self.state.range(query)
    }

    /// The keys that a query finds.
    pub(super) fn keys(&self, query: &RangeQuery) -> Vec<String> {
        names(&self.range(query).unwrap())
    }
}

pub(super) fn names(result: &RangeResult) -> Vec<String> {
    result.kvs.iter().map(|pair| String::from_utf8(pair.key.to_vec()).unwrap()).collect()
}

pub(super) fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

pub(super) fn range(key: &str, end: &str) -> KeyRange {
    KeyRange { key: bytes(key), end: bytes(end) }
}

pub(super) fn query(key: &str, end: &str) -> RangeQuery {
    RangeQuery { range: range(key, end), ..RangeQuery::default() }
}

pub(super) fn put(key: &str, value: &str) -> Put {
    Put { key: bytes(key), value: bytes(value), ..Put::default() }
}

pub(super) fn put_op(key: &str, value: &str) -> TxnOp {
    TxnOp::Put(put(key, value))
}

pub(super) fn delete_op(key: &str, end: &str) -> TxnOp {
    TxnOp::Delete(DeleteRange { range: range(key, end), prev_kv: false })
}

pub(super) fn get_op(key: &str) -> TxnOp {
    TxnOp::Range(query(key, ""))
}

pub(super) fn value_is(key: &str, value: &str) -> Compare {
    Compare {
        range: range(key, ""),
        op: CompareOp::Equal,
        target: CompareTarget::Value(bytes(value)),
    }
}

pub(super) fn success(ops: Vec<TxnOp>) -> Txn {
    Txn { success: ops, ..Txn::default() }
}
