//! Listening to a process that is being started: to its first line of ours among what login scripts
//! print, and to the question for a password, which comes without an end of line.

use std::io;
use std::pin::pin;

use tokio::io::AsyncBufReadExt as _;

use super::pipe::Pipe;

/// Most bytes that login scripts may print before the executor speaks.
const NOISE_BYTES_MAX: usize = 64 * 1024;

/// What was heard first.
pub(super) enum Heard {
    /// A line that begins with `k3sup-rs NONCE`.
    Line(String),
    /// The question.
    Prompt,
    /// The end.
    Nothing,
}

impl Heard {
    pub(super) fn line(self) -> Option<String> {
        match self {
            Self::Line(line) => Some(line),
            Self::Prompt | Self::Nothing => None,
        }
    }
}

/// Listens until a line with the nonce, or the `n`th time of `prompt`, is heard. On a terminal the
/// question comes over the output, else beside it; what is no line of ours counts as said beside.
pub(super) async fn our_line(
    pipe: &mut Pipe,
    nonce: &str,
    prompt: Option<(&str, usize)>,
) -> io::Result<Heard> {
    let mark = format!("k3sup-rs {nonce} ");
    let said = pipe.said.clone();
    let asked = |heard: &str| {
        prompt.is_some_and(|(prompt, times)| {
            said.borrow().count(prompt) + heard.matches(prompt).count() >= times
        })
    };
    let mut beside = pipe.said.clone();
    let mut left = NOISE_BYTES_MAX;
    loop {
        if asked(&pipe.heard) {
            return Ok(Heard::Prompt);
        }
        let chunk = {
            let mut more = pin!(pipe.output.fill_buf());
            loop {
                tokio::select! {
                    biased;
                    chunk = &mut more => break chunk?,
                    Ok(()) = beside.changed() => if asked(&pipe.heard) { return Ok(Heard::Prompt) },
                }
            }
        };
        // Up to the end of a line: what follows may be frames.
        let length = chunk.iter().position(|b| *b == b'\n').map_or(chunk.len(), |at| at + 1);
        let text = String::from_utf8_lossy(chunk.get(..length).unwrap_or_default()).into_owned();
        if length == 0 || length > left {
            return Ok(Heard::Nothing);
        }
        left -= length;
        pipe.output.consume(length);
        pipe.heard.push_str(&text);
        if !pipe.heard.ends_with('\n') {
            continue;
        }
        // Something may stand before it on the line, printed without an end: the question, too.
        let line = pipe.heard.lines().last().unwrap_or_default();
        let line = prompt.map_or(line.to_owned(), |(prompt, _)| line.replace(prompt, ""));
        if let Some(at) = line.find(&mark) {
            return Ok(Heard::Line(line.get(at..).unwrap_or_default().trim_end().to_owned()));
        }
    }
}
