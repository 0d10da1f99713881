//! Frames on the wire between control machine and executor: a length of four bytes, big endian,
//! then a postcard body.
//!
//! Knows nothing of what the frames say. Buffers are wiped when dropped, as any frame may carry a
//! secret.

use std::io;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use zeroize::Zeroizing;

use crate::limits::HOST_FRAME_BYTES_MAX;

/// Why a frame could not be read or written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FrameError {
    /// The stream failed or ended in the middle of a frame.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The frame is longer than [`HOST_FRAME_BYTES_MAX`]. Nothing of it was sent.
    #[error("a message of {0} bytes is longer than the limit of {HOST_FRAME_BYTES_MAX}")]
    TooLong(usize),
    /// The body is not what was expected.
    #[error("a message that is not understood: {0}")]
    Body(#[from] postcard::Error),
}

/// `message` as it goes over the wire, without its length.
pub(crate) fn encode<T: Serialize>(message: &T) -> Result<Zeroizing<Vec<u8>>, FrameError> {
    // Measured first: a growing buffer would leave unwiped copies of a secret behind it.
    let length = postcard::experimental::serialized_size(message)?;
    if length > HOST_FRAME_BYTES_MAX {
        return Err(FrameError::TooLong(length));
    }
    let buffer = Zeroizing::new(Vec::with_capacity(length));
    let mut sink = Sink(buffer);
    postcard::serialize_with_flavor(message, &mut sink)?;
    Ok(sink.0)
}

/// Writes into a buffer that was made long enough.
struct Sink(Zeroizing<Vec<u8>>);

impl postcard::ser_flavors::Flavor for &mut Sink {
    type Output = ();

    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        self.0.push(byte);
        Ok(())
    }

    fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }

    fn finalize(self) -> postcard::Result<()> {
        Ok(())
    }
}

/// An encoded body with its length before it: one piece, so that a small request is one packet.
pub(crate) fn framed(body: &[u8]) -> Result<Zeroizing<Vec<u8>>, FrameError> {
    let length = u32::try_from(body.len()).map_err(|_| FrameError::TooLong(body.len()))?;
    let mut frame = Zeroizing::new(Vec::with_capacity(body.len() + 4));
    frame.extend_from_slice(&length.to_be_bytes());
    frame.extend_from_slice(body);
    Ok(frame)
}

/// Writes an encoded body as one frame and flushes.
pub(crate) async fn write<W: AsyncWrite + Unpin>(
    stream: &mut W,
    body: &[u8],
) -> Result<(), FrameError> {
    stream.write_all(&framed(body)?).await?;
    stream.flush().await?;
    Ok(())
}

/// Reads one frame; `None` when the stream ends before its first byte.
pub(crate) async fn read<R: AsyncRead + Unpin, T: DeserializeOwned>(
    stream: &mut R,
) -> Result<Option<T>, FrameError> {
    let mut head = [0_u8; 4];
    let (first, rest) = head.split_at_mut(1);
    if stream.read(first).await? == 0 {
        return Ok(None);
    }
    stream.read_exact(rest).await?;
    let length = usize::try_from(u32::from_be_bytes(head)).unwrap_or(usize::MAX);
    if length > HOST_FRAME_BYTES_MAX {
        return Err(FrameError::TooLong(length));
    }
    let mut body = Zeroizing::new(vec![0; length]);
    stream.read_exact(&mut body).await?;
    Ok(Some(postcard::from_bytes(&body)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::protocol::Request;

    #[tokio::test]
    async fn a_frame_comes_back_as_it_was() {
        let (mut near, mut far) = tokio::io::duplex(64);
        let body = encode(&Request::Hello { protocol: 7 }).unwrap();
        write(&mut near, &body).await.unwrap();
        drop(near);
        let back: Option<Request> = read(&mut far).await.unwrap();
        assert!(matches!(back, Some(Request::Hello { protocol: 7 })));
        let end: Option<Request> = read(&mut far).await.unwrap();
        assert!(end.is_none());
    }

    #[tokio::test]
    async fn a_length_beyond_the_limit_is_refused_before_anything_is_allocated() {
        let mut stream: &[u8] = &[0xff, 0xff, 0xff, 0xff, 0];
        let result = read::<_, Request>(&mut stream).await;
        assert!(matches!(result, Err(FrameError::TooLong(0xffff_ffff))));
    }

    #[tokio::test]
    async fn a_cut_frame_is_an_error_and_not_the_end() {
        let mut stream: &[u8] = &[0, 0, 0, 9, 1];
        assert!(matches!(read::<_, Request>(&mut stream).await, Err(FrameError::Io(_))));
    }
}
