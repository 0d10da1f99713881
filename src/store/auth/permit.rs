//! What a caller may do.

use super::{Access, Auth, AuthError, User, ranges};
use crate::store::lease::{Lease, Leases};
use crate::store::types::{AuthChange, Caller, Command, KeyRange, LeaseId, Put, Txn, TxnOp};

impl Auth {
    /// Whether `caller` may have `command` applied. A command of the cluster's own has no caller.
    pub(crate) fn permit(
        &self,
        caller: Option<&Caller>,
        command: &Command,
        leases: &Leases,
    ) -> Result<(), AuthError> {
        if !self.enabled {
            return Ok(());
        }
        match command {
            Command::Put(put) => self.permit_put(caller, put, leases),
            Command::DeleteRange(delete) => {
                self.permit_delete(caller, &delete.range, delete.prev_kv)
            }
            Command::Txn(txn) => self.permit_txn(caller, txn, leases),
            Command::LeaseGrant { .. } => match caller {
                Some(caller) if !caller.user.is_empty() => Ok(()),
                _ => Err(AuthError::UserEmpty),
            },
            // Leases that nobody revokes are ended by the cluster itself.
            Command::LeaseRevoke { id } if caller.is_some() => {
                self.permit_lease(caller, leases.get(*id))
            }
            Command::Auth(AuthChange::Login { .. }) => Ok(()),
            Command::Auth(_) => self.permit_admin(caller),
            _ => Ok(()),
        }
    }

    /// Whether the caller may do what only root may.
    pub(crate) fn permit_admin(&self, caller: Option<&Caller>) -> Result<(), AuthError> {
        if !self.enabled {
            return Ok(());
        }
        let name = caller.map(|caller| caller.user.as_str()).filter(|name| !name.is_empty());
        let user = self.users.get(name.ok_or(AuthError::UserEmpty)?);
        if user.ok_or(AuthError::UserNotFound)?.is_root() { Ok(()) } else { Err(AuthError::Denied) }
    }

    /// Whether the caller may read (or watch) a range.
    pub(crate) fn permit_read(
        &self,
        caller: Option<&Caller>,
        range: &KeyRange,
    ) -> Result<(), AuthError> {
        self.permit_range(caller, range, Access::Read)
    }

    pub(super) fn permit_range(
        &self,
        caller: Option<&Caller>,
        range: &KeyRange,
        access: Access,
    ) -> Result<(), AuthError> {
        if !self.enabled {
            return Ok(());
        }
        let caller = caller.filter(|caller| caller.revision > 0).ok_or(AuthError::UserEmpty)?;
        if caller.revision < self.revision {
            return Err(AuthError::OldRevision);
        }
        let user = self.users.get(&caller.user).ok_or(AuthError::Denied)?;
        let granted = user.is_root() || ranges::cover(self.permissions(user), access, range);
        if granted { Ok(()) } else { Err(AuthError::Denied) }
    }

    fn permissions<'a>(&'a self, user: &'a User) -> impl Iterator<Item = &'a super::Permission> {
        user.roles.iter().filter_map(|role| self.roles.get(role)).flatten()
    }

    fn permit_put(
        &self,
        caller: Option<&Caller>,
        put: &Put,
        leases: &Leases,
    ) -> Result<(), AuthError> {
        let range = KeyRange { key: put.key.clone(), ..KeyRange::default() };
        self.permit_range(caller, &range, Access::Write)?;
        // Who may not end a lease may attach nothing to it either.
        self.permit_lease(caller, leases.get(put.lease))?;
        if put.prev_kv { self.permit_read(caller, &range) } else { Ok(()) }
    }

    fn permit_delete(
        &self,
        caller: Option<&Caller>,
        range: &KeyRange,
        prev_kv: bool,
    ) -> Result<(), AuthError> {
        self.permit_range(caller, range, Access::Write)?;
        if prev_kv { self.permit_read(caller, range) } else { Ok(()) }
    }

    /// Whether the caller may write all keys that are attached to a lease.
    fn permit_lease(
        &self,
        caller: Option<&Caller>,
        lease: Option<&Lease>,
    ) -> Result<(), AuthError> {
        let all = |lease: &Lease| self.permit_keys(caller, lease, Access::Write);
        lease.map_or(Ok(()), all)
    }

    fn permit_keys(
        &self,
        caller: Option<&Caller>,
        lease: &Lease,
        access: Access,
    ) -> Result<(), AuthError> {
        if self.permit_admin(caller).is_ok() {
            return Ok(());
        }
        lease.keys().into_iter().try_for_each(|key| {
            self.permit_range(caller, &KeyRange { key, ..KeyRange::default() }, access)
        })
    }

    /// Whether the caller may renew a lease: who may write all its keys, and any user when it has
    /// none (etcd `server/etcdserver/v3_server.go`, `checkLeaseRenew`).
    pub(crate) fn permit_renewal(
        &self,
        caller: Option<&Caller>,
        leases: &Leases,
        id: LeaseId,
    ) -> Result<(), AuthError> {
        if !self.enabled {
            return Ok(());
        }
        caller.ok_or(AuthError::UserEmpty)?;
        self.permit_lease(caller, leases.get(id))
    }

    /// Whether the caller may see the keys that are attached to a lease.
    pub(crate) fn permit_lease_keys(
        &self,
        caller: Option<&Caller>,
        leases: &Leases,
        id: LeaseId,
    ) -> Result<(), AuthError> {
        let all = |lease: &Lease| self.permit_keys(caller, lease, Access::Read);
        leases.get(id).map_or(Ok(()), all)
    }

    /// Whether the caller may do all that a transaction may do, whichever way it goes.
    pub(crate) fn permit_txn(
        &self,
        caller: Option<&Caller>,
        txn: &Txn,
        leases: &Leases,
    ) -> Result<(), AuthError> {
        for compare in &txn.compare {
            self.permit_read(caller, &compare.range)?;
        }
        txn.success.iter().chain(&txn.failure).try_for_each(|op| match op {
            TxnOp::Range(query) => self.permit_read(caller, &query.range),
            TxnOp::Put(put) => self.permit_put(caller, put, leases),
            TxnOp::Delete(delete) => self.permit_delete(caller, &delete.range, delete.prev_kv),
            TxnOp::Txn(inner) => self.permit_txn(caller, inner, leases),
        })
    }
}
