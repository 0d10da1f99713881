//! Frames on their way out: small ones are gathered and written together, large ones are written as they are.

use std::io;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncWrite, AsyncWriteExt as _};

use super::wire::WRITE_BYTES;

/// What is to be written.
pub(super) struct Outbox<W> {
    writer: W,
    gathered: BytesMut,
    /// Bytes since the last flush.
    taken: usize,
}

impl<W: AsyncWrite + Unpin> Outbox<W> {
    pub(super) fn new(writer: W) -> Self {
        Self { writer, gathered: BytesMut::new(), taken: 0 }
    }

    /// Takes a frame. A large one is not copied: a buffer that grew with it would stay.
    pub(super) async fn push(&mut self, frame: &Bytes) -> io::Result<()> {
        self.taken += frame.len();
        if frame.len() < WRITE_BYTES {
            self.gathered.extend_from_slice(frame);
            return Ok(());
        }
        self.write_gathered().await?;
        self.writer.write_all(frame).await
    }

    /// Whether so much was taken that it should be flushed.
    pub(super) fn is_full(&self) -> bool {
        self.taken >= WRITE_BYTES
    }

    /// Sends all that was taken; gives how many bytes.
    pub(super) async fn flush(&mut self) -> io::Result<usize> {
        self.write_gathered().await?;
        self.writer.flush().await?;
        Ok(std::mem::take(&mut self.taken))
    }

    async fn write_gathered(&mut self) -> io::Result<()> {
        self.writer.write_all(&self.gathered).await?;
        self.gathered.clear();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn frames_come_out_in_order_whatever_their_size() {
        let sizes = [3, WRITE_BYTES, 0, 7, WRITE_BYTES - 1, 2 * WRITE_BYTES, 1];
        let frames: Vec<Bytes> =
            (1..).zip(sizes).map(|(byte, size)| vec![byte; size].into()).collect();
        let mut outbox = Outbox::new(Vec::new());
        for frame in &frames[..4] {
            outbox.push(frame).await.unwrap();
        }
        assert!(outbox.is_full());
        assert_eq!(outbox.flush().await.unwrap(), 10 + WRITE_BYTES);
        assert!(!outbox.is_full());
        for frame in &frames[4..] {
            outbox.push(frame).await.unwrap();
        }
        assert_eq!(outbox.flush().await.unwrap(), 3 * WRITE_BYTES);
        assert_eq!(outbox.writer, frames.concat());
        assert!(outbox.gathered.capacity() < 4 * WRITE_BYTES);
    }
}
