//! Transactions: conditions first, then checks, then changes, so that a refusal changes nothing.
//!
//! All conditions of all levels are evaluated once, on the state before the transaction (etcd
//! `server/etcdserver/txn/txn.go`, `compareToPath`).

use std::cmp::Ordering;

use super::super::lease::Leases;
use super::super::types::{
    Compare, CompareOp, CompareTarget, OpOutcome, Put, RangeQuery, StoreError, Txn, TxnOp,
    TxnOutcome,
};
use super::{Counts, History, Mvcc, Numbers, Writer, range};

/// Which branch each transaction takes: the outer one first, nested ones as they are met.
struct Path(std::vec::IntoIter<bool>);

impl Path {
    /// Gives how many conditions were looked at, too.
    fn evaluate(mvcc: &Mvcc, txn: &Txn) -> (Vec<bool>, u64) {
        let (mut taken, mut looked_at) = (Vec::with_capacity(1), 0);
        evaluate(mvcc, txn, &mut taken, &mut looked_at);
        (taken, looked_at)
    }

    fn branch<'t>(&mut self, txn: &'t Txn) -> (bool, &'t [TxnOp]) {
        let succeeded = self.0.next().unwrap_or_default();
        (succeeded, if succeeded { &txn.success } else { &txn.failure })
    }
}

fn evaluate(mvcc: &Mvcc, txn: &Txn, taken: &mut Vec<bool>, looked_at: &mut u64) {
    let succeeded = txn.compare.iter().all(|compare| {
        *looked_at += 1;
        holds(mvcc, compare)
    });
    taken.push(succeeded);
    for op in if succeeded { &txn.success } else { &txn.failure } {
        if let TxnOp::Txn(inner) = op {
            evaluate(mvcc, inner, taken, looked_at);
        }
    }
}

/// Runs a transaction that may write. Nothing is changed when it is refused.
pub(crate) fn run(
    mvcc: &mut Mvcc,
    leases: &mut Leases,
    txn: &Txn,
    record: bool,
) -> Result<(TxnOutcome, Vec<super::super::types::Event>), StoreError> {
    let (taken, ranges) = Path::evaluate(mvcc, txn);
    // A condition is a read of its own to etcd.
    mvcc.counts.add(Counts { ranges, ..Counts::default() });
    let path = || Path(taken.clone().into_iter());
    // In etcd's order (`applyTxn`): all puts, then all ranges.
    check(txn, &mut path(), &mut |op| match op {
        TxnOp::Put(put) => check_inner_put(mvcc, leases, put),
        _ => Ok(()),
    })?;
    check(txn, &mut path(), &mut |op| match op {
        TxnOp::Range(query) => check_inner_range(mvcc, query),
        _ => Ok(()),
    })?;
    let mut writer = Writer::new(mvcc, leases, record);
    let mut outcome = execute(&mut writer, txn, &mut Path(taken.into_iter()))?;
    outcome.revision = writer.revision();
    Ok((outcome, writer.finish()))
}

/// Runs a transaction of which [`is_read_only`] holds. Gives how many reads it took, too.
pub(crate) fn read(mvcc: &Mvcc, txn: &Txn) -> Result<(TxnOutcome, u64), StoreError> {
    let (taken, looked_at) = Path::evaluate(mvcc, txn);
    let (succeeded, ops) = Path(taken.into_iter()).branch(txn);
    let revision = mvcc.revision();
    let responses = ops
        .iter()
        .filter_map(|op| match op {
            TxnOp::Range(query) => Some(
                check_inner_range(mvcc, query)
                    .and_then(|()| range::range(query, mvcc, revision))
                    .map(OpOutcome::Range),
            ),
            _ => None,
        })
        .collect::<Result<Vec<_>, _>>()?;
    let ranges = looked_at + responses.len() as u64;
    Ok((TxnOutcome { revision, succeeded, responses }, ranges))
}

/// Whether a transaction only reads, whichever branch it takes. One with a nested transaction
/// counts as writing, as in etcd (`IsTxnReadonly`).
pub(crate) fn is_read_only(txn: &Txn) -> bool {
    txn.success.iter().chain(&txn.failure).all(|op| matches!(op, TxnOp::Range(_)))
}

/// Whether a transaction puts anything in any branch: what a store without space refuses.
pub(crate) fn puts_anything(txn: &Txn) -> bool {
    txn.success.iter().chain(&txn.failure).any(|op| match op {
        TxnOp::Put(_) => true,
        TxnOp::Txn(inner) => puts_anything(inner),
        TxnOp::Range(_) | TxnOp::Delete(_) => false,
    })
}

/// Whether `put` can be made: its lease exists, and its key does if it keeps value or lease.
pub(crate) fn check_put(mvcc: &Mvcc, leases: &Leases, put: &Put) -> Result<(), StoreError> {
    check_lease(leases, put)?;
    check_key(mvcc, put)
}

/// As [`check_put`]; inside a transaction etcd looks for the key first (`checkRequestPut`).
fn check_inner_put(mvcc: &Mvcc, leases: &Leases, put: &Put) -> Result<(), StoreError> {
    check_key(mvcc, put)?;
    check_lease(leases, put)
}

fn check_lease(leases: &Leases, put: &Put) -> Result<(), StoreError> {
    if put.lease != 0 && leases.get(put.lease).is_none() {
        return Err(StoreError::LeaseNotFound);
    }
    Ok(())
}

fn check_key(mvcc: &Mvcc, put: &Put) -> Result<(), StoreError> {
    let needs_key = put.ignore_value || put.ignore_lease;
    if needs_key && mvcc.history(&put.key).and_then(History::latest).is_none() {
        return Err(StoreError::KeyNotFound);
    }
    Ok(())
}

/// Inside a transaction a negative revision is not "now", as elsewhere, but one before the last
/// compaction (etcd `checkRequestRange`).
fn check_inner_range(mvcc: &Mvcc, query: &RangeQuery) -> Result<(), StoreError> {
    if query.revision > mvcc.revision() {
        Err(StoreError::FutureRevision)
    } else if query.revision != 0 && query.revision < mvcc.compact_revision() {
        Err(StoreError::Compacted)
    } else {
        Ok(())
    }
}

/// Asks `each` about every operation of the branches that are taken, up to the first refusal.
fn check(
    txn: &Txn,
    path: &mut Path,
    each: &mut impl FnMut(&TxnOp) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let (_, ops) = path.branch(txn);
    for op in ops {
        match op {
            TxnOp::Txn(inner) => check(inner, path, each)?,
            op => each(op)?,
        }
    }
    Ok(())
}

/// Runs the branch. A nested answer has revision 0: etcd fills in the outer header only. The only
/// error, a range that is refused, was ruled out by [`check`].
fn execute(writer: &mut Writer<'_>, txn: &Txn, path: &mut Path) -> Result<TxnOutcome, StoreError> {
    let (succeeded, ops) = path.branch(txn);
    let mut responses = Vec::with_capacity(ops.len());
    for op in ops {
        responses.push(match op {
            TxnOp::Range(query) => OpOutcome::Range(writer.range(query)?),
            TxnOp::Put(put) => OpOutcome::Put(writer.put(put)),
            TxnOp::Delete(delete) => OpOutcome::Delete(writer.delete_range(delete)),
            TxnOp::Txn(inner) => OpOutcome::Txn(execute(writer, inner, path)?),
        });
    }
    Ok(TxnOutcome { revision: 0, succeeded, responses })
}

/// Whether all keys of the range meet the condition. When there are none, a condition on the value
/// fails and any other compares with zero.
fn holds(mvcc: &Mvcc, compare: &Compare) -> bool {
    let mut any = false;
    for (_, history) in mvcc.histories(&compare.range, None) {
        if let Some(version) = history.latest() {
            any = true;
            if !meets(compare, version, version.value()) {
                return false;
            }
        }
    }
    let is_value = matches!(compare.target, CompareTarget::Value(_));
    any || (!is_value && meets(compare, &Numbers::default(), &[]))
}

fn meets(compare: &Compare, version: &Numbers, value: &[u8]) -> bool {
    let ordering = match &compare.target {
        CompareTarget::Version(number) => version.number.cmp(number),
        CompareTarget::Create(revision) => version.created.cmp(revision),
        CompareTarget::Mod(revision) => version.modified.cmp(revision),
        CompareTarget::Lease(lease) => version.lease.cmp(lease),
        CompareTarget::Value(wanted) => value.cmp(wanted),
    };
    match compare.op {
        CompareOp::Equal => ordering == Ordering::Equal,
        CompareOp::NotEqual => ordering != Ordering::Equal,
        CompareOp::Greater => ordering == Ordering::Greater,
        CompareOp::Less => ordering == Ordering::Less,
    }
}
