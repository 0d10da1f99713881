//! The operators' lock: a file on the host that says who works on the cluster and until when.
//!
//! Taken with `O_EXCL`; every change of a session that took it looks first whether the file is
//! still its own, so that a run that lost the lock does nothing more. The clock is this host's.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::host::error::HostResult;
use crate::host::files;
use crate::host::protocol::{HostError, HostErrorKind, LockHolder};

/// A renewal is written when this part of the time is over: not with every change.
const RENEW_AFTER_DIVISOR: u64 = 4;

/// The lock of one session; holds none at first.
#[derive(Debug, Default)]
pub(crate) struct LockGuard {
    held: Option<Held>,
}

#[derive(Debug)]
struct Held {
    path: PathBuf,
    holder: LockHolder,
    ttl_ms: u64,
}

impl LockGuard {
    /// Takes the lock, or renews it when `holder.id` has it already.
    pub(crate) fn take(
        &mut self,
        path: &str,
        mut holder: LockHolder,
        ttl_ms: u64,
        steal: bool,
    ) -> HostResult<()> {
        let path = files::absolute(path)?.to_owned();
        if let Some(directory) = path.parent() {
            files::make_private_directory(directory)?;
        }
        let now = files::unix_ms();
        holder.since_unix_ms = now;
        holder.expires_unix_ms = now.saturating_add(ttl_ms);
        // A second pass follows when what stood in the way was cleared or went away by itself.
        for _ in 0..3 {
            match files::create_new(&path, &encode(&holder)) {
                Ok(()) => {
                    self.held = Some(Held { path, holder, ttl_ms });
                    return Ok(());
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(HostError::io("make the lock", path.display(), &error)),
            }
            match read(&path)? {
                Some(other) if other.id == holder.id => {
                    holder.since_unix_ms = other.since_unix_ms;
                    files::replace_private(&path, &encode(&holder))?;
                    self.held = Some(Held { path, holder, ttl_ms });
                    return Ok(());
                }
                Some(other) if !steal && now < other.expires_unix_ms => {
                    return Err(locked(&path, &other));
                }
                Some(other) => set_aside(&path, &other)?,
                None => {}
            }
        }
        Err(HostError::new(
            HostErrorKind::Locked,
            format!("others take the lock {} at the same time", path.display()),
        ))
    }

    /// Before a change: the lock, if this session took one, is still its own. Renews it.
    pub(crate) fn check(&mut self) -> HostResult<()> {
        let Some(held) = &mut self.held else { return Ok(()) };
        match read(&held.path)? {
            Some(found) if found.id == held.holder.id => {}
            Some(other) => return Err(locked(&held.path, &other)),
            None => {
                let path = held.path.display();
                let message = format!("the lock {path} was taken away; nothing more is changed");
                return Err(HostError::new(HostErrorKind::Locked, message));
            }
        }
        let now = files::unix_ms();
        let left = held.holder.expires_unix_ms.saturating_sub(now);
        if left < held.ttl_ms - held.ttl_ms / RENEW_AFTER_DIVISOR {
            held.holder.expires_unix_ms = now.saturating_add(held.ttl_ms);
            files::replace_private(&held.path, &encode(&held.holder))?;
        }
        Ok(())
    }

    /// Gives the lock back if `id` holds it.
    pub(crate) fn give_back(&mut self, path: &str, id: &str) -> HostResult<()> {
        let path = files::absolute(path)?;
        if self.held.as_ref().is_some_and(|held| held.path == path && held.holder.id == id) {
            self.held = None;
        }
        match read(path)? {
            Some(holder) if holder.id == id => set_aside(path, &holder),
            _ => Ok(()),
        }
    }
}

fn encode(holder: &LockHolder) -> Vec<u8> {
    serde_json::to_vec_pretty(holder).unwrap_or_default()
}

/// Who holds the lock; `None` when nobody does. A file that is not understood counts as held, by
/// nobody known, until a person looks or breaks it.
fn read(path: &Path) -> HostResult<Option<LockHolder>> {
    match fs::read(path) {
        Ok(text) => Ok(Some(serde_json::from_slice(&text).unwrap_or_else(|_| LockHolder {
            owner: "somebody unknown (the file is damaged)".to_owned(),
            expires_unix_ms: u64::MAX,
            ..LockHolder::default()
        }))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(HostError::io("read the lock", path.display(), &error)),
    }
}

/// Takes the file of `expected` away, and only that: it is renamed first and looked at again, so
/// that of two who clear an old lock none removes the other's new one.
fn set_aside(path: &Path, expected: &LockHolder) -> HostResult<()> {
    let aside = files::temporary_beside(path)?;
    match fs::rename(path, &aside) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(HostError::io("clear the lock", path.display(), &error)),
    }
    let moved = read(&aside)?;
    if moved.as_ref().is_some_and(|holder| holder.id != expected.id) {
        // Another's new lock: put it back, unless a third has taken the place meanwhile.
        let _ = fs::hard_link(&aside, path);
    }
    fs::remove_file(&aside).map_err(|error| HostError::io("remove", aside.display(), &error))
}

fn locked(path: &Path, holder: &LockHolder) -> HostError {
    let when = |unix_ms: u64| {
        let since = std::time::UNIX_EPOCH.checked_add(std::time::Duration::from_millis(unix_ms));
        since.map_or_else(
            || "?".to_owned(),
            |time| humantime::format_rfc3339_seconds(time).to_string(),
        )
    };
    let (path, owner) = (path.display(), &holder.owner);
    let message = if holder.since_unix_ms == 0 {
        format!("the lock {path} is held by {owner}")
    } else {
        let (since, until) = (when(holder.since_unix_ms), when(holder.expires_unix_ms));
        let seconds = files::unix_ms().saturating_sub(holder.since_unix_ms) / 1000;
        let age = humantime::format_duration(std::time::Duration::from_secs(seconds));
        let purpose = &holder.purpose;
        format!(
            "the lock {path} is held by {owner} for `{purpose}` since {since} ({age} ago), until \
             {until} unless renewed"
        )
    };
    HostError::new(HostErrorKind::Locked, message)
        .hint("wait until that run has ended; if you know that it is dead, use --break-lock")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holder(id: &str) -> LockHolder {
        LockHolder {
            id: id.to_owned(),
            owner: format!("{id}@laptop pid 1"),
            purpose: "up".to_owned(),
            ..LockHolder::default()
        }
    }

    #[test]
    fn the_second_is_refused_and_told_who_the_first_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run/lock");
        let path = path.to_str().unwrap();
        let (mut ada, mut bob) = (LockGuard::default(), LockGuard::default());
        ada.take(path, holder("ada"), 60_000, false).unwrap();
        let error = bob.take(path, holder("bob"), 60_000, false).unwrap_err();
        assert_eq!(error.kind, HostErrorKind::Locked);
        assert!(error.message.contains("ada@laptop pid 1 for `up` since 2"), "{error}");
        ada.check().unwrap();
        ada.take(path, holder("ada"), 60_000, false).unwrap();
        bob.give_back(path, "bob").unwrap();
        ada.give_back(path, "ada").unwrap();
        bob.take(path, holder("bob"), 60_000, false).unwrap();
    }

    #[test]
    fn who_lost_the_lock_changes_nothing_more() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let text = path.to_str().unwrap();
        let (mut ada, mut bob) = (LockGuard::default(), LockGuard::default());
        ada.take(text, holder("ada"), 60_000, false).unwrap();
        bob.take(text, holder("bob"), 60_000, true).unwrap();
        assert_eq!(ada.check().unwrap_err().kind, HostErrorKind::Locked);
        std::fs::remove_file(&path).unwrap();
        assert_eq!(bob.check().unwrap_err().kind, HostErrorKind::Locked);
    }

    #[test]
    fn an_old_lock_is_taken_over_and_a_damaged_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let text = path.to_str().unwrap();
        let (mut ada, mut bob) = (LockGuard::default(), LockGuard::default());
        ada.take(text, holder("ada"), 0, false).unwrap();
        bob.take(text, holder("bob"), 60_000, false).unwrap();
        std::fs::write(&path, "{").unwrap();
        assert!(ada.take(text, holder("ada"), 60_000, false).is_err());
        ada.take(text, holder("ada"), 60_000, true).unwrap();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "no temporary file is left");
    }

    #[test]
    fn of_many_at_once_one_has_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock").to_str().unwrap().to_owned();
        let winners: usize = std::thread::scope(|scope| {
            let tries: Vec<_> = (0..16)
                .map(|n| {
                    let path = path.clone();
                    scope.spawn(move || {
                        let mine = holder(&n.to_string());
                        LockGuard::default().take(&path, mine, 60_000, false).is_ok()
                    })
                })
                .collect();
            tries.into_iter().map(|t| usize::from(t.join().unwrap())).sum()
        });
        assert_eq!(winners, 1);
    }
}
