//! One operator at a time: the lock is a file on the servers, taken before the first change.

use futures::future::join_all;
use sha2::{Digest, Sha256};

use super::context::Context;
use super::host::HostRun;
use super::operator::owner;
use crate::cluster::layout::Role;
use crate::error::{ExitCode, Failure};
use crate::host::protocol::{Change, HostErrorKind, LockHolder, Observed, Read};

/// How long a lock lasts when its holder is heard of no more, in milliseconds: longer than the
/// longest step, which is a start that waits for a quorum.
const TTL_MS: u64 = 10 * 60 * 1000;

/// Where the lock is on a host, under its root.
const PATH: &str = "/run/k3sup-rs/lock";

/// Longest lock file that is looked at, in bytes.
const HOLDER_BYTES_MAX: u64 = 4096;

/// The lock of a verb that is made of several runs, on one host.
pub struct VerbLock;

impl VerbLock {
    /// What is read to know who holds it.
    pub fn read(root: &str) -> Read {
        Read::File { path: format!("{root}{PATH}"), bytes_max: HOLDER_BYTES_MAX }
    }

    /// Takes it for the run `id`. `held` is what [`Self::read`] answered: the lock of a process of this
    /// machine that is gone is taken over.
    pub fn take(root: &str, id: &str, purpose: &str, held: Option<&[u8]>, steal: bool) -> Change {
        let other = held.and_then(|bytes| serde_json::from_slice::<LockHolder>(bytes).ok());
        Change::Lock {
            path: format!("{root}{PATH}"),
            holder: LockHolder {
                id: named(id),
                owner: owner(),
                purpose: purpose.to_owned(),
                ..LockHolder::default()
            },
            ttl_ms: TTL_MS,
            steal: steal || other.is_some_and(|other| is_left_behind(&other)),
        }
    }

    /// Gives it back.
    pub fn give_back(root: &str, id: &str) -> Change {
        Change::Unlock { path: format!("{root}{PATH}"), id: named(id) }
    }

    /// The person, the machine and the process that a lock says.
    pub fn owner() -> String {
        owner()
    }
}

/// The locks that a run holds.
#[derive(Debug, Default)]
pub(super) struct Lock {
    /// Hosts by their place in the run.
    held: Vec<usize>,
    taken: bool,
}

impl Lock {
    /// Takes the lock, unless it is held already: on all servers, or without servers on all hosts. The
    /// first in the inventory's order decides, so that of two operators one gets it and the other
    /// none; then the others all at once.
    pub(super) async fn take(
        &mut self,
        context: &Context<'_>,
        hosts: &mut [HostRun],
    ) -> Result<(), Failure> {
        if self.taken {
            return Ok(());
        }
        let is_server = |host: &HostRun| host.fleet.role == Some(Role::Server);
        let usable = |host: &HostRun| host.is_connected() && !host.out;
        let servers = hosts.iter().any(|host| is_server(host) && usable(host));
        let wanted = |host: &HostRun| usable(host) && (!servers || is_server(host));
        let mut wanted = hosts.iter_mut().enumerate().filter(|(_, host)| wanted(host));
        let mut failure = None;
        if let Some((place, first)) = wanted.next() {
            match lock(context, first).await {
                Ok(()) => self.held.push(place),
                Err(error) => failure = Some(error),
            }
        }
        if failure.is_none() {
            let others = wanted.map(async |(place, host)| (place, lock(context, host).await));
            for (place, locked) in join_all(others).await {
                match locked {
                    Ok(()) => self.held.push(place),
                    Err(error) => failure = failure.or(Some(error)),
                }
            }
        }
        if let Some(failure) = failure {
            self.give_back(context, hosts).await;
            return Err(failure);
        }
        self.taken = true;
        Ok(())
    }

    /// Gives the lock back wherever it is held. A host that is lost meanwhile lets it run out.
    pub(super) async fn give_back(&mut self, context: &Context<'_>, hosts: &mut [HostRun]) {
        self.taken = false;
        let held = std::mem::take(&mut self.held);
        let holds = |place: usize, host: &HostRun| held.contains(&place) && host.is_connected();
        let hosts = hosts.iter_mut().enumerate().filter(|(place, host)| holds(*place, host));
        join_all(hosts.map(async |(_, host)| {
            let path = format!("{}{PATH}", host.root());
            let unlock = Change::Unlock { path, id: holder_id(context) };
            let user = host.user(None, None);
            if let Err(error) = host.insist(context, user.as_deref(), vec![unlock]).await {
                context.warn(format!("{}: the lock is left behind: {error}", host.name()));
            }
        }))
        .await;
    }
}

/// Takes the lock of one host.
async fn lock(context: &Context<'_>, host: &mut HostRun) -> Result<(), Failure> {
    let change = Change::Lock {
        path: format!("{}{PATH}", host.root()),
        holder: LockHolder {
            id: holder_id(context),
            owner: owner(),
            purpose: context.purpose.clone(),
            ..LockHolder::default()
        },
        ttl_ms: TTL_MS,
        steal: context.options.break_lock || left_behind(host),
    };
    if let Change::Lock { steal: true, .. } = &change
        && let Some(other) = holder(host)
    {
        context.warn(format!(
            "{}: the lock of {} ({}) is taken over",
            host.name(),
            other.owner,
            other.purpose
        ));
    }
    let user = host.user(None, None);
    let answer = host.insist(context, user.as_deref(), vec![change]).await;
    let name = host.name();
    let message = match answer.map(|mut answers| answers.pop()) {
        Ok(Some(Ok(_))) => return Ok(()),
        Ok(Some(Err(error))) if error.kind == HostErrorKind::Locked => {
            let message = context.masker.text(&error.message);
            return Err(Failure::new(ExitCode::Locked, format!("{name}: {message}")).hint(
                "wait until that run is over; if it is not running any more, give --break-lock",
            ));
        }
        Ok(Some(Err(error))) => error.message,
        Ok(None) => "no answer".to_owned(),
        Err(error) => error.to_string(),
    };
    let message = format!("{name}: cannot take the lock: {}", context.masker.text(&message));
    Err(Failure::new(ExitCode::HostFailed, message))
}

/// What is read to know who holds the lock.
pub(super) fn read(host: &HostRun) -> Read {
    Read::File { path: format!("{}{PATH}", host.root()), bytes_max: HOLDER_BYTES_MAX }
}

fn holder(host: &HostRun) -> Option<LockHolder> {
    match host.world.peek(&read(host)) {
        Some(Observed::File(Some(bytes))) => serde_json::from_slice(bytes).ok(),
        _ => None,
    }
}

/// Whether the lock is one of a run whose process was on this machine and is gone: nobody needs to
/// wait for the end of its time.
fn left_behind(host: &HostRun) -> bool {
    holder(host).is_some_and(|other| is_left_behind(&other))
}

fn is_left_behind(other: &LockHolder) -> bool {
    let (Some((_, place)), Some((_, pid))) =
        (other.id.rsplit_once('@'), other.owner.rsplit_once(" pid "))
    else {
        return false;
    };
    let pid = pid.parse().ok().and_then(rustix::process::Pid::from_raw);
    let gone = |pid| rustix::process::test_kill_process(pid) == Err(rustix::io::Errno::SRCH);
    process_space().is_some_and(|own| own == place) && pid.is_some_and(gone)
}

/// A name for the space in which process numbers mean the same: this boot of this kernel, and its
/// process namespace. `None` when the system does not tell.
fn process_space() -> Option<String> {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let namespace = std::fs::read_link("/proc/self/ns/pid").ok()?;
    let name = format!("{}{}", boot.trim(), namespace.display());
    Some(hex::encode(Sha256::digest(name)).split_at(16).0.to_owned())
}

/// The lock's name for this run.
fn holder_id(context: &Context<'_>) -> String {
    named(&context.id)
}

fn named(id: &str) -> String {
    match process_space() {
        Some(space) => format!("{id}@{space}"),
        None => id.to_owned(),
    }
}
