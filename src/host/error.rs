//! From an operating system's error to a [`HostError`]: kind, what with which path, and a hint.

use std::io;

use rustix::io::Errno;

use crate::host::protocol::{HostError, HostErrorKind};

/// What every instruction gives on failure.
pub(crate) type HostResult<T> = Result<T, HostError>;

impl HostError {
    /// An error without a hint.
    pub fn new(kind: HostErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), hint: None }
    }

    /// Anything that has no kind of its own.
    pub fn other(message: impl Into<String>) -> Self {
        Self::new(HostErrorKind::Other, message)
    }

    /// Adds advice.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// `error` met while doing `what` (for example `write`) to `path`.
    pub fn io(what: &str, path: impl std::fmt::Display, error: &io::Error) -> Self {
        let (kind, reason, hint) = explain(error);
        let reason = reason.map_or_else(|| error.to_string(), str::to_owned);
        Self {
            kind,
            message: format!("cannot {what} {path}: {reason}"),
            hint: hint.map(str::to_owned),
        }
    }
}

/// Kind, plain reason and hint for an operating system's error.
fn explain(error: &io::Error) -> (HostErrorKind, Option<&'static str>, Option<&'static str>) {
    match error.kind() {
        io::ErrorKind::NotFound => (HostErrorKind::NotFound, Some("it does not exist"), None),
        io::ErrorKind::PermissionDenied => (
            HostErrorKind::Permission,
            Some("permission denied"),
            Some("log in as a user who may, or set become: true"),
        ),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => (
            HostErrorKind::DiskFull,
            Some("no space left"),
            Some("free space (or inodes) on that file system, then run again"),
        ),
        io::ErrorKind::ReadOnlyFilesystem => (
            HostErrorKind::ReadOnly,
            Some("the file system is read-only"),
            Some("look in the kernel's log for why, mount it read-write, then run again"),
        ),
        io::ErrorKind::TimedOut => (HostErrorKind::Timeout, Some("it took too long"), None),
        io::ErrorKind::NotADirectory => {
            (HostErrorKind::Other, Some("a part of the path is not a directory"), None)
        }
        io::ErrorKind::IsADirectory => (HostErrorKind::Other, Some("it is a directory"), None),
        _ if error.raw_os_error() == Some(Errno::LOOP.raw_os_error()) => {
            (HostErrorKind::Other, Some("its symbolic links lead in a circle"), None)
        }
        _ => (HostErrorKind::Other, None, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_follow_the_errno() {
        let kind =
            |errno: i32| HostError::io("write", "/x", &io::Error::from_raw_os_error(errno)).kind;
        assert_eq!(kind(28), HostErrorKind::DiskFull); // ENOSPC
        assert_eq!(kind(30), HostErrorKind::ReadOnly); // EROFS
        assert_eq!(kind(13), HostErrorKind::Permission); // EACCES
        assert_eq!(kind(2), HostErrorKind::NotFound); // ENOENT
        let error = HostError::io("write", "/x", &io::Error::from_raw_os_error(28));
        assert_eq!(error.message, "cannot write /x: no space left");
        assert!(error.hint.is_some());
    }
}
