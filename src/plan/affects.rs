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
        | Change::Link { path, .. }
        | Change::SetAttributes { path, .. } => touches(path, read, false),
        Change::MakeDirectory { path, .. } => makes_directory(path, read),
        Change::UnpackSnapshot { to, .. } => touches(to, read, false),
        Change::Remove { path } => touches(path, read, true),
        Change::Move { from, to } => touches(from, read, true) || touches(to, read, true),
        // A service may write what it likes, as a command may, and goes on doing so.
        Change::Service { .. } => moves_by_itself(read) || is_of_files(read),
        Change::ReloadUnits => matches!(read, Read::Service { .. }),
        Change::AddUser { .. } | Change::RemoveUser { .. } => {
            matches!(read, Read::User { .. } | Read::Path { .. } | Read::Command(_))
        }
        // K3s writes it to its disk and to the store.
        Change::RotateK3sToken { .. } => {
            matches!(read, Read::K3sTokenHash { .. } | Read::Command(_)) || is_of_files(read)
        }
        Change::RemoveMember { .. }
        | Change::RemoveK3sMember { .. }
        | Change::HandOver { .. }
        | Change::ForgetNode { .. }
        | Change::HandOverK3s { .. } => matches!(
            read,
            Read::Cluster { .. }
                | Read::Ready { .. }
                | Read::K3sCluster { .. }
                | Read::K3sReady { .. }
                | Read::Command(_)
        ),
    }
}

/// Whether what `read` looks at changes while a service comes up or goes down.
pub fn moves_by_itself(read: &Read) -> bool {
    matches!(
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
            | Read::K3sTokenHash { .. }
            | Read::Command(_)
    )
}

/// Whether `read` looks at files.
fn is_of_files(read: &Read) -> bool {
    matches!(
        read,
        Read::Path { .. }
            | Read::File { .. }
            | Read::FilePart { .. }
            | Read::Directory { .. }
            | Read::Snapshot { .. }
            | Read::Snapshots { .. }
    )
}

/// Whether `read` looks at `path`, at a directory above it, or, with `below`, at what is in it.
fn touches(path: &str, read: &Read, below: bool) -> bool {
    match read {
        Read::Path { path: seen, follow, .. } => {
            *follow || seen == path || is_parent(seen, path) || (below && is_parent(path, seen))
        }
        Read::File { path: seen, .. }
        | Read::FilePart { path: seen, .. }
        | Read::Snapshot { path: seen } => seen == path || (below && is_parent(path, seen)),
        Read::Directory { path: seen } | Read::Snapshots { dir: seen, .. } => {
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
