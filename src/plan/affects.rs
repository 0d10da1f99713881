//! Which observations a change makes stale.

use crate::host::protocol::{Change, Read};

/// Whether the answer to `read` may be another after `change`. Errs on the side of yes.
pub fn affects(change: &Change, read: &Read) -> bool {
    match change {
        Change::Lock { .. } | Change::Unlock { .. } => false,
        // A command may do anything but change what the machine is, and a package brings files,
        // users and services.
        Change::Run(_) | Change::Packages { .. } => !matches!(read, Read::Facts),
        Change::PutFile { path, .. }
        | Change::PutPart { path, .. }
        | Change::Link { path, .. }
        | Change::SetAttributes { path, .. } => touches(path, read, false),
        Change::MakeDirectory { path, .. } => makes_directory(path, read),
        Change::Remove { path } => touches(path, read, true),
        Change::Move { from, to } => touches(from, read, true) || touches(to, read, true),
        Change::Service { .. } => matches!(
            read,
            Read::Service { .. }
                | Read::ServiceLog { .. }
                | Read::Listener { .. }
                | Read::TcpProbe { .. }
                | Read::Disk { .. }
                | Read::Cluster { .. }
                | Read::Ready { .. }
                | Read::K3sDisk { .. }
                | Read::K3sCluster { .. }
                | Read::K3sReady { .. }
                | Read::Command(_)
        ),
        Change::ReloadUnits => matches!(read, Read::Service { .. }),
        Change::AddUser { .. } | Change::RemoveUser { .. } => {
            matches!(read, Read::User { .. } | Read::Path { .. } | Read::Command(_))
        }
        Change::RemoveMember { .. } | Change::RemoveK3sMember { .. } => matches!(
            read,
            Read::Cluster { .. }
                | Read::Ready { .. }
                | Read::K3sCluster { .. }
                | Read::K3sReady { .. }
                | Read::Command(_)
        ),
    }
}

/// Whether `read` looks at `path`, at a directory above it, or, with `below`, at what is in it.
fn touches(path: &str, read: &Read, below: bool) -> bool {
    match read {
        Read::Path { path: seen, follow, .. } => {
            *follow || seen == path || is_parent(seen, path) || (below && is_parent(path, seen))
        }
        Read::File { path: seen, .. } => seen == path || (below && is_parent(path, seen)),
        Read::Directory { path: seen } => {
            seen == path || is_parent(seen, path) || (below && is_parent(path, seen))
        }
        // A unit's file says whether there is such a service.
        Read::Service { name } => path.ends_with(&format!("/{name}.service")),
        Read::Disk { data_dir } | Read::K3sDisk { data_dir } => {
            is_parent(data_dir, path) || (below && is_parent(path, data_dir))
        }
        Read::Command(_) => true,
        _ => false,
    }
}

fn makes_directory(path: &str, read: &Read) -> bool {
    match read {
        Read::Path { path: seen, follow, .. } => *follow || seen == path || is_parent(seen, path),
        Read::Directory { path: seen } => seen == path || is_parent(seen, path),
        Read::Command(_) => true,
        _ => false,
    }
}

/// Whether `path` is under `parent`.
fn is_parent(parent: &str, path: &str) -> bool {
    path.strip_prefix(parent.trim_end_matches('/')).is_some_and(|rest| rest.starts_with('/'))
}
