//! A change in words, without secrets.

use crate::host::protocol::{Change, FileContent, PackageAction};

/// What `change` does, in words that fit behind "would".
pub fn describe(change: &Change) -> String {
    match change {
        Change::PutFile { path, content, mode, .. } => {
            let what = match content {
                FileContent::Bytes(bytes) => format!("{} bytes", bytes.len()),
                FileContent::Secret(_) => "a secret".to_owned(),
                FileContent::CopyOf { path, .. } => format!("a copy of {path}"),
                FileContent::Local { path, size, .. } => format!("{path} ({size} bytes)"),
            };
            format!("write {what} to {path} (mode {mode:04o})")
        }
        Change::MakeDirectory { path, mode, .. } => format!("make {path} (mode {mode:04o})"),
        Change::Link { path, target } => format!("link {path} to {target}"),
        Change::SetAttributes { path, .. } => format!("correct mode and owner of {path}"),
        Change::Remove { path } => format!("remove {path}"),
        Change::UnpackSnapshot { path, to } => format!("unpack {path} to {to}"),
        Change::Move { from, to } => format!("move {from} to {to}"),
        Change::Run(command) => {
            format!("run {}", shell_words::join(command.argv.iter().map(String::as_str)))
        }
        Change::Service { name, action, .. } => format!("{} {name}", action.verb()),
        Change::ReloadUnits => "reload the units".to_owned(),
        Change::AddUser { name, .. } => format!("add the user {name}"),
        Change::RemoveUser { name } => format!("remove the user {name}"),
        Change::Packages { names, action: PackageAction::Install, .. } => {
            format!("install {}", names.join(", "))
        }
        Change::Packages { names, action: PackageAction::Remove, .. } => {
            format!("remove the packages {}", names.join(", "))
        }
        Change::RemoveMember { member_id, .. } => format!("remove the member {member_id}"),
        Change::RemoveK3sMember { member, .. } => {
            format!("remove the member {member} and its node")
        }
        Change::ForgetNode { name, .. } => format!("forget the node {name}"),
        Change::HandOver { .. } | Change::HandOverK3s { .. } => "let another lead".to_owned(),
        Change::RotateK3sToken { .. } => "give the cluster another token".to_owned(),
        Change::Lock { path, .. } => format!("take the lock {path}"),
        Change::Unlock { path, .. } => format!("give the lock {path} back"),
    }
}
