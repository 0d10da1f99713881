//! A running process with its three streams, on this machine or at the far end of a channel.

use std::any::Any;

use tokio::io::{AsyncBufRead, AsyncRead, AsyncReadExt as _, AsyncWrite};
use tokio::sync::watch;

/// Most of a process's standard error that is kept: its end.
const ERRORS_KEPT_BYTES: usize = 16 * 1024;

/// A process and its streams.
pub(crate) struct Pipe {
    /// Its standard input.
    pub(crate) input: Box<dyn AsyncWrite + Send + Unpin>,
    /// Its standard output.
    pub(crate) output: Box<dyn AsyncBufRead + Send + Unpin>,
    /// What it says on the side, and how it ended.
    pub(crate) said: watch::Receiver<Said>,
    /// What came over the output before the first line of ours: login scripts, and on a terminal
    /// all that is said on the side.
    pub(crate) heard: String,
    /// What must live as long as the process is used.
    pub(crate) _keep: Box<dyn Any + Send>,
}

/// What a process said on standard error, and its exit status once it has ended.
#[derive(Clone, Debug, Default)]
pub(crate) struct Said {
    bytes: Vec<u8>,
    /// As a shell counts: 128 + n for signal n.
    pub(crate) status: Option<u32>,
}

impl Said {
    /// Adds to what was said.
    pub(crate) fn add(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        let excess = self.bytes.len().saturating_sub(ERRORS_KEPT_BYTES);
        self.bytes.drain(..excess);
    }

    /// How often `text` occurs in it.
    pub(crate) fn count(&self, text: &str) -> usize {
        String::from_utf8_lossy(&self.bytes).matches(text).count()
    }

    /// It as text for a person: trimmed, on one line, without control characters, so that a host
    /// cannot write to the terminal.
    pub(crate) fn text(&self) -> String {
        clean(&String::from_utf8_lossy(&self.bytes))
    }
}

/// Text of a host for a person: trimmed, on one line, without control characters.
pub(crate) fn clean(text: &str) -> String {
    let lines: Vec<String> = text
        .lines()
        .map(|line| line.chars().filter(|c| !c.is_control()).collect::<String>())
        .map(|line| line.trim().to_owned())
        .filter(|line| !line.is_empty())
        .collect();
    lines.join("; ")
}

/// Waits until the process, or the channel to it, is gone. A write to a channel that waits for room
/// is not woken when the connection ends: whoever writes much must look at this too.
pub(crate) async fn gone(mut said: watch::Receiver<Said>) {
    while said.changed().await.is_ok() {}
}

/// Collects a stream of standard error until it ends.
pub(crate) async fn listen(mut stream: impl AsyncRead + Unpin, said: &watch::Sender<Said>) {
    let mut chunk = vec![0; 4096];
    while let Ok(length @ 1..) = stream.read(&mut chunk).await {
        said.send_modify(|said| said.add(chunk.get(..length).unwrap_or_default()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_host_says_cannot_write_to_the_terminal() {
        let mut said = Said::default();
        said.add(b"\x1b[2Jone\r\n\n  two\x07 \n");
        assert_eq!(said.text(), "[2Jone; two");
        said.add(&vec![b'x'; 2 * ERRORS_KEPT_BYTES]);
        assert_eq!(said.text().len(), ERRORS_KEPT_BYTES);
    }
}
