//! What a transaction changes: entries of the index, and blocks that are added. It reads what is there and
//! changes nothing itself.
//!
//! A record whose key is after all that a block ever held goes into a new block; versions do, since their keys
//! are their revisions. Any other is an entry of its own. So a key is in one place at most, and
//! blocks follow each other in the order of their keys.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::block::{Builder, Entry};
use super::digest::{Directory, seal, split, unseal};
use super::{Change, CheckpointError, Mark, damaged};

/// Key of the directory.
pub(super) const DIRECTORY: &[u8] = b"d";
/// First byte of the keys of blocks; their first record's follows.
pub(super) const BLOCK: u8 = b'b';
/// First byte of the keys of records that are entries of their own.
pub(super) const RECORD: u8 = b'r';

/// An entry of the index, key and sealed value.
pub(super) type Pair = (Vec<u8>, Vec<u8>);

/// The index and the blocks as they stand.
pub(super) trait Present {
    /// The entry of this key.
    fn entry(&self, key: &[u8]) -> Result<Option<Vec<u8>>, CheckpointError>;

    /// The last entry whose key is `key` or before.
    fn entry_before(&self, key: &[u8]) -> Result<Option<Pair>, CheckpointError>;

    /// Bytes of the blocks.
    fn content(&self, offset: u64, len: u64) -> Result<Bytes, CheckpointError>;
}

/// What is to be written, the blocks before the entries.
#[derive(Debug, Default)]
pub(super) struct Changes {
    /// Added where the blocks ended.
    pub(super) content: Vec<u8>,
    /// Entries written and removed, the directory among them.
    pub(super) entries: Vec<(Vec<u8>, Option<Vec<u8>>)>,
    /// The directory with them.
    pub(super) directory: Directory,
}

/// Changes of records (of several to a key the last counts) as changes of entries and blocks.
pub(super) fn edit(
    present: &dyn Present,
    directory: &Directory,
    changes: &[Change],
    mark: Option<&Mark>,
) -> Result<Changes, CheckpointError> {
    let changes: BTreeMap<&[u8], Option<&Bytes>> =
        changes.iter().map(|(key, value)| (key.as_slice(), value.as_ref())).collect();
    let directory = Directory { mark: mark.cloned(), ..directory.clone() };
    let done = Changes { directory, ..Changes::default() };
    let mut edit = Edit { present, done, builder: None, opened: None };
    for (key, value) in changes {
        edit.change(key, value)?;
    }
    edit.finish()
}

pub(super) fn prefixed(first: u8, key: &[u8]) -> Vec<u8> {
    [&[first], key].concat()
}

struct Edit<'a> {
    present: &'a dyn Present,
    done: Changes,
    /// The block that is being made.
    builder: Option<Builder>,
    /// The block in which the last key was looked for.
    opened: Option<Opened>,
}

/// A block whose records are replaced or deleted.
struct Opened {
    /// Of the index.
    key: Vec<u8>,
    /// Its checksum as it stands there.
    sum: u128,
    entry: Entry,
    /// Number and size of its records.
    numbers: BTreeMap<Bytes, (u32, usize)>,
    is_changed: bool,
}

impl Edit<'_> {
    /// Keys come in order.
    fn change(&mut self, key: &[u8], value: Option<&Bytes>) -> Result<(), CheckpointError> {
        if key > self.done.directory.last.as_slice() {
            if let Some(value) = value {
                self.append(key, value);
            }
            return Ok(());
        }
        let own = prefixed(RECORD, key);
        let old = self.present.entry(&own)?;
        match &old {
            Some(old) => self.forget(key, old)?,
            None => self.kill(key)?,
        }
        match value {
            Some(value) => {
                self.done.directory.add_record(key.len() + value.len());
                self.write(own, value);
            }
            None if old.is_some() => self.done.entries.push((own, None)),
            None => {}
        }
        Ok(())
    }

    /// Adds a record that is nowhere yet, to the block that is being made.
    fn append(&mut self, key: &[u8], value: &[u8]) {
        match &mut self.builder {
            Some(builder) => builder.push(key, value),
            None => self.builder = Some(Builder::new(key, value)),
        }
        let directory = &mut self.done.directory;
        directory.add_record(key.len() + value.len());
        directory.last.clear();
        directory.last.extend_from_slice(key);
        if self.builder.as_ref().is_some_and(Builder::is_full) {
            self.end_block();
        }
    }

    fn end_block(&mut self) {
        let Some(builder) = self.builder.take() else { return };
        let (first, entry, content) = builder.finish(self.done.directory.blocks_end);
        self.done.directory.blocks_end += entry.len;
        self.done.content.extend_from_slice(&content);
        self.write(prefixed(BLOCK, &first), &entry.encode());
    }

    /// Writes an entry that is not there, or that was forgotten.
    fn write(&mut self, key: Vec<u8>, value: &[u8]) {
        let sealed = seal(&key, value);
        let (sum, _) = split(&sealed).unwrap_or_default();
        self.done.directory.add_entry(sum);
        self.done.entries.push((key, Some(sealed)));
    }

    /// Takes the record that is an entry of its own out of the numbers.
    fn forget(&mut self, key: &[u8], old: &[u8]) -> Result<(), CheckpointError> {
        let (sum, value) = split(old).ok_or_else(|| damaged("an entry is too short"))?;
        let directory = &mut self.done.directory;
        directory
            .remove_entry(sum)
            .and_then(|()| directory.remove_record(key.len() + value.len()))
            .ok_or_else(|| damaged("it holds more than it counted"))
    }

    /// Marks the record as dead if a block has it.
    fn kill(&mut self, key: &[u8]) -> Result<(), CheckpointError> {
        let is_here = |opened: &Opened| *key <= *opened.entry.last;
        if !self.opened.as_ref().is_some_and(is_here) {
            self.close()?;
            self.opened = self.open(key)?;
        }
        let Some(opened) = &mut self.opened else { return Ok(()) };
        let Some(&(number, bytes)) = opened.numbers.get(key) else { return Ok(()) };
        if !opened.entry.kill(number, bytes) {
            return Ok(());
        }
        opened.is_changed = true;
        let removed = self.done.directory.remove_record(bytes);
        removed.ok_or_else(|| damaged("it holds more records than it counted"))
    }

    /// The block among whose keys `key` is.
    fn open(&self, key: &[u8]) -> Result<Option<Opened>, CheckpointError> {
        let Some((found, sealed)) = self.present.entry_before(&prefixed(BLOCK, key))? else {
            return Ok(None);
        };
        let Some((&BLOCK, first)) = found.split_first() else { return Ok(None) };
        let (sum, entry) = read_entry(&found, &sealed)?;
        if *key > *entry.last {
            return Ok(None);
        }
        let content = self.present.content(entry.offset, entry.len)?;
        let mut numbers = BTreeMap::new();
        for (number, (key, value)) in (0..).zip(entry.read(first, content)?) {
            let bytes = key.len() + value.len();
            numbers.insert(key, (number, bytes));
        }
        Ok(Some(Opened { key: found, sum, entry, numbers, is_changed: false }))
    }

    /// Writes what became of the block that was opened.
    fn close(&mut self) -> Result<(), CheckpointError> {
        let Some(Opened { key, sum, entry, is_changed: true, .. }) = self.opened.take() else {
            return Ok(());
        };
        let removed = self.done.directory.remove_entry(sum);
        removed.ok_or_else(|| damaged("it holds more entries than it counted"))?;
        if entry.is_dead() {
            self.done.entries.push((key, None));
        } else {
            self.write(key, &entry.encode());
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Changes, CheckpointError> {
        self.close()?;
        self.end_block();
        let directory = seal(DIRECTORY, &self.done.directory.encode());
        self.done.entries.push((DIRECTORY.to_vec(), Some(directory)));
        Ok(self.done)
    }
}

/// The entry of a block and its checksum.
pub(super) fn read_entry(key: &[u8], sealed: &[u8]) -> Result<(u128, Entry), CheckpointError> {
    let (sum, value) =
        unseal(key, sealed).ok_or_else(|| damaged("an entry's checksum is wrong"))?;
    let entry = Entry::decode(value).map_err(|error| damaged(&error.to_string()))?;
    Ok((sum, entry))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::block::records;
    use super::*;

    type State = BTreeMap<Vec<u8>, Bytes>;

    /// An index and blocks in memory.
    #[derive(Default)]
    struct Memory {
        index: BTreeMap<Vec<u8>, Vec<u8>>,
        blocks: Vec<u8>,
        directory: Directory,
    }

    impl Present for Memory {
        fn entry(&self, key: &[u8]) -> Result<Option<Vec<u8>>, CheckpointError> {
            Ok(self.index.get(key).cloned())
        }

        fn entry_before(&self, key: &[u8]) -> Result<Option<Pair>, CheckpointError> {
            let before = self.index.range(..=key.to_vec()).next_back();
            Ok(before.map(|(key, sealed)| (key.clone(), sealed.clone())))
        }

        fn content(&self, offset: u64, len: u64) -> Result<Bytes, CheckpointError> {
            let (from, len) = (usize::try_from(offset).unwrap(), usize::try_from(len).unwrap());
            Ok(Bytes::copy_from_slice(&self.blocks[from..from + len]))
        }
    }

    impl Memory {
        fn apply(&mut self, changes: &[Change], mark: Option<&Mark>) {
            let done = edit(self, &self.directory, changes, mark).unwrap();
            self.blocks.extend_from_slice(&done.content);
            assert_eq!(self.blocks.len() as u64, done.directory.blocks_end);
            for (key, value) in done.entries {
                match value {
                    Some(value) => drop(self.index.insert(key, value)),
                    None => assert!(self.index.remove(&key).is_some(), "removed and not there"),
                }
            }
            self.directory = done.directory;
        }

        /// All records; what the directory says must be true.
        fn state(&self) -> State {
            let mut state = State::new();
            let mut counted = self.directory.uncounted();
            let mut last_block = Vec::new();
            for (key, sealed) in &self.index {
                let Some((first, own)) = key.split_first().filter(|_| key != DIRECTORY) else {
                    continue;
                };
                let found = if *first == RECORD {
                    let (sum, value) = unseal(key, sealed).unwrap();
                    counted.add_entry(sum);
                    vec![(Bytes::copy_from_slice(own), Bytes::copy_from_slice(value))]
                } else {
                    let (sum, entry) = read_entry(key, sealed).unwrap();
                    counted.add_entry(sum);
                    assert!(last_block.as_slice() < own, "blocks follow each other");
                    last_block.clone_from(&entry.last);
                    let content = self.content(entry.offset, entry.len).unwrap();
                    assert!(entry.is_whole(own, &content));
                    let all = (0..).zip(records(content)).filter(|(at, _)| entry.is_live(*at));
                    let live: Vec<_> = all.map(|(_, record)| record.unwrap()).collect();
                    let bytes = live.iter().map(|(key, value)| (key.len() + value.len()) as u64);
                    assert_eq!(bytes.sum::<u64>(), entry.live_bytes);
                    assert!(!live.is_empty(), "a block that is dead goes");
                    live
                };
                for (key, value) in found {
                    counted.add_record(key.len() + value.len());
                    assert_eq!(state.insert(key.to_vec(), value), None, "it is there once");
                }
            }
            assert_eq!(counted, self.directory);
            state
        }
    }

    /// Versions are added at the end and deleted anywhere, other records come and go.
    fn change() -> impl Strategy<Value = (Option<u8>, Option<usize>)> {
        (proptest::option::weighted(0.5, 0u8..30), proptest::option::weighted(0.7, 0usize..20_000))
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

        #[test]
        fn what_is_there_is_what_was_written_last(
            batches in proptest::collection::vec(proptest::collection::vec(change(), 0..25), 1..12),
            picks in proptest::collection::vec(0u8..100, 1..7),
        ) {
            let (mut memory, mut state, mut next) = (Memory::default(), State::new(), 0_u32);
            for (at, batch) in batches.into_iter().enumerate() {
                let mut changes: Vec<Change> = Vec::new();
                for (nth, (own, size)) in batch.into_iter().enumerate() {
                    let key = match (own, size) {
                        (Some(own), _) => vec![own],
                        (None, Some(_)) => {
                            next += 1;
                            [b"v", &next.to_be_bytes()[..]].concat()
                        }
                        (None, None) => {
                            let old = next * u32::from(picks[nth % picks.len()]) / 100;
                            [b"v", &old.to_be_bytes()[..]].concat()
                        }
                    };
                    let value = size.map(|size| Bytes::from(vec![u8::try_from(nth).unwrap(); size]));
                    match &value {
                        Some(value) => drop(state.insert(key.clone(), value.clone())),
                        None => drop(state.remove(&key)),
                    }
                    changes.push((key, value));
                }
                let mark = Mark { index: at as u64, ..Mark::default() };
                memory.apply(&changes, Some(&mark));
                prop_assert_eq!(memory.directory.mark.as_ref(), Some(&mark));
                prop_assert_eq!(&memory.state(), &state);
                let directory = memory.index.get(DIRECTORY).unwrap();
                let (_, kept) = unseal(DIRECTORY, directory).unwrap();
                prop_assert_eq!(Directory::decode(kept), Some(memory.directory.clone()));
            }
        }
    }

    #[test]
    fn versions_are_in_few_blocks_and_a_compaction_rewrites_none() {
        let mut memory = Memory::default();
        let key = |number: u32| [b"v", &number.to_be_bytes()[..]].concat();
        let value = Bytes::from(vec![7; 256]);
        for from in (0..1000).step_by(100) {
            let changes: Vec<Change> =
                (from..from + 100).map(|at| (key(at), Some(value.clone()))).collect();
            memory.apply(&changes, None);
        }
        assert_eq!(memory.directory.entries, 10);
        let before = memory.blocks.len();
        let forgotten: Vec<Change> = (0..950).map(|at| (key(at), None)).collect();
        memory.apply(&forgotten, None);
        assert_eq!((memory.directory.entries, memory.directory.records), (1, 50));
        assert_eq!(memory.blocks.len(), before);
    }

    #[test]
    fn damage_is_noticed_where_it_is_read() {
        let mut memory = Memory::default();
        let record = |key: &str| (key.as_bytes().to_vec(), Some(Bytes::from_static(b"1")));
        memory.apply(&[record("a"), record("b")], None);
        memory.blocks[1] ^= 1;
        let deleted = [(b"a".to_vec(), None)];
        let error = edit(&memory, &memory.directory, &deleted, None).unwrap_err();
        assert_eq!(error, damaged("a block's checksum is wrong"));
        memory.index.values_mut().for_each(|sealed| sealed[20] ^= 1);
        let error = edit(&memory, &memory.directory, &deleted, None).unwrap_err();
        assert_eq!(error, damaged("an entry's checksum is wrong"));
    }
}
