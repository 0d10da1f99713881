//! Files of this machine that are too long for a message: read piece by piece while they are sent,
//! so that no file is ever held in memory.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use tokio::task::JoinHandle;

use crate::host::files::PART_ENDING;
use crate::host::protocol::{Change, FileContent, HostError, Request};
use crate::limits::PART_BYTES_MAX;

/// Changes that are sent together, or one that is sent in parts.
pub(super) enum Run {
    /// Each fits in a message.
    Together(Vec<Change>),
    /// It does not.
    Upload(Upload),
}

/// `changes` in order, with the long ones by themselves.
pub(super) fn runs(changes: Vec<Change>) -> Vec<Run> {
    let mut runs = Vec::new();
    for change in changes {
        match Upload::of(change) {
            Ok(upload) => runs.push(Run::Upload(upload)),
            Err(change) => match runs.last_mut() {
                Some(Run::Together(together)) => together.push(*change),
                _ => runs.push(Run::Together(vec![*change])),
            },
        }
    }
    runs
}

/// A long file on its way.
pub(super) struct Upload {
    /// The file here.
    from: String,
    size: u64,
    /// Where it grows there.
    grows: String,
    /// What gives it its place.
    last: Change,
}

impl Upload {
    fn of(mut change: Change) -> Result<Self, Box<Change>> {
        if let Change::PutFile { path, content, .. } = &mut change
            && let FileContent::Local { path: from, sha256, size } = content
        {
            let grows = format!("{path}{PART_ENDING}");
            let (from, size) = (from.clone(), *size);
            *content = FileContent::CopyOf { path: grows.clone(), sha256: sha256.clone() };
            return Ok(Self { from, size, grows, last: change });
        }
        Err(Box::new(change))
    }

    /// The file's parts in order.
    pub(super) async fn parts(&self) -> Result<Parts, HostError> {
        let from = self.from.clone();
        let opened = tokio::task::spawn_blocking(move || File::open(from)).await;
        let opened = opened.unwrap_or_else(|error| Err(io::Error::other(error)));
        let file = opened.map_err(|error| HostError::io("read", &self.from, &error))?;
        let (from, grows) = (self.from.clone(), self.grows.clone());
        let mut parts =
            Parts { file: Arc::new(file), from, grows, size: self.size, offset: 0, ahead: None };
        parts.read_on();
        Ok(parts)
    }

    /// What follows the last part: the file takes its place if its hash is right, and the grown one
    /// goes.
    pub(super) fn finish(self) -> Vec<Change> {
        vec![self.last, Change::Remove { path: self.grows }]
    }
}

/// A part on its way: the message, and the bytes that follow it.
pub(super) struct Part {
    pub(super) request: Request,
    pub(super) bytes: Vec<u8>,
}

/// The parts of a file. One is read while the one before is sent.
pub(super) struct Parts {
    file: Arc<File>,
    from: String,
    grows: String,
    size: u64,
    /// Where the part that is read ahead begins.
    offset: u64,
    ahead: Option<JoinHandle<io::Result<Vec<u8>>>>,
}

impl Parts {
    fn read_on(&mut self) {
        let (file, offset) = (Arc::clone(&self.file), self.offset);
        let left = usize::try_from(self.size.saturating_sub(offset)).unwrap_or(usize::MAX);
        self.ahead = Some(tokio::task::spawn_blocking(move || {
            let mut bytes = vec![0; left.min(PART_BYTES_MAX)];
            file.read_exact_at(&mut bytes, offset).map(|()| bytes)
        }));
    }

    /// The next part; `None` after the last one. An empty file has one part.
    pub(super) async fn next(&mut self) -> Result<Option<Part>, HostError> {
        let Some(ahead) = self.ahead.take() else { return Ok(None) };
        let read = ahead.await.unwrap_or_else(|error| Err(io::Error::other(error)));
        let bytes = read.map_err(|error| HostError::io("read", &self.from, &error))?;
        let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        let request = Request::Part { path: self.grows.clone(), offset: self.offset, length };
        self.offset += u64::from(length);
        if self.offset < self.size {
            self.read_on();
        }
        Ok(Some(Part { request, bytes }))
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn put(content: FileContent) -> Change {
        Change::PutFile {
            path: "/x".to_owned(),
            content,
            mode: 0o755,
            owner: None,
            group: None,
            backup: false,
            validate: Vec::new(),
        }
    }

    #[tokio::test]
    async fn a_long_file_goes_in_parts_and_in_its_turn() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("long");
        let content: Vec<u8> = (0..PART_BYTES_MAX + 10).map(|n| n.to_le_bytes()[0]).collect();
        std::fs::write(&path, &content).unwrap();
        let local = FileContent::Local {
            path: path.to_str().unwrap().to_owned(),
            sha256: "ab".to_owned(),
            size: content.len() as u64,
        };
        let short = || put(FileContent::Bytes(Bytes::new()));
        let mut runs = runs(vec![short(), short(), put(local), short()]).into_iter();
        assert!(matches!(runs.next(), Some(Run::Together(changes)) if changes.len() == 2));
        let Some(Run::Upload(upload)) = runs.next() else { panic!("no upload") };
        let (mut parts, mut sent) = (upload.parts().await.unwrap(), Vec::new());
        while let Some(part) = parts.next().await.unwrap() {
            let Request::Part { path, offset, length } = &part.request else { panic!("no part") };
            assert_eq!((path.as_str(), *offset), ("/x.k3sup-part", sent.len() as u64));
            assert_eq!(*length as usize, part.bytes.len());
            sent.extend_from_slice(&part.bytes);
        }
        assert_eq!(sent, content);
        let last = upload.finish();
        assert!(
            matches!(&last[0], Change::PutFile { content: FileContent::CopyOf { path, .. }, .. }
            if path == "/x.k3sup-part")
        );
        assert!(matches!(&last[1], Change::Remove { path } if path == "/x.k3sup-part"));
        assert!(matches!(runs.next(), Some(Run::Together(changes)) if changes.len() == 1));
    }
}
