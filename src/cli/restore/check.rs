//! What is checked while everything still runs.

use super::super::{clusters, output};
use super::Verb;
use super::hosts::Servers;
use super::source::Chosen;
use crate::cluster::quorum::quorum;
use crate::cluster::restore::{LogEnd, Seen};
use crate::error::{ExitCode, Failure};
use crate::host::protocol::{Observed, Read};
use crate::node::secrets;
use crate::pki::Token;

/// What a server needs beside the data: log segments are made ahead.
const SPARE_BYTES: u64 = 128 * 1024 * 1024;

/// How many times the size of a snapshot its data may take: it is compressed, and a checkpoint is
/// written beside it.
const GROWTH: u64 = 6;

/// Whether a server has the room.
pub(super) fn room(free: u64, snapshot_bytes: u64) -> Result<(), String> {
    let needed = snapshot_bytes.saturating_mul(GROWTH).saturating_add(SPARE_BYTES);
    if free >= needed {
        return Ok(());
    }
    Err(format!(
        "not enough room: {} are free, {} may be needed",
        output::bytes(free),
        output::bytes(needed)
    ))
}

/// Checks everything; nothing was changed when it refuses. Gives what a person should know.
pub(super) async fn before(
    verb: &Verb<'_>,
    servers: &mut Servers<'_>,
    seen: &[Seen],
    chosen: Option<&Chosen>,
) -> Result<Vec<String>, Failure> {
    let refused = |message: String| {
        Failure::new(ExitCode::Refused, message).hint("nothing was stopped or changed")
    };
    if verb.is_k3s() {
        super::k3s::check(servers, seen)?;
    }
    let mut notes = Vec::new();
    for host in seen {
        match (host.reachable, verb.is_left_out(&host.name)) {
            (false, false) => {
                let halt = crate::cluster::restore::Halt::Unreachable(vec![host.name.clone()]);
                return Err(Verb::halted(&halt, false));
            }
            (true, true) => {
                let message = format!(
                    "{} can be reached: a server that is left out would go on with its old data",
                    host.name
                );
                return Err(refused(message).hint("take --leave-out away, or switch the host off"));
            }
            (false, true) if verb.is_k3s() => notes.push(super::k3s::left_out(&host.name)),
            (false, true) => notes.push(format!(
                "{} is left out: should it come back with old data, it is told so by any restored \
                 server and fences itself",
                host.name
            )),
            (true, false) => {}
        }
    }
    if let Some(chosen) = chosen {
        check_token(verb, chosen)?;
    }
    let bytes = chosen.map_or(0, |chosen| chosen.view.bytes);
    for server in &mut servers.reached {
        let read = Read::Space { path: server.place.layout.data_dir.clone() };
        if let Some(Observed::Space { free_bytes, writable, .. }) =
            server.read(vec![read]).await?.pop()
        {
            let room = writable.and_then(|()| room(free_bytes, bytes));
            room.map_err(|why| refused(format!("{}: {why}", server.name)))?;
        }
    }
    let serving = servers.reached.iter().find_map(|server| {
        let view = server.view.as_ref()?;
        view.leader_id.as_ref().map(|_| view)
    });
    match serving {
        Some(view) => notes.push(format!(
            "the cluster serves at revision {}: what is written until it stops stays in the data that \
             is kept aside",
            view.revision
        )),
        None => notes.push("the cluster does not serve".to_owned()),
    }
    Ok(notes)
}

/// The token must be the one that the snapshot's cluster had.
fn check_token(verb: &Verb<'_>, chosen: &Chosen) -> Result<(), Failure> {
    // What K3s encrypted with its token only K3s reads.
    let is_locked = verb.is_k3s() && !chosen.view.bootstrap_keys.is_empty();
    if chosen.view.token_hash.is_none() && !is_locked {
        return Ok(());
    }
    let wrong = |message: &str| {
        Failure::new(ExitCode::BadInput, message)
            .hint("a snapshot from before a token rotation needs the token of that time: give it as `-e token=…`")
            .hint("nothing was stopped or changed")
    };
    let Some(token) = clusters::known_token(&verb.inventory)? else {
        return Err(wrong("the token of the snapshot's cluster is needed, and none is known here"));
    };
    let token = Token::parse(token.expose())
        .map_err(|error| Failure::new(ExitCode::BadInput, format!("the token: {error}")))?;
    let is_right = match &chosen.view.token_hash {
        Some(hash) => secrets::matches(hash, &token.password),
        None => super::k3s::fits_token(&chosen.view.bootstrap_keys, &token.password),
    };
    if is_right {
        return Ok(());
    }
    Err(wrong("the token is not the one that the cluster had when the snapshot was taken"))
}

/// The server whose log goes furthest, and what is to be said about it.
pub(super) async fn furthest(
    verb: &Verb<'_>,
    servers: &mut Servers<'_>,
    seen: &[Seen],
    from: Option<&str>,
) -> Result<(String, Vec<String>), Failure> {
    let refused = |message: String| {
        Failure::new(ExitCode::Refused, message).hint("nothing was stopped or changed")
    };
    if let Some(view) = servers.reached.iter().find_map(|server| {
        server.view.as_ref().filter(|view| view.leader_id.is_some() && view.ready)
    }) {
        return Err(refused(format!(
            "the cluster has its quorum: {} leads",
            view.leader_id.as_deref().unwrap_or_default()
        ))
        .hint(
            "`k3sup-rs up` brings back what is down; `k3sup-rs restore` goes back to a snapshot",
        ));
    }
    let mut ends: Vec<(LogEnd, String)> = Vec::new();
    for server in &mut servers.reached {
        if verb.is_left_out(&server.name) {
            continue;
        }
        let read = server.place.log_end_read();
        if let Some(Observed::LogEnd(Some(end))) = server.read(vec![read]).await?.pop() {
            ends.push((end, server.name.clone()));
        }
    }
    let data = seen.iter().filter(|host| host.cluster().is_some()).count();
    let members = servers.reached.iter().filter_map(|server| server.view.as_ref());
    let voters = members.map(|view| view.members.len()).max().unwrap_or(seen.len());
    if from.is_none() && seen.iter().all(|host| host.reachable) && data >= quorum(voters) {
        return Err(refused(format!(
            "{data} of {voters} servers can be reached and have their data: that is a quorum"
        ))
        .hint("`k3sup-rs up` starts them; `recover --from SERVER` insists"));
    }
    ends.sort();
    let best = match from {
        Some(from) => ends.iter().find(|(_, name)| name == from),
        None => ends.last(),
    };
    let (end, first) = best.ok_or_else(|| {
        refused("no server that can be reached has a log to recover from".to_owned())
    })?;
    let mut notes: Vec<String> = ends
        .iter()
        .map(|(end, name)| {
            format!("{name}: its log ends with entry {} of term {}", end.index, end.term)
        })
        .collect();
    notes.push(format!(
        "{first} is kept, up to entry {}. What a quorum without it acknowledged later is lost: writes \
         that only the servers that are away know",
        end.index
    ));
    Ok((first.clone(), notes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_without_room_is_refused_with_both_numbers() {
        assert_eq!(room(1 << 40, 1 << 30), Ok(()));
        let refused = room(1 << 28, 1 << 30).unwrap_err();
        assert!(refused.starts_with("not enough room: "), "{refused}");
    }
}
