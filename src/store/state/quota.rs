//! What a command is charged for before it is proposed (etcd `server/storage/quota.go`).

use super::super::types::{Command, Put, Txn, TxnOp};

/// Charged for a put beside its key and value, in bytes.
const PUT_OVERHEAD: u64 = 256;

/// Charged for a lease, in bytes.
const LEASE_OVERHEAD: u64 = 64;

/// The bytes that `command` may add to the store; 0 for a command that is never refused for lack
/// of space.
pub fn cost(command: &Command) -> u64 {
    match command {
        Command::Put(put) => put_cost(put),
        Command::Txn(txn) => txn_cost(txn),
        Command::LeaseGrant { .. } => LEASE_OVERHEAD,
        Command::As { command, .. } => cost(command),
        _ => 0,
    }
}

fn put_cost(put: &Put) -> u64 {
    PUT_OVERHEAD + put.key.len() as u64 + put.value.len() as u64
}

/// That of its dearer branch.
fn txn_cost(txn: &Txn) -> u64 {
    let branch = |ops: &[TxnOp]| -> u64 {
        ops.iter()
            .map(|op| match op {
                TxnOp::Put(put) => put_cost(put),
                TxnOp::Txn(inner) => txn_cost(inner),
                TxnOp::Range(_) | TxnOp::Delete(_) => 0,
            })
            .sum()
    };
    branch(&txn.success).max(branch(&txn.failure))
}
