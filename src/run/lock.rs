//! One operator at a time: the lock is a file on the servers, taken before the first change.

use sha2::{Digest, Sha256};

use super::context::Context;
use super::host::HostRun;
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

/// The locks that a run holds.
#[derive(Debug, Default)]
pub(super) struct Lock {
    /// Hosts by their place in the run.
    held: Vec<usize>,
    taken: bool,
}

impl Lock {
    /// Takes the lock, unless it is held already: on all servers, in the inventory's order, so that
    /// of two operators one gets the first and the other none. Without servers, on all hosts.
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
        for (place, host) in hosts.iter_mut().enumerate() {
            if !usable(host) || (servers && !is_server(host)) {
                continue;
            }
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
            let message = match answer.map(|mut answers| answers.pop()) {
                Ok(Some(Ok(_))) => {
                    self.held.push(place);
                    continue;
                }
                Ok(Some(Err(error))) if error.kind == HostErrorKind::Locked => {
                    let name = host.name().to_owned();
                    let message = context.masker.text(&error.message);
                    self.give_back(context, hosts).await;
                    return Err(Failure::new(ExitCode::Locked, format!("{name}: {message}")).hint(
                        "wait until that run is over; if it is not running any more, give --break-lock",
                    ));
                }
                Ok(Some(Err(error))) => error.message,
                Ok(None) => "no answer".to_owned(),
                Err(error) => error.to_string(),
            };
            let message =
                format!("{}: cannot take the lock: {}", host.name(), context.masker.text(&message));
            self.give_back(context, hosts).await;
            return Err(Failure::new(ExitCode::HostFailed, message));
        }
        self.taken = true;
        Ok(())
    }

    /// Gives the lock back wherever it is held. A host that is lost meanwhile lets it run out.
    pub(super) async fn give_back(&mut self, context: &Context<'_>, hosts: &mut [HostRun]) {
        self.taken = false;
        for place in std::mem::take(&mut self.held) {
            let Some(host) = hosts.get_mut(place).filter(|host| host.is_connected()) else {
                continue;
            };
            let path = format!("{}{PATH}", host.root());
            let unlock = Change::Unlock { path, id: holder_id(context) };
            let user = host.user(None, None);
            if let Err(error) = host.insist(context, user.as_deref(), vec![unlock]).await {
                context.warn(format!("{}: the lock is left behind: {error}", host.name()));
            }
        }
    }
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
    let Some(other) = holder(host) else { return false };
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
    match process_space() {
        Some(space) => format!("{}@{space}", context.id),
        None => context.id.clone(),
    }
}

/// The person, the machine and the process.
fn owner() -> String {
    let person = ["SUDO_USER", "USER", "LOGNAME"]
        .iter()
        .find_map(|name| std::env::var(name).ok())
        .unwrap_or_else(|| "somebody".to_owned());
    let machine = rustix::system::uname().nodename().to_string_lossy().into_owned();
    format!("{person}@{machine} pid {}", std::process::id())
}
