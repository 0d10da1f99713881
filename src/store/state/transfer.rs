//! The state as a stream of records, out and in, while commands go on being applied.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::RwLockReadGuard;

use super::super::codec::CodecError;
use super::super::mvcc::{Inconsistent, Key, Restore};
use super::super::types::{KeyRange, Revision};
use super::contents::Contents;
use super::dirty::Changes;
use super::pins::Pin;
use super::records::{Header, Piece, Record, parse};
use super::versions::Versions;
use super::{READ_STEP, State};

/// Why records do not make a state.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ImportError {
    /// A record cannot be read.
    #[error("the record {key} cannot be read")]
    Record {
        /// Its key in hexadecimal.
        key: String,
        /// What is wrong with it.
        #[source]
        source: CodecError,
    },
    /// The record of the state as a whole is missing.
    #[error("the header record is missing")]
    NoHeader,
    /// The records contradict each other.
    #[error("the records contradict each other: {0}")]
    Contradiction(String),
}

/// The state was replaced while it was exported: begin again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the state was replaced by a snapshot while it was exported")]
pub struct Replaced;

/// All records of one moment, given while commands are applied on. It holds little memory, and
/// keeps the versions of its moment from being forgotten.
#[derive(Debug)]
pub struct Export {
    state: Arc<State>,
    header: Header,
    generation: u64,
    _pin: Pin,
    ready: VecDeque<Record>,
    next: Next,
}

#[derive(Debug)]
enum Next {
    Key(Key),
    End,
}

impl Export {
    /// Log index and term of the moment.
    pub fn applied(&self) -> (u64, u64) {
        (self.header.applied.index, self.header.applied.term)
    }

    /// What [`State::advance`] had last noted.
    pub fn membership(&self) -> Option<&Bytes> {
        self.header.membership.as_ref()
    }

    /// The revision of the moment.
    pub fn revision(&self) -> Revision {
        self.header.revision
    }

    fn read(&mut self, from: &Key) -> Result<(), Replaced> {
        let state = self.state.clone();
        let contents = state.contents_of(self.generation)?;
        let all = KeyRange { key: Bytes::new(), end: Bytes::from_static(&[0]) };
        for (visited, (key, history)) in contents.mvcc.histories(&all, Some(from)).enumerate() {
            // A key with many versions ends the step early.
            if visited > 0 && self.ready.len() >= READ_STEP {
                self.next = Next::Key(key.clone());
                return Ok(());
            }
            let versions = history.versions().iter();
            let versions = versions.take_while(|version| version.modified <= self.header.revision);
            self.ready.extend(versions.map(Record::version));
        }
        self.next = Next::End;
        Ok(())
    }
}

impl Iterator for Export {
    type Item = Result<Record, Replaced>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(record) = self.ready.pop_front() {
                return Some(Ok(record));
            }
            let Next::Key(from) = std::mem::replace(&mut self.next, Next::End) else { return None };
            if let Err(replaced) = self.read(&from) {
                return Some(Err(replaced));
            }
        }
    }
}

impl State {
    /// The contents, if they are still of this generation.
    pub(super) fn contents_of(
        &self,
        generation: u64,
    ) -> Result<RwLockReadGuard<'_, Contents>, Replaced> {
        let contents = self.contents.read();
        if contents.generation == generation { Ok(contents) } else { Err(Replaced) }
    }

    /// The state as it stands now, record by record, for a snapshot.
    pub fn export(self: &Arc<Self>) -> Export {
        let contents = self.contents.read();
        self.export_of(&contents)
    }

    fn export_of(self: &Arc<Self>, contents: &Contents) -> Export {
        let header = contents.header();
        Export {
            state: self.clone(),
            generation: contents.generation,
            _pin: contents.pins.pin(header.compact_revision),
            ready: contents.small_records().into(),
            header,
            next: Next::Key(Key::new(&[])),
        }
    }

    /// A state from the records (key, value) of an export, in any order.
    pub fn import<K: AsRef<[u8]>>(
        records: impl IntoIterator<Item = (K, Bytes)>,
    ) -> Result<Self, ImportError> {
        Ok(Self::with(Import::of(records).contents()?))
    }

    /// Replaces the whole state by that of an export. Readers see the old or the new one; watchers
    /// go on from where they are, or are told that it is compacted. Changes are marked no more:
    /// a checkpoint has to begin with a full export again.
    pub fn install(&self, import: Import) -> Result<(), ImportError> {
        let fresh = import.contents()?;
        let old = {
            let mut contents = self.contents.write();
            let old = std::mem::replace(&mut *contents, fresh);
            contents.mvcc.counts = old.mvcc.counts;
            contents.lease_counts = old.lease_counts;
            self.hub.reset(contents.mvcc.revision());
            self.show(&contents);
            old
        };
        // Many small pieces of memory: given back while nobody waits for the lock.
        drop(old);
        Ok(())
    }

    /// Marks changes from now on: the state was just imported from the checkpoint that is to be
    /// kept up.
    pub fn track(&self) {
        self.contents.write().track();
    }

    /// About how many bytes [`State::take_dirty`] would give; 0 when changes are not marked.
    pub fn unsaved_bytes(&self) -> u64 {
        self.contents.read().marked_bytes()
    }

    /// The records that changed since the last call, or since marking began. `None` when changes
    /// are not marked, as after [`State::install`]: all are to be written then.
    pub fn take_dirty(self: &Arc<Self>) -> Option<Changes> {
        let mut contents = self.contents.write();
        let (taken, ready) = contents.take_marks()?;
        let (generation, from, to) =
            (contents.generation, taken.revision, contents.mvcc.revision());
        let versions = Versions::after(self.clone(), generation, from, to);
        Some(Changes::of(&contents, from, ready, versions))
    }

    /// All records, for a new checkpoint: from this very moment on changes are marked for
    /// [`State::take_dirty`].
    pub fn take_all(self: &Arc<Self>) -> Changes {
        let mut contents = self.contents.write();
        contents.track();
        let (generation, floor, to) =
            (contents.generation, contents.mvcc.compact_revision(), contents.mvcc.revision());
        let versions = Versions::left(self.clone(), generation, floor, to);
        Changes::of(&contents, floor, contents.small_records(), versions)
    }
}

/// The records of an export, as they come, in any order.
#[derive(Debug)]
pub struct Import(Result<Assembly, ImportError>);

impl Import {
    /// None yet.
    pub fn new() -> Self {
        Self(Ok(Assembly::new()))
    }

    /// All of them at once.
    pub fn of<K: AsRef<[u8]>>(records: impl IntoIterator<Item = (K, Bytes)>) -> Self {
        let mut import = Self::new();
        for (key, value) in records {
            import.add(key.as_ref(), &value);
        }
        import
    }

    /// Takes in one record. What is wrong with it is said in the end.
    pub fn add(&mut self, key: &[u8], value: &Bytes) {
        let Ok(assembly) = &mut self.0 else { return };
        match parse(key, value) {
            Ok(piece) => assembly.add(piece),
            Err(source) => {
                self.0 = Err(ImportError::Record { key: hex::encode(key), source });
            }
        }
    }

    fn contents(self) -> Result<Contents, ImportError> {
        self.0?.contents()
    }
}

impl Default for Import {
    fn default() -> Self {
        Self::new()
    }
}

/// A state that is put together from its pieces, which come in any order.
#[derive(Debug)]
pub(crate) struct Assembly {
    contents: Contents,
    restore: Restore,
    header: Option<Header>,
}

impl Assembly {
    /// Nothing yet.
    pub(crate) fn new() -> Self {
        Self { contents: Contents::new(), restore: Restore::default(), header: None }
    }

    /// Takes in one piece.
    pub(crate) fn add(&mut self, piece: Piece) {
        let contents = &mut self.contents;
        match piece {
            Piece::Header(found) => self.header = Some(found),
            Piece::Version(key, numbers, value) => self.restore.add(&key, numbers, &value),
            Piece::Lease(id, lease) => contents.leases.restore(id, lease),
            Piece::Member(member) => {
                contents.members.insert(member.id, member);
            }
            Piece::Alarm(member, kind) => {
                contents.alarms.insert((member, kind));
            }
            Piece::Auth(auth) => contents.auth = *auth,
            Piece::System(name, value) => {
                contents.system.insert(name, value);
            }
        }
    }

    /// The state, if the pieces make one.
    pub(crate) fn finish(self) -> Result<State, ImportError> {
        self.contents().map(State::with)
    }

    fn contents(self) -> Result<Contents, ImportError> {
        let Self { mut contents, restore, header } = self;
        let header = header.ok_or(ImportError::NoHeader)?;
        contents.applied = header.applied;
        contents.membership = header.membership;
        contents.mvcc = restore
            .finish(header.revision, header.compact_revision, &mut contents.leases)
            .map_err(|error: Inconsistent| ImportError::Contradiction(error.to_string()))?;
        Ok(contents)
    }
}
