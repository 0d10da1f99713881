//! One operator at a time: the lock is a file on the servers, taken before the first change.

use super::context::Context;
use super::host::HostRun;
use crate::cluster::layout::Role;
use crate::error::{ExitCode, Failure};
use crate::host::protocol::{Change, HostErrorKind, LockHolder};

/// How long a lock lasts when its holder is heard of no more, in milliseconds: longer than the
/// longest step, which is a start that waits for a quorum.
const TTL_MS: u64 = 10 * 60 * 1000;

/// Where the lock is on a host, under its root.
const PATH: &str = "/run/k3sup-rs/lock";

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
                    id: context.id.clone(),
                    owner: owner(),
                    purpose: context.purpose.clone(),
                    ..LockHolder::default()
                },
                ttl_ms: TTL_MS,
                steal: context.options.break_lock,
            };
            let user = host.user(None, None);
            let answer = host.change(context, user.as_deref(), vec![change]).await;
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
            let unlock = Change::Unlock { path, id: context.id.clone() };
            let user = host.user(None, None);
            if let Err(error) = host.change(context, user.as_deref(), vec![unlock]).await {
                context.warn(format!("{}: the lock is left behind: {error}", host.name()));
            }
        }
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
