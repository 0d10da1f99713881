//! The hot commands: put, delete and transactions with all they may hold.

use super::super::types::{
    Compare, CompareOp, CompareTarget, DeleteRange, KeyRange, Put, RangeQuery, SortOrder,
    SortTarget, Txn, TxnOp,
};
use super::CodecError;
use super::wire::{Reader, Writer};

/// Deepest nesting of transactions. A level takes at least one operation, and
/// [`crate::limits::TXN_OPS_MAX`] is the sum over the levels.
const DEPTH_MAX: usize = crate::limits::TXN_OPS_MAX;

const PREV_KV: u8 = 1;
const IGNORE_VALUE: u8 = 1 << 1;
const IGNORE_LEASE: u8 = 1 << 2;
const HAS_LEASE: u8 = 1 << 3;

const KEYS_ONLY: u8 = 1;
const COUNT_ONLY: u8 = 1 << 1;

fn flag(set: bool, bit: u8) -> u8 {
    if set { bit } else { 0 }
}

pub(super) fn write_put(out: &mut Writer, put: &Put) {
    out.byte(
        flag(put.prev_kv, PREV_KV)
            | flag(put.ignore_value, IGNORE_VALUE)
            | flag(put.ignore_lease, IGNORE_LEASE)
            | flag(put.lease != 0, HAS_LEASE),
    );
    out.bytes(&put.key);
    out.bytes(&put.value);
    if put.lease != 0 {
        out.signed(put.lease);
    }
}

pub(super) fn read_put(from: &mut Reader) -> Result<Put, CodecError> {
    let flags = from.byte()?;
    if flags >= HAS_LEASE << 1 {
        return Err(CodecError::Tag(flags));
    }
    Ok(Put {
        key: from.bytes()?,
        value: from.bytes()?,
        lease: if flags & HAS_LEASE == 0 { 0 } else { from.signed()? },
        prev_kv: flags & PREV_KV != 0,
        ignore_value: flags & IGNORE_VALUE != 0,
        ignore_lease: flags & IGNORE_LEASE != 0,
    })
}

pub(super) fn write_delete(out: &mut Writer, delete: &DeleteRange) {
    out.byte(flag(delete.prev_kv, PREV_KV));
    write_range(out, &delete.range);
}

pub(super) fn read_delete(from: &mut Reader) -> Result<DeleteRange, CodecError> {
    let flags = from.byte()?;
    if flags > PREV_KV {
        return Err(CodecError::Tag(flags));
    }
    Ok(DeleteRange { range: read_range(from)?, prev_kv: flags & PREV_KV != 0 })
}

pub(super) fn write_txn(out: &mut Writer, txn: &Txn) {
    out.len(txn.compare.len());
    for compare in &txn.compare {
        write_compare(out, compare);
    }
    for ops in [&txn.success, &txn.failure] {
        out.len(ops.len());
        for op in ops {
            write_op(out, op);
        }
    }
}

pub(super) fn read_txn(from: &mut Reader, depth: usize) -> Result<Txn, CodecError> {
    if depth >= DEPTH_MAX {
        return Err(CodecError::Depth);
    }
    let count = from.len()?;
    let compare = (0..count).map(|_| read_compare(from)).collect::<Result<_, _>>()?;
    let mut read_ops = || -> Result<Vec<TxnOp>, CodecError> {
        let count = from.len()?;
        (0..count).map(|_| read_op(from, depth)).collect()
    };
    Ok(Txn { compare, success: read_ops()?, failure: read_ops()? })
}

pub(super) fn txn_size_hint(txn: &Txn) -> usize {
    const FIXED: usize = 32;
    let compares = txn.compare.iter().map(|compare| FIXED + compare.range.key.len());
    let ops = txn.success.iter().chain(&txn.failure).map(|op| match op {
        TxnOp::Put(put) => FIXED + put.key.len() + put.value.len(),
        TxnOp::Delete(delete) => FIXED + delete.range.key.len(),
        TxnOp::Range(query) => FIXED + query.range.key.len(),
        TxnOp::Txn(inner) => txn_size_hint(inner),
    });
    FIXED + compares.sum::<usize>() + ops.sum::<usize>()
}

fn write_op(out: &mut Writer, op: &TxnOp) {
    match op {
        TxnOp::Range(query) => {
            out.byte(0);
            write_query(out, query);
        }
        TxnOp::Put(put) => {
            out.byte(1);
            write_put(out, put);
        }
        TxnOp::Delete(delete) => {
            out.byte(2);
            write_delete(out, delete);
        }
        TxnOp::Txn(txn) => {
            out.byte(3);
            write_txn(out, txn);
        }
    }
}

fn read_op(from: &mut Reader, depth: usize) -> Result<TxnOp, CodecError> {
    Ok(match from.byte()? {
        0 => TxnOp::Range(read_query(from)?),
        1 => TxnOp::Put(read_put(from)?),
        2 => TxnOp::Delete(read_delete(from)?),
        3 => TxnOp::Txn(read_txn(from, depth + 1)?),
        other => return Err(CodecError::Tag(other)),
    })
}

fn write_range(out: &mut Writer, range: &KeyRange) {
    out.bytes(&range.key);
    out.bytes(&range.end);
}

fn read_range(from: &mut Reader) -> Result<KeyRange, CodecError> {
    Ok(KeyRange { key: from.bytes()?, end: from.bytes()? })
}

fn write_query(out: &mut Writer, query: &RangeQuery) {
    write_range(out, &query.range);
    out.byte(flag(query.keys_only, KEYS_ONLY) | flag(query.count_only, COUNT_ONLY));
    out.byte(match query.order {
        SortOrder::None => 0,
        SortOrder::Ascend => 1,
        SortOrder::Descend => 2,
    });
    out.byte(match query.target {
        SortTarget::Key => 0,
        SortTarget::Version => 1,
        SortTarget::Create => 2,
        SortTarget::Mod => 3,
        SortTarget::Value => 4,
    });
    for number in [
        query.limit,
        query.revision,
        query.min_mod_revision,
        query.max_mod_revision,
        query.min_create_revision,
        query.max_create_revision,
    ] {
        out.signed(number);
    }
}

fn read_query(from: &mut Reader) -> Result<RangeQuery, CodecError> {
    let range = read_range(from)?;
    let flags = from.byte()?;
    if flags >= COUNT_ONLY << 1 {
        return Err(CodecError::Tag(flags));
    }
    Ok(RangeQuery {
        range,
        keys_only: flags & KEYS_ONLY != 0,
        count_only: flags & COUNT_ONLY != 0,
        order: match from.byte()? {
            0 => SortOrder::None,
            1 => SortOrder::Ascend,
            2 => SortOrder::Descend,
            other => return Err(CodecError::Tag(other)),
        },
        target: match from.byte()? {
            0 => SortTarget::Key,
            1 => SortTarget::Version,
            2 => SortTarget::Create,
            3 => SortTarget::Mod,
            4 => SortTarget::Value,
            other => return Err(CodecError::Tag(other)),
        },
        limit: from.signed()?,
        revision: from.signed()?,
        min_mod_revision: from.signed()?,
        max_mod_revision: from.signed()?,
        min_create_revision: from.signed()?,
        max_create_revision: from.signed()?,
    })
}

fn write_compare(out: &mut Writer, compare: &Compare) {
    write_range(out, &compare.range);
    out.byte(match compare.op {
        CompareOp::Equal => 0,
        CompareOp::Greater => 1,
        CompareOp::Less => 2,
        CompareOp::NotEqual => 3,
    });
    let (tag, number) = match &compare.target {
        CompareTarget::Version(number) => (0, *number),
        CompareTarget::Create(number) => (1, *number),
        CompareTarget::Mod(number) => (2, *number),
        CompareTarget::Lease(number) => (3, *number),
        CompareTarget::Value(value) => {
            out.byte(4);
            out.bytes(value);
            return;
        }
    };
    out.byte(tag);
    out.signed(number);
}

fn read_compare(from: &mut Reader) -> Result<Compare, CodecError> {
    Ok(Compare {
        range: read_range(from)?,
        op: match from.byte()? {
            0 => CompareOp::Equal,
            1 => CompareOp::Greater,
            2 => CompareOp::Less,
            3 => CompareOp::NotEqual,
            other => return Err(CodecError::Tag(other)),
        },
        target: match from.byte()? {
            0 => CompareTarget::Version(from.signed()?),
            1 => CompareTarget::Create(from.signed()?),
            2 => CompareTarget::Mod(from.signed()?),
            3 => CompareTarget::Lease(from.signed()?),
            4 => CompareTarget::Value(from.bytes()?),
            other => return Err(CodecError::Tag(other)),
        },
    })
}
