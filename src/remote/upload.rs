//! Files of this machine that are too long for a message: read piece by piece while they are sent,
//! so that no file is ever held in memory.

use std::io;

use bytes::{Bytes, BytesMut};
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncSeekExt};

use crate::host::protocol::{Change, FileContent, HostError};

/// Length of a part, in bytes: long enough that round trips do not matter.
const PART_BYTES: usize = 8 * 1024 * 1024;

/// What the growing file is called, beside its place.
const PART_ENDING: &str = ".k3sup-part";

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

/// How long a part is, in bytes; 0 of anything else.
pub(super) fn length(part: &Change) -> u64 {
    match part {
        Change::PutPart { bytes, .. } => bytes.len() as u64,
        _ => 0,
    }
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

    /// The part that begins at `offset`; `None` after the last one. An empty file has one part.
    pub(super) async fn part(&self, offset: u64) -> Result<Option<Change>, HostError> {
        if offset >= self.size && offset > 0 {
            return Ok(None);
        }
        let bytes = self.read(offset).await;
        let bytes = bytes.map_err(|error| HostError::io("read", &self.from, &error))?;
        Ok(Some(Change::PutPart { path: self.grows.clone(), offset, bytes }))
    }

    async fn read(&self, offset: u64) -> io::Result<Bytes> {
        let mut file = File::open(&self.from).await?;
        file.seek(io::SeekFrom::Start(offset)).await?;
        let left = usize::try_from(self.size - offset).unwrap_or(usize::MAX).min(PART_BYTES);
        let mut bytes = BytesMut::zeroed(left);
        file.read_exact(&mut bytes).await?;
        Ok(bytes.freeze())
    }

    /// What follows the last part: the file takes its place if its hash is right, and the grown one
    /// goes.
    pub(super) fn finish(self) -> Vec<Change> {
        vec![self.last, Change::Remove { path: self.grows }]
    }
}

#[cfg(test)]
mod tests {
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
        let content: Vec<u8> = (0..PART_BYTES + 10).map(|n| n.to_le_bytes()[0]).collect();
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
        let (mut sent, mut offset) = (Vec::new(), 0);
        while let Some(part) = upload.part(offset).await.unwrap() {
            let Change::PutPart { path, offset: at, bytes } = &part else { panic!("{part:?}") };
            assert_eq!((path.as_str(), *at), ("/x.k3sup-part", offset));
            sent.extend_from_slice(bytes);
            offset += length(&part);
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
