//! A disk in memory that records what is asked of it, so that its power can be cut at any point.

use std::collections::BTreeMap;
use std::io::{self, IoSlice};
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;
use rand::RngExt as _;
use rand::rngs::StdRng;

use crate::store::wal::disk::{Disk, DiskFile};
use crate::store::wal::format::SECTOR;

/// What was asked. Files are known by a number, as by an inode.
#[derive(Clone, Debug)]
pub(super) enum Op {
    Create { file: usize, name: String, bytes: usize },
    Write { file: usize, offset: usize, data: Vec<u8> },
    Sync { file: usize },
    Rename { from: String, to: String },
    Remove { name: String },
    SyncDir,
}

#[derive(Default)]
struct Inner {
    ops: Vec<Op>,
    names: BTreeMap<String, usize>,
    files: Vec<Vec<u8>>,
    /// How many more operations succeed, by the kind of operation that then fails.
    fault: Option<Fault>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FaultAt {
    Create,
    Write,
    Sync,
}

#[derive(Clone, Copy, Debug)]
struct Fault {
    at: FaultAt,
    after: usize,
    kind: io::ErrorKind,
}

#[derive(Clone, Default)]
pub(super) struct MemDisk(Arc<Mutex<Inner>>);

impl MemDisk {
    /// A disk with these files, as if they had always been there.
    pub(super) fn with(files: BTreeMap<String, Vec<u8>>) -> Self {
        let mut inner = Inner::default();
        for (name, content) in files {
            inner.names.insert(name, inner.files.len());
            inner.files.push(content);
        }
        Self(Arc::new(Mutex::new(inner)))
    }

    /// The disk as the kernel shows it after `ops`, none of it lost: a process was killed, not the
    /// machine. What was not synced still is not.
    pub(super) fn after(ops: &[Op]) -> Self {
        let mut inner = Inner { ops: ops.to_vec(), ..Inner::default() };
        for op in ops {
            match op {
                Op::Create { bytes, .. } => inner.files.push(vec![0; *bytes]),
                Op::Write { file, offset, data } => {
                    inner.files[*file][*offset..offset + data.len()].copy_from_slice(data);
                }
                _ => {}
            }
            change_names(&mut inner.names, op);
        }
        Self(Arc::new(Mutex::new(inner)))
    }

    /// What is there now, durable or not.
    pub(super) fn files(&self) -> BTreeMap<String, Vec<u8>> {
        let inner = self.0.lock();
        inner.names.iter().map(|(name, file)| (name.clone(), inner.files[*file].clone())).collect()
    }

    /// How many operations were recorded.
    pub(super) fn len(&self) -> usize {
        self.0.lock().ops.len()
    }

    pub(super) fn ops(&self) -> Vec<Op> {
        self.0.lock().ops.clone()
    }

    /// Makes the operation `at` fail after `after` more of its kind succeeded.
    pub(super) fn fail(&self, at: FaultAt, after: usize, kind: io::ErrorKind) {
        self.0.lock().fault = Some(Fault { at, after, kind });
    }

    /// Makes everything work again.
    pub(super) fn mend(&self) {
        self.0.lock().fault = None;
    }

    fn check(inner: &mut Inner, at: FaultAt) -> io::Result<()> {
        match &mut inner.fault {
            Some(fault) if fault.at == at && fault.after == 0 => Err(fault.kind.into()),
            Some(fault) if fault.at == at => {
                fault.after -= 1;
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

impl Disk for MemDisk {
    fn path(&self) -> &Path {
        Path::new("/mem")
    }

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.0.lock().names.keys().cloned().collect())
    }

    fn create(&self, name: &str, bytes: u64) -> io::Result<Arc<dyn DiskFile>> {
        let mut inner = self.0.lock();
        Self::check(&mut inner, FaultAt::Create)?;
        if inner.names.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let (file, bytes) = (inner.files.len(), usize::try_from(bytes).unwrap());
        inner.files.push(vec![0; bytes]);
        inner.names.insert(name.to_owned(), file);
        inner.ops.push(Op::Create { file, name: name.to_owned(), bytes });
        Ok(Arc::new(MemFile { disk: self.clone(), file }))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let file = *self.0.lock().names.get(name).ok_or(io::ErrorKind::NotFound)?;
        Ok(Arc::new(MemFile { disk: self.clone(), file }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut inner = self.0.lock();
        let file = inner.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
        inner.names.insert(to.to_owned(), file);
        inner.ops.push(Op::Rename { from: from.to_owned(), to: to.to_owned() });
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut inner = self.0.lock();
        inner.names.remove(name).ok_or(io::ErrorKind::NotFound)?;
        inner.ops.push(Op::Remove { name: name.to_owned() });
        Ok(())
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.0.lock().ops.push(Op::SyncDir);
        Ok(())
    }
}

struct MemFile {
    disk: MemDisk,
    file: usize,
}

impl DiskFile for MemFile {
    fn size(&self) -> io::Result<u64> {
        Ok(self.disk.0.lock().files[self.file].len() as u64)
    }

    fn write_at(&self, parts: &[IoSlice<'_>], offset: u64) -> io::Result<()> {
        let data: Vec<u8> = parts.iter().flat_map(|part| part.iter().copied()).collect();
        let offset = usize::try_from(offset).unwrap();
        let mut inner = self.disk.0.lock();
        MemDisk::check(&mut inner, FaultAt::Write)?;
        inner.files[self.file][offset..offset + data.len()].copy_from_slice(&data);
        inner.ops.push(Op::Write { file: self.file, offset, data });
        Ok(())
    }

    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<()> {
        let offset = usize::try_from(offset).unwrap();
        let inner = self.disk.0.lock();
        let bytes = inner.files[self.file].get(offset..offset + into.len());
        into.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut inner = self.disk.0.lock();
        MemDisk::check(&mut inner, FaultAt::Sync)?;
        inner.ops.push(Op::Sync { file: self.file });
        Ok(())
    }

    fn sync_all(&self) -> io::Result<()> {
        self.sync()
    }
}

/// What a disk may hold after its power was cut after `ops`: all that was synced, and of the rest
/// an arbitrary choice of sectors and of the first directory changes.
pub(super) fn image(start: &BTreeMap<String, Vec<u8>>, ops: &[Op], rng: &mut StdRng) -> MemDisk {
    let mut files: Vec<Vec<u8>> = Vec::new();
    let mut names = BTreeMap::new();
    for (name, content) in start {
        names.insert(name.clone(), files.len());
        files.push(content.clone());
    }
    let mut loose_writes: Vec<(usize, usize, &[u8])> = Vec::new();
    let mut loose_names: Vec<&Op> = Vec::new();
    for op in ops {
        match op {
            Op::Create { file, bytes, .. } => {
                assert_eq!(*file, files.len());
                files.push(vec![0; *bytes]);
                loose_names.push(op);
            }
            Op::Write { file, offset, data } => loose_writes.push((*file, *offset, data)),
            Op::Sync { file } => {
                for (of, offset, data) in &loose_writes {
                    if of == file {
                        files[*of][*offset..offset + data.len()].copy_from_slice(data);
                    }
                }
                loose_writes.retain(|(of, ..)| of != file);
            }
            Op::Rename { .. } | Op::Remove { .. } => loose_names.push(op),
            Op::SyncDir => {
                loose_names.drain(..).for_each(|op| change_names(&mut names, op));
            }
        }
    }
    let kept = rng.random_range(0..=loose_names.len());
    loose_names.drain(..kept).for_each(|op| change_names(&mut names, op));
    let keep_percent = [0, 10, 50, 90, 100][rng.random_range(0..5)];
    for (file, offset, data) in loose_writes {
        let mut at = 0;
        while at < data.len() {
            let end = (at + SECTOR - (offset + at) % SECTOR).min(data.len());
            if rng.random_range(0..100) < keep_percent {
                files[file][offset + at..offset + end].copy_from_slice(&data[at..end]);
            }
            at = end;
        }
    }
    MemDisk::with(names.into_iter().map(|(name, file)| (name, files[file].clone())).collect())
}

fn change_names(names: &mut BTreeMap<String, usize>, op: &Op) {
    match op {
        Op::Create { file, name, .. } => drop(names.insert(name.clone(), *file)),
        Op::Rename { from, to } => {
            if let Some(file) = names.remove(from) {
                names.insert(to.clone(), file);
            }
        }
        Op::Remove { name } => drop(names.remove(name)),
        _ => {}
    }
}
