//! The fence of this host: read at start, and written when this node learns that its data is of a
//! cluster that another one took the place of.

use std::io;

use super::identity::DataDir;
use super::records::unix_now;
use crate::cluster::fence::{FENCE, Fence, Operation, Stage};
use crate::error::{ExitCode, Failure};
use crate::pki::files;
use crate::store::types::ClusterId;

/// The fence on disk, if there is one.
///
/// # Errors
/// It cannot be read: it counts as closed.
pub fn read(data: &DataDir) -> io::Result<Option<Fence>> {
    let path = data.path().join(FENCE);
    let Some(text) = files::read_private(&path)? else { return Ok(None) };
    serde_json::from_str(&text).map(Some).map_err(|error| {
        io::Error::new(io::ErrorKind::InvalidData, format!("{}: {error}", path.display()))
    })
}

/// Writes the fence; durable.
pub fn write(data: &DataDir, fence: &Fence) -> io::Result<()> {
    files::private_directory(&data.path().join("server"))?;
    let text = serde_json::to_vec_pretty(fence).map_err(io::Error::other)?;
    files::write_private(&data.path().join(FENCE), &text)
}

/// Refuses a start behind a closed fence.
pub fn check(data: &DataDir) -> Result<(), Failure> {
    let path = data.path().join(FENCE);
    let fence = read(data).map_err(|error| {
        Failure::new(ExitCode::Refused, format!("this server is fenced, but by what: {error}"))
            .hint("run the restore again, or `k3sup-rs restore --rollback`")
    })?;
    match fence {
        Some(fence) if fence.is_closed() => Err(Failure::new(
            ExitCode::Refused,
            format!(
                "this server is fenced since {} by {}: {} ({})",
                time(fence.since_unix_s),
                fence.by,
                fence.reason,
                path.display()
            ),
        )
        .hint(format!("from the control machine: {}", fence.advice()))),
        _ => Ok(()),
    }
}

fn time(unix_s: u64) -> String {
    let since = std::time::UNIX_EPOCH.checked_add(std::time::Duration::from_secs(unix_s));
    since.map_or_else(
        || unix_s.to_string(),
        |time| humantime::format_rfc3339_seconds(time).to_string(),
    )
}

/// Fences this server, whose cluster `by` took the place of.
pub fn superseded(data: &DataDir, by: ClusterId) -> io::Result<()> {
    let since_unix_s = unix_now();
    write(
        data,
        &Fence {
            restore_id: format!("{since_unix_s}-superseded"),
            operation: Operation::Superseded,
            stage: Stage::Closed,
            reason: format!(
                "its cluster was restored or reset while it was away, and is now cluster {by:x}; what \
                 it holds is of the past"
            ),
            since_unix_s,
            by: "the node itself".to_owned(),
            ..Fence::default()
        },
    )
}
