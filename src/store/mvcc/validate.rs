//! Whether a transaction changes a key twice: refused before it is proposed (etcd
//! `server/etcdserver/api/v3rpc/key.go`, `checkIntervals`).

use std::collections::BTreeSet;

use super::super::types::{KeyRange, StoreError, Txn, TxnOp};
use super::contains;

/// What a list of operations puts and deletes.
#[derive(Default)]
struct Changes<'t> {
    puts: BTreeSet<&'t [u8]>,
    deletes: Vec<&'t KeyRange>,
}

impl<'t> Changes<'t> {
    /// Adds a put that must not meet what is there, `except` for the keys of the other branch of
    /// the same transaction, of which only one is run.
    fn put(&mut self, key: &'t [u8], except: Option<&BTreeSet<&[u8]>>) -> Result<(), StoreError> {
        let again = !self.puts.insert(key) && !except.is_some_and(|other| other.contains(key));
        if again || self.deletes.iter().any(|range| contains(range, key)) {
            return Err(StoreError::DuplicateKey);
        }
        Ok(())
    }
}

/// Refuses a transaction, [`StoreError::DuplicateKey`], in which one branch puts a key twice, or
/// puts and deletes it, nested transactions included. A key may be put in both branches.
///
/// As in etcd, two cases are let through, and then run in order: a nested put before a delete in a
/// *later* nested transaction, and a delete of everything from a key on (its end, `"\0"`, is taken
/// literally there, which makes it an empty interval).
pub fn validate(txn: &Txn) -> Result<(), StoreError> {
    changes(&txn.success)?;
    changes(&txn.failure)?;
    Ok(())
}

fn changes(ops: &[TxnOp]) -> Result<Changes<'_>, StoreError> {
    let mut all = Changes::default();
    for op in ops {
        if let TxnOp::Delete(delete) = op
            && delete.range.end.as_ref() != [0]
        {
            all.deletes.push(&delete.range);
        }
    }
    for op in ops {
        let TxnOp::Txn(inner) = op else { continue };
        let (then, otherwise) = (changes(&inner.success)?, changes(&inner.failure)?);
        for key in &then.puts {
            all.put(key, None)?;
        }
        for key in &otherwise.puts {
            all.put(key, Some(&then.puts))?;
        }
        all.deletes.extend(then.deletes);
        all.deletes.extend(otherwise.deletes);
    }
    for op in ops {
        if let TxnOp::Put(put) = op {
            all.put(&put.key, None)?;
        }
    }
    Ok(all)
}
