//! A member's data made anew, while no member runs: what `--cluster-reset` does, from a snapshot file
//! or from the data that a lost quorum left behind.
//!
//! [`load`] reads the state, the caller says what has to be different in it, [`write()`] makes the data
//! of a member of the new cluster in a directory of its own. Nothing here moves or removes what
//! was there before.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;

use super::config::peer_addresses;
use super::entry;
use super::log::vote_bytes;
use super::machine::Beside;
use super::snapfile;
use super::snapshot::{SnapshotStore, name};
use super::types::{MemberNode, Membership, Payload, StoredMembership, Vote};
use crate::cluster::restore::LogEnd;
use crate::store::codec;
use crate::store::snapshot::SnapshotReader;
use crate::store::state::State;
use crate::store::types::{ClusterId, Command, MemberId, MemberRecord, Revision};
use crate::store::wal::{Wal, WalOptions};

/// How many bytes of the log are read at once.
const READ_BYTES: usize = 8 * 1024 * 1024;

/// Where a state is read from.
#[derive(Clone, Copy, Debug)]
pub enum Source<'a> {
    /// An open snapshot file, and its path for messages; all of it is verified.
    Snapshot(&'a File, &'a Path),
    /// The store's directory of a member of this cluster that does not run: its newest snapshot and
    /// every entry of its log. An entry may not have been committed: whoever wrote it was told
    /// nothing, so that it may count; one that was committed is lost for nobody.
    Data(&'a Path, ClusterId),
}

/// A state that was read.
#[derive(Debug)]
pub struct Loaded {
    /// The state.
    pub state: Arc<State>,
    /// The cluster it is of; 0 when that is not known.
    pub cluster: ClusterId,
    /// The highest term that is known there.
    pub term: u64,
}

/// Reads a state. Blocks on the disk.
///
/// # Errors
/// What is read is damaged, or the log does not reach back to the snapshot.
pub fn load(source: Source<'_>) -> io::Result<Loaded> {
    match source {
        Source::Snapshot(file, path) => {
            let state = Arc::new(State::new());
            let reader = SnapshotReader::over(file, path)?;
            let (cluster, term) = (reader.info().header.cluster_id, reader.info().header.term);
            snapfile::read(reader, &state)?;
            Ok(Loaded { state, cluster, term })
        }
        Source::Data(dir, cluster) => load_data(dir, cluster),
    }
}

fn load_data(dir: &Path, cluster: ClusterId) -> io::Result<Loaded> {
    let state = Arc::new(State::new());
    let snapshot = SnapshotStore::open(&dir.join("snap"), cluster)?.newest_path();
    let mut next = 0;
    let mut term = 0;
    if let Some(path) = &snapshot {
        snapfile::read(SnapshotReader::open(path)?, &state)?;
        let (index, applied_term) = state.applied();
        (next, term) = (index + 1, applied_term);
    }
    let (wal, recovered) = Wal::open(&dir.join("wal"), WalOptions::default())?;
    if let Some(vote) = &recovered.vote {
        term = term.max(super::log::vote_of(vote)?.leader_id.term);
    }
    let end = recovered.last_index.map_or(0, |last| last + 1);
    if end > next && recovered.first_index > next {
        let why = format!(
            "the log begins at entry {}, but the newest snapshot ends before entry {next}",
            recovered.first_index
        );
        return Err(io::Error::new(io::ErrorKind::InvalidData, why));
    }
    while next < end {
        for (index, bytes) in wal.read(next..end, READ_BYTES)? {
            replay(&state, index, bytes)?;
            next = index + 1;
        }
    }
    wal.close()?;
    term = term.max(state.applied().1);
    Ok(Loaded { state, cluster, term })
}

/// How far the log in `dir` goes; `None` without one. It is copied into `scratch` first: its member may
/// run, and is not disturbed. Blocks on the disk.
pub fn log_end(dir: &Path, scratch: &Path) -> io::Result<Option<LogEnd>> {
    let wal = dir.join("wal");
    if !wal.is_dir() {
        return Ok(None);
    }
    let copy = tempfile::Builder::new().prefix(".log-").tempdir_in(scratch)?;
    for entry in std::fs::read_dir(&wal)? {
        let entry = entry?;
        let name = entry.file_name();
        if Path::new(&name).extension().is_some_and(|extension| extension == "wal") {
            std::fs::copy(entry.path(), copy.path().join(name))?;
        }
    }
    let (wal, recovered) = Wal::open(copy.path(), WalOptions::default())?;
    let end = match recovered.last_index {
        Some(index) => {
            let last = wal.read(index..index + 1, READ_BYTES)?.pop();
            last.map(|(index, bytes)| entry::decode(index, bytes))
                .transpose()?
                .map(|last| last.log_id)
        }
        // All entries are in the snapshot.
        None => recovered.purged.as_deref().map(super::log::purged_of).transpose()?,
    };
    Ok(Some(end.map_or_else(LogEnd::default, |last| LogEnd {
        term: last.leader_id.term,
        index: last.index,
    })))
}

/// Applies an entry, as the state machine would.
fn replay(state: &State, index: u64, bytes: bytes::Bytes) -> io::Result<()> {
    let entry = entry::decode(index, bytes)?;
    let term = entry.log_id.leader_id.term;
    match entry.payload {
        Payload::Blank => state.advance(index, term, None),
        Payload::Membership(membership) => {
            let mut beside = Beside::of(state)?.unwrap_or_default();
            beside.change(entry.log_id, membership);
            state.advance(index, term, Some(beside.encode()?));
        }
        Payload::Normal(proposal) => {
            let command = codec::decode(proposal.0).map_err(|error| {
                let why = format!("log entry {index} cannot be applied: {error}");
                io::Error::new(io::ErrorKind::InvalidData, why)
            })?;
            // What the state answers was for whoever proposed it.
            drop(state.apply(index, term, command));
        }
    }
    Ok(())
}

/// Writes the data of `own`, one of the `members` of a new cluster, into `dir`, which must be empty or missing:
/// `loaded` with all members replaced by `members`, and `changes` made. What is written for one member is what is
/// written for the others, but for the vote. Durable afterwards. Gives the revision.
///
/// # Errors
/// It cannot be written, or a change is refused.
pub fn write(
    loaded: &Loaded,
    dir: &Path,
    cluster: ClusterId,
    members: &[MemberRecord],
    own: MemberId,
    changes: Vec<Command>,
) -> io::Result<Revision> {
    let Loaded { state, term, .. } = loaded;
    let term = (*term).max(1);
    let (mut index, _) = state.applied();
    let gone = state.members().into_iter().map(|member| Command::MemberDelete { id: member.id });
    let alarms = state.alarms().into_iter().map(|(member, kind)| Command::Alarm {
        active: false,
        member,
        kind,
    });
    let come = members.iter().cloned().map(Command::MemberPut);
    let commands: Vec<Command> = gone.chain(alarms).chain(come).chain(changes).collect();
    for command in commands {
        index += 1;
        state.apply(index, term, command).map_err(io::Error::other)?;
    }
    index += 1;
    let beside = only(state, members, entry::log_id(term, index))?;
    state.advance(index, term, Some(beside.encode()?));

    let snap = dir.join("snap");
    crate::pki::files::private_directory(dir)?;
    crate::pki::files::private_directory(&snap)?;
    let path = snap.join(name(Some(entry::log_id(term, index))));
    let info = snapfile::write(&path, cluster, state.export())?;
    // A log without entries whose vote is of the snapshot's term: elections go on from there.
    let (wal, _) = Wal::open(&dir.join("wal"), WalOptions::default())?;
    let (done, durable) = std::sync::mpsc::channel();
    let told = Box::new(move |result| drop(done.send(result)));
    wal.save_vote(vote_bytes(&Vote::new(term, own))?, told)?;
    durable.recv().map_err(io::Error::other)??;
    wal.close()?;
    Ok(info.header.revision)
}

/// A membership of these voters; whoever was a member before never is one again under that number.
fn only(
    state: &State,
    members: &[MemberRecord],
    log_id: super::types::LogId,
) -> io::Result<Beside> {
    let before = Beside::of(state)?.unwrap_or_default();
    let node = |member: &MemberRecord| {
        let addresses = peer_addresses(&member.peer_urls).map_err(io::Error::other)?;
        Ok((member.id, MemberNode { addresses, name: member.name.clone(), promote: false }))
    };
    let nodes = members.iter().map(node).collect::<io::Result<BTreeMap<_, _>>>()?;
    let voters: BTreeSet<MemberId> = nodes.keys().copied().collect();
    let known = before.membership.membership().nodes().map(|(id, _)| *id);
    let gone: BTreeSet<MemberId> = known.filter(|id| !voters.contains(id)).collect();
    let membership = Membership::new(vec![voters], nodes)
        .map_err(|error| io::Error::other(error.to_string()))?;
    Ok(Beside {
        membership: StoredMembership::new(Some(log_id), membership),
        removed: before.removed.union(&gone).copied().collect(),
    })
}
