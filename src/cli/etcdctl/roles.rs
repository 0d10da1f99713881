//! Roles: `role add|delete|get|list|grant-permission|revoke-permission`.

use bytes::Bytes;
use clap::{Subcommand, ValueEnum};

use super::connection::Connection;
use super::keys::{Keys, behind};
use super::show::Show;
use crate::cli::output;
use crate::error::Failure;
use crate::rpc::client::Client;
use crate::rpc::pb::authpb::Permission;
use crate::rpc::pb::authpb::permission::Type;
use crate::rpc::pb::etcdserverpb::{
    AuthRoleAddRequest, AuthRoleDeleteRequest, AuthRoleGetRequest, AuthRoleGrantPermissionRequest,
    AuthRoleListRequest, AuthRoleRevokePermissionRequest,
};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Add a role
    Add {
        /// Its name
        role: String,
    },
    /// Delete a role
    Delete {
        /// Its name
        role: String,
    },
    /// Print what a role allows
    Get {
        /// Its name
        role: String,
    },
    /// Print the roles
    List,
    /// Let a role read or write keys
    GrantPermission {
        /// The role
        role: String,
        /// What it may do
        #[arg(value_enum, ignore_case = true)]
        permission: Kind,
        #[command(flatten)]
        keys: Keys,
    },
    /// Take keys from a role, as they were granted
    RevokePermission {
        /// The role
        role: String,
        #[command(flatten)]
        keys: Keys,
    },
}

/// What a role may do with keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Kind {
    /// Read them
    Read,
    /// Write them
    Write,
    /// Both
    Readwrite,
}

impl From<Kind> for Type {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Read => Self::Read,
            Kind::Write => Self::Write,
            Kind::Readwrite => Self::Readwrite,
        }
    }
}

pub(super) async fn run(
    connection: &Connection,
    show: Show,
    command: Command,
) -> Result<(), Failure> {
    let mut client = connection.client()?;
    let auth = &mut client.auth;
    match command {
        Command::Add { role } => {
            let words = format!("Role {role} created");
            let request = AuthRoleAddRequest { name: role };
            show.words(&connection.answer(auth.role_add(request)).await?, &words)
        }
        Command::Delete { role } => {
            let words = format!("Role {role} deleted");
            let request = AuthRoleDeleteRequest { role };
            show.words(&connection.answer(auth.role_delete(request)).await?, &words)
        }
        Command::Get { role } => get(connection, &mut client, show, role).await,
        Command::List => {
            let answer = connection.answer(auth.role_list(AuthRoleListRequest {})).await?;
            show.names(&answer, &answer.roles)
        }
        Command::GrantPermission { role, permission, keys } => {
            let words = format!("Role {role} updated");
            let (key, range_end) = granted(keys);
            let perm = Permission { perm_type: Type::from(permission).into(), key, range_end };
            let request = AuthRoleGrantPermissionRequest { name: role, perm: Some(perm) };
            show.words(&connection.answer(auth.role_grant_permission(request)).await?, &words)
        }
        Command::RevokePermission { role, keys } => {
            let given = keys.key().to_owned();
            let (key, range_end) = granted(keys);
            let words = revoked(&role, &given, &range_end);
            let request = AuthRoleRevokePermissionRequest { role, key, range_end };
            show.words(&connection.answer(auth.role_revoke_permission(request)).await?, &words)
        }
    }
}

/// Prints what `role` allows.
pub(super) async fn get(
    connection: &Connection,
    client: &mut Client,
    show: Show,
    role: String,
) -> Result<(), Failure> {
    let head = format!("Role {role}");
    let answer = connection.answer(client.auth.role_get(AuthRoleGetRequest { role })).await?;
    if show.formal(&answer)? {
        return Ok(());
    }
    output::line(&head)?;
    for (title, kind) in [("KV Read:", Type::Read), ("KV Write:", Type::Write)] {
        output::line(title)?;
        let allowing = |permission: &&Permission| {
            permission.perm_type() == kind || permission.perm_type() == Type::Readwrite
        };
        let mut lines = answer.perm.iter().filter(allowing).map(range);
        lines.try_for_each(|line| output::write_all(&line))?;
    }
    Ok(())
}

/// Keys as permissions have them: the first one is never the empty one.
fn granted(keys: Keys) -> (Bytes, Bytes) {
    let (key, end) = keys.range();
    if key.is_empty() { (Bytes::from_static(b"\0"), Bytes::new()) } else { (key, end) }
}

/// The line of a permission's keys, whatever their bytes are.
fn range(permission: &Permission) -> Vec<u8> {
    let (key, end): (&[u8], &[u8]) = (&permission.key, &permission.range_end);
    let mut line = vec![b"\t".as_slice()];
    match end {
        [] => line.push(key),
        [0] => line.extend([b"[", key, b", <open ended>"]),
        _ => line.extend([b"[", key, b", ", end, b")"]),
    }
    if !end.is_empty() && behind(key) == end {
        line.extend([b" (prefix ", key, b")"]);
    }
    line.push(b"\n");
    line.concat()
}

/// What is said of keys that were taken from a role.
fn revoked(role: &str, key: &str, end: &[u8]) -> String {
    match end {
        [] => format!("Permission of key {key} is revoked from role {role}"),
        [0] => format!("Permission of range [{key}, <open ended> is revoked from role {role}"),
        _ => {
            let end = String::from_utf8_lossy(end);
            format!("Permission of range [{key}, {end}) is revoked from role {role}")
        }
    }
}
